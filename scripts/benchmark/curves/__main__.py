"""Trains with states in float32 and in bfloat16, by several seeds: a table, and a picture of the
curves."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

from benchmark.curves.tasks import TASKS
from benchmark.machine import describe, where_and_when

OPTIMIZERS: dict[str, tuple[dict[str, Any], dict[str, float]]] = {
    "Adam": ({"name": "adam"}, {"digits": 3e-3, "factors": 1e-2, "characters": 2e-3}),
    "momentum": ({"name": "sgd", "momentum": 0.9}, {"digits": 5e-2, "factors": 2.0, "characters": 1e-1}),
}
LAST = 0.05  # of the steps, whose mean is the final loss
COLORS = {"float32": "#1f5fd0", "bfloat16": "#ff7f0e"}
DASHES = {"float32": "-", "bfloat16": "--"}

Curves = dict[tuple[str, str, str], np.ndarray]  # of optimizer, task and dtype: a row for each seed


def trained(seeds: int, share: float) -> Curves:
    """All curves. `share` of the usual steps."""
    found: Curves = {}
    for optimizer, (options, rates) in OPTIMIZERS.items():
        for task, rate in rates.items():
            for dtype in COLORS:
                run, steps = TASKS[task]
                given = {**options, "learning_rate": rate, "state_dtype": dtype}
                curves = [run(seed, given | {"seed": seed}, max(20, int(steps * share))) for seed in range(seeds)]
                found[optimizer, task, dtype] = np.array(curves)
    return found


def final(curves: np.ndarray) -> np.ndarray:
    """The final loss of each seed."""
    losses: np.ndarray = curves[:, -max(1, int(LAST * curves.shape[1])) :].mean(1)
    return losses


def table(curves: Curves) -> str:
    """The final losses, as Markdown."""
    head = ("", "float32: mean [min, max]", "bfloat16: mean [min, max]", "mean / mean", "within")
    lines = [head, ("---", *["---:"] * 3, "---")]
    for optimizer, task, dtype in curves:
        if dtype == "float32":
            wide, narrow = (final(curves[optimizer, task, each]) for each in COLORS)
            cells = [f"{x.mean():.4f} [{x.min():.4f}, {x.max():.4f}]" for x in (wide, narrow)]
            within = "yes" if wide.min() <= narrow.mean() <= wide.max() else "no"
            lines.append((f"{optimizer}, {task}", *cells, f"{narrow.mean() / wide.mean():.4f}", within))
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def save(curves: Curves, path: Path, about: str) -> None:
    """A panel for each optimizer and task: the mean of the seeds, and from the least to the largest
    of them. Below them `about`: where and when."""
    import matplotlib as mpl

    mpl.use("Agg")
    from matplotlib import pyplot as plt

    pairs = list(dict.fromkeys((optimizer, task) for optimizer, task, _ in curves))
    rows = len({optimizer for optimizer, _ in pairs})
    columns = len(pairs) // rows
    figure, axes = plt.subplots(rows, columns, figsize=(3.2 * columns, 2.7 * rows), layout="constrained", squeeze=False)
    for axis, (optimizer, task) in zip(axes.flat, pairs, strict=True):
        for dtype, color in COLORS.items():
            found = curves[optimizer, task, dtype]
            width = max(1, found.shape[1] // 60)
            smooth = found[:, : found.shape[1] // width * width].reshape(len(found), -1, width).mean(2)
            at = (np.arange(smooth.shape[1]) + 0.5) * width
            axis.fill_between(at, smooth.min(0), smooth.max(0), color=color, alpha=0.25, linewidth=0)
            axis.plot(at, smooth.mean(0), DASHES[dtype], color=color, label=f"{dtype} states")
        axis.set_yscale("log")
        axis.set_title(f"{optimizer}, {task}", fontsize=10)
        axis.set_xlabel("step", fontsize=9)
        axis.tick_params(labelsize=8)
    for axis in axes[:, 0]:
        axis.set_ylabel("training loss", fontsize=9)
    axes[0, 0].legend(fontsize=8)
    figure.supxlabel(about, fontsize=9)
    figure.savefig(path, dpi=110)


def main() -> int:
    p = argparse.ArgumentParser(prog="scripts/bench curves", description=__doc__)
    p.add_argument("--seeds", type=int, default=5, help="(%(default)s)")
    p.add_argument("--share", type=float, default=1.0, help="of the steps, to try things")
    p.add_argument("--plot", type=Path, metavar="FILE", help="write a picture (PNG)")
    options = p.parse_args()
    curves = trained(options.seeds, options.share)
    print(table(curves))
    if options.plot:
        save(curves, options.plot, where_and_when(describe()))
    return 0


if __name__ == "__main__":
    raise SystemExit(main())
