"""The benchmark as a picture: time as a multiple of the limit, a kernel that only touches the same
arrays."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

from benchmark.cases import KINDS
from benchmark.driver import Result
from benchmark.rows import OPTIMIZERS
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

Ratios = dict[str, dict[str, dict[str, float]]]  # kind -> optimizer -> system -> time / limit


def ratios(rows: Sequence[Result]) -> Ratios:
    """The times of rows as multiples of their limits."""
    found: Ratios = {}
    for row in rows:
        mine = {system: ratio for system in row.systems if (ratio := row.ratio(system)) is not None}
        found.setdefault(row.kind, {})[row.optimizer] = mine
    return found


def save(found: Ratios, path: Path, about: str) -> None:
    """Writes a panel for each kind, and below them where and when that was measured. Kinds whose
    limit wasn't measured are left out, and those without a peer where others have some."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    panels = {kind: found[kind] for kind in KINDS if kind not in NOT_SHOWN and _with(found.get(kind, {}), "limit")}
    peers = [name for name in LOOKS if name != "mxopt"]
    with_peers = {kind: mine for kind, mine in panels.items() if any(_with(mine, peer) for peer in peers)}
    panels = with_peers or panels
    if not panels:
        raise ValueError("there is nothing to plot: no row has a limit")
    wide = min(COLUMNS_OF_PANELS, len(panels))
    high = -(-len(panels) // wide)
    most = max(len(mine) for mine in panels.values())
    figure, axes = plt.subplots(
        high, wide, figsize=(3.6 * wide, high * (1.4 + INCHES_PER_ROW * most)), squeeze=False, layout="constrained"
    )
    for axis, (kind, mine) in zip(axes.flat, panels.items(), strict=False):
        _panel(axis, KINDS[kind].title, mine)
    for axis in axes.flat[len(panels) :]:
        axis.set_visible(False)
    handles = {
        label: handle for axis in axes.flat for handle, label in zip(*axis.get_legend_handles_labels(), strict=True)
    }
    figure.legend(handles.values(), handles.keys(), loc="outside upper center", ncols=len(handles), frameon=False)
    note = "time / limit; a row without a peer's mark: not measured there, or it has none"
    figure.supxlabel(f"{note}\n{about}", fontsize=9)
    figure.savefig(path, dpi=130)
    plt.close(figure)


def _with(rows: dict[str, dict[str, float]], system: str) -> bool:
    return any(system in row for row in rows.values())


def _panel(axis: Any, title: str, rows: dict[str, dict[str, float]]) -> None:
    names = sorted(rows, key=list(OPTIMIZERS).index, reverse=True)
    axis.axvline(1, color="black", linewidth=1)
    axis.text(1, len(names) - 0.25, "limit of memory", fontsize=7, ha="center", va="bottom")
    for system, (colour, marker) in LOOKS.items():
        found = [(rows[name][system], y) for y, name in enumerate(names) if system in rows[name]]
        if found:
            x, y = zip(*found, strict=True)
            # mxopt in front, and smaller, so that a peer beside it at the limit shows too.
            size, front = (18, 4) if system == "mxopt" else (34, 3)
            axis.scatter(x, y, s=size, color=colour, marker=marker, label=COLUMNS[system], zorder=front, alpha=0.9)
    axis.set_xscale("log")
    axis.set_xlim(min(0.6, 0.8 * axis.dataLim.x0), max(12, 1.5 * axis.dataLim.x1))
    axis.xaxis.set_major_formatter(lambda x, position: f"{x:g}")
    axis.xaxis.set_minor_formatter(lambda x, position: "")
    axis.set_yticks(range(len(names)), names, fontsize=8)
    axis.set_ylim(-0.7, len(names) - 0.3)
    axis.grid(axis="both", color="0.9", linewidth=0.6)
    axis.set_axisbelow(True)
    axis.set_title(title, fontsize=9, pad=14)
    axis.spines[["top", "right"]].set_visible(False)
