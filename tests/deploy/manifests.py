"""Renders the chart with Helm's engine and finds things in what comes out."""

import copy
import functools
import os

import helm_python
import yaml

ROOT = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
CHART = os.path.join(ROOT, "deploy/helm/sauva")
EXAMPLES = os.path.join(ROOT, "deploy/helm/examples")
NAMES = ("cpu_minimal", "one_gpu", "two_groups", "tls", "everything")


def example(name):
    with open(os.path.join(EXAMPLES, name + ".yaml"), encoding="utf-8") as file:
        return yaml.safe_load(file)


def merged(values, changes):
    """`values` with {"a.b.0.c": value} set."""
    values = copy.deepcopy(values)
    for path, value in changes.items():
        at = values
        *parents, last = [int(key) if key.isdigit() else key for key in path.split(".")]
        for key in parents:
            at = at.setdefault(key, {}) if isinstance(at, dict) else at[key]
        at[last] = value
    return values


@functools.cache
def load():
    return helm_python.Chart.load(CHART)


def render_texts(values):
    """What each template becomes, by its path."""
    chart = load()
    chart.validate_schema(values)
    return chart.render(values, name="demo", namespace="ml")


def render_notes(values):
    """What `helm install` prints."""
    (notes,) = [text for path, text in render_texts(values).items() if path.endswith("NOTES.txt")]
    return notes


def render(values):
    """The rendered objects, by (kind, name)."""
    objects = {}
    for path, text in render_texts(values).items():
        if not path.endswith(".yaml"):
            continue
        for item in yaml.safe_load_all(text):
            if item is None:
                continue
            key = (item["kind"], item["metadata"]["name"])
            assert key not in objects, f"{key} is rendered twice"
            objects[key] = item
    return objects


def workloads(objects):
    return [item for (kind, _), item in objects.items() if kind in ("Deployment", "StatefulSet")]


def pod(workload):
    return workload["spec"]["template"]["spec"]


def container(workload):
    containers = pod(workload)["containers"]
    assert len(containers) == 1
    return containers[0]


def flags(workload):
    """{"--listen": "0.0.0.0:7070", …}; None for a flag without a value."""
    result = {}
    for argument in container(workload)["args"]:
        name, separator, value = argument.partition("=")
        assert name not in result, f"{name} is given twice"
        result[name] = value if separator else None
    return result


def seconds(duration):
    assert duration.endswith("s") and duration[:-1].isdigit(), duration
    return int(duration[:-1])
