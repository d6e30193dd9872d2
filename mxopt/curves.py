"""What a schedule will do, drawn: in the terminal, or as a picture."""

from __future__ import annotations

import copy
import io
import os
import sys
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError, counted
from mxopt.experimental.optim.lr_scheduler import LRScheduler, ReduceLROnPlateau
from mxopt.options import whole
from mxopt.typing import Plain

BLOCKS = " ▁▂▃▄▅▆▇█"
DRAWN = BLOCKS + "└┤│"
ASCII = str.maketrans(DRAWN, " ..::==##+||")


def curve(schedule: LRScheduler | Callable[[int], float], steps: int, metrics: Sequence[float] | None = None) -> Curve:
    """The rates of the next `steps` steps of a schedule, which goes on as if nothing had been
    asked.

    Parameters
    ----------
    schedule : LRScheduler of `mxopt.experimental.optim`, or of `mxopt.lr_scheduler`, or any
    function of the step
        The first from where it is now, the others from step 0.
    steps : int
        1 or more.
    metrics : sequence of float, optional
        What a `ReduceLROnPlateau` is to be told at each step: `steps` - 1 numbers.

    Raises
    ------
    ArgumentError
        `steps` is less than 1, or there are not enough metrics.

    >>> from mxopt.lr_scheduler import FactorScheduler
    >>> print(curve(FactorScheduler(step=10, factor=0.5, base_lr=0.4), 40).text(width=40, height=4))
    FactorScheduler
     0.4 ┤██████████
         │██████████
         │██████████████████
       0 └██████████████████████████▄▄▄▄▄▄▄
          0              20              39
    """
    steps = whole("steps", steps)
    name = getattr(schedule, "__name__", type(schedule).__name__)
    if isinstance(schedule, LRScheduler):
        return Curve(name, _run(schedule, steps, metrics))
    if not callable(schedule):
        raise ArgumentTypeError(f"a schedule is an LRScheduler or a function of the step, got {name}")
    return Curve(name, np.array([[float(schedule(step))] for step in range(steps)]))


def _run(schedule: LRScheduler, steps: int, metrics: Sequence[float] | None) -> np.ndarray:
    """Steps a twin of the schedule on groups of its own."""
    if isinstance(schedule, ReduceLROnPlateau) and (metrics is None or len(metrics) < steps - 1):
        raise ArgumentError(f"{type(schedule).__name__} follows metrics: give {steps - 1} of them")
    stand_in = _StandIn(schedule)
    memo = {id(schedule.optimizer): stand_in, id(schedule.groups): stand_in.param_groups}
    twin = copy.deepcopy(schedule, memo)
    rates = [[group["lr"] for group in stand_in.param_groups]]
    for step in range(steps - 1):
        twin.step(*([metrics[step]] if metrics is not None else []))
        rates.append([group["lr"] for group in stand_in.param_groups])
    return np.array(rates, np.float64)


class _StandIn:
    """An optimizer that has nothing but rates, in groups or a single one."""

    def __init__(self, schedule: LRScheduler) -> None:
        self.param_groups = [{k: group[k] for k in ("lr", "initial_lr") if k in group} for group in schedule.groups]

    @property
    def learning_rate(self) -> float:
        return float(self.param_groups[0]["lr"])

    def set_learning_rate(self, lr: float) -> None:
        self.param_groups[0]["lr"] = lr


class Curve:
    """The rates of some steps. Printed, it is a drawing; as the last expression of a notebook's
    cell it is a picture, or a drawing where there is no matplotlib.

    Attributes
    ----------
    title : str
    rates : array of shape (steps, groups), float64
    """

    def __init__(self, title: str, rates: np.ndarray) -> None:
        self.title = title
        self.rates = rates

    def text(self, width: int | None = None, height: int = 12) -> str:
        """A drawing in block characters, `width` columns wide, with `height` lines for each group.

        Without a `width` as wide as the terminal, up to 100. Where the standard output has no block
        characters, in ASCII.
        """
        drawing = self._drawing(width, height)
        return drawing if _has_blocks() else drawing.translate(ASCII)

    def _drawing(self, width: int | None, height: int) -> str:
        width = min(_columns(), 100) if width is None else width
        groups = self.rates.shape[1]
        titles = [self.title] if groups == 1 else [f"{self.title}, group {k}" for k in range(groups)]
        return "\n".join(f"{t}\n{_panel(self.rates[:, k], width, height)}" for k, t in enumerate(titles))

    def save(self, path: str | os.PathLike[str]) -> None:
        """Writes a picture of the kind that the name's ending says: .png, .svg, .pdf. Needs
        matplotlib."""
        try:
            figure = self._figure()
        except ImportError as error:
            raise ImportError("Curve.save needs matplotlib: pip install matplotlib") from error
        figure.savefig(path, dpi=150)

    def _figure(self) -> Any:
        from matplotlib.figure import Figure

        figure = Figure(figsize=(7, 3.5), layout="constrained")
        axes = figure.add_subplot()
        for k, rates in enumerate(self.rates.T):
            axes.plot(rates, drawstyle="steps-post", linewidth=2, label=f"group {k}")
        axes.set(title=self.title, xlabel="step", ylabel="learning rate")
        axes.set_xlim(0, max(1, len(self.rates) - 1))
        axes.set_ylim(bottom=min(0.0, float(self.rates.min())))
        axes.grid(alpha=0.3)
        axes.spines[["top", "right"]].set_visible(False)
        if self.rates.shape[1] > 1:
            axes.legend(frameon=False)
        return figure

    def _repr_mimebundle_(self, include: object = None, exclude: object = None) -> Plain:
        """What IPython and notebooks show."""
        shown: Plain = {"text/plain": str(self)}
        try:
            figure = self._figure()
        except ImportError:
            import html  # which begins with all names of characters

            shown["text/html"] = f"<pre>{html.escape(self._drawing(None, 12))}</pre>"
        else:
            figure.savefig(picture := io.BytesIO(), format="png", dpi=100)
            shown["image/png"] = picture.getvalue()
        return shown

    def __str__(self) -> str:
        return self.text()

    def __repr__(self) -> str:
        return f"<Curve of {self.title}, {counted(len(self.rates), 'step')}>"


def _has_blocks() -> bool:
    """Whether the standard output can show what is drawn; one without an encoding, of texts,
    can."""
    try:
        DRAWN.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return False
    return True


def _columns() -> int:
    try:
        return os.get_terminal_size().columns
    except OSError:
        return 80


def _panel(rates: np.ndarray, width: int, height: int) -> str:
    top = max(float(rates.max()), 0.0)
    scale = [f"{top:.3g}", f"{top / 2:.3g}" if height >= 6 and height % 2 == 0 else "", "0"]
    margin = max(map(len, scale)) + 1
    columns = max(8, width - margin - 3)
    at = np.arange(columns) * len(rates) // columns  # the first step of each column
    shown = np.maximum.reduceat(rates, at) if len(rates) > columns else rates[at]
    heights = np.clip(shown, 0, None) / (top or 1.0) * height * 8
    lines = []
    for line in range(height, 0, -1):
        label = {height: scale[0], height // 2: scale[1]}.get(line, "") if line > 1 else scale[2]
        axis = "└" if line == 1 else "┤" if label else "│"
        cells = (BLOCKS[int(np.clip(round(h) - 8 * (line - 1), 0, 8))] for h in heights)
        lines.append(f"{label:>{margin}} {axis}{''.join(cells)}".rstrip())
    last = len(rates) - 1
    middle, end = f"{len(rates) // 2}", f"{last}"
    ruler = [" "] * columns
    for start, label in ((0, "0"), ((columns - len(middle)) // 2, middle), (columns - len(end), end)):
        ruler[start : start + len(label)] = label
    return "\n".join([*lines, " " * (margin + 2) + "".join(ruler)])
