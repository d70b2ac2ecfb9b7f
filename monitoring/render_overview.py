#!/usr/bin/env python3
"""Draws the overview dashboard from what a Prometheus remembers, as one PNG for the docs.

usage: render_overview.py DATA.json OUT.png    (DATA: [{"title", "unit", "series": [{"metric",
       "values"}]}], written by tests/monitoring/live_test.py where SAUVA_OVERVIEW_DATA says)
"""

import json
import math
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def label(metric):
    names = {key: value for key, value in metric.items()
             if key not in ("__name__", "job", "namespace")}
    return " ".join(names.values())[:28]


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        panels = json.load(file)
    columns = 4
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 2.5 * rows), squeeze=False)
    begin = min(float(point[0]) for panel in panels for series in panel["series"]
                for point in series["values"])
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels):
        for series in panel["series"]:
            times = [float(time) - begin for time, _ in series["values"]]
            axis.plot(times, [float(value) for _, value in series["values"]], linewidth=1,
                      label=label(series["metric"]))
        axis.set_title(f"{panel['title']} ({panel['unit']})", fontsize=8)
        axis.tick_params(labelsize=6)
        axis.set_ylim(bottom=0)
        if len(panel["series"]) > 1 and all(label(s["metric"]) for s in panel["series"]):
            axis.legend(fontsize=4, loc="upper left")
    figure.supxlabel("seconds", fontsize=8)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
