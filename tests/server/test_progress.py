"""A server whose loop stands still is dead, though its heart beats; one that has called something
long is not."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from jobs import Job, Process, environment
from mxopt_server import served
from mxopt_server.records import Changed, Optimizer
from mxopt_server.scheduler import Scheduler
from peer import Peer

import mxopt
from mxopt.kvstore import messages as m
from mxopt.kvstore.heart import Heart
from mxopt.kvstore.progress import Progress
from mxopt.optimizer.config import optimizer_config

SLOW = """
import os, threading, mxopt, mxopt_server.server

@mxopt.register
class Slow(mxopt.Optimizer):
    def update(self, index, weight, grad, state):
        threading.Event().wait(float(os.environ["SLOW_S"]))
        weight -= grad

if os.environ.get("STAND_STILL"):
    mxopt_server.server.Server.set_ended = lambda *_: threading.Event().wait()
"""
WORKER = """
import os, numpy as np, mxopt, slow
store = mxopt.kvstore.create("dist_sync")
store.set_optimizer(slow.Slow())
out = np.ones(3, np.float32)
store.init("w", out)
store.pushpull("w", np.ones(3, np.float32), out=out)
while os.environ.get("STAND_STILL"):
    store.pushpull("w", np.ones(3, np.float32), out=out)
print("GOT", out.tolist(), flush=True)
"""


def job(folder: Path, **env: Any) -> tuple[Job, Process]:
    (folder / "slow.py").write_text(SLOW)
    path = environment()["PYTHONPATH"] + os.pathsep + str(folder)
    made = Job(1, 1, ("--import", "slow"), PYTHONPATH=path, MXOPT_KVSTORE_DEAD_AFTER=2, **env)
    worker = made.start([sys.executable, "-c", WORKER], DMLC_ROLE="worker", MXOPT_KVSTORE_TIMEOUT=60)
    return made, worker


def test_an_update_that_takes_longer_than_a_silence_may_is_waited_for(tmp_path: Path) -> None:
    made, worker = job(tmp_path, SLOW_S=4)
    with made:
        assert worker.finish(30) == 0, worker.output
    assert "GOT [0.0, 0.0, 0.0]" in worker.lines


@pytest.mark.parametrize(
    ("env", "text"),
    [
        ({"SLOW_S": 1000, "MXOPT_KVSTORE_TIMEOUT": 4}, "stood still for 4 s, in an update of key 'w'"),
        ({"SLOW_S": 0, "STAND_STILL": 1}, "stood still for 2 s"),
    ],
)
def test_a_server_that_stands_still_fails_the_job_and_ends(tmp_path: Path, env: dict[str, object], text: str) -> None:
    made, worker = job(tmp_path, **env)
    with made:
        assert worker.finish(30) != 0
        assert f"loop has {text}" in worker.output, worker.output
        assert "server 0" in worker.output
        assert made.servers[0].finish(15) != 0


class TestScheduler:
    """The same by a clock of the test's own."""

    @pytest.fixture
    def scheduler(self) -> Scheduler:
        self.now = 0.0
        made = Scheduler(
            lambda route, message: True, 1, 1, "job", 1, 10, lambda: self.now, timeout=100, token=lambda: "t"
        )
        for role in ("worker", "server"):
            made.handle(b"%d" % len(role), m.encode(m.Join(2, "", role, 0, 0, 0, "tcp://a:1", role, role)))
        assert made.course.state == "running"
        return made

    def beat(self, scheduler: Scheduler, seconds: int, progress: Callable[[int], int], doing: str = "") -> None:
        """A second at a time: the worker beats, and the server with `progress(second)`."""
        for k in range(seconds):
            self.now += 1
            scheduler.handle(b"w", m.encode(m.Beat("job", "worker", 0, "t")))
            scheduler.handle(b"s", m.encode(m.Beat("job", "server", 0, "t", 0, progress(k), doing)))
            scheduler.tick()

    def test_a_loop_that_moves_is_alive(self, scheduler: Scheduler) -> None:
        self.beat(scheduler, 1000, lambda k: k)
        assert scheduler.course.state == "running"

    def test_a_loop_that_stands_still_is_dead(self, scheduler: Scheduler) -> None:
        self.beat(scheduler, 11, lambda k: 7)
        assert scheduler.course.state == "running"
        self.beat(scheduler, 1, lambda k: 7)
        assert "server 0 (server) beats, but its loop has stood still for 10 s" in scheduler.course.text

    def test_a_call_has_the_deadline_of_requests(self, scheduler: Scheduler) -> None:
        self.beat(scheduler, 101, lambda k: 7, "an update of key 3")
        assert scheduler.course.state == "running"
        self.beat(scheduler, 1, lambda k: 7, "an update of key 3")
        assert "stood still for 100 s, in an update of key 3" in scheduler.course.text

    def test_who_says_nothing_of_its_loop_is_judged_by_its_beats_only(self, scheduler: Scheduler) -> None:
        self.beat(scheduler, 1000, lambda k: -1)
        assert scheduler.course.state == "running"


def test_the_heart_tells_what_the_loop_does() -> None:
    progress = Progress()
    heart = Heart(m.Beat("job", "server", 0, "ab"), 1, 10, "tcp://a:1", 0.0, progress)
    progress.count = 5
    assert m.decode(heart.turn(0.0)) == m.Beat("job", "server", 0, "ab", 1, 5, "")  # type: ignore[arg-type]
    progress.begin("an update of key", "w")
    assert m.decode(heart.turn(1.0)) == m.Beat("job", "server", 0, "ab", 2, 5, "an update of key 'w'")  # type: ignore[arg-type]
    progress.end()
    assert m.decode(heart.turn(2.0)) == m.Beat("job", "server", 0, "ab", 3, 6, "")  # type: ignore[arg-type]


def test_the_constructor_of_an_optimizer_is_announced_too(monkeypatch: pytest.MonkeyPatch) -> None:
    server, seen, make = Peer().server, [], served.make_optimizer  # type: ignore[attr-defined]
    monkeypatch.setattr(
        served,
        "make_optimizer",
        lambda config: seen.append(server.applier.progress.doing) or make(config),  # type: ignore[func-returns-value]
    )
    for rate, record in ((1.0, lambda c: Optimizer(1, c)), (2.0, lambda c: Changed(c, 1))):
        server.machine.enter(record(optimizer_config(mxopt.create("sgd", learning_rate=rate))))
    assert seen == ["the constructor of optimizer 'sgd'"] * 2
    assert server.applier.progress.doing == ""
