"""The report's plots, small PNG files: points, a line or a bar with its 95 % interval for each order."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
import matplotlib.pyplot as plt
from matplotlib.ticker import LogLocator, NullFormatter, StrMethodFormatter

from experiments.study.intervals import Interval

COLOURS = {
    "inverted": "#1f77b4",
    "forward": "#d62728",
    "endpoints": "#2ca02c",
    "world": "#555555",
    "vae": "#aaaaaa",
    "inverted, sees the world": "#9ecae1",
    "forward, sees the world": "#fcae91",
}
DPI = 80

Line = Sequence[tuple[float, Interval]]  # (x, value with its interval)
Curve = Sequence[tuple[float, float]]


def bars(path: Path, values: Mapping[str, Interval], wanted: float, title: str) -> None:
    """Horizontal bars from 0 to 1, with a line at the goal."""
    figure, axes = plt.subplots(figsize=(8, 0.4 * len(values) + 1))
    names = list(values)[::-1]
    places = [values[name] for name in names]
    errors = [[p.value - p.low for p in places], [p.high - p.value for p in places]]
    colours = [COLOURS.get(name.split()[0], "#888888") for name in names]
    axes.barh(names, [p.value for p in places], xerr=errors, color=colours, alpha=0.8, capsize=3)
    axes.axvline(wanted, color="black", linestyle=":", linewidth=1)
    axes.set_xlim(0, 1)
    axes.set_title(title, fontsize=10)
    _save(figure, path)


def panels(path: Path, lines: Mapping[str, Mapping[str, Line]], x_label: str, columns: int = 3) -> None:
    """One panel per measure, from `lines[measure][source]`."""
    rows = -(-len(lines) // columns)
    figure, grid = plt.subplots(rows, columns, figsize=(3.4 * columns, 2.5 * rows), squeeze=False)
    for axes, (measure, sources) in zip(grid.flat, lines.items(), strict=False):
        for source, line in sources.items():
            _draw(axes, source, [(x, y) for x, y in line if y.videos])
        axes.set_title(measure, fontsize=9)
        axes.set_xlabel(x_label, fontsize=8)
        axes.tick_params(labelsize=7)
    for axes in grid.flat[len(lines) :]:
        axes.axis("off")
    handles, names = grid.flat[0].get_legend_handles_labels()
    figure.legend(handles, names, loc="lower center", ncol=len(names), fontsize=8, frameon=False)
    figure.tight_layout(rect=(0, 0.04, 1, 1))
    _save(figure, path, tight=False)


def series(path: Path, values: Mapping[str, Mapping[str, Sequence[float]]], x_label: str) -> None:
    """One panel per measure, with a plain line for each source."""
    figure, grid = plt.subplots(1, len(values), figsize=(4 * len(values), 2.6), squeeze=False)
    for axes, (measure, sources) in zip(grid.flat, values.items(), strict=True):
        for source, line in sources.items():
            axes.plot(range(1, len(line) + 1), line, color=COLOURS.get(source), label=source, linewidth=1.2)
        axes.set_ylim(bottom=0)
        axes.set_title(measure, fontsize=9)
        axes.set_xlabel(x_label, fontsize=8)
        axes.tick_params(labelsize=7)
        axes.legend(fontsize=7, frameon=False)
    _save(figure, path)


def growth(path: Path, points: Mapping[str, Line], curves: Mapping[str, Curve], wanted: float, title: str) -> None:
    """Points with their intervals after training steps, and the curves through them, with a line at the goal."""
    figure, axes = plt.subplots(figsize=(8, 3.2))
    for source, line in points.items():
        values = [y for _, y in line]
        errors = [[y.value - y.low for y in values], [y.high - y.value for y in values]]
        colour = COLOURS.get(source)
        axes.errorbar([x for x, _ in line], [y.value for y in values], errors, color=colour, fmt="o", capsize=3, markersize=4)
        axes.plot(*zip(*curves[source], strict=True), color=colour, label=source, linewidth=1.2)
    axes.axhline(wanted, color="black", linestyle=":", linewidth=1)
    axes.set_xscale("log")
    axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
    axes.xaxis.set_major_formatter(StrMethodFormatter("{x:,.0f}"))
    axes.xaxis.set_minor_formatter(NullFormatter())
    axes.set_ylim(0, 1)
    axes.set_title(title, fontsize=10)
    axes.set_xlabel("training steps", fontsize=8)
    axes.tick_params(labelsize=8)
    axes.legend(fontsize=8, frameon=False, loc="lower right")
    _save(figure, path)


def _draw(axes, source: str, line: Line) -> None:
    xs, ys = [x for x, _ in line], [y for _, y in line]
    axes.plot(xs, [y.value for y in ys], color=COLOURS.get(source), label=source, marker="o", markersize=2.5, linewidth=1.2)
    axes.fill_between(xs, [y.low for y in ys], [y.high for y in ys], color=COLOURS.get(source), alpha=0.12, linewidth=0)


def _save(figure, path: Path, tight: bool = True) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    if tight:
        figure.tight_layout()
    figure.savefig(path, dpi=DPI, metadata={"Software": None})
    plt.close(figure)
