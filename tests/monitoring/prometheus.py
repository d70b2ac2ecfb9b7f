"""A real Prometheus over a cluster under test."""

import json
import os
import shutil
import subprocess
import tempfile
import urllib.error
import urllib.parse
import urllib.request

import yaml

from tests.operate.cluster import DIES_WITH_US, ROOT, await_true, free_port

TOOLS = os.environ.get("SAUVA_PROMETHEUS", "")  # folder of prometheus and promtool


def tool(name):
    path = os.path.join(TOOLS, name) if TOOLS else shutil.which(name)
    assert path and os.path.exists(path), f"{name} is not there; run scripts/check_monitoring.sh"
    return path


def complaints(page):
    """What promtool finds wrong with a page of metrics; empty: nothing."""
    done = subprocess.run([tool("promtool"), "check", "metrics"], input=page, capture_output=True,
                          text=True, check=False)
    said = done.stdout + done.stderr
    return said or (f"exit code {done.returncode}" if done.returncode else "")


def rules():
    with open(os.path.join(ROOT, "monitoring/rules.yaml"), encoding="utf-8") as file:
        return yaml.safe_load(file)


def dashboards():
    folder = os.path.join(ROOT, "monitoring/dashboards")
    for name in sorted(os.listdir(folder)):
        with open(os.path.join(folder, name), encoding="utf-8") as file:
            yield name, json.load(file)


def overview_panels():
    """(dashboard, panel) of the overview, without rows."""
    for name, dashboard in dashboards():
        if name == "overview.json":
            yield from ((name, panel) for panel in dashboard["panels"] if panel["type"] != "row")


def panel_queries():
    """(dashboard, panel, query) of every target of every panel."""
    for name, dashboard in dashboards():
        for panel in dashboard["panels"]:
            for target in panel.get("targets", []):
                yield name, panel["title"], target["expr"]


# Rules look back over minutes; a test has seconds.
SHORTER = {"5m": "6s", "15m": "40s", "30m": "8s", "1h": "10s", "6h": "12s",
           "1m": "1s", "2m": "1s", "10m": "2s"}


def shortened(text):
    """The rules with ranges, offsets and `for` of seconds; the logic stays."""
    out = yaml.safe_load(text)
    for group in out["groups"]:
        for rule in group["rules"]:
            for long, short in SHORTER.items():
                rule["expr"] = rule["expr"].replace(f"[{long}]", f"[{short}]")
                rule["expr"] = rule["expr"].replace(f"offset {long}", f"offset {short}")
            rule["expr"] = rule["expr"].replace("> 5400", "> 1")
            if "for" in rule:
                rule["for"] = SHORTER[rule["for"]] if rule["for"] != "5m" else "1s"
    return yaml.safe_dump(out)


class Prometheus:
    """Scrapes the cluster's services twice a second, stopped with the context."""

    def __init__(self, services):
        self.folder = tempfile.mkdtemp(prefix="sauva-prometheus-")
        self.address = f"127.0.0.1:{free_port()}"
        with open(os.path.join(ROOT, "monitoring/rules.yaml"), encoding="utf-8") as file:
            text = shortened(file.read())
        with open(os.path.join(self.folder, "rules.yaml"), "w", encoding="utf-8") as file:
            file.write(text)
        config = {"global": {"scrape_interval": "500ms", "scrape_timeout": "400ms",
                             "evaluation_interval": "500ms"},
                  "rule_files": ["rules.yaml"],
                  "scrape_configs": [{"job_name": "sauva", "static_configs": [
                      {"targets": [service.metrics],
                       "labels": {"role": service.role, "namespace": "test"}}
                      for service in services]}]}
        self.config = os.path.join(self.folder, "prometheus.yaml")
        with open(self.config, "w", encoding="utf-8") as file:
            yaml.safe_dump(config, file)
        self.process = None

    def __enter__(self):
        subprocess.run([tool("promtool"), "check", "config", self.config], check=True,
                       stdout=subprocess.DEVNULL)
        log = open(os.path.join(self.folder, "log"), "wb")
        self.process = subprocess.Popen(
            [*DIES_WITH_US, tool("prometheus"), f"--config.file={self.config}",
             f"--storage.tsdb.path={self.folder}/data", f"--web.listen-address={self.address}"],
            stdout=log, stderr=log)
        log.close()
        await_true(self.is_up, message="prometheus does not start")
        return self

    def __exit__(self, *_):
        self.process.kill()
        self.process.wait()
        shutil.rmtree(self.folder, ignore_errors=True)

    def is_up(self):
        try:
            with urllib.request.urlopen(f"http://{self.address}/-/ready", timeout=2) as page:
                return page.status == 200
        except OSError:
            return False

    def get(self, path, **arguments):
        url = f"http://{self.address}/api/v1/{path}?{urllib.parse.urlencode(arguments)}"
        try:
            with urllib.request.urlopen(url, timeout=10) as page:
                return json.load(page)["data"]
        except urllib.error.HTTPError as error:
            raise AssertionError(f"{arguments}: {error.read().decode()}") from error

    def query(self, expression):
        """[(labels, value)] now."""
        return [(item["metric"], float(item["value"][1]))
                for item in self.get("query", query=expression)["result"]]

    def ever(self, expression, begin, end, step=1):
        """The series an expression had between two times."""
        return self.get("query_range", query=expression, start=begin, end=end, step=step)["result"]

    def firing(self):
        return {alert["labels"]["alertname"] for alert in self.get("alerts")["alerts"]
                if alert["state"] == "firing"}

    def summaries(self):
        """What a person would read of the alerts that fire or are about to."""
        return {alert["annotations"]["summary"] for alert in self.get("alerts")["alerts"]}
