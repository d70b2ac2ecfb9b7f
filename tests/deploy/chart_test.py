"""What the chart renders is valid Kubernetes, safe, and calls the programs as they are."""

import json
import os
import re
import subprocess
import unittest

import kubernetes_validate
import yaml

import helm_python
from tests.deploy.manifests import (CHART, EXAMPLES, NAMES, ROOT, container, example, flags, merged,
                                    pod, render, render_notes, seconds, workloads)

BIN = os.path.join(ROOT, os.environ.get("SAUVA_BIN", "build/release/bin"))
KUBERNETES = ("1.30", "1.37")
# Custom resources have no schema in kubernetes-validate; their shape is checked by hand below.
CUSTOM = {"PodMonitor", "PrometheusRule"}


def quantity(text):
    number, unit = re.fullmatch(r"([0-9]+)([MG]i)B?", text).groups()
    return int(number) * {"Mi": 1, "Gi": 1024}[unit]


class Rendered(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.objects = {name: render(example(name)) for name in NAMES}

    def each_workload(self):
        for name, objects in self.objects.items():
            found = workloads(objects)
            self.assertGreaterEqual(len(found), 3)
            for workload in found:
                with self.subTest(example=name, workload=workload["metadata"]["name"]):
                    yield workload


class ValidityTest(Rendered):
    def test_every_example_file_is_tested(self):
        files = {name[:-len(".yaml")] for name in os.listdir(EXAMPLES)}
        self.assertEqual(files, set(NAMES))

    def test_every_object_is_valid_for_the_oldest_and_the_newest_kubernetes(self):
        validated = 0
        for name, objects in self.objects.items():
            for (kind, object_name), item in objects.items():
                if kind in CUSTOM:
                    continue
                for version in KUBERNETES:
                    with self.subTest(example=name, object=object_name, kind=kind, version=version):
                        kubernetes_validate.validate(item, version, strict=True)
                        validated += 1
        self.assertGreater(validated, 100)

    def test_the_validator_refuses_a_wrong_object(self):
        item = render(example("tls"))[("Deployment", "demo-sauva-gateway")]
        item["spec"]["template"]["spec"]["containers"][0]["livenesProbe"] = {}
        with self.assertRaises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(item, KUBERNETES[0], strict=True)

    def test_helm_lint_finds_nothing(self):
        for name in NAMES:
            result = helm_python.lint(CHART, values=example(name))
            messages = [m for m in result["messages"] if m.get("severity") in (2, 3, "WARNING", "ERROR")]
            self.assertEqual(messages, [], name)

    def test_custom_resources_have_the_shape_that_the_operator_reads(self):
        objects = self.objects["everything"]
        monitor = objects[("PodMonitor", "llm")]["spec"]
        endpoint = monitor["podMetricsEndpoints"][0]
        self.assertEqual(endpoint["port"], "metrics")
        self.assertEqual(endpoint["relabelings"][0]["targetLabel"], "role")
        rules = objects[("PrometheusRule", "llm")]["spec"]["groups"]
        self.assertTrue(all(group["name"] and group["rules"] for group in rules))
        with open(os.path.join(ROOT, "monitoring/rules.yaml"), encoding="utf-8") as file:
            self.assertEqual(rules, yaml.safe_load(file)["groups"])

    def test_dashboards_are_the_files_of_the_tree(self):
        data = self.objects["everything"][("ConfigMap", "llm-dashboards")]
        self.assertEqual(data["metadata"]["labels"]["grafana_dashboard"], "1")
        folder = os.path.join(ROOT, "monitoring/dashboards")
        names = {name for name in os.listdir(folder) if name.endswith(".json")}
        self.assertEqual(set(data["data"]), names)
        for name in names:
            with open(os.path.join(folder, name), encoding="utf-8") as file:
                self.assertEqual(data["data"][name].strip(), file.read().strip())

    def test_every_value_is_commented_and_known_to_the_schema(self):
        with open(os.path.join(CHART, "values.yaml"), encoding="utf-8") as file:
            lines = file.read().splitlines()
        for number, line in enumerate(lines):
            key = re.match(r"\s*(?:- )?([A-Za-z]+):", line)
            if not key or line.lstrip().startswith("#") or "{" in line.split(":")[0]:
                continue
            is_group = line.rstrip().endswith(":")
            if is_group or re.match(r"\s*(requests|limits):", line):
                continue
            self.assertTrue(lines[number - 1].lstrip().startswith("#"),
                            f"values.yaml:{number + 1}: {line.strip()} has no comment")


class SafetyTest(Rendered):
    def test_containers_run_without_privileges_on_a_read_only_root(self):
        for workload in self.each_workload():
            spec = pod(workload)
            context = spec["securityContext"]
            self.assertIs(context["runAsNonRoot"], True)
            self.assertGreater(context["runAsUser"], 0)
            self.assertEqual(context["seccompProfile"], {"type": "RuntimeDefault"})
            self.assertIs(spec["automountServiceAccountToken"], False)
            for forbidden in ("hostNetwork", "hostPID", "hostIPC"):
                self.assertNotIn(forbidden, spec)
            own = container(workload)["securityContext"]
            self.assertIs(own["allowPrivilegeEscalation"], False)
            self.assertIs(own["readOnlyRootFilesystem"], True)
            self.assertEqual(own["capabilities"], {"drop": ["ALL"]})
            for mount in container(workload).get("volumeMounts", []):
                if mount["name"] != "shm":
                    self.assertIs(mount["readOnly"], True, mount)

    def test_no_rights_are_asked_of_the_cluster(self):
        for objects in self.objects.values():
            self.assertFalse({kind for kind, _ in objects} &
                             {"Role", "ClusterRole", "RoleBinding", "ClusterRoleBinding"})

    def test_three_probes_ask_three_questions_on_the_health_port(self):
        for workload in self.each_workload():
            main = container(workload)
            ports = {port["name"]: port["containerPort"] for port in main["ports"]}
            self.assertEqual(flags(workload)["--health"], f"0.0.0.0:{ports['health']}")
            for probe, service in (("startupProbe", "startup"), ("livenessProbe", "liveness"),
                                   ("readinessProbe", "readiness")):
                self.assertEqual(main[probe]["grpc"], {"port": ports["health"], "service": service})
            # Ten minutes to start before it counts as dead.
            startup = main["startupProbe"]
            self.assertGreaterEqual(startup["periodSeconds"] * startup["failureThreshold"], 600)

    def test_grace_periods_hold_the_drain_and_the_time_before_it(self):
        for workload in self.each_workload():
            main = container(workload)
            needed = main.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
            if main["name"] != "coordinator":
                needed += seconds(flags(workload)["--drain-timeout"])
            self.assertGreaterEqual(pod(workload)["terminationGracePeriodSeconds"], needed + 10)

    def test_ports_of_flags_containers_and_services_agree(self):
        for objects in self.objects.values():
            for workload in workloads(objects):
                main = container(workload)
                ports = {port["name"]: port["containerPort"] for port in main["ports"]}
                self.assertEqual(flags(workload)["--listen"], f"0.0.0.0:{ports['grpc']}")
                self.assertEqual(flags(workload)["--metrics"], f"0.0.0.0:{ports['metrics']}")

    def test_the_worker_plane_is_closed_to_all_but_sauva(self):
        for name, objects in self.objects.items():
            full = "llm" if name == "everything" else "demo-sauva"
            policy = objects[("NetworkPolicy", f"{full}-worker")]["spec"]
            self.assertEqual(policy["policyTypes"], ["Ingress", "Egress"])
            for rule in policy["ingress"]:
                ports = {port["port"] for port in rule.get("ports", [])}
                if ports == {8080}:
                    continue
                peers = [peer["podSelector"]["matchLabels"]["app.kubernetes.io/component"]
                         for peer in rule["from"]]
                self.assertTrue(set(peers) <= {"worker", "gateway"}, rule)
                self.assertTrue(ports == {7072} or peers == ["worker"], rule)

    def test_policies_budgets_and_services_choose_exactly_their_pods(self):
        for objects in self.objects.values():
            labels = [w["spec"]["template"]["metadata"]["labels"] for w in workloads(objects)]
            for (kind, name), item in objects.items():
                spec = item.get("spec", {})
                selector = {"Service": lambda: spec["selector"],
                            "NetworkPolicy": lambda: spec["podSelector"]["matchLabels"],
                            "PodDisruptionBudget": lambda: spec["selector"]["matchLabels"]}.get(kind)
                if selector is None:
                    continue
                chosen = [pods for pods in labels if selector().items() <= pods.items()]
                components = {pods["app.kubernetes.io/component"] for pods in chosen}
                self.assertEqual(len(components), 1, (kind, name))

    def test_workers_find_each_other_before_they_are_ready(self):
        for objects in self.objects.values():
            sets = [o for (kind, _), o in objects.items() if kind == "StatefulSet"]
            for item in sets:
                self.assertEqual(item["spec"]["podManagementPolicy"], "Parallel")
                service = objects[("Service", item["spec"]["serviceName"])]["spec"]
                self.assertEqual(service["clusterIP"], "None")
                self.assertIs(service["publishNotReadyAddresses"], True)
                self.assertIn(f".{item['spec']['serviceName']}.ml.svc.",
                              flags(item)["--advertise"])

    def test_one_worker_of_whatever_group_is_evicted_at_a_time(self):
        for objects in self.objects.values():
            pods = [w["spec"]["template"]["metadata"]["labels"] for w in workloads(objects)]
            workers = [labels for labels in pods if "sauva.dev/worker-group" in labels]
            budgets = [o["spec"] for (kind, _), o in objects.items() if kind == "PodDisruptionBudget"]
            chosen = [[budget for budget in budgets
                       if budget["selector"]["matchLabels"].items() <= labels.items()]
                      for labels in workers]
            self.assertTrue(all(found == chosen[0] and len(found) == 1 for found in chosen))
            self.assertEqual(chosen[0][0]["maxUnavailable"], 1)

    def test_an_update_restarts_no_more_workers_at_once_than_there_are_spares(self):
        def strategies(values):
            return {o["spec"]["updateStrategy"]["type"] for (kind, _), o in render(values).items()
                    if kind == "StatefulSet"}
        self.assertEqual(strategies(example("one_gpu")), {"RollingUpdate"})
        self.assertEqual(strategies(example("two_groups")), {"OnDelete"})
        self.assertEqual(strategies(merged(example("two_groups"), {"model.spares": 2, "model.stages": 4})),
                         {"RollingUpdate"})
        self.assertEqual(strategies(merged(example("two_groups"),
                                           {"worker": {"updateStrategy": "RollingUpdate"}})),
                         {"RollingUpdate"})

    def test_spans_go_to_the_collector_through_the_policy(self):
        objects = self.objects["everything"]
        self.assertEqual(flags(objects[("Deployment", "llm-gateway")])["--otlp"],
                         "collector.observability:4317")
        egress = objects[("NetworkPolicy", "llm-gateway")]["spec"]["egress"]
        self.assertIn({"ports": [{"protocol": "TCP", "port": 4317}]}, egress)
        without = flags(self.objects["tls"][("Deployment", "demo-sauva-gateway")])
        self.assertFalse({"--otlp", "--otlp-ca"} & set(without))

    def test_the_collectors_authority_is_a_file_of_its_secret(self):
        gateway = self.objects["everything"][("Deployment", "llm-gateway")]
        (mount,) = [m for m in container(gateway)["volumeMounts"] if m["name"] == "otlp-ca"]
        (volume,) = [v for v in pod(gateway)["volumes"] if v["name"] == "otlp-ca"]
        self.assertEqual(volume["secret"]["secretName"], "collector-ca")
        (item,) = volume["secret"]["items"]
        self.assertEqual(flags(gateway)["--otlp-ca"], f"{mount['mountPath']}/{item['path']}")

    def test_pipelines_mix_gpus_and_cpus_only_where_asked(self):
        mixed = flags(self.objects["everything"][("Deployment", "llm-coordinator")])
        self.assertIn("--mix", mixed)
        self.assertEqual(mixed["--link"], "nccl")
        apart = flags(self.objects["two_groups"][("Deployment", "demo-sauva-coordinator")])
        self.assertNotIn("--mix", apart)
        self.assertEqual(apart["--link"], "auto")
        across = {"model.stages": 5, "model.replicas": 1, "model.spares": 0}
        self.assertTrue(render(merged(example("everything"), across)))

    def test_the_autoscaler_looks_at_the_queue(self):
        scaler = self.objects["everything"][("HorizontalPodAutoscaler", "llm-gateway")]["spec"]
        self.assertEqual(scaler["metrics"][0]["pods"]["metric"]["name"],
                         "sauva_num_requests_waiting")
        deployment = self.objects["everything"][("Deployment", "llm-gateway")]["spec"]
        self.assertNotIn("replicas", deployment)

    def test_shared_memory_is_memory_and_fits_the_limit(self):
        item = self.objects["one_gpu"][("StatefulSet", "demo-sauva-worker-gpu")]
        volume = {v["name"]: v for v in pod(item)["volumes"]}["shm"]
        self.assertEqual(volume["emptyDir"], {"medium": "Memory", "sizeLimit": "1Gi"})
        self.assertIn({"name": "shm", "mountPath": "/dev/shm"}, container(item)["volumeMounts"])

    def test_memory_of_cpu_workers_is_within_their_limit(self):
        for workload in self.each_workload():
            given = flags(workload)
            if given.get("--device", "").startswith("cpu"):
                limit = container(workload)["resources"]["limits"]["memory"]
                self.assertLessEqual(quantity(given["--memory"]), quantity(limit))


class FlagsTest(Rendered):
    def test_every_flag_is_one_that_the_program_has(self):
        known = {}
        for workload in self.each_workload():
            (program,) = container(workload)["command"]
            program = os.path.join(BIN, os.path.basename(program))
            if program not in known:
                text = subprocess.run([program, "--help"], check=True, capture_output=True,
                                      text=True).stdout
                known[program] = set(re.findall(r"--[a-z][a-z-]*", text))
            self.assertEqual(set(flags(workload)) - known[program], set())

    def test_weights_load_in_every_format_that_the_program_has(self):
        text = subprocess.run([os.path.join(BIN, "sauva-coordinator"), "--help"], check=True,
                              capture_output=True, text=True).stdout
        names = re.search(r"--weights TEXT:\{([^}]*)\}", text).group(1).split(",")
        with open(os.path.join(CHART, "values.schema.json"), encoding="utf-8") as file:
            model = json.load(file)["properties"]["model"]["properties"]
        self.assertEqual(model["weights"]["enum"], names)

    def test_the_notes_tell_how_to_ask_who_serves_what(self):
        """The command reaches the coordinator and fails there: nobody listens."""
        for name in NAMES:
            notes = " ".join(render_notes(example(name)).split())
            command = re.search(r"kubectl -n ml exec deploy/(\S+)-coordinator -- "
                                r"/usr/bin/sauva (status(?: --\S+)+)", notes)
            self.assertIn(("Deployment", command.group(1) + "-coordinator"), self.objects[name])
            given = [re.sub(r"=.*:7071$", "=127.0.0.1:1", argument)
                     for argument in command.group(2).split() if not argument.startswith("--tls-")]
            self.assertEqual(example(name)["tls"].get("enabled", True), "--tls-ca=" in notes)
            done = subprocess.run([os.path.join(BIN, "sauva"), *given], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 1, done.stderr)
            self.assertIn("127.0.0.1:1", done.stderr)

    def test_programs_take_the_values_that_are_rendered(self):
        """Every flag is understood: what fails is the model that is not there."""
        for workload in self.each_workload():
            main = container(workload)
            program = os.path.join(BIN, os.path.basename(main["command"][0]))
            arguments = [a for a in main["args"]
                         if not re.match(r"--(tls-|listen|metrics=|health|insecure|model-dir)", a)]
            arguments += ["--listen=127.0.0.1:0", "--metrics=127.0.0.1:0"]
            if main["name"] != "gateway":
                arguments += ["--model-dir=/nonexistent"]
            else:  # a gateway needs no file, so its own certificate is what is missing
                arguments += ["--tls-cert=/nonexistent", "--tls-key=/nonexistent"]
            done = subprocess.run([program, *arguments], capture_output=True, text=True,
                                  timeout=60, check=False)
            self.assertEqual(done.returncode, 4, done.stderr)


class ImageTest(Rendered):
    """The recipe of the image says what the chart expects of it."""

    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        with open(os.path.join(ROOT, "deploy/images/Dockerfile"), encoding="utf-8") as file:
            lines = [line.split(None, 1) for line in file.read().splitlines()
                     if line and not line.startswith("#")]
        cls.names = [name for name, _ in lines]
        cls.recipe = {name: text.strip() for name, text in lines}

    def test_it_is_made_of_the_root_and_nothing_runs_while_it_is(self):
        self.assertEqual(self.names[0], "FROM")
        self.assertEqual(self.recipe["FROM"], "scratch")
        self.assertEqual(self.recipe["COPY"], "root/ /")
        self.assertEqual(set(self.names), {"FROM", "COPY", "USER", "VOLUME", "EXPOSE", "STOPSIGNAL",
                                           "ENTRYPOINT"})
        self.assertEqual(len(self.names), len(set(self.names)))

    def test_user_signal_volume_and_ports_are_those_of_the_chart(self):
        exposed = {int(port) for port in self.recipe["EXPOSE"].split()}
        self.assertEqual(self.recipe["STOPSIGNAL"], "SIGTERM")
        ports = set()
        for workload in self.each_workload():
            context = pod(workload)["securityContext"]
            self.assertEqual(self.recipe["USER"], f"{context['runAsUser']}:{context['runAsGroup']}")
            ports |= {port["containerPort"] for port in container(workload)["ports"]}
            for mount in container(workload).get("volumeMounts", []):
                if mount["name"] == "models":
                    self.assertIn(f'"{mount["mountPath"]}"', self.recipe["VOLUME"])
        self.assertEqual(ports, exposed)

    def test_both_variants_hold_every_program_that_is_started(self):
        with open(os.path.join(ROOT, "deploy/images/build_root.sh"), encoding="utf-8") as file:
            text = file.read()
        installed = re.search(r"^programs=\((.*)\)$", text, re.M).group(1).split()
        for variant in ("cpu", "cuda"):
            self.assertRegex(text, rf"(?m)^  {variant}\) bin=build/\w+/bin ;;$")
        for workload in self.each_workload():
            (program,) = container(workload)["command"]
            self.assertIn(os.path.basename(program), installed)
        self.assertIn(os.path.basename(self.recipe["ENTRYPOINT"].strip('[]"')), installed)

    def test_groups_with_a_gpu_use_the_cuda_variant(self):
        images = {flags(w).get("--device", "cpu"): container(w)["image"]
                  for w in workloads(self.objects["one_gpu"])}
        for device, image in images.items():
            self.assertEqual(image.endswith("-cuda"), device.startswith("cuda"), device)


class ContradictionTest(unittest.TestCase):
    def refused(self, base, changes, *expected):
        with self.assertRaises(helm_python.HelmError) as caught:
            render(merged(example(base), changes))
        for text in expected:
            self.assertIn(text, str(caught.exception))

    def test_a_model_without_a_name(self):
        self.refused("tls", {"model.name": ""}, "/model/name")

    def test_no_model_volume_and_two(self):
        self.refused("tls", {"model.volume.existingClaim": ""}, "model.volume", "exactly one")
        self.refused("tls", {"model.volume.hostPath": "/m"}, "existingClaim, hostPath]")

    def test_tls_without_a_secret_and_a_secret_without_tls(self):
        self.refused("tls", {"tls.secretName": ""}, "tls.secretName is empty")
        self.refused("tls", {"tls.enabled": False}, "tls.secretName is sauva-tls")

    def test_no_image(self):
        self.refused("tls", {"image": {"repository": ""}}, "image.repository is empty")

    def test_a_claim_that_nobody_could_fill(self):
        self.refused("everything", {"model.volume.accessMode": "ReadOnlyMany"},
                     "/model/volume/accessMode")

    def test_more_stages_than_workers(self):
        self.refused("tls", {"model.stages": 3}, "have 2 workers", "needs 3")

    def test_pipelines_that_would_have_to_mix_gpus_and_cpus(self):
        self.refused("everything", {"model.replicas": 1, "model.stages": 4, "model.spares": 0,
                                    "model.mix": False}, "hold 0 pipelines of model.stages, 4")

    def test_two_groups_of_one_name(self):
        self.refused("two_groups", {"workerGroups.1.name": "large"}, "name large is there twice")

    def test_a_gpu_that_is_not_asked_for_and_one_that_is_not_used(self):
        self.refused("one_gpu", {"workerGroups.0.resources.limits": {"memory": "24Gi"}},
                     "workerGroups gpu", "no nvidia.com/gpu")
        self.refused("one_gpu", {"workerGroups.0.device": "cpu"}, "device is cpu", "nvidia.com/gpu")

    def test_memory_beyond_the_limit_and_a_limit_without_memory(self):
        self.refused("tls", {"workerGroups": [{"name": "a", "device": "cpu", "count": 1,
                                               "memory": "2Gi", "shmSize": "512Mi",
                                               "resources": {"limits": {"memory": "2Gi"}}}]},
                     "workerGroups a", "2560 Mi", "2048 Mi")
        self.refused("cpu_minimal", {"workerGroups.0.memory": ""}, "memory must say")

    def test_grace_shorter_than_the_drain(self):
        self.refused("tls", {"gateway": {"terminationGracePeriodSeconds": 30}}, "is 30", "80")
        self.refused("tls", {"worker": {"terminationGracePeriodSeconds": 30}}, "is 30", "70")

    def test_fewer_pods_at_most_than_at_least(self):
        self.refused("everything", {"gateway.autoscaling.minReplicas": 10}, "is 10", "maxReplicas, 9")

    def test_a_lease_shorter_than_two_heartbeats(self):
        self.refused("everything", {"coordinator.leaseMs": 900}, "leaseMs is 900", "500")

    def test_a_collector_without_a_port(self):
        self.refused("tls", {"gateway": {"otlp": "collector"}}, "/gateway/otlp")

    def test_an_authority_without_a_collector(self):
        self.refused("tls", {"gateway": {"otlpCaSecret": "ca"}}, "otlpCaSecret is ca")

    def test_nccl_through_a_policy_that_closes_its_ports(self):
        self.refused("one_gpu", {"model.link": "nccl"}, "workersBetweenThemselves is false")

    def test_unknown_and_misspelt_values(self):
        self.refused("tls", {"gatway": {}}, "gatway")
        self.refused("tls", {"gateway": {"replica": 2}}, "replica")
        self.refused("tls", {"model.weights": "int5"}, "/model/weights")
        self.refused("tls", {"workerGroups": [{"name": "a", "device": "gpu", "count": 1}]},
                     "/workerGroups/0/device")


if __name__ == "__main__":
    unittest.main()
