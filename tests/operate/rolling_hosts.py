#!/usr/bin/python3
"""The rolling restart over hosts that are network namespaces with a limited rate, their paths slow,
lossy and parted at times, or with `calm` as good as they are. Needs root.

usage: PYTHONPATH=. tests/operate/rolling_hosts.py [SECONDS [RATE [calm]]]    (120, 200mbit)
"""

import contextlib
import subprocess
import sys
import unittest

from tests.operate import rolling_test
from tests.operate.cluster import Cluster

BRIDGE = "sauva-br"
NET = "10.177.0"


def ip(*arguments, check=True):
    subprocess.run(["ip", *arguments], check=check, stderr=None if check else subprocess.DEVNULL)


class Hosts:
    """A bridge with this machine at .1 and one namespace per host from .11 on."""

    def __init__(self, number, rate):
        self.rate = rate
        self.names = [f"sauva-h{i}" for i in range(number)]

    def address(self, index):
        return f"{NET}.{11 + index}"

    def __enter__(self):
        self.remove()
        ip("link", "add", BRIDGE, "type", "bridge")
        ip("address", "add", f"{NET}.1/24", "dev", BRIDGE)
        ip("link", "set", BRIDGE, "up")
        for index, name in enumerate(self.names):
            outside, inside = f"sauva-o{index}", f"sauva-i{index}"
            ip("netns", "add", name)
            ip("link", "add", outside, "type", "veth", "peer", "name", inside, "netns", name)
            ip("link", "set", outside, "master", BRIDGE, "up")
            ip("-n", name, "address", "add", f"{self.address(index)}/24", "dev", inside)
            for device in (inside, "lo"):
                ip("-n", name, "link", "set", device, "up")
            # What the host sends and what it receives.
            for prefix, device in ((["ip", "netns", "exec", name], inside), ([], outside)):
                subprocess.run([*prefix, "tc", "qdisc", "add", "dev", device, "root", "tbf", "rate",
                                self.rate, "burst", "64kb", "latency", "100ms"], check=True)
        return self

    def remove(self):
        for name in self.names:
            ip("netns", "delete", name, check=False)
        ip("link", "delete", BRIDGE, check=False)

    def __exit__(self, *_):
        self.remove()


class RollingHostsTest(unittest.TestCase):
    seconds = 120.0
    rate = "200mbit"
    calm = False

    def test_no_request_is_lost_or_altered(self):
        cluster = Cluster(workers=3, gateways=2, coordinator_flags=["--stages", "2", "--spares", "1"])
        with Hosts(len(cluster.all()), self.rate) as hosts:
            for index, service in enumerate(cluster.all()):
                service.prefix = ["ip", "netns", "exec", hosts.names[index]]
                service.listen = service.metrics = service.health = f"{hosts.address(index)}:0"
                service.flags = [*service.flags, "--insecure"]
            paths = contextlib.nullcontext() if self.calm else rolling_test.Paths(cluster, f"{NET}.1")
            with paths, cluster:
                for worker in cluster.workers:
                    worker.await_ready()
                print(f"{len(hosts.names)} hosts of {self.rate}, {self.seconds:.0f} s:", flush=True)
                if self.calm:
                    rolling_test.roll(self, cluster, self.seconds, lambda _: None)
                    return
                print(f"paths {1e3 * paths.DELAY:.0f} ms later and {100 * paths.LOSS:.1f} % lost each way")
                rolling_test.roll(self, cluster, self.seconds, paths.trouble)
                print(f"{paths.num_parted} times a path was parted for {paths.PARTED_SECONDS} s")


if __name__ == "__main__":
    if len(sys.argv) > 1:
        RollingHostsTest.seconds = float(sys.argv[1])
    if len(sys.argv) > 2:
        RollingHostsTest.rate = sys.argv[2]
    RollingHostsTest.calm = "calm" in sys.argv[3:]
    unittest.main(argv=sys.argv[:1], verbosity=2)
