"""The scheduler without sockets: who may join."""

from __future__ import annotations

from mxopt_server.scheduler import Scheduler

from mxopt.kvstore import messages as m
from mxopt.kvstore import wire


class Job:
    """A scheduler, and what it answered."""

    def __init__(self, workers: int, servers: int) -> None:
        self.answers: dict[bytes, list[object]] = {}
        self.scheduler = Scheduler(self.answer, workers, servers, "job")

    def answer(self, route: bytes, message: object) -> None:
        self.answers.setdefault(route, []).append(message)

    def join(self, name: str, role: str = "worker", rank: int = -1) -> object:
        """The last answer to a process that asks to join."""
        message = m.Join(wire.VERSION, "", role, rank, 0, 0, "", name, name)
        self.scheduler.handle(name.encode(), m.encode(message))
        return self.answers[name.encode()][-1]


def test_one_worker_too_many_is_refused_and_the_job_goes_on():
    job = Job(2, 1)
    assert isinstance(job.join("a"), m.Waiting)
    assert isinstance(job.join("b"), m.Waiting)
    extra = job.join("c")
    assert isinstance(extra, m.Refused)
    assert "has all its 2 workers" in extra.text
    assert isinstance(job.join("s", "server"), m.Welcome)
    assert [type(x) for x in job.answers[b"b"]] == [m.Waiting, m.Welcome]
