#!/usr/bin/env python3
"""Draws the overview dashboard from what a Prometheus remembers, as one PNG for the docs.

usage: render_overview.py DATA.json OUT.png    (DATA: {"begin", "panels": [{"title", "unit",
       "series": [{"legend", "values"}]}], "events": [[time, name]]}, written by
       tests/monitoring/live_test.py where SAUVA_OVERVIEW_DATA says)
"""

import json
import math
import sys

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt  # noqa: E402


def main():
    with open(sys.argv[1], encoding="utf-8") as file:
        data = json.load(file)
    panels, begin = data["panels"], data["begin"]
    columns = 4
    rows = math.ceil(len(panels) / columns)
    figure, axes = plt.subplots(rows, columns, figsize=(4.4 * columns, 2.5 * rows), squeeze=False)
    for axis in axes.flat[len(panels):]:
        axis.axis("off")
    for axis, panel in zip(axes.flat, panels):
        for series in panel["series"]:
            times = [float(time) - begin for time, _ in series["values"]]
            axis.plot(times, [float(value) for _, value in series["values"]], linewidth=1,
                      label=series["legend"][:28])
        axis.set_title(f"{panel['title']} ({panel['unit']})", fontsize=8, pad=10)
        axis.tick_params(labelsize=6)
        axis.set_ylim(bottom=0)
        for number, (time, _) in enumerate(data["events"], 1):
            axis.axvline(time - begin, color="lightgrey", linewidth=0.7, zorder=0)
            axis.text(time - begin, 1.01, number, fontsize=5, color="grey",
                      transform=axis.get_xaxis_transform())
        if any(series["legend"] for series in panel["series"]):
            axis.legend(fontsize=4, loc="upper left")
    names = "   ".join(f"{number} {name}" for number, (_, name) in enumerate(data["events"], 1))
    figure.supxlabel("seconds; " + names, fontsize=8)
    figure.tight_layout()
    figure.savefig(sys.argv[2], dpi=80)


if __name__ == "__main__":
    main()
