"""Plots of a run: per table horizontal bars on a logarithmic scale, fast on top; ours in colour."""

from __future__ import annotations

import textwrap
from itertools import groupby
from pathlib import Path
from typing import Any

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from rounds import duration

NAMES = {"R": "reads", "N": "wakes", "W": "writes", "J": "bodies", "A": "attaches", "S": "growth"}
OURS, PEER = "#0b6e4f", "#b8bfc6"
OUR_WORDS = ("candles(", "view(", "last_close", "live", "panel(", "attach", "Series.", "Feed.", "Writer.", "candleshm")
ROW_INCHES, HEAD_INCHES = 0.3, 0.85

# The same run draws the same file.
matplotlib.rcParams.update({"svg.hashsalt": "candleshm", "svg.fonttype": "none", "font.size": 9})


def draw(tables: list[dict[str, Any]], folder: Path) -> list[Path]:
    """Write one SVG per workload into the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    paths = []
    for workload, group in groupby(tables, key=lambda table: table["workload"]):
        found = list(group)
        heights = [HEAD_INCHES + ROW_INCHES * len(table["rows"]) for table in found]
        figure = Figure(figsize=(9.5, sum(heights)), layout="constrained")
        axes = figure.subplots(len(found), 1, squeeze=False, height_ratios=heights)
        for axis, table in zip(axes[:, 0], found, strict=True):
            _bars(axis, table)
        paths.append(folder / f"{NAMES[workload]}.svg")
        figure.savefig(paths[-1], metadata={"Date": None})
    return paths


def _bars(axis: Axes, table: dict[str, Any]) -> None:
    # Growth is read in the order of what grows.
    rows = table["rows"][::-1] if table["workload"] == "S" else sorted(table["rows"], key=lambda row: -row["p50_ns"])
    times = [row["p50_ns"] for row in rows]
    colours = [OURS if row["name"].startswith(OUR_WORDS) else PEER for row in rows]
    bars = axis.barh([row["name"] for row in rows], times, color=colours, height=0.7)
    labels = [duration(row["p50_ns"]) + (f", {row['torn']} torn" if row["torn"] else "") for row in rows]
    axis.bar_label(bars, labels, padding=4)
    axis.set_xscale("log")
    axis.set_xlim(min(times) / 3, max(times) * 8)
    title = textwrap.fill(f"{table['title']}: p50", 88)
    axis.set_title(title, loc="left", fontsize=9, fontweight="bold")
    axis.xaxis.set_major_formatter(lambda value, _: duration(value))
    axis.minorticks_off()
    axis.tick_params(axis="y", length=0)
    axis.spines[["top", "right", "left"]].set_visible(False)
