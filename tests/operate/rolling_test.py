"""Every process is restarted in turn under load, over slow and lossy paths that are parted at times,
and no client loses or sees a changed token."""

import os
import random
import threading
import time
import unittest

from tests.operate.cluster import PROMPTS, Client, Cluster, free_port
from tests.operate.proxy import Proxy

SECONDS = float(os.environ.get("SAUVA_ROLLING_SECONDS", "20"))
PER_SECOND = 10
MAX_TOKENS = 12
SEEDS = range(8)
REQUEST_PATIENCE = 30  # seconds a request may wait


class Load:
    """Starts PER_SECOND requests a second, each on a thread of its own, until stopped."""

    def __init__(self, client, expected):
        self.client = client
        self.expected = expected
        self.lock = threading.Lock()
        self.outcomes = []
        self.altered = 0
        self.stopped = threading.Event()
        self.threads = []
        self.starter = threading.Thread(target=self.run)
        self.starter.start()

    def run(self):
        choice = random.Random(1)
        next_at = time.monotonic()
        while not self.stopped.is_set():
            key = (choice.choice(PROMPTS), choice.choice(SEEDS))
            thread = threading.Thread(target=self.one, args=(key, choice.randrange(2)))
            thread.start()
            self.threads.append(thread)
            next_at += 1 / PER_SECOND
            time.sleep(max(0.0, next_at - time.monotonic()))

    def one(self, key, first):
        outcome = self.client.generate(*key, MAX_TOKENS, first=first, patience=REQUEST_PATIENCE)
        with self.lock:
            self.outcomes.append(outcome)
            self.altered += outcome.error is None and outcome.tokens != self.expected[key]

    def stop(self):
        self.stopped.set()
        self.starter.join()
        for thread in self.threads:
            thread.join(2 * REQUEST_PATIENCE)
        return self.outcomes


def restart(service):
    code, seconds = service.stop()
    service.start()
    service.await_ready()
    return code, seconds


def report(outcomes):
    first = sorted(o.first_token_seconds for o in outcomes if o.first_token_seconds is not None)
    if not first:
        return "no request got a token"
    return (f"{len(outcomes)} requests, {sum(o.tries > 1 for o in outcomes)} retried by the client, "
            f"time to first token: half {first[len(first) // 2]:.3f} s, "
            f"99 of 100 {first[len(first) * 99 // 100]:.3f} s, longest {first[-1]:.3f} s")


def undisturbed(client):
    expected = {}
    for prompt in PROMPTS:
        for seed in SEEDS:
            outcome = client.generate(prompt, seed, MAX_TOKENS)
            assert outcome.error is None, outcome.error
            expected[prompt, seed] = outcome.tokens
    return expected


class Paths:
    """Proxies in front of the coordinator and every worker, slow and lossy; at times one is parted
    for longer than it takes to call its peer lost."""

    DELAY, LOSS = 0.002, 0.002
    PARTED_SECONDS = 5
    EVERY = 4  # restarts

    def __init__(self, cluster, host="127.0.0.1"):
        self.proxies = []
        self.choice = random.Random(2)
        self.num_parted = 0
        for service in [cluster.coordinator, *cluster.workers]:
            own = service.listen.rsplit(":", 1)[0]
            service.listen = f"{own}:{free_port()}"
            path = Proxy(service.listen, host)
            path.delay, path.loss = self.DELAY, self.LOSS
            self.proxies.append(path)
            if service is cluster.coordinator:
                cluster.coordinator_at = path.address
            else:
                service.flags += ["--advertise", path.address]

    def __enter__(self):
        return self

    def __exit__(self, *_):
        for path in self.proxies:
            path.close()

    def trouble(self, restarts):
        if restarts % self.EVERY == 0:
            path = self.choice.choice(self.proxies)
            path.parted = True
            time.sleep(self.PARTED_SECONDS)
            path.parted = False
            self.num_parted += 1


def roll(case, cluster, seconds, trouble):
    """Restarts everything in turn until the time is up, every process at least once; calls
    `trouble` with the number of restarts after each."""
    client = Client([g.address for g in cluster.gateways])
    load = Load(client, undisturbed(client))
    end = time.monotonic() + seconds
    restarts = 0
    try:
        while restarts < len(cluster.all()) or time.monotonic() < end:
            service = cluster.all()[restarts % len(cluster.all())]
            code, _ = restart(service)
            case.assertIn(code, (0, 5), service.name)
            restarts += 1
            trouble(restarts)
    finally:
        outcomes = load.stop()
        client.close()
    errors = [o.error for o in outcomes if o.error is not None]
    print(f"{restarts} restarts of {len(cluster.all())} processes; {report(outcomes)}; "
          f"failed {len(errors)}, altered {load.altered}", flush=True)
    case.assertEqual(errors, [])
    case.assertEqual(load.altered, 0)
    case.assertGreater(len(outcomes), PER_SECOND * seconds * 0.8)


class RollingRestartTest(unittest.TestCase):
    def test_no_request_is_lost_or_altered(self):
        cluster = Cluster(workers=3, gateways=2, coordinator_flags=["--stages", "2", "--spares", "1"])
        with Paths(cluster) as paths, cluster:
            for worker in cluster.workers:
                worker.await_ready()
            roll(self, cluster, SECONDS, paths.trouble)
            self.assertGreater(paths.num_parted, 0)


if __name__ == "__main__":
    unittest.main()
