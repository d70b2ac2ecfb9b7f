#!/usr/bin/python3
"""Light load for a long time, scraped as a Prometheus would; resident memory of every process must not
grow after the warm-up. It is looked at in pauses of the load, since what requests hold while they run depends on how many there
are at that moment. Where the machine is so busy that layers move, workers hold other things from then
on: growth is counted from the look after the next.

usage: PYTHONPATH=. tests/operate/soak.py [MINUTES [PER_SECOND]]    (30, 10)
"""

import collections
import random
import sys
import threading
import time

from tests.operate.cluster import PROMPTS, Client, Cluster

WARM_UP_SECONDS = 180
MOST_GROWTH = 0.01
LOOKS = 6
FEWEST_LOOKS = 3  # that growth is counted over
SCRAPE_SECONDS = 15
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


class Scraper:
    """Reads the metrics of every process every now and then, until stopped."""

    def __init__(self, cluster):
        self.cluster = cluster
        self.stopped = threading.Event()
        self.thread = threading.Thread(target=self.run)
        self.thread.start()

    def run(self):
        while not self.stopped.wait(SCRAPE_SECONDS):
            for service in self.cluster.all():
                service.metric("process_resident_memory_bytes")

    def stop(self):
        self.stopped.set()
        self.thread.join()


class Look:
    """Megabytes by process, in a pause of the load, and the number of placements so far."""

    def __init__(self, cluster, load, begin):
        load.go.clear()
        time.sleep(PAUSE_SECONDS)
        self.minutes = (time.monotonic() - begin) / 60
        self.sizes = {service.name: service.metric("process_resident_memory_bytes") / 2**20
                      for service in cluster.all()}
        self.placements = cluster.coordinator.metric("sauva_epochs_total", 'event="started"')
        print(f"{self.minutes:.0f} minutes, {load.done} requests, {self.placements:.0f} placements: "
              + ", ".join(f"{name} {size:.2f}" for name, size in self.sizes.items()) + " MB",
              flush=True)
        load.go.set()


def settled(looks):
    """The looks at the last placement, without its first one unless it was warmed up."""
    last = [look for look in looks if look.placements == looks[-1].placements]
    return last if last[0] is looks[0] else last[1:]


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    per_second = float(sys.argv[2]) if len(sys.argv) > 2 else 10.0
    with Cluster(workers=2, coordinator_flags=["--stages", "2", "--kv-memory", KV_MEMORY,
                                               "--lease-ms", LEASE_MS]) as cluster:
        client = Client([cluster.gateways[0].address])
        begin = time.monotonic()
        load = Load(client, per_second)
        scraper = Scraper(cluster)
        looks = []
        for seconds in [WARM_UP_SECONDS] + [(60 * minutes - WARM_UP_SECONDS) / LOOKS] * LOOKS:
            time.sleep(seconds)
            looks.append(Look(cluster, load, begin))
        scraper.stop()
        load.stop()
        client.close()
    print(f"{minutes:.0f} minutes, {per_second:.0f} requests a second, {load.done} requests, "
          f"{len(load.errors)} errors\n")
    for error, number in collections.Counter(load.errors).most_common(5):
        print(f"{number} times: {error}")
    counted = settled(looks)
    if len(counted) < FEWEST_LOOKS:
        sys.exit("layers moved too late to tell of any growth: the machine is too busy")
    first, last = counted[0], counted[-1]
    print(f"| process | after {first.minutes:.0f} minutes | at the end | growth |\n|---|---|---|---|")
    growth = {name: size / first.sizes[name] - 1 for name, size in last.sizes.items()}
    for name, share in growth.items():
        print(f"| {name} | {first.sizes[name]:.2f} MB | {last.sizes[name]:.2f} MB | {100 * share:+.2f} % |")
    sys.exit(bool(load.errors) or max(growth.values()) > MOST_GROWTH)


if __name__ == "__main__":
    main()
