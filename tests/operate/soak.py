#!/usr/bin/env python3
"""Load for a long time; resident memory of every process must not grow after the warm-up.

usage: PYTHONPATH=. tests/operate/soak.py [MINUTES [STREAMS]]    (30, 4); the first tenth warms up
"""

import sys
import threading
import time

from tests.operate.cluster import PROMPTS, Client, Cluster

MOST_GROWTH = 0.01


def resident(cluster):
    return {service.name: service.metric("process_resident_memory_bytes")
            for service in cluster.all()}


def main():
    minutes = float(sys.argv[1]) if len(sys.argv) > 1 else 30.0
    streams = int(sys.argv[2]) if len(sys.argv) > 2 else 4
    stopped = threading.Event()
    done = [0] * streams
    errors = []

    def run(number, client):
        while not stopped.is_set():
            outcome = client.generate(PROMPTS[done[number] % len(PROMPTS)],
                                      1000 * number + done[number], 20 + done[number] % 100)
            done[number] += 1
            if outcome.error is not None:
                errors.append(outcome.error)

    with Cluster(workers=2, coordinator_flags=["--stages", "2"]) as cluster:
        client = Client([cluster.gateways[0].address])
        threads = [threading.Thread(target=run, args=(i, client)) for i in range(streams)]
        for thread in threads:
            thread.start()
        time.sleep(60 * minutes / 10)
        warm = resident(cluster)
        warm_requests = sum(done)
        time.sleep(60 * minutes * 9 / 10)
        end = resident(cluster)
        stopped.set()
        for thread in threads:
            thread.join()
        client.close()
    growth = {name: end[name] / warm[name] - 1 for name in warm}
    print(f"{minutes:.0f} minutes, {streams} streams, {sum(done) - warm_requests} requests after the "
          f"warm-up, {len(errors)} errors")
    for name, share in growth.items():
        print(f"{name}: {warm[name] / 2**20:.1f} MB, {100 * share:+.2f} %")
    sys.exit(bool(errors) or max(growth.values()) > MOST_GROWTH)


if __name__ == "__main__":
    main()
