#!/usr/bin/env python3
"""A client of sauva.v1.GenerationService.

Streams a continuation, and goes on at the next gateway when one goes away, so that the text
has no gap and no repetition:

    examples/python/client.py --gateway 127.0.0.1:7070 --gateway 127.0.0.1:7072 --prompt "Once"

Needs grpcio and protobuf (Debian: python3-grpcio, python3-protobuf), and protoc with its
gRPC plugin (protobuf-compiler-grpc) or the Python package grpcio-tools.
"""

import argparse
import importlib
import os
import shutil
import subprocess
import sys
import tempfile
import time

import grpc

PROTO = os.path.join(os.path.dirname(__file__), "..", "..", "proto")
FILE = "sauva/v1/generation.proto"


def generated_stubs():
    """Compiles the API's .proto file for this run and returns its two Python modules."""
    out = tempfile.mkdtemp(prefix="sauva-stubs-")
    arguments = ["-I", PROTO, f"--python_out={out}", f"--grpc_python_out={out}"]
    plugin = shutil.which("grpc_python_plugin")
    if plugin and shutil.which("protoc"):
        command = ["protoc", f"--plugin=protoc-gen-grpc_python={plugin}"]
    else:
        command = [sys.executable, "-m", "grpc_tools.protoc"]
    try:
        subprocess.run(command + arguments + [FILE], check=True)
        sys.path.insert(0, out)
        return (importlib.import_module("sauva.v1.generation_pb2"),
                importlib.import_module("sauva.v1.generation_pb2_grpc"))
    finally:
        shutil.rmtree(out)


# What says that the gateway went away. CANCELLED is what gRPC says of a call that reaches a
# server at the moment of its shutdown.
GONE = (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED)


class Progress:
    """What is known of the completion so far: all that another gateway needs."""

    def __init__(self, seed):
        self.seed = seed  # the one asked for, or the one a gateway drew
        self.tokens = []
        self.cancelled = False
        self.finish = ""


def make_request(pb, options, progress):
    request = pb.GenerateRequest(model=options.model, text=options.prompt)
    request.sampling.max_tokens = options.max_tokens
    request.sampling.temperature = options.temperature
    if progress.seed is not None:
        request.sampling.seed = progress.seed
    if progress.tokens:
        request.resume_tokens.add(token_ids=progress.tokens)
    return request


def connect(gateway, options):
    # A gateway that hangs or whose machine is gone counts as lost after a few seconds.
    settings = [("grpc.keepalive_time_ms", 2000), ("grpc.keepalive_timeout_ms", 3000)]
    if not options.tls_ca:
        return grpc.insecure_channel(gateway, settings)
    with open(options.tls_ca, "rb") as pem:
        return grpc.secure_channel(gateway, grpc.ssl_channel_credentials(pem.read()), settings)


def stream(api, gateway, options, deadline, progress):
    """Streams from one gateway; raises grpc.RpcError when its stream breaks."""
    pb, pb_grpc = api
    timeout = None if deadline is None else max(0.001, deadline - time.monotonic())
    with connect(gateway, options) as channel:
        call = pb_grpc.GenerationServiceStub(channel).Generate(
            make_request(pb, options, progress), timeout=timeout)
        for response in call:
            # Only the first response names the seed; a resumed stream repeats its own.
            if progress.seed is None:
                progress.seed = response.seed
            progress.tokens.extend(response.token_ids)
            print(response.text, end="", flush=True)
            if response.finish_reason:
                progress.finish = pb.FinishReason.Name(response.finish_reason)
            if options.cancel_after and len(progress.tokens) >= options.cancel_after:
                progress.cancelled = True
                call.cancel()  # the gateway frees what the request holds
                return


def generate(api, options, progress):
    """Asks one gateway after the other, each going on where the last one stopped.

    Gives up when all of them in turn had nothing to add.
    """
    deadline = time.monotonic() + options.deadline_ms / 1000 if options.deadline_ms else None
    fruitless = 0
    turn = 0
    while True:
        gateway = options.gateway[turn % len(options.gateway)]
        tokens_before = len(progress.tokens)
        try:
            return stream(api, gateway, options, deadline, progress)
        except grpc.RpcError as error:
            fruitless = 0 if len(progress.tokens) > tokens_before else fruitless + 1
            out_of_gateways = fruitless == len(options.gateway)
            if error.code() not in GONE or out_of_gateways:
                raise
            print(f"\n[{gateway}: {error.details()}; going on after "
                  f"{len(progress.tokens)} tokens]", file=sys.stderr)
        turn += 1


def main():
    parser = argparse.ArgumentParser(description="Streams a continuation of a prompt.")
    parser.add_argument("--gateway", action="append", required=True,
                        help="HOST:PORT; several are tried in turn")
    parser.add_argument("--prompt", required=True)
    parser.add_argument("--model", default="", help="empty: the only one served")
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--temperature", type=float, default=1.0)
    parser.add_argument("--seed", type=int, help="unset: the gateway draws one")
    parser.add_argument("--cancel-after", type=int, default=0, help="cancel after so many tokens")
    parser.add_argument("--deadline-ms", type=int, default=0, help="for the whole answer")
    parser.add_argument("--tls-ca", default="", help="PEM file: the authority of the gateways")
    options = parser.parse_args()

    progress = Progress(options.seed)
    try:
        generate(generated_stubs(), options, progress)
    except grpc.RpcError as error:
        print(f"\nfailed with code {error.code().value[0]}: {error.details()}", file=sys.stderr)
        return 1
    print()
    ending = "cancelled" if progress.cancelled else progress.finish
    print(f"{ending} after {len(progress.tokens)} tokens, seed {progress.seed}", file=sys.stderr)
    return 0


if __name__ == "__main__":
    sys.exit(main())
