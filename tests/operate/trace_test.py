"""Where a request's time went: the slow-request line, and spans at a collector that takes them, is
down, or never answers."""

import unittest

import grpc

from tests.operate.cluster import PROMPTS, Client, Cluster, await_true, free_port, request_for
from tests.operate.collector import OTLP, Collector

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"
CALLER = "00f067aa0ba902b7"
SAMPLED = f"00-{TRACE}-{CALLER}-01"
NOT_SAMPLED = f"00-{TRACE}-{CALLER}-00"


# Made by the package opentelemetry-proto 1.27.0 from the values in WireTest.
PUBLISHED_REQUEST = bytes.fromhex(
    "0a9c010a150a130a0c736572766963652e6e616d6512030a01671282010a0a0a05736175766112013112740a100001"
    "02030405060708090a0b0c0d0e0f12080001020304050607220808090a0b0c0d0e0f2a016e30033901000000000000"
    "004102000000000000004a100a0169120b18fbffffffffffffffff014a0e0a0164120921000000000000e03f4a0c0a"
    "016112072a050a030a01767a0512016d1802")
PUBLISHED_RESPONSE = bytes.fromhex("0a050803120165")


def attributes(pairs):
    def plain(value):
        kind = value.WhichOneof("value")
        found = getattr(value, kind)
        return [plain(one) for one in found.values] if kind == "array_value" else found
    return {pair.key: plain(pair.value) for pair in pairs}


def ask(client, seed=1, max_tokens=20, trace=None, prompt=PROMPTS[0]):
    metadata = [("traceparent", trace)] if trace else []
    return list(client.stubs[0].Generate(request_for(prompt, seed, max_tokens), metadata=metadata))


class WireTest(unittest.TestCase):
    def test_messages_are_the_published_protocols(self):
        request = OTLP.ExportTraceServiceRequest()
        process = request.resource_spans.add()
        process.resource.attributes.add(key="service.name").value.string_value = "g"
        scope = process.scope_spans.add()
        scope.scope.name, scope.scope.version = "sauva", "1"
        span = scope.spans.add(
            trace_id=bytes(range(16)), span_id=bytes(range(8)), parent_span_id=bytes(range(8, 16)),
            name="n", kind=OTLP.SPAN_KIND_CLIENT, start_time_unix_nano=1, end_time_unix_nano=2)
        span.attributes.add(key="i").value.int_value = -5
        span.attributes.add(key="d").value.double_value = 0.5
        span.attributes.add(key="a").value.array_value.values.add().string_value = "v"
        span.status.code, span.status.message = OTLP.STATUS_CODE_ERROR, "m"
        self.assertEqual(request.SerializeToString(deterministic=True), PUBLISHED_REQUEST)
        response = OTLP.ExportTraceServiceResponse.FromString(PUBLISHED_RESPONSE)
        self.assertEqual((response.partial_success.rejected_spans,
                          response.partial_success.error_message), (3, "e"))


class SpansTest(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.collector = Collector()
        with Cluster(workers=2, coordinator_flags=["--stages", "2", "--max-step-tokens", "16"],
                     gateway_flags=["--otlp", cls.collector.address]) as cluster:
            client = Client([cluster.gateways[0].address])
            ask(client, trace=NOT_SAMPLED)
            ask(client)
            ask(client, trace=SAMPLED, prompt="the old prince " * 20)
            await_true(lambda: cluster.gateways[0].metric("sauva_spans_sent_total") > 0)
            cls.dropped = cluster.gateways[0].metric("sauva_spans_dropped_total")
            client.close()
        cls.spans = cls.collector.spans()
        cls.collector.close()
        cls.named = {span.name: span for span in cls.spans}
        cls.root = cls.named["text_completion prose"]
        cls.stream = cls.named["sauva.v1.WorkerService/Generate"]

    def test_only_what_the_caller_records_is_exported(self):
        self.assertEqual({span.trace_id.hex() for span in self.spans}, {TRACE})
        self.assertEqual(len(self.spans), 5)
        self.assertEqual(self.dropped, 0)

    def test_spans_are_a_tree_below_the_caller(self):
        self.assertEqual(self.root.parent_span_id.hex(), CALLER)
        above = {"queue": self.root, "sauva.v1.WorkerService/Generate": self.root,
                 "prefill": self.stream, "decode": self.stream}
        for name, parent in above.items():
            self.assertEqual(self.named[name].parent_span_id, parent.span_id, name)
        self.assertEqual(len({span.span_id for span in self.spans}), 5)
        self.assertTrue(all(len(span.span_id) == 8 for span in self.spans))

    def test_times_are_nested_and_in_order(self):
        by_id = {span.span_id: span for span in self.spans}
        for span in self.spans:
            self.assertLessEqual(span.start_time_unix_nano, span.end_time_unix_nano, span.name)
            parent = by_id.get(span.parent_span_id)
            if parent is not None:
                self.assertGreaterEqual(span.start_time_unix_nano, parent.start_time_unix_nano)
                self.assertLessEqual(span.end_time_unix_nano, parent.end_time_unix_nano, span.name)
        self.assertLessEqual(self.named["prefill"].end_time_unix_nano,
                             self.named["decode"].start_time_unix_nano)

    def test_attributes_are_those_of_the_conventions(self):
        root = attributes(self.root.attributes)
        self.assertEqual(self.root.kind, OTLP.SPAN_KIND_SERVER)
        self.assertEqual(root["gen_ai.operation.name"], "text_completion")
        self.assertEqual(root["gen_ai.request.model"], "prose")
        self.assertEqual(root["gen_ai.usage.output_tokens"], 20)
        self.assertEqual(root["gen_ai.response.finish_reasons"], ["length"])
        self.assertNotIn("error.type", root)
        self.assertEqual(self.root.status.code, OTLP.STATUS_CODE_UNSET)
        stream = attributes(self.stream.attributes)
        self.assertEqual(self.stream.kind, OTLP.SPAN_KIND_CLIENT)
        self.assertEqual((stream["rpc.system"], stream["server.address"]), ("grpc", "127.0.0.1"))
        self.assertGreater(stream["server.port"], 0)
        process = attributes(self.collector.requests[0].resource_spans[0].resource.attributes)
        self.assertEqual(process["service.name"], "sauva-gateway")
        self.assertIn("/", process["service.instance.id"])

    def test_phases_tell_steps_and_each_stages_time(self):
        prompt = attributes(self.root.attributes)["gen_ai.usage.input_tokens"]
        prefill = attributes(self.named["prefill"].attributes)
        decode = attributes(self.named["decode"].attributes)
        cached = attributes(self.root.attributes)["sauva.cached_tokens"]
        self.assertEqual(prefill["sauva.tokens"], prompt - cached)
        self.assertEqual(prefill["sauva.steps"], -(-(prompt - cached) // 16))
        self.assertEqual((decode["sauva.steps"], decode["sauva.tokens"]), (19, 19))
        for phase in (prefill, decode):
            seconds = phase["sauva.stage.compute_seconds"]
            self.assertEqual(len(seconds), 2)
            self.assertTrue(all(0 < one < 60 for one in seconds), seconds)


class TroubleTest(unittest.TestCase):
    def test_slow_requests_and_failures_are_exported_without_a_callers_trace(self):
        collector = Collector()
        flags = ["--otlp", collector.address, "--slow-request", "1ms", "--dispatch-wait", "300ms"]
        with Cluster(workers=2, gateway_flags=flags) as cluster:
            client = Client([cluster.gateways[0].address])
            ask(client)
            for worker in cluster.workers:
                worker.kill()
            with self.assertRaises(grpc.RpcError):
                ask(client)
            client.close()
            await_true(lambda: len([s for s in collector.spans() if not s.parent_span_id]) == 2)
        roots = [span for span in collector.spans() if not span.parent_span_id]
        collector.close()
        self.assertEqual([span.status.code for span in roots],
                         [OTLP.STATUS_CODE_UNSET, OTLP.STATUS_CODE_ERROR])
        self.assertEqual(attributes(roots[1].attributes)["error.type"], "UNAVAILABLE")
        self.assertNotEqual(roots[0].trace_id, roots[1].trace_id)

    def test_a_collector_that_is_down_costs_spans_and_nothing_else(self):
        with Cluster(workers=1, gateway_flags=["--otlp", f"127.0.0.1:{free_port()}"]) as cluster:
            gateway = cluster.gateways[0]
            client = Client([gateway.address])
            for seed in range(5):
                self.assertGreater(len(ask(client, seed, trace=SAMPLED)), 0)
            await_true(lambda: gateway.metric("sauva_spans_dropped_total") == 25)
            self.assertEqual(gateway.metric("sauva_spans_sent_total"), 0)
            client.close()
            self.assertEqual(gateway.log().count('event="spans are lost"'), 1)
            self.assertEqual(gateway.stop()[0], 0)

    def test_what_a_collector_rejects_is_told_once_with_its_reason(self):
        collector = Collector(rejects="over the quota")
        with Cluster(workers=1, gateway_flags=["--otlp", collector.address]) as cluster:
            gateway = cluster.gateways[0]
            client = Client([gateway.address])
            for calls in (1, 2):
                ask(client, trace=SAMPLED)
                await_true(lambda: gateway.metric("sauva_spans_dropped_total") == calls)
            client.close()
            lines = [line for line in gateway.log().splitlines() if 'event="spans are lost"' in line]
        collector.close()
        self.assertEqual(len(lines), 1)
        self.assertIn("rejected: over the quota", lines[0])

    def test_a_collector_that_never_answers_delays_nobody(self):
        collector = Collector(answers=False)
        with Cluster(workers=1, gateway_flags=["--otlp", collector.address]) as cluster:
            gateway = cluster.gateways[0]
            client = Client([gateway.address])
            for seed in range(5):
                self.assertGreater(len(ask(client, seed, trace=SAMPLED)), 0)
            client.close()
            code, seconds = gateway.stop()
            self.assertEqual(code, 0)
            self.assertLess(seconds, 5)
        collector.close()


class SlowRequestTest(unittest.TestCase):
    def test_a_trace_reaches_the_head_and_a_slow_request_tells_its_timeline(self):
        debug = ["--log-level", "debug"]
        with Cluster(workers=1, worker_flags=debug,
                     gateway_flags=[*debug, "--slow-request", "1ms"]) as cluster:
            client = Client([cluster.gateways[0].address])
            ask(client, trace=SAMPLED)
            ask(client, max_tokens=2, trace="nonsense")
            client.close()
            slow = [line for line in cluster.gateways[0].log().splitlines()
                    if 'event="slow request"' in line]
            heard = [line for line in cluster.workers[0].log().splitlines()
                     if "event=stream" in line]
        self.assertEqual(len(slow), 2)
        self.assertIn(f"traceparent=00-{TRACE}-", slow[0])
        self.assertNotIn("nonsense", slow[1])
        for field in ("queue_ms=", "first_token_ms=", "longest_gap_ms=", "total_ms=", "tokens=20",
                      "resumes=0", "status=OK"):
            self.assertIn(field, slow[0])
        self.assertRegex(slow[0], r'stream_1="127\.0\.0\.1:\d+ epoch \d+, 20 tokens; prefill at '
                                  r'[\d.]+ ms: 1 steps, \d+ tokens, [\d.]+ ms, stages [\d.]+ ms; '
                                  r'decode at [\d.]+ ms: 19 steps, 19 tokens, [\d.]+ ms, stages '
                                  r'[\d.]+ ms"')
        self.assertEqual(len(heard), 1)
        self.assertIn(f"traceparent=00-{TRACE}-", heard[0])
        self.assertNotIn(SAMPLED, heard[0])

    def test_a_resumed_request_tells_of_both_heads(self):
        with Cluster(workers=2, coordinator_flags=["--stages", "1", "--replicas", "2"],
                     worker_flags=["--log-level", "debug"],
                     gateway_flags=["--slow-request", "1ms"]) as cluster:
            gateway = cluster.gateways[0]
            client = Client([gateway.address])
            answers = client.stubs[0].Generate(request_for(PROMPTS[0], 1, 1000),
                                               metadata=[("traceparent", SAMPLED)])
            tokens = sum(len(next(answers).token_ids) for _ in range(20))
            heard = [w for w in cluster.workers if "event=stream" in w.log()]
            self.assertEqual(len(heard), 1)
            heard[0].kill()
            tokens += sum(len(answer.token_ids) for answer in answers)
            client.close()
            self.assertEqual(tokens, 1000)
            (slow,) = [line for line in gateway.log().splitlines() if 'event="slow request"' in line]
        self.assertIn("resumes=1", slow)
        self.assertRegex(slow, r'stream_1="[^"]* tokens; prefill at [^"]*; decode [^"]*; UNAVAILABLE')
        self.assertRegex(slow, r'stream_2="[^"]* tokens; prefill at [^"]*; decode [^"]*"')


if __name__ == "__main__":
    unittest.main()
