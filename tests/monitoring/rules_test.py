"""promtool on the rules; dashboards, runbooks and rules name the same things."""

import json
import os
import re
import subprocess
import sys
import tempfile
import unittest

import yaml

from tests.monitoring import make_rules_test
from tests.monitoring.prometheus import ROOT, dashboards, panel_queries, rules, tool

RULES = os.path.join(ROOT, "monitoring/rules.yaml")


def alerts():
    return [rule for group in rules()["groups"] for rule in group["rules"] if "alert" in rule]


class RulesTest(unittest.TestCase):
    def test_promtool_accepts_the_rules(self):
        subprocess.run([tool("promtool"), "check", "rules", RULES], check=True, capture_output=True)

    def test_promtool_accepts_the_scrape_configuration(self):
        with open(os.path.join(ROOT, "monitoring/prometheus.yaml"), encoding="utf-8") as file:
            config = yaml.safe_load(file)
        config["rule_files"] = [os.path.join(ROOT, "monitoring", name) for name in config["rule_files"]]
        for job in config["scrape_configs"]:
            # Debian's promtool is built without Kubernetes.
            self.assertEqual(job.pop("kubernetes_sd_configs"), [{"role": "pod"}])
        with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
            yaml.safe_dump(config, file)
            file.flush()
            done = subprocess.run([tool("promtool"), "check", "config", file.name], check=False,
                                  capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_each_alert_is_silent_when_all_is_well_and_fires_for_its_fault(self):
        with tempfile.NamedTemporaryFile("w", suffix=".json") as file:
            subprocess.run([sys.executable, make_rules_test.__file__, RULES], check=True,
                           stdout=file)
            file.flush()
            done = subprocess.run([tool("promtool"), "test", "rules", file.name], check=False,
                                  capture_output=True, text=True)
        self.assertEqual(done.returncode, 0, done.stdout + done.stderr)

    def test_no_alert_is_without_a_fault(self):
        tested = set().union(*(fired for _, _, fired in make_rules_test.FAULTS))
        self.assertEqual({alert["alert"] for alert in alerts()}, tested)

    def test_each_alert_has_a_runbook_that_names_it(self):
        pages = set()
        for alert in alerts():
            page = alert["annotations"]["runbook"]
            pages.add(os.path.basename(page))
            with open(os.path.join(ROOT, page), encoding="utf-8") as file:
                text = file.read()
            self.assertIn(alert["alert"], text.splitlines()[0])
            for part in ("What it means", "How to confirm", "What to do"):
                self.assertIn(f"## {part}", text)
            self.assertIn(alert["labels"]["severity"], ("warning", "critical"))
        self.assertEqual(pages, set(os.listdir(os.path.join(ROOT, "docs/runbooks"))))


class RunbooksTest(unittest.TestCase):
    def test_lines_of_logs_that_they_quote_are_written_by_a_process(self):
        sources = ""
        for folder in ("base", "coordinator", "gateway", "net", "worker"):
            for name in os.listdir(os.path.join(ROOT, folder)):
                if name.endswith(".cc"):
                    with open(os.path.join(ROOT, folder, name), encoding="utf-8") as file:
                        sources += file.read()
        quoted = set()
        for name in os.listdir(os.path.join(ROOT, "docs/runbooks")):
            with open(os.path.join(ROOT, "docs/runbooks", name), encoding="utf-8") as file:
                text = re.sub(r"```.*?```", "", file.read(), flags=re.S)
            # Words in lower case are of a log; commands have other signs, or these beginnings.
            quoted |= {" ".join(words.split()) for words in
                       re.findall(r"`((?!kubectl|sauva )[a-z;]+(?:\s+[a-z;]+)+)`", text)}
        self.assertGreater(len(quoted), 5)
        self.assertEqual({words for words in quoted if f'"{words}' not in sources}, set())


class DashboardsTest(unittest.TestCase):
    def test_files_are_what_the_script_makes(self):
        subprocess.run([sys.executable, os.path.join(ROOT, "monitoring/make_dashboards.py"),
                        "--check"], check=True)

    def test_variables_are_there_and_used(self):
        for name, dashboard in dashboards():
            variables = [variable["name"] for variable in dashboard["templating"]["list"]]
            self.assertEqual(variables, ["datasource", "namespace", "model"], name)
            self.assertIn("$namespace", json.dumps(dashboard["panels"]))
        for name, title, query in panel_queries():
            self.assertIn("$namespace", query, f"{name}: {title}")

    def test_metrics_are_written_down(self):
        with open(os.path.join(ROOT, "monitoring/metrics.md"), encoding="utf-8") as file:
            written = set(re.findall(r"^\| `([a-z0-9_]+)`", file.read(), re.M))
        queries = [query for _, _, query in panel_queries()]
        queries += [rule["expr"] for group in rules()["groups"] for rule in group["rules"]]
        for query in queries:
            for name in re.findall(r"\b(?:sauva|process)_[a-z0-9_]+", query):
                base = re.sub(r"_(bucket|sum|count)$", "", name)
                self.assertTrue({name, base} & written, f"{name} is not in monitoring/metrics.md")


if __name__ == "__main__":
    unittest.main()
