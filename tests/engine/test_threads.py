"""The number of threads, and the crew of helpers."""

from __future__ import annotations

import array
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import settings
from mxopt.engine import kernel, native
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


def job() -> array.array:
    return array.array("q", bytes(8 * kernel.JOB_WORDS))


def test_a_call_returns_when_all_who_joined_have_returned(rng: np.random.Generator) -> None:
    crew, memory = Crew(3), job()
    inside, after = [], []

    def work(address: int) -> None:
        inside.append(address)
        sum(range(int(rng.integers(1000))))
        assert not closed
        after.append(address)

    for _ in range(200):
        closed: list[bool] = []
        crew.run(work, memory.buffer_info()[0])
        closed.append(True)
        assert len(inside) == len(after)
    crew.dismiss()


def test_a_second_caller_works_alone() -> None:
    crew, memory, calls = Crew(1), job(), []

    def inner(address: int) -> None:
        calls.append(threading.current_thread())

    def outer(address: int) -> None:
        if threading.current_thread() is threading.main_thread():
            crew.run(inner, address)

    crew.run(outer, memory.buffer_info()[0])
    assert calls == [threading.main_thread()]
    crew.dismiss()


def test_a_crew_survives_an_error_in_the_caller() -> None:
    crew, memory = Crew(2), job()

    def fail(address: int) -> None:
        if threading.current_thread() is threading.main_thread():
            raise KeyboardInterrupt

    for _ in range(3):
        with pytest.raises(KeyboardInterrupt):
            crew.run(fail, memory.buffer_info()[0])
    done: list[int] = []
    crew.run(done.append, memory.buffer_info()[0])
    assert done
    crew.dismiss()


@pytest.mark.usefixtures("restore_threads")
def test_other_threads_run_during_a_long_update() -> None:
    """With switching by time turned off, another thread runs only where an update lets it."""
    mxopt.set_num_threads(1)
    updater = mxopt.get_updater(mxopt.create("adam"))
    weight, grad = np.ones(4_000_000, np.float32), np.ones(4_000_000, np.float32)
    updater(0, grad, weight)
    progress, held, done = [], threading.Lock(), threading.Event()

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
