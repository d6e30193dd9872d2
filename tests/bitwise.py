"""Runs of optimizers that can be compared bit for bit: seeded arrays, memory layouts, updates,
comparisons."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from typing import Any

import numpy as np

import mxopt
from mxopt.document import dump_document, load_document
from mxopt.sparse import RowSparse

SPECIAL = [0.0, -0.0, np.inf, -np.inf, np.nan, 1e-42, -1e-42, 6e-8, 1e-310, 65504.0, 3e38, 1.0]


def array(rng: np.random.Generator, shape: Any, dtype: str, special: bool = False) -> np.ndarray:
    """Normal numbers; with `special`, some of them zeros, denormals, infinities and NaN."""
    x = rng.standard_normal(shape)
    if special:
        x = np.where(rng.random(shape) < 0.2, rng.choice(SPECIAL, shape), x)
    with np.errstate(all="ignore"):
        return np.asarray(x).astype(dtype)


def flat(state: Any) -> list[np.ndarray]:
    """The arrays of a state, whatever its nesting."""
    if state is None:
        return []
    return [x for part in state for x in flat(part)] if isinstance(state, tuple | list) else [state]


def copied(state: Any) -> Any:
    """A state of the same nesting, of arrays of its own."""
    if isinstance(state, tuple | list):
        return type(state)(copied(part) for part in state)
    return None if state is None else state.copy()


def assert_same_bits(ours: np.ndarray, theirs: np.ndarray, what: str = "") -> None:
    """Equal in dtype, shape and every bit, but for what a NaN carries."""
    assert (ours.dtype, ours.shape) == (theirs.dtype, theirs.shape), what
    words = f"u{ours.dtype.itemsize}"
    nans = np.isnan(ours)
    same = (np.ascontiguousarray(ours).view(words) == np.ascontiguousarray(theirs).view(words)) | nans
    if not (same.all() and (np.isnan(theirs) == nans).all()):
        at = tuple(np.argwhere(~(same & (np.isnan(theirs) == nans)))[0])
        raise AssertionError(f"{what}: differs first at {at}: {ours[at]!r} and {theirs[at]!r}")


def assert_same(ours: Iterable[Any], theirs: Iterable[Any], what: str = "") -> None:
    """`assert_same_bits` for nested states or lists of arrays."""
    for k, (a, b) in enumerate(zip(flat(list(ours)), flat(list(theirs)), strict=True)):
        assert_same_bits(a, b, f"{what}, array {k}")


def laid_out(x: np.ndarray, layout: str) -> np.ndarray:
    """A copy of `x` with another memory layout."""
    if layout == "F":
        return np.asfortranarray(x.copy())
    if layout == "strided":
        wide = np.zeros((*x.shape[:-1], 2 * x.shape[-1]), x.dtype)
        view = wide[..., ::2]
    elif layout == "reversed":
        view = np.empty_like(x)[::-1]
    elif layout == "unaligned":
        view = np.zeros(x.nbytes + 1, np.uint8)[1:].view(x.dtype).reshape(x.shape)
    else:
        return x.copy(order="C")
    view[...] = x
    return view


class Run:
    """An updater and its weights, stepped with given gradients."""

    def __init__(
        self,
        optimizer: mxopt.Optimizer,
        weights: Sequence[np.ndarray],
        engine: Any = "llvm",
        as_list: bool = False,
    ) -> None:
        self.updater = mxopt.get_updater(optimizer)
        self.weights, self.engine, self.as_list = list(weights), engine, as_list

    def step(self, grads: Sequence[np.ndarray | RowSparse]) -> None:
        indices = list(range(len(self.weights)))
        with mxopt.use_engine(self.engine):
            if self.as_list:
                self.updater(indices, list(grads), self.weights)
            else:
                for i, g, w in zip(indices, grads, self.weights, strict=True):
                    self.updater(i, g, w)

    @property
    def arrays(self) -> list[Any]:
        """Weights, then states, of all parameters."""
        return [*self.weights, *(self.updater.states.get(i) for i in range(len(self.weights)))]

    @property
    def counts(self) -> list[int]:
        """How often each parameter was updated."""
        counts = self.updater.optimizer.get_counts()
        found = [counts["devices"][0].get(k, 0) for k in range(len(self.weights))]
        uncounted = isinstance(self.updater.optimizer, mxopt.optimizer.Test)  # as in MXNet
        assert counts["num_update"] == (0 if uncounted else max(found))
        return found

    def saved(self) -> bytes:
        return self.updater.get_states()

    def load(self, saved: bytes) -> None:
        self.updater.set_states(saved)


class GroupedRun(Run):
    """The same for an optimizer that has its parameters in groups."""

    def __init__(self, optimizer: Any, weights: Sequence[np.ndarray], engine: Any = "llvm") -> None:
        self.optimizer, self.weights, self.engine = optimizer, list(weights), engine

    def step(self, grads: Sequence[np.ndarray | RowSparse]) -> None:
        with mxopt.use_engine(self.engine):
            self.optimizer(tuple(grads))

    @property
    def slots(self) -> list[Any]:
        """What is kept of each parameter; of a wrapped optimizer's, where one wraps another."""
        return list(getattr(self.optimizer, "opt", self.optimizer).slots)

    @property
    def arrays(self) -> list[Any]:
        states = [[x for _, x in sorted(slot.arrays.items())] + [np.array(slot.carry)] for slot in self.slots]
        return [*self.weights, *states]

    @property
    def counts(self) -> list[int]:
        return [self.optimizer.global_step if slot.step is None else slot.step for slot in self.slots]

    def saved(self) -> bytes:
        return dump_document(self.optimizer.state_dict())

    def load(self, saved: bytes) -> None:
        self.optimizer.load_state_dict(load_document(saved))


def assert_runs_agree(runs: Sequence[Run], grads: Callable[[int], Sequence[Any]], steps: int = 3) -> None:
    """All runs have the same bits after every step."""
    for step in range(steps):
        given = grads(step)
        for run in runs:
            run.step(given)
        for run in runs[1:]:
            assert_same(run.arrays, runs[0].arrays, f"step {step + 1}")
