"""The scheduler without sockets: who may join."""

from __future__ import annotations

import itertools
from typing import Any

import pytest
from mxopt_server.scheduler import Scheduler

from mxopt.kvstore import messages as m, wire


class Job:
    """A scheduler, and what it answered."""

    def __init__(self, workers: int, servers: int, **options: Any) -> None:
        self.answers: dict[bytes, list[Any]] = {}
        self.now = 0.0
        self.issued: list[tuple[Any, ...]] = []
        self.closed: set[bytes] = set()
        tokens = (f"t{n}" for n in itertools.count())
        self.scheduler = Scheduler(
            self.answer, workers, servers, "job", clock=lambda: self.now, token=lambda: next(tokens),
            issued=lambda *place: self.issued.append(place), **options,
        )  # fmt: skip

    def answer(self, route: bytes, message: object) -> bool:
        self.answers.setdefault(route, []).append(message)
        return route not in self.closed

    def say(self, name: str, message: object) -> Any:
        """The last answer to who sends a message."""
        self.scheduler.handle(name.encode(), [bytes(f) for f in m.encode(message)])
        return self.answers[name.encode()][-1]

    def join(self, name: str, role: str = "worker", rank: int = -1, mode: str = "sync") -> Any:
        """The last answer to a process that asks to join."""
        message = m.Join(wire.VERSION, "", role, rank, 0, 0, "", name, name, mode if role == "worker" else "")
        self.scheduler.handle(name.encode(), m.encode(message))
        return self.answers[name.encode()][-1]


def test_one_worker_too_many_is_refused_and_the_job_goes_on() -> None:
    job = Job(2, 1)
    assert isinstance(job.join("a"), m.Waiting)
    assert isinstance(job.join("b"), m.Waiting)
    extra = job.join("c")
    assert isinstance(extra, m.Refused)
    assert "has all its 2 workers" in extra.text
    assert isinstance(job.join("s", "server"), m.Welcome)
    assert [type(x) for x in job.answers[b"b"]] == [m.Waiting, m.Welcome]


def running(mode: str = "sync", **options: Any) -> tuple[Job, dict[str, m.Welcome]]:
    """A job of two workers and a server, and how they were welcomed; all have beaten once."""
    job = Job(2, 1, **options)
    names = {"a": ("worker", 0), "b": ("worker", 1), "s": ("server", 0)}
    for name, (role, rank) in names.items():
        job.join(name, role, rank, mode)
    welcome = {name: next(x for x in job.answers[name.encode()] if isinstance(x, m.Welcome)) for name in names}
    for name, (role, rank) in names.items():
        job.say(f"heart {name}", m.Beat("job", role, rank, welcome[name].token, 1))
    return job, welcome


def silent(job: Job, welcome: dict[str, m.Welcome], *names: str, seconds: int = 11) -> None:
    """Time in which only the others beat, and have connections."""
    job.closed |= {f"heart {name}".encode() for name in names}
    for _ in range(seconds):
        job.now += 1
        for name, role, rank in (("a", "worker", 0), ("b", "worker", 1), ("s", "server", 0)):
            if name not in names:
                job.say(f"heart {name}", m.Beat("job", role, rank, welcome[name].token, 1))
        job.scheduler.tick()


def test_epochs_rise_and_servers_hear_of_the_workers_tokens() -> None:
    job, welcome = running("async")
    assert {(w.rank, w.epoch) for w in welcome.values()} == {(0, 1), (1, 1)}
    assert len({w.token for w in welcome.values()}) == 3
    assert [(rank, epoch) for rank, epoch, _ in welcome["s"].members] == [(0, 1), (1, 1)]
    assert welcome["a"].members == []
    silent(job, welcome, "b")
    again = job.join("c", rank=1, mode="async")
    assert (again.rank, again.epoch) == (1, 2)
    assert (1, 2, again.token) in job.answers[b"heart s"][-1].members
    assert job.answers[b"heart a"][-1].members == []
    assert job.issued == [("worker", 0, 1), ("worker", 1, 1), ("server", 0, 1), ("worker", 1, 2)]
    assert "doesn't know the process" in job.say("heart b", m.Beat("job", "worker", 1, welcome["b"].token)).text


def test_nobody_takes_the_place_of_a_live_one_and_a_free_one_can_be_had() -> None:
    job, welcome = running("async")
    assert isinstance(job.join("c", rank=1, mode="async"), m.Waiting)
    silent(job, welcome, "b", seconds=9)
    assert isinstance(job.join("c", rank=1, mode="async"), m.Waiting)
    job.closed.clear()
    job.say("l", m.Gone("job", "worker", 1))  # but there is a connection
    assert isinstance(job.join("c", rank=1, mode="async"), m.Waiting)
    job.closed.add(b"heart b")
    job.say("l", m.Gone("job", "worker", 1))
    assert isinstance(job.join("c", rank=1, mode="async"), m.Welcome)
    job.say("a", m.Goodbye("job", "worker", 0, welcome["a"].token, ""))
    assert isinstance(job.join("d", rank=0, mode="async"), m.Welcome)


def test_a_barrier_or_a_goodbye_needs_the_token() -> None:
    job, welcome = running()
    for message in (m.Barrier("job", 0, "guessed", 1, None), m.Goodbye("job", "worker", 0, "guessed", "")):
        assert "doesn't know the process" in job.say("x", message).text
    assert job.scheduler.barriers.routes == {}
    assert [node.state for node in job.scheduler.roster] == ["alive"] * 3
    job.say("a", m.Barrier("job", 0, welcome["a"].token, 1, "x"))
    assert list(job.scheduler.barriers.routes) == [0]


def test_a_server_that_nobody_expects_back_fails_the_job_and_one_that_returns_is_let_in() -> None:
    job, welcome = running()
    silent(job, welcome, "s")
    assert "server 0 (s) has not been heard of" in job.scheduler.course.text
    job, welcome = running(returns=True)
    silent(job, welcome, "s")
    assert job.scheduler.course.state == "running"
    assert job.join("s2", "server", 0).epoch == 2
    job, welcome = running()  # by hand: somebody waits for the place
    for _ in range(12):
        silent(job, welcome, "s", seconds=1)
        answer = job.join("s2", "server", 0)
    assert answer.epoch == 2
    assert job.scheduler.course.state == "running"


@pytest.mark.parametrize("noticed", [False, True])
def test_a_server_that_its_launcher_will_not_start_again_fails_the_job_at_once(noticed: bool) -> None:
    job, welcome = running(returns=True)
    if noticed:
        silent(job, welcome, "s")
    else:
        job.say("l", m.Gone("job", "server", 0, "killed by SIGKILL"))  # but there is a connection
    assert job.scheduler.course.state == "running"
    job.closed.add(b"heart s")
    job.say("l", m.Gone("job", "server", 0, "killed by SIGKILL"))
    assert job.scheduler.course.text.startswith("server 0 (s) has ended, and won't come back: killed by SIGKILL")
    assert job.answers[b"heart a"][-1].state == "failed"


def test_a_server_that_is_killed_before_the_job_is_complete_is_replaced_too() -> None:
    job = Job(1, 1)
    assert isinstance(job.join("s", "server", 0), m.Waiting)
    assert "rank 0 is taken" in job.join("s2", "server", 0).text
    job.say("l", m.Gone("job", "server", 0))
    assert isinstance(job.join("s2", "server", 0), m.Waiting)
    assert isinstance(job.join("a"), m.Welcome)
    assert [(node.name, node.epoch) for node in job.scheduler.roster if node.role == "server"] == [("s2", 2)]


def test_a_server_whose_socket_on_this_machine_is_closed_is_replaced_at_once() -> None:
    here = {"ipc:///s"}
    job = Job(1, 1, listens=lambda endpoint: endpoint in here)

    def join(name: str, endpoint: str) -> object:
        return job.say(name, m.Join(wire.VERSION, "", "server", 0, 0, 0, endpoint, name, name))

    join("s", "ipc:///s")
    job.join("a")
    assert isinstance(join("s2", "ipc:///s2"), m.Waiting)
    job.now += 1
    assert isinstance(join("s2", "ipc:///s2"), m.Waiting)
    here.clear()
    for answer in (m.Waiting, m.Welcome):
        assert isinstance(join("s2", "ipc:///elsewhere"), answer)
    assert job.scheduler.course.state == "running"
    for _ in range(3):  # one of another machine may only be out of reach
        assert isinstance(join("s3", "ipc:///s3"), m.Waiting)


def test_a_server_that_comes_back_to_a_job_that_has_finished_may_go() -> None:
    job, welcome = running("sync", returns=True)
    for name, rank in (("a", 0), ("b", 1)):
        job.say(name, m.Goodbye("job", "worker", rank, welcome[name].token, ""))
    assert job.scheduler.course.state == "finished"
    assert isinstance(job.join("s2", "server", 0), m.Farewell)
    assert "the job has finished" in job.join("c").text  # a worker has come for nothing


def test_a_scheduler_waits_at_the_end_for_a_server_that_has_died_but_not_long() -> None:
    for comes in (True, False):
        job, welcome = running(returns=True)
        silent(job, welcome, "s")
        for name, rank in (("a", 0), ("b", 1)):
            job.say(name, m.Goodbye("job", "worker", rank, welcome[name].token, ""))
        course = job.scheduler.course
        assert course.state == "finished"
        assert not course.over
        if comes:
            assert isinstance(job.join("s2", "server", 0), m.Farewell)
        else:
            job.now += course.dead_after + 1
        assert course.over


def test_every_worker_is_told_how_many_pushes_the_servers_of_a_place_have_lost() -> None:
    job, welcome = running("async", returns=True)
    assert job.say("heart s", m.Beat("job", "server", 0, welcome["s"].token, 2, lost=3)).lost == [3]
    silent(job, welcome, "s")
    again = job.join("s2", "server", 0)
    for number, (lost, total) in enumerate([(0, 3), (2, 3), (5, 5)]):  # it counts what it had lost before, too
        job.say("heart s2", m.Beat("job", "server", 0, again.token, 1 + number, lost=lost))
        for name, rank in (("a", 0), ("b", 1)):
            assert job.say(f"heart {name}", m.Beat("job", "worker", rank, welcome[name].token, 2)).lost == [total]
    assert [node["lost"] for node in job.scheduler.report()["nodes"]] == [0, 0, 5]


def test_workers_of_async_come_and_go_and_barriers_wait_for_those_that_are_there() -> None:
    job, welcome = running("async")
    job.say("a", m.Barrier("job", 0, welcome["a"].token, 1, "first"))
    silent(job, welcome, "b")
    assert job.answers[b"a"][-1] == m.Passed(1, "first")
    new = job.join("c", rank=1, mode="async")
    assert job.say("c", m.Barrier("job", 1, new.token, 1, None)) == m.Passed(1, "first")  # what it has missed
    job.say("c", m.Barrier("job", 1, new.token, 2, None))
    assert job.answers[b"c"][-1] == m.Passed(1, "first")
    assert job.say("a", m.Barrier("job", 0, welcome["a"].token, 2, "second")) == m.Passed(2, "second")
    job.say("c", m.Goodbye("job", "worker", 1, new.token, "it raised"))
    assert job.scheduler.course.state == "running"
    job.say("a", m.Goodbye("job", "worker", 0, welcome["a"].token, ""))
    assert job.scheduler.course.state == "finished"


def test_a_job_of_async_fails_with_its_last_worker() -> None:
    job, welcome = running("async")
    silent(job, welcome, "a", "b")
    assert job.scheduler.course.state == "failed"
