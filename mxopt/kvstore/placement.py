"""Where values are placed: large arrays are striped over all servers and travel in pieces; any
other is whole on one server."""

from __future__ import annotations

import itertools
import math
import zlib
from collections.abc import Sequence
from dataclasses import dataclass

from mxopt.kvstore.wire import PIECE_BYTES, Key
from mxopt.optimizer import Optimizer


@dataclass(frozen=True, slots=True)
class Stripe:
    """The units `start` to `stop` of an array, on server `server`; a piece has `step` units.

    A unit is a row where the array has several dimensions and its rows are no larger than a piece,
    else an element.
    """

    server: int
    start: int
    stop: int
    step: int

    @property
    def pieces(self) -> int:
        return max(1, -(-(self.stop - self.start) // self.step))

    def bounds(self, piece: int) -> tuple[int, int]:
        """The units of a piece, within the whole array."""
        start = self.start + piece * self.step
        return start, min(self.stop, start + self.step)


@dataclass(frozen=True, slots=True)
class Layout:
    """The places of an array's elements."""

    unit: int  # elements of a unit
    unit_shape: tuple[int, ...]
    stripes: tuple[Stripe, ...]
    by_rows: bool = False


def layout(key: Key, shape: Sequence[int], itemsize: int, servers: int, bound: int, whole: bool) -> Layout:
    """The layout of an array: one stripe for each server if it has `bound` elements or more and
    needn't be `whole`."""
    size = math.prod(shape)
    row = math.prod(shape[1:])
    by_row = len(shape) > 1 and 0 < row * itemsize <= PIECE_BYTES
    unit, unit_shape = (row, tuple(shape[1:])) if by_row else (1, ())
    count = size // unit
    step = step_of(unit * itemsize)
    if servers == 1 or whole or size < bound or count < servers:
        return Layout(unit, unit_shape, (Stripe(home(key, servers), 0, count, step),))
    edges = [count * s // servers for s in range(servers + 1)]
    return Layout(unit, unit_shape, tuple(Stripe(s, a, b, step) for s, (a, b) in enumerate(itertools.pairwise(edges))))


def layout_by_rows(key: Key, shape: Sequence[int], servers: int, whole: bool) -> Layout:
    """The layout of an array that is stored by rows: row k is on server k modulo their number, or
    all on one if it must be `whole`. Each stripe is of all rows."""
    holding = [home(key, servers)] if whole else range(servers)
    stripes = tuple(Stripe(server, 0, shape[0], shape[0]) for server in holding)
    return Layout(math.prod(shape[1:]), tuple(shape[1:]), stripes, by_rows=True)


def step_of(unit: int) -> int:
    """The units of `unit` bytes in a piece."""
    return max(1, PIECE_BYTES // unit) if unit else 1


def home(key: Key, servers: int) -> int:
    """The server of a key that isn't striped: the same on every worker and in every run."""
    return zlib.crc32(f"{type(key).__name__}:{key}".encode()) % servers


def needs_whole(optimizer: Optimizer | None, by_rows: bool = False) -> bool:
    """Whether an optimizer has to see whole arrays: norms, one state for each row, noise, or code
    of someone's own. `by_rows`: of arrays that are stored by rows."""
    return optimizer is not None and not (optimizer.rowwise if by_rows else optimizer.elementwise)
