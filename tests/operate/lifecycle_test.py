"""How processes begin and end: probes, drains in every state, exit codes."""

import os
import shutil
import signal
import subprocess
import tempfile
import unittest

from tests.operate.cluster import (BIN, MODEL, PROMPTS, Client, Cluster, Running, Service, await_true,
                                   free_port)
from tests.operate.large_model import large_zero_model
from tests.operate.proxy import Proxy

DONE, USAGE, NO_ADDRESS, BAD_FILES, CUT_STREAMS, AT_ONCE = 0, 2, 3, 4, 5, 6
MARGIN = 5  # seconds beyond the drain timeout, for a farewell on a busy machine


class ServiceTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="sauva-operate-")
        self.services = []

    def tearDown(self):
        for service in self.services:
            service.kill()
        shutil.rmtree(self.folder)

    def service(self, role, *flags):
        self.services.append(Service(role, flags, self.folder, f"{role}-{len(self.services)}"))
        return self.services[-1]


class ProbeTest(ServiceTest):
    def test_a_worker_without_a_coordinator_is_alive_and_not_ready(self):
        worker = self.service("worker", "--model", MODEL, "--coordinator", "127.0.0.1:1").start()
        self.assertTrue(worker.check("startup"))
        self.assertTrue(worker.check("liveness"))
        self.assertFalse(worker.check("readiness"))
        self.assertFalse(worker.check(""))
        self.assertIsNone(worker.check("something"))
        self.assertEqual(worker.stop()[0], DONE)

    def test_a_gateway_without_a_pipeline_is_alive_and_not_ready(self):
        coordinator = self.service("coordinator", "--model", MODEL).start()
        self.assertTrue(coordinator.check("readiness"))
        gateway = self.service("gateway", "--coordinator", coordinator.address).start()
        self.assertTrue(gateway.check("startup"))
        self.assertTrue(gateway.check("liveness"))
        self.assertFalse(gateway.check("readiness"))

    def test_whoever_lost_the_coordinator_stays_alive_and_ready(self):
        with Cluster(workers=2) as cluster:
            for service in cluster.all():
                service.await_ready()
            cluster.coordinator.kill()
            worker = cluster.head()
            await_true(lambda: worker.metric("sauva_coordinator_connected") == 0)
            self.assertTrue(worker.check("readiness"))
            self.assertTrue(worker.check("liveness"))
            self.assertTrue(cluster.gateways[0].check("liveness"))

    def test_a_spare_is_ready_too(self):
        with Cluster(workers=3, coordinator_flags=["--stages", "2", "--spares", "1"]) as cluster:
            for worker in cluster.workers:
                worker.await_ready()

    def test_loading_is_alive_and_not_ready(self):
        model = large_zero_model(self.folder)
        coordinator = self.service("coordinator", "--model", model, "--weights", "int8",
                                   "--expect-workers", "1").start()
        worker = self.service("worker", "--model", model, "--threads", "1", "--memory", "3GiB",
                              "--coordinator", coordinator.address).start()
        await_true(lambda: worker.metric("sauva_epoch_number") > 0)
        self.assertTrue(worker.check("startup"))
        self.assertTrue(worker.check("liveness"))
        self.assertFalse(worker.check("readiness"))
        self.assertEqual(worker.metric("sauva_stage_serving"), 0, "it loaded too fast to be seen")
        code, seconds = worker.stop()
        self.assertEqual(code, DONE)
        self.assertLess(seconds, MARGIN + 2, "a load in hand held it up")


class DrainTest(unittest.TestCase):
    def setUp(self):
        self.client = None

    def tearDown(self):
        if self.client is not None:
            self.client.close()

    def run_stream(self, cluster, max_tokens=200, prompt=PROMPTS[0], patience=30):
        self.client = self.client or Client([g.address for g in cluster.gateways])
        before = cluster.gateways[0].metric("sauva_generation_tokens_total")
        stream = Running(self.client, prompt, 7, max_tokens, patience=patience)
        return stream, lambda: await_true(
            lambda: cluster.gateways[0].metric("sauva_generation_tokens_total") > before + 5)

    def test_everything_ends_at_once_when_idle(self):
        with Cluster(workers=2) as cluster:
            for service in cluster.all():
                code, seconds = service.stop()
                self.assertEqual(code, DONE, service.name)
                self.assertLess(seconds, MARGIN, service.name)

    def test_a_gateway_lets_a_stream_end(self):
        with Cluster(workers=2) as cluster:
            stream, until_it_runs = self.run_stream(cluster)
            until_it_runs()
            code, _ = cluster.gateways[0].stop()
            outcome = stream.finish()
            self.assertIsNone(outcome.error)
            self.assertEqual((code, len(outcome.tokens), outcome.tries), (DONE, 200, 1))

    def test_a_gateway_cuts_what_takes_longer_than_its_drain(self):
        flags = ["--drain-timeout", "300ms"]
        with Cluster(workers=2, gateways=2, gateway_flags=flags) as cluster:
            stream, until_it_runs = self.run_stream(cluster, max_tokens=900)
            until_it_runs()
            code, seconds = cluster.gateways[0].stop()
            self.assertEqual(code, CUT_STREAMS)
            self.assertLess(seconds, 0.3 + MARGIN)
            outcome = stream.finish()
            self.assertIsNone(outcome.error, "the other gateway goes on with it")
            self.assertEqual((len(outcome.tokens), outcome.tries), (900, 2))

    def test_a_workers_streams_move_on_without_a_change(self):
        with Cluster(workers=3, coordinator_flags=["--stages", "2", "--spares", "1"]) as cluster:
            self.client = Client([cluster.gateways[0].address])
            undisturbed = self.client.generate(PROMPTS[0], 7, 400)
            self.assertIsNone(undisturbed.error)
            stream, until_it_runs = self.run_stream(cluster, max_tokens=400)
            until_it_runs()
            code, _ = cluster.head().stop()
            self.assertIn(code, (DONE, CUT_STREAMS))
            outcome = stream.finish()
            self.assertIsNone(outcome.error)
            self.assertEqual(outcome.tokens, undisturbed.tokens)
            self.assertEqual(outcome.tries, 1, "the client noticed")

    def test_a_worker_in_the_middle_of_a_long_prompt(self):
        flags = ["--max-step-tokens", "16"]
        with Cluster(workers=2, coordinator_flags=flags) as cluster:
            head = cluster.head()
            steps = head.metric("sauva_stage_steps_total")
            stream, _ = self.run_stream(cluster, max_tokens=2, prompt="the old prince " * 150)
            await_true(lambda: head.metric("sauva_stage_steps_total") > steps)
            code, seconds = head.stop()
            self.assertIn(code, (DONE, CUT_STREAMS))
            self.assertLess(seconds, 30 + MARGIN)
            self.assertIsNone(stream.finish().error)

    def test_a_worker_that_cannot_reach_the_coordinator(self):
        with Cluster(workers=2, worker_flags=["--drain-timeout", "3s"]) as cluster:
            stream, until_it_runs = self.run_stream(cluster, max_tokens=60, patience=12)
            until_it_runs()
            cluster.coordinator.signal(signal.SIGSTOP)
            for worker in cluster.workers:
                worker.signal(signal.SIGTERM)
            codes = [worker.wait(3 + MARGIN + 2) for worker in cluster.workers]
            self.assertTrue(set(codes) <= {DONE, CUT_STREAMS}, codes)
            cluster.coordinator.signal(signal.SIGCONT)
            cluster.gateways[0].kill()
            stream.finish()

    def test_processes_that_are_parted_from_the_coordinator(self):
        """Nothing passes and nothing is closed: as behind a switch that died."""
        flags = ["--drain-timeout", "3s"]
        cluster = Cluster(workers=2, worker_flags=flags, gateway_flags=flags)
        cluster.coordinator.listen = f"127.0.0.1:{free_port()}"
        path = Proxy(cluster.coordinator.listen)
        cluster.coordinator_at = path.address
        with cluster:
            stream, until_it_runs = self.run_stream(cluster, max_tokens=900, patience=20)
            until_it_runs()
            path.parted = True
            for service in [*cluster.workers, *cluster.gateways]:
                code, seconds = service.stop()
                self.assertIn(code, (DONE, CUT_STREAMS), service.name)
                self.assertLess(seconds, 3 + MARGIN, service.name)
            path.close()
            stream.finish()


class ExitCodeTest(ServiceTest):
    def exit_of(self, role, *flags):
        done = subprocess.run([os.path.join(BIN, f"sauva-{role}"), *flags], capture_output=True,
                              text=True, timeout=60, check=False)
        return done.returncode, done.stderr + done.stdout

    def test_wrong_flags(self):
        for role in ("gateway", "coordinator", "worker"):
            self.assertEqual(self.exit_of(role, "--nonsense")[0], USAGE)
        code, text = self.exit_of("gateway", "--drain-timeout", "soon")
        self.assertEqual(code, USAGE)
        self.assertIn("--drain-timeout is 'soon'", text)

    def test_an_address_in_use(self):
        taken = self.service("coordinator", "--model", MODEL).start()
        for flag in ("--listen", "--health", "--metrics"):
            flags = {"--listen": "127.0.0.1:0", flag: taken.address}
            code, text = self.exit_of("coordinator", "--model", MODEL,
                                      *[part for item in flags.items() for part in item])
            self.assertEqual(code, NO_ADDRESS, text)
            self.assertIn(taken.address, text)

    def test_files_that_do_not_do(self):
        for role in ("coordinator", "worker"):
            code, text = self.exit_of(role, "--model", "/nonexistent/model")
            self.assertEqual(code, BAD_FILES, text)
        code, text = self.exit_of("gateway", "--listen", "127.0.0.1:0", "--metrics", "127.0.0.1:0",
                                  "--tls-cert", "/nonexistent.pem", "--tls-key", "/nonexistent.key")
        self.assertEqual(code, BAD_FILES, text)
        self.assertIn("/nonexistent", text)

    def test_a_second_signal_ends_at_once(self):
        with Cluster(workers=2) as cluster:
            client = Client([cluster.gateways[0].address])
            stream = Running(client, PROMPTS[0], 7, 900, patience=3)
            gateway = cluster.gateways[0]
            await_true(lambda: (gateway.metric("sauva_num_requests_running") or 0) > 0)
            gateway.signal(signal.SIGTERM)
            await_true(lambda: "event=draining" in gateway.log())
            gateway.signal(signal.SIGTERM)
            self.assertEqual(gateway.wait(MARGIN), AT_ONCE)
            for worker in cluster.workers:
                worker.kill()
            stream.finish()
            client.close()

    def test_a_crash_names_the_build(self):
        worker = self.service("worker", "--model", MODEL).start()
        version = self.exit_of("worker", "--version")[1].strip()
        worker.signal(signal.SIGABRT)
        self.assertEqual(worker.wait(), -signal.SIGABRT)
        self.assertIn(f"sauva-worker build {version} crashed: SIGABRT", worker.log())

    def test_the_log_level_follows_signals(self):
        coordinator = self.service("coordinator", "--model", MODEL, "--log-level", "error").start()
        self.assertNotIn("level=info", coordinator.log())
        coordinator.signal(signal.SIGUSR1)
        await_true(lambda: 'event="log level" level=debug' in coordinator.log())
        coordinator.signal(signal.SIGUSR2)
        coordinator.stop()
        self.assertNotIn("event=drained", coordinator.log())

    def test_other_servers_names_appear_on_request(self):
        with Cluster(workers=1, gateway_flags=["--metrics-compat", "vllm"],
                     worker_flags=["--metrics-compat", "vllm"]) as cluster:
            page = cluster.gateways[0].scrape()
            for name in ("num_requests_running", "num_requests_waiting", "kv_cache_usage_perc",
                         "time_to_first_token_seconds", "request_success_total"):
                self.assertIn("# TYPE vllm:" + name, page)
            self.assertIn('vllm:num_requests_waiting{model_name="prose"} 0', page)
            self.assertIn("vllm:kv_cache_usage_perc", cluster.workers[0].scrape())
            self.assertNotIn("vllm:", cluster.coordinator.scrape())


if __name__ == "__main__":
    unittest.main()
