"""Real services started one by one, and a client that counts what it got.

Needs Debian's python3-grpcio and python3-protobuf, protoc and its gRPC plugin.
"""

import contextlib
import importlib
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
import urllib.request

import grpc

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
BIN = os.path.join(ROOT, os.environ.get("SAUVA_BIN", "build/release/bin"))
MODEL = os.path.join(ROOT, "models/prose")
PATIENCE = 60  # seconds; long, nothing waits for it when all is well
# A process started so is killed with the test that started it, however that ends. The thread
# that starts it has to live as long: the kernel counts threads.
DIES_WITH_US = ["setpriv", "--pdeathsig", "KILL"]
PROMPTS = ["The old prince", "In the morning", "She said that", "On the road to", "It was late"]


def await_true(condition, patience=PATIENCE, message="it did not come true"):
    """Raises with the message, or with what it returns then, when patience (seconds) is over."""
    deadline = time.monotonic() + patience
    while not condition():
        if time.monotonic() > deadline:
            raise TimeoutError(message() if callable(message) else message)
        time.sleep(0.02)


def free_port():
    with contextlib.closing(socket.socket()) as one:
        one.bind(("127.0.0.1", 0))
        return one.getsockname()[1]


def compiled(proto):
    """The two Python modules of a .proto file, compiled for this run."""
    out = tempfile.mkdtemp(prefix="sauva-stubs-")
    try:
        subprocess.run(["protoc", "-I", os.path.join(ROOT, "proto"), f"--python_out={out}",
                        f"--plugin=protoc-gen-grpc_python={shutil.which('grpc_python_plugin')}",
                        f"--grpc_python_out={out}", proto], check=True)
        sys.path.insert(0, out)
        module = proto.removesuffix(".proto").replace("/", ".")
        return importlib.import_module(module + "_pb2"), importlib.import_module(module + "_pb2_grpc")
    finally:
        sys.path.remove(out)
        shutil.rmtree(out)


PB, PB_GRPC = compiled("sauva/v1/generation.proto")


class Service:
    """One process of Saúva; `stop` and `start` make it another one at the same addresses."""

    def __init__(self, role, flags, folder, name=None, prefix=()):
        self.role = role
        self.name = name or role
        self.flags = list(flags)
        self.prefix = list(prefix)
        self.log_path = os.path.join(folder, self.name + ".log")
        self.listen = self.metrics = self.health = "127.0.0.1:0"
        self.process = None
        self.address = ""

    def start(self):
        command = DIES_WITH_US + self.prefix + [os.path.join(BIN, "sauva-" + self.role), *self.flags]
        for flag in ("listen", "metrics", "health"):
            if f"--{flag}" not in self.flags:
                command += [f"--{flag}", getattr(self, flag)]
        with open(self.log_path, "ab") as log:
            self.process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=log)
        line = self.process.stdout.readline()
        if not line:
            raise RuntimeError(f"{self.name} ended with {self.process.wait()}:\n{self.log()}")
        said = json.loads(line)
        self.address = self.listen = said["address"]
        self.metrics, self.health = said["metrics"], said["health"]
        return self

    def signal(self, number):
        self.process.send_signal(number)

    def wait(self, patience=PATIENCE):
        """Exit code; negative for a signal."""
        try:
            return self.process.wait(patience)
        finally:
            if self.process.poll() is not None:
                self.process.stdout.close()

    def stop(self, patience=PATIENCE):
        """SIGTERM; returns (exit code, seconds it took)."""
        begin = time.monotonic()
        self.signal(signal.SIGTERM)
        return self.wait(patience), time.monotonic() - begin

    def kill(self):
        if self.process is not None and self.process.poll() is None:
            self.process.kill()
            self.wait()

    def log(self):
        with open(self.log_path, encoding="utf-8", errors="replace") as file:
            return file.read()

    def check(self, service):
        """True, False, or None for a service that health does not know."""
        name = service.encode()
        with grpc.insecure_channel(self.health) as channel:
            call = channel.unary_unary("/grpc.health.v1.Health/Check",
                                       request_serializer=lambda _: b"\x0a" + bytes([len(name)]) + name,
                                       response_deserializer=lambda data: data)
            try:
                return call(None, timeout=5, wait_for_ready=True) == b"\x08\x01"
            except grpc.RpcError as error:
                if error.code() == grpc.StatusCode.NOT_FOUND:
                    return None
                raise

    def await_ready(self, patience=PATIENCE):
        await_true(lambda: self.check("readiness"), patience, f"{self.name} does not become ready")

    def scrape(self):
        with urllib.request.urlopen(f"http://{self.metrics}/metrics", timeout=5) as page:
            return page.read().decode()

    def metric(self, name, labels=""):
        """Sum over all series of a name whose labels contain the text."""
        total = None
        for line in self.scrape().splitlines():
            if line.split("{")[0].split(" ")[0] == name and labels in line:
                total = (total or 0) + float(line.rsplit(" ", 1)[1])
        return total


class Cluster:
    """A coordinator, workers and gateways, stopped with the context."""

    def __init__(self, workers=2, gateways=1, coordinator_flags=(), worker_flags=(),
                 gateway_flags=(), model=MODEL):
        self.folder = tempfile.mkdtemp(prefix="sauva-operate-")
        self.coordinator = Service("coordinator", ["--model", model, "--expect-workers", str(workers),
                                                   *coordinator_flags], self.folder)
        self.worker_flags = ["--model", model, "--threads", "1", "--memory", "512MiB", *worker_flags]
        self.coordinator_at = None  # where the others reach it, when that is not where it listens
        self.gateway_flags = list(gateway_flags)
        self.workers = [self.new_worker(i) for i in range(workers)]
        self.gateways = [self.new_gateway(i) for i in range(gateways)]

    def new_worker(self, index):
        return Service("worker", [*self.worker_flags, "--worker-id", f"w{index}"], self.folder,
                       f"worker-{index}")

    def new_gateway(self, index):
        return Service("gateway", self.gateway_flags, self.folder, f"gateway-{index}")

    def __enter__(self):
        try:
            self.coordinator.start()
            for service in self.workers + self.gateways:
                service.flags += ["--coordinator", self.coordinator_at or self.coordinator.address]
                service.start()
            for gateway in self.gateways:
                gateway.await_ready()
        except BaseException:
            self.__exit__(*sys.exc_info())
            raise
        return self

    def __exit__(self, kind, _value, _trace):
        for service in self.all():
            if service.process is not None and service.process.poll() is None:
                with contextlib.suppress(ProcessLookupError):
                    service.signal(signal.SIGCONT)
                service.kill()
        if kind is not None:
            for service in self.all():
                if os.path.exists(service.log_path):
                    print(f"==== {service.name}\n{service.log()[-3000:]}", file=sys.stderr)
        shutil.rmtree(self.folder, ignore_errors=True)

    def all(self):
        return [*self.gateways, *self.workers, self.coordinator]

    def head(self):
        """The worker that serves stage 0, once there is one."""
        await_true(lambda: any(w.metric("sauva_stage_index") == 0 for w in self.workers
                               if w.process.poll() is None))
        return next(w for w in self.workers
                    if w.process.poll() is None and w.metric("sauva_stage_index") == 0)


class Outcome:
    def __init__(self):
        self.tokens = []
        self.first_token_seconds = None
        self.error = None
        self.tries = 0


def request_for(prompt, seed, max_tokens):
    request = PB.GenerateRequest(text=prompt)
    request.sampling.max_tokens = max_tokens
    request.sampling.temperature = 1.0
    request.sampling.seed = seed
    request.sampling.ignore_eos = True
    return request


class Client:
    """Knows gateways by their addresses; goes on at the next when a stream breaks."""

    def __init__(self, gateways):
        options = [("grpc.keepalive_time_ms", 2000), ("grpc.keepalive_timeout_ms", 3000),
                   ("grpc.initial_reconnect_backoff_ms", 100),
                   ("grpc.max_reconnect_backoff_ms", 500)]
        self.channels = [grpc.insecure_channel(address, options) for address in gateways]
        self.stubs = [PB_GRPC.GenerationServiceStub(channel) for channel in self.channels]

    def close(self):
        for channel in self.channels:
            channel.close()

    def generate(self, prompt, seed, max_tokens, first=0, patience=30):
        outcome = Outcome()
        begin = time.monotonic()
        while outcome.error is None and len(outcome.tokens) < max_tokens:
            left = patience - (time.monotonic() - begin)
            if left <= 0:
                outcome.error = f"not done within {patience} s; {last}"
                break
            request = request_for(prompt, seed, max_tokens)
            if outcome.tokens:
                request.resume_tokens.add(token_ids=outcome.tokens)
            stub = self.stubs[(first + outcome.tries) % len(self.stubs)]
            outcome.tries += 1
            try:
                for response in stub.Generate(request, timeout=left):
                    if response.token_ids and outcome.first_token_seconds is None:
                        outcome.first_token_seconds = time.monotonic() - begin
                    outcome.tokens.extend(response.token_ids)
            except grpc.RpcError as error:
                last = f"{error.code()}: {error.details()}"
                # CANCELLED, too: gRPC says so of a call that reached a server which had just
                # shut down.
                if error.code() not in (grpc.StatusCode.UNAVAILABLE, grpc.StatusCode.CANCELLED):
                    outcome.error = last
                time.sleep(0.05)
        return outcome


class Running:
    """A generation beside the test."""

    def __init__(self, client, *args, **named):
        self.outcome = None
        self.tokens_seen = threading.Event()
        self.thread = threading.Thread(target=self.run, args=(client, args, named))
        self.thread.start()

    def run(self, client, args, named):
        self.outcome = client.generate(*args, **named)

    def finish(self, patience=PATIENCE):
        self.thread.join(patience)
        assert not self.thread.is_alive(), "the stream does not end"
        return self.outcome
