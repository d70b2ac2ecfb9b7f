#!/usr/bin/python3
"""Light load for a long time; resident memory of every process must not grow after the warm-up. It is
looked at in pauses of the load, since what requests hold while they run depends on how many there
are at that moment.

usage: PYTHONPATH=. tests/operate/soak.py [MINUTES [PER_SECOND]]    (30, 10)
"""

import random
import sys
import threading
import time

from tests.operate.cluster import PROMPTS, Client, Cluster

WARM_UP_SECONDS = 180
MOST_GROWTH = 0.01
LOOKS = 6
PAUSE_SECONDS = 15  # longer than processes wait until they give free memory back
# Small, so that every page of it is in use after the warm-up: pages come with first use.
KV_MEMORY = "16MiB"
# Long, so that a machine busy with other things does not make placements of its own.
LEASE_MS = "30000"


class Load:
    """Starts PER_SECOND requests a second, each on a thread of its own, until stopped."""

    def __init__(self, client, per_second):
        self.client = client
        self.per_second = per_second
        self.done = 0
        self.errors = []
        self.lock = threading.Lock()
        self.stopped = threading.Event()
        self.go = threading.Event()
        self.go.set()
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
            if not self.go.is_set():
                self.go.wait()
                next_at = time.monotonic()
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
        self.go.set()
        self.starter.join()


def resident(cluster, load):
    """Megabytes by process, in a pause of the load."""
    load.go.clear()
    time.sleep(PAUSE_SECONDS)
    sizes = {service.name: service.metric("process_resident_memory_bytes") / 2**20
             for service in cluster.all()}
    load.go.set()
    return sizes


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    per_second = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with Cluster(workers=2, coordinator_flags=["--stages", "2", "--kv-memory", KV_MEMORY,
                                               "--lease-ms", LEASE_MS]) as cluster:
        client = Client([cluster.gateways[0].address])
        load = Load(client, per_second)
        looks = []
        for seconds in [WARM_UP_SECONDS] + [(60 * minutes - WARM_UP_SECONDS) / LOOKS] * LOOKS:
            time.sleep(seconds)
            looks.append(resident(cluster, load))
            print(f"{load.done} requests: " + ", ".join(
                f"{name} {size:.2f}" for name, size in looks[-1].items()) + " MB", flush=True)
        load.stop()
        client.close()
        lost = cluster.coordinator.metric("sauva_workers_lost_total")
    print(f"{minutes:.0f} minutes, {per_second:.0f} requests a second, {load.done} requests, "
          f"{len(load.errors)} errors, {lost:.0f} workers lost\n")
    print(f"| process | after {WARM_UP_SECONDS // 60} minutes | at the end | growth |\n|---|---|---|---|")
    growth = {name: looks[-1][name] / looks[0][name] - 1 for name in looks[0]}
    for name, share in growth.items():
        print(f"| {name} | {looks[0][name]:.2f} MB | {looks[-1][name]:.2f} MB | {100 * share:+.2f} % |")
    sys.exit(bool(load.errors) or max(growth.values()) > MOST_GROWTH)


if __name__ == "__main__":
    main()
