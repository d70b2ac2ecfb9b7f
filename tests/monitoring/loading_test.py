"""A worker that loads is scraped again and again: every page is right, at once, and goes on from the
last one."""

import re
import tempfile
import time
import unittest

from tests.monitoring.prometheus import complaints
from tests.operate.cluster import Service, await_true
from tests.operate.large_model import large_zero_model

FEWEST_ROUNDS = 5
LONGEST_SCRAPE_SECONDS = 2  # Prometheus gives up after 10; other programs may be busy here


def counters(page):
    """{series: value} of the counters, and of the counts of histograms."""
    names = set(re.findall(r"^# TYPE (\S+) counter$", page, re.M))
    names |= {name + "_count" for name in re.findall(r"^# TYPE (\S+) histogram$", page, re.M)}
    lines = (line.rsplit(" ", 1) for line in page.splitlines() if not line.startswith("#"))
    return {series: float(value) for series, value in lines if series.split("{")[0] in names}


class LoadingTest(unittest.TestCase):
    def setUp(self):
        self.services = []
        folder = tempfile.TemporaryDirectory(prefix="sauva-loading-")
        self.addCleanup(folder.cleanup)
        self.addCleanup(lambda: [service.kill() for service in self.services])
        self.folder = folder.name

    def start(self, role, *flags):
        service = Service(role, flags, self.folder)
        self.services.append(service)
        return service.start()

    def test_pages_are_right_at_any_moment_of_a_load(self):
        model = large_zero_model(self.folder)
        coordinator = self.start("coordinator", "--model", model, "--weights", "int8",
                                 "--expect-workers", "1")
        known = ["--coordinator", coordinator.address]
        self.start("gateway", *known)
        worker = self.start("worker", "--model", model, "--threads", "1", "--memory", "3GiB", *known)
        await_true(lambda: worker.metric("sauva_epoch_number") > 0)
        last = {service: counters(service.scrape()) for service in self.services}
        rounds = 0
        while worker.metric("sauva_stage_serving") == 0:
            self.look_at_all(last)
            rounds += worker.metric("sauva_stage_serving") == 0
        self.assertGreaterEqual(rounds, FEWEST_ROUNDS, "it loaded too fast to be seen")
        self.look_at_all(last)

    def look_at_all(self, last):
        for service in self.services:
            begin = time.monotonic()
            page = service.scrape()
            self.assertLess(time.monotonic() - begin, LONGEST_SCRAPE_SECONDS, service.name)
            self.assertEqual(complaints(page), "", service.name)
            now = counters(page)
            for series, value in last[service].items():
                self.assertGreaterEqual(now[series], value, f"{service.name}: {series}")
            last[service] = now


if __name__ == "__main__":
    unittest.main()
