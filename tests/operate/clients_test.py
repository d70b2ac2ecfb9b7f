"""The example clients go on at the next gateway whatever a gateway that goes away makes gRPC say."""

import concurrent.futures
import os
import subprocess
import unittest

import grpc

from tests.operate.cluster import BIN, PB, PB_GRPC, ROOT, Cluster
from tests.operate.proxy import Proxy

CLIENTS = {"Python": ["/usr/bin/python3", "-B", os.path.join(ROOT, "examples/python/client.py")],
           "C++": [os.path.join(BIN, "sauva-example-client")]}
WORDS = ["one ", "two ", "three ", "four "]


class Gateway(PB_GRPC.GenerationServiceServicer):
    """Says the words that a request lacks; ends with a code of its own after `stop_after` of them."""

    def __init__(self, stop_after=len(WORDS), code=grpc.StatusCode.OK):
        self.stop_after = stop_after
        self.code = code
        self.requests = []
        self.server = grpc.server(concurrent.futures.ThreadPoolExecutor(2))
        PB_GRPC.add_GenerationServiceServicer_to_server(self, self.server)
        self.address = f"127.0.0.1:{self.server.add_insecure_port('127.0.0.1:0')}"
        self.server.start()

    def Generate(self, request, context):
        self.requests.append(request)
        first = len(request.resume_tokens[0].token_ids) if request.resume_tokens else 0
        for token in range(first, len(WORDS)):
            if token == self.stop_after:
                context.abort(self.code, "the gateway goes away")
            last = token == len(WORDS) - 1
            yield PB.GenerateResponse(text=WORDS[token], token_ids=[token], seed=7,
                                      finish_reason=PB.FINISH_REASON_LENGTH if last else 0)


class ClientsTest(unittest.TestCase):
    def run_client(self, command, *gateways):
        flags = [part for gateway in gateways for part in ("--gateway", gateway.address)]
        done = subprocess.run([*command, *flags, "--prompt", "count"], capture_output=True,
                              text=True, timeout=60, check=False)
        for gateway in gateways:
            gateway.server.stop(0)
        return done

    def test_a_gateway_that_goes_away_is_followed_by_the_next(self):
        for name, command in CLIENTS.items():
            for code in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                with self.subTest(client=name, code=code):
                    second = Gateway()
                    done = self.run_client(command, Gateway(2, code), second)
                    self.assertEqual(done.returncode, 0, done.stderr)
                    self.assertEqual(done.stdout.split(), "one two three four".split())
                    self.assertEqual(list(second.requests[0].resume_tokens[0].token_ids), [0, 1])
                    self.assertEqual(second.requests[0].sampling.seed, 7)

    def test_what_the_request_itself_is_refused_for_is_not_tried_again(self):
        for name, command in CLIENTS.items():
            with self.subTest(client=name):
                second = Gateway()
                done = self.run_client(command, Gateway(2, grpc.StatusCode.INVALID_ARGUMENT), second)
                self.assertEqual(done.returncode, 1)
                self.assertEqual(second.requests, [])


class FarGatewayTest(unittest.TestCase):
    def test_a_gateway_on_the_other_side_of_the_world(self):
        with Cluster(workers=1) as cluster:
            path = Proxy(cluster.gateways[0].listen)
            path.delay = 0.2
            done = subprocess.run([os.path.join(BIN, "sauva"), "generate", "--gateway", path.address,
                                   "--max-tokens", "3", "Once"], capture_output=True,
                                  text=True, timeout=60, check=False)
            path.close()
            self.assertEqual(done.returncode, 0, done.stderr)
            self.assertTrue(done.stdout.strip())


if __name__ == "__main__":
    unittest.main()
