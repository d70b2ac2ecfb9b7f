"""A collector of spans that speaks OTLP over gRPC, for tests."""

import concurrent.futures
import threading

import grpc

from tests.operate.cluster import compiled

OTLP, OTLP_GRPC = compiled("opentelemetry/trace.proto")


class Collector(OTLP_GRPC.TraceServiceServicer):
    """Takes spans, or rejects one of each call for a reason, or keeps every caller waiting until it is
    closed."""

    def __init__(self, answers=True, rejects=""):
        self.answers = answers
        self.rejects = rejects
        self.closing = threading.Event()
        self.lock = threading.Lock()
        self.requests = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(4))
        OTLP_GRPC.add_TraceServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Export(self, request, context):
        with self.lock:
            self.requests.append(request)
        if not self.answers:
            self.closing.wait()
        response = OTLP.ExportTraceServiceResponse()
        if self.rejects:
            response.partial_success.rejected_spans = 1
            response.partial_success.error_message = self.rejects
        return response

    def close(self):
        self.closing.set()
        self.server.stop(0).wait()

    def spans(self):
        with self.lock:
            return [span for request in self.requests for process in request.resource_spans
                    for scope in process.scope_spans for span in scope.spans]
