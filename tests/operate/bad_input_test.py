"""What clients and the environment do wrong: label values without end, missing and wrong
certificates, a scrape in the middle of everything."""

import concurrent.futures
import os
import shutil
import subprocess
import tempfile
import unittest

import grpc

from tests.operate.cluster import (BIN, MODEL, PROMPTS, Client, Cluster, await_true,
                                   request_for)

MANY = 2000


def series(service):
    return {line.rsplit(" ", 1)[0] for line in service.scrape().splitlines()
            if not line.startswith("#")}


class LabelsTest(unittest.TestCase):
    def test_thousands_of_tenants_models_and_names_make_no_series(self):
        with Cluster(workers=1) as cluster:
            gateway = cluster.gateways[0]
            client = Client([gateway.address])
            list(client.stubs[0].Generate(request_for(PROMPTS[0], 1, 1)))
            # The coordinator shows what changed every 250 ms.
            await_true(lambda: cluster.coordinator.metric("sauva_pipelines_ready") == 1)
            services = cluster.all()
            before = [series(service) for service in services]

            def ask(number):
                request = request_for(PROMPTS[0], 1, 1)
                request.tenant = f"tenant-{number}"
                request.request_id = f"request-{number}"
                if number % 2:
                    request.model = f"model-{number}"
                try:
                    list(client.stubs[0].Generate(request))
                    return "OK"
                except grpc.RpcError as error:
                    return error.code().name
            with concurrent.futures.ThreadPoolExecutor(16) as pool:
                answers = list(pool.map(ask, range(MANY)))
            self.assertEqual({(number % 2, answer) for number, answer in enumerate(answers)},
                             {(0, "OK"), (1, "NOT_FOUND")})
            self.assertEqual(gateway.metric("sauva_request_refusals_total", 'reason="NOT_FOUND"'),
                             MANY / 2)
            self.assertEqual([series(service) for service in services], before)
            client.close()


class CertificateTest(unittest.TestCase):
    """Files of an authority and of a stranger; what processes say of missing ones is in lifecycle_test
    and in the tests of net/ and e2e/."""

    @classmethod
    def setUpClass(cls):
        cls.folder = tempfile.mkdtemp(prefix="sauva-certificates-")
        for name in ("ours", "stranger"):
            path = os.path.join(cls.folder, name)
            subprocess.run(["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt",
                            "ec_paramgen_curve:P-256", "-nodes", "-days", "1", "-subj",
                            "/CN=localhost", "-addext", "subjectAltName=DNS:localhost,IP:127.0.0.1",
                            "-keyout", path + ".key", "-out", path + ".crt"],
                           check=True, capture_output=True)

    @classmethod
    def tearDownClass(cls):
        shutil.rmtree(cls.folder)

    def flags(self, name, trusts):
        path = os.path.join(self.folder, name)
        return ["--tls-cert", path + ".crt", "--tls-key", path + ".key",
                "--tls-ca", os.path.join(self.folder, trusts + ".crt")]

    def test_files_that_do_not_belong_together_are_named(self):
        flags = self.flags("ours", "ours")
        flags[3] = os.path.join(self.folder, "stranger.key")
        for role in ("coordinator", "gateway", "worker"):
            own = ["--model", MODEL] if role != "gateway" else []
            done = subprocess.run([os.path.join(BIN, "sauva-" + role), "--listen", "127.0.0.1:0",
                                   "--metrics", "127.0.0.1:0", *own, *flags], capture_output=True,
                                  text=True, timeout=60, check=False)
            self.assertEqual(done.returncode, 4, done.stderr)
            for part in ("--tls-key", "stranger.key: is not the key", "ours.crt"):
                self.assertIn(part, done.stderr)

    def test_a_wrong_certificate_keeps_a_process_out_and_not_down(self):
        ours = self.flags("ours", "ours")
        cluster = Cluster(workers=1, gateways=1, coordinator_flags=ours, worker_flags=ours,
                          gateway_flags=ours)
        with cluster:
            cluster.gateways[0].await_ready()
            for role, service in (("worker", cluster.new_worker(1)),
                                  ("gateway", cluster.new_gateway(1))):
                at = service.flags.index("--tls-cert")
                service.flags[at:at + 6] = self.flags("stranger", "ours")
                service.flags += ["--coordinator", cluster.coordinator.address]
                (cluster.workers if role == "worker" else cluster.gateways).append(service)
                service.start()
                self.assertTrue(service.check("liveness"))
                self.assertFalse(service.check("readiness"))
            await_true(lambda: "event=grpc" in cluster.coordinator.log()
                       and "certificate verify failed" in cluster.coordinator.log())
            # The gateway's own line names the coordinator and why.
            await_true(lambda: 'event="no coordinator; streams go on"' in cluster.gateways[1].log())
            self.assertIn(f"coordinator={cluster.coordinator.address}", cluster.gateways[1].log())
            self.assertEqual(cluster.coordinator.metric("sauva_workers"), 1)
            self.assertFalse(cluster.workers[1].check("readiness"))
            self.assertTrue(cluster.gateways[0].check("readiness"))


if __name__ == "__main__":
    unittest.main()
