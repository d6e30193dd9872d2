"""The limit: what only touching a case's arrays costs, by C (where there is a compiler) and by
mxopt's own engine.

Each pass of a case reads all elements it has to read, and writes those it has to write, with next
to no arithmetic. Where that takes long, C does it by several schemes, as it depends on the machine
which is best; else with one thread and with all. The three best ways take part in every round, and
the one with the best median is the limit: it owes nothing to mxopt being good.
"""

from __future__ import annotations

import inspect
import itertools
import os
from collections.abc import Callable
from dataclasses import replace
from functools import lru_cache
from typing import Any

import numpy as np

import mxopt
from benchmark import inputs, touch
from benchmark.cases import KINDS, Case
from benchmark.timing import Job
from mxopt.rules.rule import Rule, Stage

THREADS = int(os.environ.get("OMP_NUM_THREADS", "1"))
ARRAYS = {"w": "weight", "g": "grad", "m": "weight"}  # the others are states
COMPARED, CLIPS, EVERY, NARROW = 3, True, True, True


def version() -> str:
    return f"{touch.compiler() or 'no C compiler'}; mxopt {mxopt.__version__}"


def ways(case: Case) -> list[str]:
    in_c = list(touch.SCHEMES) if long(case) else ["C, 1 thread", f"C, {THREADS} threads"][: min(THREADS, 2)]
    return [*(in_c if touch.compiler() else []), *["engine"] * (not KINDS[case.kind].narrow)]


def long(case: Case) -> bool:
    """Whether memory is walked long enough for it to matter how."""
    return KINDS[case.kind].unit == "ms" and not case.fresh and (not case.row_count or case.every)


def build(case: Case, way: str) -> Job:
    if case.every:
        case = replace(case, row_count=0)
    arrays = arrays_of(case)
    if way == "engine":
        take, step = _in_engine(case, arrays)
    elif way in touch.SCHEMES:
        take, step = in_c(case, arrays, THREADS, touch.SCHEMES[way])
    else:
        take, step = in_c(case, arrays, int(way.split()[1]))
    if not case.row_count:
        return Job(step)
    grads = itertools.cycle(inputs.sparse(case))
    return Job(step, lambda: take(*next(grads)))


@lru_cache(maxsize=1)
def arrays_of(case: Case) -> dict[str, list[np.ndarray]]:
    """The arrays of every tensor, under the letters of the passes; the same for all ways."""
    weights, grads = inputs.dense(case)
    letters = {letter for reads, writes in case.passes for letter in reads + writes} - set("wg")
    arrays = {"w": weights, "g": grads}
    for letter in sorted(letters):
        dtype = np.uint16 if letter in case.halves else np.float32
        arrays[letter] = [np.full(w.shape, 1, dtype) for w in weights]
    return arrays


def in_c(
    case: Case,
    arrays: dict[str, list[np.ndarray]],
    threads: int,
    scheme: touch.Scheme = touch.SCHEMES["pieces of 16384"],
    rule: str = "",
) -> tuple[Callable[..., None], Callable[[], None]]:
    """What takes a row-sparse gradient, and a step: by loops that only touch, or do the arithmetic
    of `rule`."""
    passes = [touch.Pass(case, reads, writes, arrays, threads, scheme, rule) for reads, writes in case.passes]

    def take(data: np.ndarray, indices: np.ndarray) -> None:
        for one in passes:
            one.take(data, indices)

    def step() -> None:
        for one in passes:
            one.run()

    return take, step


def _in_engine(case: Case, arrays: dict[str, list[np.ndarray]]) -> tuple[Callable[..., None], Callable[[], None]]:
    runs = [_engine_pass(case, reads, writes, arrays) for reads, writes in case.passes]
    grad: Any = arrays["g"]

    def take(data: np.ndarray, indices: np.ndarray) -> None:
        nonlocal grad
        grad = [mxopt.sparse.RowSparse(data, indices, case.shapes[0])]

    def step() -> None:
        for run in runs:
            run(grad)

    return take, step


def _engine_pass(
    case: Case, reads: str, writes: str, arrays: dict[str, list[np.ndarray]]
) -> Callable[[list[Any]], None]:
    """An optimizer whose rule is the pass. Where the gradient has some rows only, a norm reads the
    whole weight."""
    weights, states = arrays["w"], tuple(a for a in "abc" if a in reads + writes)
    given: list[Any] = list(zip(*(arrays[a] for a in states), strict=True)) or [()] * len(weights)
    if case.master:
        given = list(zip(arrays["m"], given, strict=True))
    whole = bool(case.row_count) and not writes
    rule = touch_rule(reads.replace("g", "") if whole else reads, writes, states)
    update = Touch(rule, multi_precision=case.master).update_multi_precision
    if len(weights) > 1:
        indices = list(range(len(weights)))
        return lambda grads: update(indices, weights, grads, given)
    if whole:
        unread = np.empty_like(weights[0])
        return lambda grads: update(0, weights[0], unread, given[0])
    return lambda grads: update(0, weights[0], grads[0], given[0])


def touch_rule(reads: str, writes: str, states: tuple[str, ...]) -> Rule:
    """`x + lr * (sum of all that is read)` for each x written, where lr is 0."""
    read = list(dict.fromkeys(ARRAYS.get(a, a) for a in reads))
    written = tuple(dict.fromkeys(ARRAYS.get(a, a) for a in writes))

    def function(*values: Any) -> Any:
        *arrays, lr = values
        total = arrays[0]
        for array in arrays[1:]:
            total = total + array
        known = dict(zip(read, arrays, strict=True))
        return tuple(known[x] + lr * total if x in known else lr * total for x in written) or total

    kind = inspect.Parameter.POSITIONAL_OR_KEYWORD
    function.__signature__ = inspect.Signature([inspect.Parameter(n, kind) for n in (*read, "lr")])  # type: ignore[attr-defined]
    return Rule(f"touch_{reads}_{writes}", states, (Stage(function, written, norms=int(not writes)),))


class Touch(mxopt.optimizer.RuleOptimizer):
    """Runs a rule that only touches."""

    lazy_update = True

    def __init__(self, rule: Rule, **kwargs: Any) -> None:
        super().__init__(learning_rate=0.0, **kwargs)
        self._rule = rule

    @property
    def rule(self) -> Rule:
        return self._rule

    def scalars(self, index: Any, lr: float, t: int) -> tuple[float, ...]:
        return (lr,)

    def state_arrays(self, state: Any) -> tuple[Any, ...]:
        return tuple(state)
