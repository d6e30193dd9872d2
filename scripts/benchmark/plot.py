"""The benchmark as a picture: time as a multiple of the limit, a kernel that only touches the same arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import matplotlib as mpl

mpl.use("Agg")
from matplotlib import pyplot as plt
from matplotlib.axes import Axes

from benchmark.cases import KINDS, OPTIMIZERS
from benchmark.driver import Row
from benchmark.tables import COLUMNS

LOOKS = {
    "mindspore": ("#9467bd", "v"),
    "mxnet": ("#d62728", "s"),
    "optax": ("#2ca02c", "^"),
    "pytorch": ("#ff7f0e", "D"),
    "mxopt": ("#1f5fd0", "o"),
}
NOT_SHOWN = ("startup", "clipped", "busy")
COLUMNS_OF_PANELS = 4
INCHES_PER_ROW = 0.19


def save(rows: Sequence[Row], path: Path) -> None:
    """Writes a panel for each kind. Kinds whose limit wasn't measured are left out."""
    panels = {
        kind: mine
        for kind in KINDS
        if kind not in NOT_SHOWN and (mine := [r for r in rows if r.kind == kind and "limit" in r.systems])
    }
    if not panels:
        raise ValueError("there is nothing to plot: no row has a limit")
    wide = min(COLUMNS_OF_PANELS, len(panels))
    high = -(-len(panels) // wide)
    most = max(len(mine) for mine in panels.values())
    figure, axes = plt.subplots(
        high, wide, figsize=(3.6 * wide, high * (1.3 + INCHES_PER_ROW * most)), squeeze=False, layout="constrained"
    )
    for axis, (kind, mine) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, KINDS[kind].title, mine)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    figure.supxlabel("time / limit", fontsize=10)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _panel(axis: Axes, title: str, rows: Sequence[Row]) -> None:
    rows = sorted(rows, key=lambda row: list(OPTIMIZERS).index(row.optimizer), reverse=True)
    axis.axvline(1, color="black", linewidth=1)
    for system, (colour, marker) in LOOKS.items():
        found = [(ratio, y) for y, row in enumerate(rows) if (ratio := row.ratio(system)) is not None]
        if found:
            x, y = zip(*found, strict=True)
            axis.scatter(x, y, s=26, color=colour, marker=marker, label=COLUMNS[system], zorder=3, alpha=0.9)
    axis.set_xscale("log")
    axis.set_xlim(min(0.8, 0.8 * axis.dataLim.x0), max(12, 1.5 * axis.dataLim.x1))
    axis.xaxis.set_major_formatter(lambda x, position: f"{x:g}")
    axis.xaxis.set_minor_formatter(lambda x, position: "")
    axis.set_yticks(range(len(rows)), [row.optimizer for row in rows], fontsize=8)
    axis.set_ylim(-0.7, len(rows) - 0.3)
    axis.grid(axis="both", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(title, fontsize=9)
    axis.spines[["top", "right"]].set_visible(False)
