"""The number of threads, and the crew of helpers."""

from __future__ import annotations

import array
import ctypes
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import settings
from mxopt.engine import kernel, native, team
from mxopt.engine.threads import Crew
from mxopt.errors import ArgumentError

SOON = 30  # seconds, within which everything here ends


@pytest.mark.parametrize(
    ("own", "openmp", "threads"),
    [("3", "", 3), ("", "5", 5), ("3", "5", 3), ("4,2", "", 4), ("", " 4,2 ", 4), ("1", "", 1)],
)
def test_the_environment_sets_the_number(own: str, openmp: str, threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXOPT_NUM_THREADS", own)
    monkeypatch.setenv("OMP_NUM_THREADS", openmp)
    assert settings.default_threads() == threads


@pytest.mark.parametrize("value", ["0", "-1", "two", "1.5", "2;3", "²"])
@pytest.mark.parametrize("name", ["MXOPT_NUM_THREADS", "OMP_NUM_THREADS"])
def test_the_environment_may_be_wrong(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXOPT_NUM_THREADS", raising=False)
    monkeypatch.setenv(name, value)
    with pytest.raises(ArgumentError, match=f"{name}='{value}'"):
        settings.default_threads()


def test_without_the_environment_it_is_the_cores_this_process_may_use(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("MXOPT_NUM_THREADS", raising=False)
    monkeypatch.delenv("OMP_NUM_THREADS", raising=False)
    assert settings.default_threads() == settings.usable_cores() >= 1
    monkeypatch.setattr(settings, "_cgroup_cores", lambda: 0.5)
    assert settings.usable_cores() == 1


def test_a_process_starts_with_the_environments_number() -> None:
    code = "import mxopt; print(mxopt.get_num_threads())"
    environment = {"MXOPT_NUM_THREADS": "7", "PATH": ""}
    command, folder = [sys.executable, "-c", code], Path(mxopt.__file__).parent.parent
    assert subprocess.run(command, check=True, capture_output=True, env=environment, cwd=folder).stdout.strip() == b"7"


@pytest.mark.usefixtures("restore_threads")
def test_the_number_can_be_set() -> None:
    for n in (3, 1, 2):
        mxopt.set_num_threads(n)
        assert mxopt.get_num_threads() == n


@pytest.mark.parametrize("n", [0, -1, 1.0, "2", None, True])
def test_numbers_that_cannot_be_set(n: Any) -> None:
    before = mxopt.get_num_threads()
    with pytest.raises(ArgumentError, match="set_num_threads"):
        mxopt.set_num_threads(n)
    assert mxopt.get_num_threads() == before


def helpers() -> list[threading.Thread]:
    return [t for t in threading.enumerate() if t.name.startswith("mxopt-")]


@pytest.mark.usefixtures("restore_threads")
def test_helpers_start_when_needed_and_end_when_dismissed(monkeypatch: pytest.MonkeyPatch) -> None:
    mxopt.set_num_threads(1)
    for thread in helpers():  # of other tests
        thread.join(SOON)
    mxopt.set_num_threads(3)
    assert not helpers()
    monkeypatch.setattr(native, "PARALLEL", 0)
    mxopt.get_updater(mxopt.create("sgd"))(0, np.ones(100_000, np.float32), np.ones(100_000, np.float32))
    started = helpers()
    assert len(started) == 2
    mxopt.set_num_threads(1)
    for thread in started:
        thread.join(SOON)
    assert not helpers()


class Job:
    """A job of `batches` batches, each of which is a call of Python's."""

    def __init__(self, batches: int, work: Callable[[int], None]) -> None:
        self.words = array.array("q", bytes(8 * kernel.JOB_WORDS))
        self.kernel = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int64)(lambda job, batch: work(batch))
        self.words[kernel.KERNEL] = ctypes.cast(self.kernel, ctypes.c_void_p).value  # type: ignore[assignment]
        self.words[kernel.N_BATCHES] = batches

    def run(self, crew: Crew) -> None:
        self.words[kernel.CREW] = crew.ready()
        team.runner(release=True)(self.words.buffer_info()[0])


def test_a_call_returns_when_all_batches_are_done_each_once(rng: np.random.Generator) -> None:
    crew, begun, ended, whose = Crew(3), list[int](), list[int](), set[str]()

    def work(batch: int) -> None:
        begun.append(batch)
        whose.add(threading.current_thread().name)
        for _ in range(int(rng.integers(4))):
            never.wait(1e-4)  # only lets others run
        ended.append(batch)

    job, never = Job(20, work), threading.Event()
    for _ in range(50):
        begun.clear()
        ended.clear()
        job.run(crew)
        assert sorted(ended) == list(range(20)) == sorted(begun)
    assert len(whose) > 1
    crew.dismiss()


def test_helpers_are_started_once_whoever_asks_first() -> None:
    crew, together = Crew(2), threading.Barrier(4)

    def ask() -> None:
        together.wait(SOON)
        crew.ready()

    asking = [threading.Thread(target=ask) for _ in range(4)]
    for thread in asking:
        thread.start()
    for thread in asking:
        thread.join(SOON)
    started = [t for t in helpers() if getattr(t, "_target", None) == crew._serve]
    assert len(started) == 2
    crew.dismiss()
    for thread in started:
        thread.join(SOON)


def test_a_second_caller_works_alone() -> None:
    crew, whose = Crew(1), set[str]()
    waiting, over = threading.Barrier(3), threading.Barrier(3)

    def wait(batch: int) -> None:
        waiting.wait(SOON)
        over.wait(SOON)

    first = threading.Thread(target=Job(2, wait).run, args=(crew,))  # which the helper is at, too
    first.start()
    waiting.wait(SOON)
    Job(5, lambda batch: whose.add(threading.current_thread().name)).run(crew)
    over.wait(SOON)
    first.join(SOON)
    assert whose == {threading.main_thread().name}
    crew.dismiss()


def test_helpers_that_never_come_are_not_waited_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(threading.Thread, "start", lambda thread: None)
    done: list[int] = []
    crew, job = Crew(3), Job(5, done.append)
    job.run(crew)
    job.run(crew)
    assert done == [0, 1, 2, 3, 4] * 2
    assert not any(crew._words[slot + team.OFFER] for slot in crew._slots())


@pytest.mark.usefixtures("restore_threads")
@pytest.mark.parametrize("threads", [1, 3])
def test_several_callers_share_the_helpers(threads: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    mxopt.set_num_threads(threads)
    weights = [np.ones(200_000 + k, np.float32) for k in range(4)]
    updaters = [mxopt.get_updater(mxopt.create("lamb")) for _ in weights]

    def train(k: int) -> None:
        for _ in range(20):
            updaters[k](0, np.full_like(weights[k], 0.5), weights[k])

    together = [threading.Thread(target=train, args=(k,)) for k in range(4)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(SOON)
    mxopt.set_num_threads(1)
    for k, weight in enumerate(weights):
        alone, updater = np.ones_like(weight), mxopt.get_updater(mxopt.create("lamb"))
        for _ in range(20):
            updater(0, np.full_like(alone, 0.5), alone)
        assert alone.tobytes() == weight.tobytes(), k


@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
@pytest.mark.parametrize("as_list", [False, True])
@pytest.mark.usefixtures("restore_threads")
def test_threads_that_update_one_weight_at_a_time_touch_nothing_else(
    name: str, as_list: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Some updates of some elements get lost, but each call ends, and reads its own gradient."""
    monkeypatch.setattr(native, "PARALLEL", 0)
    mxopt.set_num_threads(3)
    updater, weights = mxopt.get_updater(mxopt.create(name, learning_rate=0.01)), [np.zeros(200_000, np.float32)] * 1
    calls, threads = 25, 4

    def train() -> None:
        for _ in range(calls):
            grad = np.ones_like(weights[0])
            if as_list:
                updater([0], [grad], weights)
            else:
                updater(0, grad, weights[0])
            grad[...] = np.nan  # whoever still reads it has what nobody gave it

    together = [threading.Thread(target=train, daemon=True) for _ in range(threads)]
    for thread in together:
        thread.start()
    for thread in together:
        thread.join(SOON)
    assert not any(thread.is_alive() for thread in together)
    assert np.isfinite(weights[0]).all()
    assert (weights[0] < 0).all()
    updater(0, np.ones_like(weights[0]), weights[0])  # and any thread may go on


def test_an_update_that_failed_in_one_thread_is_made_in_another() -> None:
    main = threading.current_thread()

    def schedule(n: int) -> float:
        if threading.current_thread() is not main:
            raise OSError("not here")
        return 0.5

    updater, weight = mxopt.get_updater(mxopt.create("sgd", lr_scheduler=schedule)), np.ones(4, np.float32)
    updater(0, np.zeros(4, np.float32), weight)

    def fail() -> None:
        with pytest.raises(OSError, match="not here"):
            updater(0, np.ones(4, np.float32), weight)

    other = threading.Thread(target=fail)
    other.start()
    other.join(SOON)
    updater(0, np.ones(4, np.float32), weight)
    assert (weight.tolist(), updater.optimizer.count(0)) == ([0.5] * 4, 2)


@pytest.mark.usefixtures("restore_threads")
def test_other_threads_run_during_a_long_update() -> None:
    """With switching by time turned off, another thread runs only where an update lets it."""
    mxopt.set_num_threads(1)
    updater = mxopt.get_updater(mxopt.create("adam"))
    weight, grad = np.ones(4_000_000, np.float32), np.ones(4_000_000, np.float32)
    updater(0, grad, weight)
    progress: list[Any] = []
    held, done = threading.Lock(), threading.Event()

    def run() -> None:
        while not done.is_set():
            progress.append(None)
            held.acquire(timeout=1e-4)  # in vain: it only lets others run

    held.acquire()
    other, interval = threading.Thread(target=run), sys.getswitchinterval()
    sys.setswitchinterval(SOON)
    try:
        other.start()
        before = len(progress)
        for _ in range(20):
            updater(0, grad, weight)
        gained = len(progress) - before
    finally:
        done.set()
        sys.setswitchinterval(interval)
        held.release()
    other.join(SOON)
    assert gained > 10
