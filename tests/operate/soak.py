#!/usr/bin/env python3
"""Light load for a long time; resident memory of every process must not grow after the warm-up.

usage: PYTHONPATH=. tests/operate/soak.py [MINUTES [PER_SECOND]]    (30, 10)
"""

import random
import statistics
import sys
import threading
import time

from tests.operate.cluster import PROMPTS, Client, Cluster

WARM_UP_SECONDS = 180
MOST_GROWTH = 0.01
LOOKS = 6
LOOKS_AT_ONCE, LOOK_SECONDS = 21, 1
# Small, so that every page of it is in use after the warm-up: pages come with first use.
KV_MEMORY = "16MiB"


class Load:
    """Starts PER_SECOND requests a second, each on a thread of its own, until stopped."""

    def __init__(self, client, per_second):
        self.client = client
        self.per_second = per_second
        self.done = 0
        self.errors = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.starter = threading.Thread(target=self.run)
        self.starter.start()

    def run(self):
        choice = random.Random(1)
        threads = []
        next_at = time.monotonic()
        while not self.stopped.is_set():
            what = (choice.choice(PROMPTS) * choice.randrange(1, 8), choice.randrange(1 << 30),
                    choice.randrange(4, 24))
            threads.append(threading.Thread(target=self.one, args=what))
            threads[-1].start()
            threads = [thread for thread in threads if thread.is_alive()]
            next_at += 1 / self.per_second
            time.sleep(max(0.0, next_at - time.monotonic()))
        for thread in threads:
            thread.join()

    def one(self, prompt, seed, max_tokens):
        outcome = self.client.generate(prompt, seed, max_tokens)
        with self.lock:
            self.done += 1
            if outcome.error is not None:
                self.errors.append(outcome.error)

    def stop(self):
        self.stopped.set()
        self.starter.join()


def resident(cluster):
    """Megabytes by process: the middle of some looks, since memory breathes with the load."""
    looks = {service.name: [] for service in cluster.all()}
    for _ in range(LOOKS_AT_ONCE):
        for service in cluster.all():
            looks[service.name].append(service.metric("process_resident_memory_bytes") / 2**20)
        time.sleep(LOOK_SECONDS)
    return {name: statistics.median(sizes) for name, sizes in looks.items()}


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    per_second = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with Cluster(workers=2, coordinator_flags=["--stages", "2", "--kv-memory", KV_MEMORY]) as cluster:
        client = Client([cluster.gateways[0].address])
        load = Load(client, per_second)
        looks = []
        for seconds in [WARM_UP_SECONDS] + [(60 * minutes - WARM_UP_SECONDS) / LOOKS] * LOOKS:
            time.sleep(seconds)
            looks.append(resident(cluster))
            print(f"{load.done} requests: " + ", ".join(
                f"{name} {size:.2f}" for name, size in looks[-1].items()) + " MB", flush=True)
        load.stop()
        client.close()
    print(f"{minutes:.0f} minutes, {per_second:.0f} requests a second, {load.done} requests, "
          f"{len(load.errors)} errors\n")
    print(f"| process | after {WARM_UP_SECONDS // 60} minutes | at the end | growth |\n|---|---|---|---|")
    growth = {name: looks[-1][name] / looks[0][name] - 1 for name in looks[0]}
    for name, share in growth.items():
        print(f"| {name} | {looks[0][name]:.2f} MB | {looks[-1][name]:.2f} MB | {100 * share:+.2f} % |")
    sys.exit(bool(load.errors) or max(growth.values()) > MOST_GROWTH)


if __name__ == "__main__":
    main()
