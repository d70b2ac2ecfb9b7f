"""A real Prometheus over a real cluster with load and faults: every panel, rule and runbook query
finds data, alerts are silent while all is well and fire for their fault, and queries point to the
culprit."""

import json
import os
import re
import signal
import threading
import time
import unittest

from tests.monitoring.prometheus import (Prometheus, complaints, overview_panels, panel_queries,
                                         rules, shortened)
from tests.operate.cluster import PROMPTS, ROOT, Client, Cluster, await_true, free_port
from tests.operate.collector import Collector
from tests.operate.proxy import Proxy

import yaml

# Alerts whose fault takes an hour to show; tests/monitoring/rules_test covers them.
BEYOND_A_MINUTE = {"SauvaMemoryGrows", "SauvaRequestsWait"}
VARIABLES = {"$namespace": ".*", "$model": ".*", "$__rate_interval": "5s"}
CALM_SECONDS = 8
SLOW_BYTES_PER_SECOND = 40_000


def filled(query):
    for name, value in VARIABLES.items():
        query = query.replace(name, value)
    for long, short in (("[5m]", "[6s]"), ("[15m]", "[40s]"), ("offset 1h", "offset 5s")):
        query = query.replace(long, short)
    return query


def runbook(name):
    with open(os.path.join(ROOT, "docs/runbooks", name), encoding="utf-8") as file:
        return [query.strip() for query in re.findall(r"```promql\n(.*?)```", file.read(), re.S)]


def runbook_queries():
    for name in sorted(os.listdir(os.path.join(ROOT, "docs/runbooks"))):
        for query in runbook(name):
            yield name, query


class Load:
    """Clients that ask one thing after the other."""

    def __init__(self, addresses, number, max_tokens, patience=10, rounds=None):
        self.client = Client(addresses)
        self.patience = patience
        self.rounds = rounds
        self.stopped = threading.Event()
        self.max_tokens = max_tokens
        self.threads = [threading.Thread(target=self.run, args=(i,)) for i in range(number)]
        for thread in self.threads:
            thread.start()

    def run(self, number):
        seed = number
        while not self.stopped.is_set() and self.rounds != seed - number:
            outcome = self.client.generate(PROMPTS[number % len(PROMPTS)], seed, self.max_tokens,
                                           first=number, patience=self.patience)
            seed += 1
            if outcome.error is not None:
                self.stopped.wait(0.5)

    def stop(self):
        self.stopped.set()
        for thread in self.threads:
            thread.join()
        self.client.close()


def layers_of(worker):
    """Layers of a worker's stage; 0 while it has none."""
    return worker.metric("sauva_stage_layers") or 0


class UnevenSplitTest(unittest.TestCase):
    """A budget that holds one layer leaves the rest to the other worker."""

    def test_queries_name_the_stage_with_too_many_layers(self):
        cluster = Cluster(workers=2, coordinator_flags=["--stages", "2", "--kv-memory", "4MiB",
                                                        "--max-context", "256",
                                                        "--max-step-tokens", "32"])
        small = cluster.workers[0]
        small.flags[small.flags.index("--memory") + 1] = "8MiB"
        with cluster, Prometheus(cluster.all()) as prometheus:
            large = max(cluster.workers, key=layers_of)
            self.assertGreaterEqual(layers_of(large), 3 * layers_of(small))
            load = Load([cluster.gateways[0].address], 4, 60)
            try:
                await_true(lambda: len(prometheus.query(
                    filled("sauva:stage_step_seconds:mean5m"))) == 2)
                for query in runbook("slow_stage.md"):
                    ((labels, value),) = prometheus.query(filled(query))
                    self.assertEqual(labels["instance"], large.metrics, query)
                self.assertEqual(value, 7 / 4, "times the layers of the average stage")
            finally:
                load.stop()


class LiveTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.stack = []
        cls.fired = set()
        cls.summaries = set()
        cls.events = []  # (time, what is done to the cluster)
        cls.collector = Collector()
        cluster = Cluster(
            workers=2, gateways=2,
            # Every request counts as slow, so that each has spans.
            gateway_flags=["--max-requests", "24", "--otlp", cls.collector.address,
                           "--slow-request", "1ms"],
            coordinator_flags=["--stages", "2", "--max-context", "256", "--kv-memory", "3MiB"])
        cls.paths = []
        for worker in cluster.workers:
            worker.listen = f"127.0.0.1:{free_port()}"
            cls.paths.append(Proxy(worker.listen))
            worker.flags += ["--advertise", cls.paths[-1].address]
        cluster = cls.enter(cluster)
        # A spare whose arithmetic is many times slower than the others'.
        slow = cluster.new_worker(2)
        slow.flags += ["--device", "cpu:scalar", "--coordinator", cluster.coordinator.address]
        cluster.workers.append(slow)
        cls.slow_instance = slow.start().metrics
        prometheus = cls.enter(Prometheus(cluster.all()))
        cls.cluster, cls.prometheus = cluster, prometheus
        cls.begin = time.time()
        cls.load = Load([g.address for g in cluster.gateways], 3, 30)
        try:
            cls.tell_the_story()
        finally:
            cls.end = time.time()
            cls.load.stop()
        cls.write_overview()

    @classmethod
    def write_overview(cls):
        """What the overview showed, for monitoring/render_overview.py."""
        path = os.environ.get("SAUVA_OVERVIEW_DATA")
        if not path:
            return
        panels = []
        for _, panel in overview_panels():
            series = []
            for target in panel["targets"]:
                for found in cls.prometheus.ever(filled(target["expr"]), cls.begin, cls.end):
                    legend = re.sub(r"\{\{(\w+)\}\}", lambda name, labels=found["metric"]:
                                    labels.get(name[1], ""), target["legendFormat"])
                    series.append({"legend": legend or found["metric"].get("instance", ""),
                                   "values": found["values"]})
            panels.append({"title": panel["title"], "series": series,
                           "unit": panel["fieldConfig"]["defaults"]["unit"]})
        with open(path, "w", encoding="utf-8") as file:
            json.dump({"begin": cls.begin, "panels": panels, "events": cls.events}, file)

    @classmethod
    def tearDownClass(cls):
        for context in reversed(cls.stack):
            context.__exit__(None, None, None)
        for path in cls.paths:
            path.close()
        cls.collector.close()

    @classmethod
    def enter(cls, context):
        entered = context.__enter__()
        cls.stack.append(context)
        return entered

    @classmethod
    def await_firing(cls, *alerts):
        def all_fire():
            cls.summaries |= cls.prometheus.summaries()
            cls.fired |= cls.prometheus.firing()
            return set(alerts) <= cls.fired
        await_true(all_fire, message=lambda: f"of {alerts} only {cls.prometheus.firing()} fire; "
                   f"earlier: {cls.fired}")

    @classmethod
    def serving(cls, stage):
        """The worker of a stage, once a pipeline is ready."""
        found = []

        def look():
            found[:] = [w for w in cls.cluster.workers if w.process.poll() is None
                        and w.metric("sauva_stage_serving") == 1
                        and w.metric("sauva_stage_index") == stage]
            return len(found) == 1
        await_true(look, message=f"nobody serves stage {stage}")
        return found[0]

    @classmethod
    def tell_the_story(cls):
        time.sleep(CALM_SECONDS)
        cls.calm = cls.prometheus.firing()
        cls.calm_spans = [g.metric("sauva_spans_sent_total") for g in cls.cluster.gateways]
        for chapter in (cls.slow_a_link, cls.flood, cls.lose_a_worker_to_a_slow_one,
                        cls.stop_a_worker, cls.lose_the_collector, cls.kill_workers,
                        cls.make_all_wait, cls.stop_the_coordinator):
            cls.events.append((time.time(), chapter.__name__.replace("_", " ")))
            chapter()

    @classmethod
    def flood(cls):
        flood = Load([cls.cluster.gateways[0].address], 40, 200)
        try:
            cls.await_firing("SauvaQueueFull", "SauvaKvCacheFull", "SauvaAvailabilityBurnsFast",
                             "SauvaAvailabilityBurnsSlowly")
            cls.pressed = cls.prometheus.query(
                'topk(1, rate(sauva_num_preemptions_total{role="worker"}[10s]))')
            cls.pressed_instance = cls.serving(0).metrics
        finally:
            flood.stop()

    @classmethod
    def slow_a_link(cls):
        receiver = cls.serving(1)
        path = cls.paths[cls.cluster.workers.index(receiver)]
        path.rate = SLOW_BYTES_PER_SECOND
        cls.await_firing("SauvaSlowLink")
        cls.latest = cls.prometheus.query(filled("topk(1, sauva:hidden_wait_seconds:mean5m)"))
        cls.latest_instance = receiver.metrics
        path.rate = None

    @classmethod
    def who_is_down(cls):
        found = []

        def look():
            found[:] = cls.prometheus.query(runbook("process_down.md")[0])
            return found
        await_true(look)
        return found

    @classmethod
    def lose_a_worker_to_a_slow_one(cls):
        victim = cls.serving(1)
        victim.kill()
        cls.down_instance = victim.metrics
        cls.down = cls.who_is_down()
        cls.await_firing("SauvaProcessDown")
        cls.await_firing("SauvaSlowStage")
        cls.slowest = cls.prometheus.query(filled("topk(1, sauva:stage_step_seconds:mean5m)"))
        victim.start()

    @classmethod
    def stop_a_worker(cls):
        """SIGSTOP: the process is there and its connections stand, but it does nothing."""
        victim = cls.serving(1)
        before = cls.cluster.coordinator.metric("sauva_workers_lost_total")
        victim.signal(signal.SIGSTOP)
        await_true(lambda: cls.cluster.coordinator.metric("sauva_workers_lost_total") > before)
        cls.stopped = cls.who_is_down()
        cls.stopped_instance = victim.metrics
        # The pipeline goes on without it.
        tokens = cls.cluster.gateways[0].metric("sauva_generation_tokens_total")
        await_true(lambda: cls.cluster.gateways[0].metric("sauva_generation_tokens_total") > tokens)
        victim.signal(signal.SIGCONT)
        await_true(lambda: not cls.prometheus.query(runbook("process_down.md")[0]))

    @classmethod
    def lose_the_collector(cls):
        cls.fired |= cls.prometheus.firing()
        cls.spans_alert_before = "SauvaSpansDropped" in cls.fired
        cls.collector.close()
        cls.await_firing("SauvaSpansDropped")
        cls.dropping = cls.prometheus.query(filled(runbook("spans_dropped.md")[0]))

    @classmethod
    def kill_workers(cls):
        for _ in range(2):
            cls.serving(0)
            victim = cls.serving(1)
            victim.kill()
            victim.start()
        cls.await_firing("SauvaWorkersLost", "SauvaPipelinesBreak")

    @classmethod
    def make_all_wait(cls):
        cls.load.stop()
        for worker in cls.cluster.workers:
            worker.kill()
        cls.await_firing("SauvaNoReadyPipeline", "SauvaNoReadyGateway", "SauvaPlacementRefused")
        waiting = Load([cls.cluster.gateways[1].address], 20, 2, patience=90, rounds=1)
        # An earlier token in the longest range would count as one in time.
        await_true(lambda: not any(value for _, value in cls.prometheus.query(
            'sum(avg_over_time(sauva:first_tokens:rate5m[12s]))')),
                   message="first tokens are counted while nobody serves")
        for worker in cls.cluster.workers:
            worker.start()
        cls.await_firing("SauvaFirstTokensLateFast", "SauvaFirstTokensLateSlowly")
        waiting.stop()

    @classmethod
    def stop_the_coordinator(cls):
        cls.cluster.coordinator.kill()
        cls.await_firing("SauvaWorkerAlone")
        cls.cluster.coordinator.start()
        await_true(lambda: "sauva_pipelines_ready" in cls.cluster.coordinator.scrape())

    def test_no_alert_fires_while_all_is_well(self):
        self.assertEqual(self.calm, set())
        self.assertGreater(min(self.calm_spans), 0, "spans were sent, and taken")

    def test_every_alert_fires_for_its_fault(self):
        alerts = {rule["alert"] for group in rules()["groups"] for rule in group["rules"]
                  if "alert" in rule}
        self.assertEqual(alerts - self.fired, BEYOND_A_MINUTE - self.fired)

    def test_summaries_are_whole_and_name_the_process(self):
        for summary in self.summaries:
            self.assertNotRegex(summary, r"error|<no value>|  |^ | $")
        self.assertIn(f"worker {self.down_instance} does not answer", self.summaries)

    def test_spans_are_dropped_for_want_of_the_collector_alone(self):
        self.assertFalse(self.spans_alert_before, "a flood or a lost worker drops none")
        self.assertEqual({labels["instance"] for labels, value in self.dropping if value > 0},
                         {gateway.metrics for gateway in self.cluster.gateways})

    def test_queries_point_to_the_culprit(self):
        self.assertEqual([labels["instance"] for labels, _ in self.slowest], [self.slow_instance])
        self.assertEqual([labels["instance"] for labels, _ in self.latest], [self.latest_instance])
        self.assertEqual([labels["instance"] for labels, _ in self.down], [self.down_instance])
        self.assertEqual([labels["instance"] for labels, _ in self.stopped], [self.stopped_instance])
        self.assertEqual([labels["instance"] for labels, _ in self.pressed],
                         [self.pressed_instance])

    def has_data(self, query):
        for series in self.prometheus.ever(query, self.begin, self.end):
            if any(value != "NaN" for _, value in series["values"]):
                return True
        return False

    def test_every_panel_finds_data(self):
        queries = list(panel_queries())
        self.assertGreater(len(queries), 60)
        for dashboard, title, query in queries:
            with self.subTest(dashboard=dashboard, panel=title, query=query):
                self.assertTrue(self.has_data(filled(query)))

    def test_every_recording_rule_and_every_metric_of_an_alert_has_data(self):
        with open(os.path.join(ROOT, "monitoring/rules.yaml"), encoding="utf-8") as file:
            loaded = yaml.safe_load(shortened(file.read()))
        for group in loaded["groups"]:
            for rule in group["rules"]:
                names = [rule["record"]] if "record" in rule else re.findall(
                    r"\b(?:sauva[a-z0-9_:]+|up\b|process_[a-z_]+)", rule["expr"])
                for name in names:
                    with self.subTest(rule=rule.get("record") or rule["alert"], name=name):
                        self.assertTrue(self.has_data(name))

    def test_every_query_of_a_runbook_finds_data(self):
        queries = list(runbook_queries())
        self.assertGreater(len(queries), 10)
        for name, query in queries:
            with self.subTest(runbook=name, query=query):
                self.assertTrue(self.has_data(filled(query)))

    def test_promtool_finds_nothing_wrong_with_any_page(self):
        for service in self.cluster.all():
            with self.subTest(service=service.name):
                self.assertEqual(complaints(service.scrape()), "")

    def test_metrics_are_those_of_the_page(self):
        with open(os.path.join(ROOT, "monitoring/metrics.md"), encoding="utf-8") as file:
            text = file.read()
        written = {(role, name, kind)
                   for name, kind, roles in re.findall(
                       r"^\| `([a-z0-9_]+)`\*? \| (\w+) \| ([a-z, ]+) \|", text, re.M)
                   for role in (roles.split(", ") if roles != "all"
                                else ("gateway", "coordinator", "worker"))}
        shown = set()
        for service in self.cluster.all():
            for name, kind in re.findall(r"^# TYPE (\S+) (\S+)$", service.scrape(), re.M):
                shown.add((service.role, name, kind))
        self.assertEqual(shown - written, set(), "shown, not in monitoring/metrics.md")
        self.assertEqual(written - shown, set(), "in monitoring/metrics.md, not shown")


if __name__ == "__main__":
    unittest.main()
