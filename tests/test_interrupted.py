"""Updates interrupted at random moments by the exceptions of signal handlers: each parameter is
updated and counted, or neither, bit for bit, in all three front-ends; and the memory of an update
is nobody's once it has been left.

MXOPT_TEST_INTERRUPTS=1000 interrupts each case as many times.
"""

from __future__ import annotations

import gc
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

import bitwise
import numpy as np
import pytest
from bitwise import flat
from table import ALL, GROUPED, Grouped, Row

import mxopt
from mxopt.engine import native, reference, staged, threads, uninterrupted
from mxopt.sparse import row_sparse_array, zeros

TIMES = int(os.environ.get("MXOPT_TEST_INTERRUPTS", "25"))
pytestmark = [
    pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs timers"),
    pytest.mark.filterwarnings("ignore:.*without multi_precision"),
]


class Interruption(BaseException):
    """What the signal handler raises."""


class Interrupter:
    """Lets calls be interrupted at random moments; sometimes once more right after."""

    def __init__(self, rng: np.random.Generator) -> None:
        self.rng, self.armed, self.longest = rng, False, 0.0

    def handle(self, number: int, frame: FrameType | None) -> None:
        if self.armed:
            if self.rng.random() < 0.3:
                signal.setitimer(signal.ITIMER_REAL, 1e-6)
            raise Interruption

    def call(self, update: Callable[[], object], delay: float) -> bool:
        """Whether an update was left by an interruption `delay` seconds after it began."""
        try:
            try:
                self.armed = True
                signal.setitimer(signal.ITIMER_REAL, delay)
                update()
            finally:
                self.armed = False
        except Interruption:
            self.armed = False
            return True
        finally:
            self.armed = False
        return False


@pytest.fixture
def interrupter(rng: np.random.Generator) -> Iterator[Interrupter]:
    found = Interrupter(rng)
    before = signal.signal(signal.SIGALRM, found.handle)
    gc.disable()  # an exception within a callback of the collector, such as hypothesis', is nobody's
    yield found
    gc.enable()
    signal.setitimer(signal.ITIMER_REAL, 0)
    signal.signal(signal.SIGALRM, before)


class Run:
    """An optimizer and its arrays. `step()` updates all; `counts()` says how often each was."""

    def step(self) -> None:
        raise NotImplementedError

    def counts(self) -> list[int]:
        raise NotImplementedError

    def arrays(self) -> list[list[bytes]]:
        """For each parameter the bytes of its weight and states."""
        raise NotImplementedError


def ones(shape: Any, dtype: str = "float32") -> np.ndarray:
    return np.linspace(-1, 1, int(np.prod(shape))).astype(dtype).reshape(shape)


class Stepped(Run):
    """A run of an optimizer's own."""

    def __init__(self, run: bitwise.Run, grads: list[Any]) -> None:
        self.run, self.grads = run, grads

    def step(self) -> None:
        self.run.step(self.grads)

    def counts(self) -> list[int]:
        return self.run.counts

    def arrays(self) -> list[list[bytes]]:
        weights, states = self.run.weights, self.run.arrays[len(self.run.weights) :]
        updater = getattr(self.run, "updater", None)
        extra = getattr(updater and updater.optimizer, "previous_lr", {})
        return [
            [w.tobytes(), *(x.tobytes() for x in flat(state)), repr(extra.get(k)).encode()]
            for k, (w, state) in enumerate(zip(weights, states, strict=True))
        ]


class Stored(Run):
    """An optimizer of groups in a local store, pushed to."""

    def __init__(self, row: Grouped, weights: list[np.ndarray], grads: list[Any]) -> None:
        self.store, self.keys, self.grads = mxopt.kvstore.create("local"), list(range(len(weights))), grads
        self.store.set_optimizer(row.over([mxopt.Parameter(w, name=f"w{k}") for k, w in enumerate(weights)]))
        self.store.init(self.keys, weights)
        self.out = [np.empty_like(w) for w in weights]

    def step(self) -> None:
        self.store.push(self.keys, self.grads)

    def counts(self) -> list[int]:
        counts = self.store._updater.optimizer.get_counts()  # type: ignore[union-attr]
        found = [counts["devices"][0].get(k, 0) for k in self.keys]
        assert counts["num_update"] == max(found)
        return found

    def arrays(self) -> list[list[bytes]]:
        self.store.pull(self.keys, self.out)
        states = self.store._updater.states  # type: ignore[union-attr]
        return [[w.tobytes(), *(s.tobytes() for s in flat(states.get(k)))] for k, w in enumerate(self.out)]


class Growing(Run):
    """Row-sparse weights, to which each update adds rows."""

    SHAPE = 20_000, 3

    def __init__(self, name: str, listed: bool, dtype: str = "float32", **options: Any) -> None:
        self.optimizer, self.listed, self.dtype = mxopt.create(name, **options), listed, dtype
        self.updater = mxopt.get_updater(self.optimizer)
        self.weights = [zeros("row_sparse", self.SHAPE, dtype=dtype) for _ in range(3)]

    def step(self) -> None:
        grads = []
        for k, count in enumerate(self.counts()):
            indices = np.unique(np.random.default_rng([k, count]).integers(0, self.SHAPE[0], 30))
            grads.append(row_sparse_array((ones((len(indices), 3), self.dtype), indices), shape=self.SHAPE))
        if self.listed:
            self.updater([0, 1, 2], grads, self.weights)
        else:
            for k in range(3):
                self.updater(k, grads[k], self.weights[k])

    def counts(self) -> list[int]:
        counts = self.optimizer.get_counts()["devices"][0]
        return [counts.get(k, 0) for k in range(3)]

    def arrays(self) -> list[list[bytes]]:
        them = [[w, *flat(self.updater.states.get(k))] for k, w in enumerate(self.weights)]
        return [[x.asnumpy().tobytes() for x in each] for each in them]


def rows(shape: tuple[int, ...]) -> Any:
    return row_sparse_array((ones((shape[0] // 2, *shape[1:])), np.arange(0, shape[0] - 1, 2)), shape=shape)


def updater(
    name: str, *shapes: Any, listed: bool = True, dtype: str = "float32", sparse: bool = False, **options: Any
) -> Any:
    grads = [rows(shape) if sparse else ones(shape, dtype) for shape in shapes]
    engine = options.pop("engine", "llvm")
    return lambda: Stepped(Row(name, **options).run([ones(s, dtype) for s in shapes], engine, listed), grads)


def strided(listed: bool = False, engine: str = "llvm") -> Run:
    weight, grad = ones((200, 700))[:, ::2], ones((200, 700))[:, ::2]
    return Stepped(Row("lamb").run([weight], engine, listed), [grad])


def mixed(row: Row, stored: bool = False) -> Any:
    weights = lambda: [ones((40, 30)), ones(7, "float16"), ones((50_000,)), ones((6, 5), "float64"), ones((9, 8))]  # noqa: E731
    grads = [*weights()[:-1], rows((9, 8))]  # type: ignore[no-untyped-call]
    return lambda: Stored(row, weights(), grads) if stored else Stepped(row.run(weights()), grads)  # type: ignore[arg-type, no-untyped-call]


FORMS: dict[str, Callable[[], Run]] = {
    "single tiny": updater("adam", 3, listed=False),
    "single of a compiled call": updater("adam", 40_000, listed=False),
    "single by threads": updater("adam", 300_000, listed=False),
    "single of several passes in one call": updater("lamb", 30_000, listed=False),
    "single of several passes": updater("lamb", 60_000, listed=False),
    "momentum corrected by the rate before": updater(
        "lars", 50_000, listed=False, momentum=0.9, lr_scheduler=mxopt.lr_scheduler.FactorScheduler(3, 0.9)
    ),
    "noise": updater("sgld", 200_000, listed=False, seed=3),
    "accumulated": updater("lbsgd", 30_000, 40, listed=False, momentum=0.9, batch_scale=3),
    "master copies": updater("nadam", 40_000, 17, listed=False, dtype="float16", multi_precision=True),
    "sparse": updater("adam", (3000, 40), listed=False, sparse=True),
    "sparse, norms of all": updater("lars", (3000, 40), listed=False, sparse=True, momentum=0.9),
    "sparse, moves all": updater("adam", (300, 40), listed=False, sparse=True, lazy_update=False),
    "one state for each row": updater("groupadagrad", (300, 40), (7, 1), listed=False),
    "rows that a weight gets": lambda: Growing("adam", listed=False),
    "the same in a list": lambda: Growing("adagrad", listed=True),
    "the same with master copies": lambda: Growing("ftrl", listed=False, dtype="float16", multi_precision=True),
    "strided": strided,
    "numpy": updater("lamb", (300, 40), listed=False, engine="numpy"),
    "list": updater("adam", 3, (40, 50), 100_000),
    "list of several passes": updater("lamb", 3, 60_000, 30_000),
    "list by threads": updater("sgd", *[4000] * 40, momentum=0.9),
    "list, one by one": updater("lbsgd", 3, 50, 60_000, warmup_strategy="lars", batch_scale=2),
    "list with rows": updater("groupadagrad", (300, 40), (7, 1), (90, 3)),
}  # fmt: skip
EVERY: dict[str, Callable[[], Run]] = {
    **{str(row): mixed(row) for row in ALL},
    **{f"{row}, in a store": mixed(row, stored=True) for row in GROUPED if not row.alone},
}
CASES = FORMS | EVERY


def check(run: Run, twin: list[Run]) -> None:
    """`twin[k]` is stepped, uninterrupted, until its parameter k has been updated as often."""
    for k, count in enumerate(run.counts()):
        while twin[k].counts()[k] < count:
            twin[k].step()
        assert twin[k].counts()[k] == count
        assert run.arrays()[k] == twin[k].arrays()[k] or count == 0


@pytest.mark.parametrize("case", CASES)
def test_updated_and_counted_or_neither(case: str, interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PARALLEL", 150_000)
    run = CASES[case]()
    twins, times = [CASES[case]() for _ in run.counts()], []
    for _ in range(6):
        began = time.perf_counter()
        run.step()
        times.append(time.perf_counter() - began)
    once = min(times[3:])  # the first ones compile
    steps = 1 + int(3e-4 / once)  # a timer is no more exact than that

    def several() -> None:
        for _ in range(steps):
            run.step()

    left, attempts = 0, TIMES if case in FORMS else max(TIMES // 5, 1)
    for attempt in range(100 * attempts):  # on a busy machine a timer that is late hits few
        left += interrupter.call(several, float(interrupter.rng.uniform(1e-6, 1.1 * steps * once)))
        enough = attempt >= attempts - 1 and left > attempts / 10
        if attempt % 3 == 0 or enough:
            check(run, twins)
        if enough:
            break
    assert left > attempts / 10
    run.step()
    check(run, twins)


def test_the_caller_works_alone_where_no_thread_can_be_started(monkeypatch: pytest.MonkeyPatch) -> None:
    def none_left(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    with_threads = [case() for case in CASES.values()]
    for run in with_threads:
        run.step()
    monkeypatch.setattr(native, "PARALLEL", 0)
    monkeypatch.setattr(uninterrupted, "_worker", None)
    monkeypatch.setattr("_thread.start_new_thread", none_left)
    monkeypatch.setattr(threading.Thread, "start", none_left)
    monkeypatch.setattr(threads, "_crew", threads.Crew(3))
    for case, other in zip(CASES.values(), with_threads, strict=True):
        run = case()
        run.step()
        assert set(run.counts()) == {1}
        assert run.arrays() == other.arrays()


def test_another_thread_is_never_interrupted_and_takes_no_other() -> None:
    found: list[threading.Thread] = []
    thread = threading.Thread(
        target=lambda: uninterrupted.uninterrupted(lambda: found.append(threading.current_thread()))
    )
    thread.start()
    thread.join()
    assert found == [thread]


def test_an_error_of_an_uninterrupted_call_is_the_callers() -> None:
    def fail() -> None:
        raise MemoryError("none left")

    for _ in range(2):
        with pytest.raises(MemoryError, match="none left"):
            uninterrupted.uninterrupted(fail)


def test_where_no_thread_can_be_started_several_calls_are_not_cut(
    interrupter: Interrupter, monkeypatch: pytest.MonkeyPatch
) -> None:
    def none_left(*_: object) -> int:
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(uninterrupted, "_worker", None)
    monkeypatch.setattr("_thread.start_new_thread", none_left)
    before = signal.getsignal(signal.SIGALRM)
    for case in ("strided", "numpy", "sparse, norms of all"):
        run, twins, left = CASES[case](), [CASES[case]()], 0
        run.step()
        began = time.perf_counter()
        run.step()
        once = time.perf_counter() - began
        for attempt in range(100 * TIMES):  # on a busy machine a timer that is late hits few
            left += interrupter.call(run.step, float(interrupter.rng.uniform(1e-6, 1.1 * once)))
            check(run, twins)
            assert signal.getsignal(signal.SIGALRM) == before
            if attempt >= TIMES - 1 and left > TIMES / 10:
                break
        assert left > TIMES / 10


def test_signals_that_come_meanwhile_are_all_handled_afterwards(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(uninterrupted, "_worker", None)
    monkeypatch.setattr("_thread.start_new_thread", lambda *_: (_ for _ in ()).throw(RuntimeError("none left")))
    came: list[str] = []

    def handle(number: int, frame: FrameType | None) -> None:
        came.append(signal.Signals(number).name)
        raise Interruption

    def work() -> None:
        signal.raise_signal(signal.SIGUSR1)
        signal.raise_signal(signal.SIGUSR2)
        came.append("done")

    numbers = signal.SIGUSR1, signal.SIGUSR2
    before = [signal.signal(number, handle) for number in numbers]
    try:
        with pytest.raises(Interruption):
            uninterrupted.uninterrupted(work)
        assert came == ["done", "SIGUSR1", "SIGUSR2"]
        assert [signal.getsignal(number) for number in numbers] == [handle, handle]
    finally:
        for number, handler in zip(numbers, before, strict=True):
            signal.signal(number, handler)


class Fails:
    """Stands for a counter that an interruption hits: `updates` of them work."""

    def __init__(self, update: Callable[..., None], updates: int) -> None:
        self.update, self.updates = update, updates

    def __call__(self, *arguments: Any) -> None:
        if not self.updates:
            raise Interruption
        self.updates -= 1
        self.update(*arguments)


@pytest.mark.parametrize(("name", "options"), [("lbsgd", {"batch_scale": 2}), ("adam", {})])
def test_an_interruption_says_how_many_parameters_were_updated(
    name: str, options: dict[str, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    updates = Row(name, **options).run([ones(4) for _ in range(5)])
    run, optimizer = Stepped(updates, [ones(4) for _ in range(5)]), updates.updater.optimizer
    run.step()
    update = optimizer._accumulate if options else optimizer._update_count  # type: ignore[attr-defined]
    monkeypatch.setattr(optimizer, "_accumulate" if options else "_update_count", Fails(update, 3 if options else 0))
    with pytest.raises(Interruption) as caught:
        run.step()
    updated = sum(count == 2 for count in run.counts())
    assert updated == (3 if options else 0)
    (note,) = caught.value.__notes__
    assert note == f"mxopt: of 5 parameters {updated} were updated and counted, the others not"


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_an_update_that_fails_is_not_counted(engine: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*_: object) -> None:
        raise MemoryError("none left")

    monkeypatch.setattr(staged.StagedPart, "finish", fail)
    monkeypatch.setattr(reference.ReferencePart, "finish", fail)
    for listed in (False, True):
        run = strided(listed=listed, engine=engine)  # no one call of C
        before = run.arrays()[0][0]
        with pytest.raises(MemoryError, match="none left"):
            run.step()
        assert run.counts() == [0]
        assert run.arrays()[0][0] == before
