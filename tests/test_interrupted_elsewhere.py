"""Calls that aren't single updates, left by an exception at the moments at which a signal handler
may raise: everything is as before the call or as after it, and the call can be made again.

Python runs signal handlers where a Python function begins and where a function of C has ended. A
profiler is called there too, in the same thread, so that it can raise at one moment after the other
in place of a signal.
"""

from __future__ import annotations

import gc
import itertools
import sys
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import nn
from mxopt.document import dump_document
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules
from mxopt.optimizer import Updater
from mxopt.sparse import table

# An exception where a generator that nobody wants any more is closed is nobody's.
pytestmark = pytest.mark.filterwarnings("ignore::pytest.PytestUnraisableExceptionWarning")
MOMENTS = 120  # at which each call is left at most
N = 4


class Left(BaseException):
    """What is raised."""


@pytest.fixture(autouse=True)
def no_collector() -> Iterator[None]:
    gc.disable()  # an exception within a finalizer is nobody's
    yield
    gc.enable()


def leave(call: Callable[[], object], at: int) -> tuple[bool, int]:
    """Calls, and raises at moment number `at`, if there is one: whether there was, and how many
    were passed."""
    passed = 0

    def profile(frame: FrameType, event: str, arg: object) -> None:
        nonlocal passed
        if event in ("call", "c_return"):
            passed += 1
            if passed - 1 == at:
                raise Left

    try:
        sys.setprofile(profile)
        call()
    except Left:
        return True, passed
    finally:
        sys.setprofile(None)
    return False, passed


def check(make: Callable[[], Any], do: Callable[[Any], object], seen: Callable[[Any], object]) -> None:
    """That `do(thing)` is done or not, whenever it is left; `seen` is what there is to see."""
    thing = make()
    before = seen(thing)
    _, moments = leave(partial(do, thing), -1)
    after = seen(thing)
    assert before != after
    for at in range(0, moments + 1, max(1, moments // MOMENTS)):
        thing = make()
        left, _ = leave(partial(do, thing), at)
        now = seen(thing)
        assert now in (before, after), f"left at moment {at} of {moments}"
        if left and now == before:
            do(thing)
            assert seen(thing) == after, f"again, after it was left at moment {at} of {moments}"


def grads(k: int) -> list[np.ndarray]:
    return [np.arange(6, dtype=np.float32).reshape(3, 2) * 0.01 * (k + n + 1) - 0.02 for n in range(N)]


def ones() -> list[np.ndarray]:
    return [np.full((3, 2), n + 1, np.float32) for n in range(N)]


def as_bytes(arrays: Any) -> list[bytes]:
    return [a.tobytes() for a in arrays]


# States are taken.


def updater(name: str) -> tuple[Updater, list[np.ndarray]]:
    made, weights = mxopt.get_updater(mxopt.create(name, learning_rate=0.1)), ones()
    made(list(range(N)), grads(0), weights)
    return made, weights


def states_of(pair: Any) -> bytes:
    return bytes(pair[0].get_states(dump_optimizer=True))


@pytest.mark.parametrize(("name", "other"), [("adam", "adam"), ("lars", "lars"), ("sgd", "adam")])
def test_an_updater_takes_states(name: str, other: str) -> None:
    theirs, weights = updater(other)
    theirs(list(range(N)), grads(1), weights)
    saved = theirs.get_states(dump_optimizer=True)
    check(partial(updater, name), lambda pair: pair[0].set_states(saved), states_of)


def grouped(make: Callable[[Any], Any], steps: int = 1) -> tuple[Any, list[np.ndarray]]:
    weights = ones()
    made = make(weights)
    for k in range(steps):
        made(tuple(grads(k)))
    return made, weights


def dict_of(pair: Any) -> bytes:
    return dump_document(pair[0].state_dict())


@pytest.mark.parametrize(
    "make",
    [
        lambda w: optim.Adam([{"params": w[:2], "lr": 0.2}, {"params": w[2:]}], lr=0.1),
        lambda w: optim.ASGD(w, lr=0.1),
        lambda w: nn.Momentum(w, 0.1, 0.9),
        lambda w: nn.ASGD(w, 0.1),
    ],
)
def test_an_optimizer_of_groups_takes_states(make: Callable[[Any], Any]) -> None:
    saved = grouped(make, 3)[0].state_dict()
    check(partial(grouped, make), lambda pair: pair[0].load_state_dict(saved), dict_of)


def test_a_group_joins() -> None:
    more = {"params": [np.ones(3, np.float32)], "lr": 0.5}
    make = partial(grouped, lambda w: optim.Adam(w, lr=0.1))
    check(make, lambda pair: pair[0].add_param_group(more), lambda pair: (dict_of(pair), len(pair[0].slots)))


def test_averages_are_taken() -> None:
    saved = mxopt.ExponentialMovingAverage(grads(3)).get_states()
    check(
        lambda: mxopt.ExponentialMovingAverage(ones()), lambda e: e.set_states(saved), lambda e: bytes(e.get_states())
    )


# Schedules.

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "step": lambda o: schedules.StepLR(o, 2, 0.5),
    "cyclic": lambda o: schedules.CyclicLR(o, 0.01, 0.1, 3),
    "restarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 3),
    "lambda": lambda o: schedules.LambdaLR(o, lambda e: 0.9**e),
    "sequence": lambda o: schedules.SequentialLR(o, [SCHEDULES["step"](o), SCHEDULES["lambda"](o)], [2]),
    "plateau": lambda o: schedules.ReduceLROnPlateau(o, patience=0),
}  # fmt: skip


def scheduled(name: str, steps: int = 1) -> tuple[Any, Any]:
    optimizer = optim.SGD([{"params": ones()[:2]}, {"params": ones()[2:], "lr": 0.05}], lr=0.1)
    schedule = SCHEDULES[name](optimizer)
    for k in range(steps):
        stepped((optimizer, schedule), 1.0 + k)
    return optimizer, schedule


def stepped(pair: Any, metrics: float = 9.0) -> None:
    pair[1].step(*([metrics] if isinstance(pair[1], schedules.ReduceLROnPlateau) else []))


def rates_of(pair: Any) -> Any:
    return repr(pair[1].state_dict()), [dict(lr=g["lr"], first=g.get("initial_lr")) for g in pair[0].param_groups]


@pytest.mark.parametrize("name", SCHEDULES)
def test_a_schedule_steps_and_takes_states(name: str) -> None:
    check(partial(scheduled, name), stepped, rates_of)
    saved = scheduled(name, 4)[1].state_dict()
    check(partial(scheduled, name), lambda pair: pair[1].load_state_dict(saved), rates_of)


# Stores in this process.

KEYS = list(range(N))


def store(kind: str, optimizer: str | None, compressed: bool) -> Any:
    made = mxopt.kvstore.create(kind)
    if compressed:
        made.set_gradient_compression({"type": "2bit", "threshold": 0.01})
    if optimizer is not None:
        made.set_optimizer(mxopt.create(optimizer, learning_rate=0.1))
    made.init(KEYS, ones())
    made.push(KEYS, grads(0))
    return made


def held(made: Any) -> Any:
    outs = [np.zeros((3, 2), np.float32) for _ in KEYS]
    made.pull(KEYS, out=outs)
    left = made._compression.residuals if made.compresses else {}
    states = b"" if made._updater is None else made._updater.get_states(dump_optimizer=True)
    return as_bytes(outs), list(map(made.round, KEYS)), {k: v.tobytes() for k, v in left.items()}, states


STORES = [("local", None, False), ("local", "adam", False), ("device", None, True), ("device", "adam", True)]


@pytest.mark.parametrize(("kind", "optimizer", "compressed"), STORES)
@pytest.mark.parametrize("several", [False, True], ids=["one value", "several"])
def test_a_push_is_taken_and_counted_or_neither(
    kind: str, optimizer: str | None, compressed: bool, several: bool
) -> None:
    values = [[g, g] for g in grads(2)] if several else grads(2)
    check(partial(store, kind, optimizer, compressed), lambda made: made.push(KEYS, values), held)


def test_rows_are_pushed_to_a_table() -> None:
    def make() -> Any:
        made = mxopt.kvstore.create("local")
        made.init(["t", "w"], [table((9, 2)), np.ones(2, np.float32)])
        return made

    rows = mxopt.sparse.row_sparse_array((np.ones((2, 2), np.float32), [1, 5]), shape=(9, 2))

    def seen(made: Any) -> Any:
        data, indices = made._values["t"].parts()
        return data.tolist(), indices.tolist(), made._values["w"].tolist(), made.round("t"), made.round("w")

    check(make, lambda made: made.push(["w", "t"], [np.full(2, 3, np.float32), rows]), seen)


def test_keys_begin() -> None:
    make = partial(store, "local", None, False)
    names = [8, 9]
    check(make, lambda made: made.init(names, ones()[:2]), lambda made: [k in made._rounds for k in names])


def test_what_was_pushed_by_pushpull_is_pulled() -> None:
    def make() -> tuple[Any, list[np.ndarray]]:
        return store("local", "adam", False), [np.zeros((3, 2), np.float32) for _ in KEYS]

    def seen(pair: Any) -> Any:
        rounds, outs, now = list(map(pair[0].round, KEYS)), as_bytes(pair[1]), held(pair[0])[0]
        return [(n, out == value) for n, out, value in zip(rounds, outs, now, strict=True)]

    check(make, lambda pair: pair[0].pushpull(KEYS, grads(2), out=pair[1]), seen)


# Trainers.


def trainer(kind: str | None, itself: bool, steps: int = 1) -> tuple[Any, list[mxopt.Parameter]]:
    params = [mxopt.Parameter(w, f"p{k}") for k, w in enumerate(ones())]
    by = None if kind is None else mxopt.kvstore.create(kind)
    made = mxopt.Trainer(params, "adam", {"learning_rate": 0.1}, by, update_on_kvstore=False if itself else None)
    for k in range(steps + 1):
        for param, grad in zip(params, grads(k), strict=True):
            param.grad = grad
        if k < steps:
            made.step(2)
    return made, params


def trained(pair: Any) -> Any:
    made, params = pair
    counts = made.optimizer.get_counts()
    states = made._kvstore._updater.states if made._update_on_kvstore else made._updater.states
    return repr(counts), as_bytes(p.value for p in params), as_bytes(itertools.chain(*states.values()))


@pytest.mark.parametrize(("kind", "itself"), [(None, True), ("local", False), ("device", True)])
def test_a_trainer_steps_for_the_first_time_and_later(kind: str | None, itself: bool) -> None:
    for steps in (0, 1):
        check(partial(trainer, kind, itself, steps), lambda pair: pair[0].step(4), trained)


@pytest.mark.parametrize(("kind", "itself"), [(None, True), ("local", False)])
def test_a_trainer_takes_states(kind: str | None, itself: bool, tmp_path: Path) -> None:
    trainer(kind, itself, 3)[0].save_states(tmp_path / "states")
    check(partial(trainer, kind, itself), lambda pair: pair[0].load_states(tmp_path / "states"), trained)


def test_gradients_are_clipped_together() -> None:
    check(lambda: grads(5), lambda given: mxopt.clip_global_norm(given, 0.01), as_bytes)
