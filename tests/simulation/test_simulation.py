"""A thousand simulated jobs with delays, cuts, stopped processes and deaths; and that the
simulation sees faults."""

from __future__ import annotations

import logging
from collections.abc import Callable

import pytest
from msgspec.structs import replace
from mxopt_server import worker_session
from mxopt_server.rounds import Sync
from simulation.disk import MOMENTS
from simulation.jobs import Job, Plan, drawn, undisturbed
from simulation.network import Line, Weather
from simulation.programs import PROGRAMS

from mxopt.kvstore import messages as m, session, wire
from mxopt.kvstore.channel import Channel, Request
from mxopt.kvstore.session import Session

JOBS, BATCH = 1000, 100


@pytest.mark.parametrize("first", range(0, JOBS, BATCH))
def test_jobs_end_with_the_same_bits_or_an_error_that_names_the_culprit(first: int) -> None:
    for seed in range(first, first + BATCH):
        job = Job(drawn(seed))
        job.run()
        assert job.faults() == [], f"replay it: scripts/simulate --jobs 1 --seed {seed}"


def test_a_seed_is_the_same_run_every_time() -> None:
    seed = next(s for s in range(100) if drawn(s).weather.cuts and drawn(s).death is None)
    ends = []
    for _ in range(2):
        job = Job(drawn(seed))
        job.run()
        ends.append((job.world.now, [worker.result for worker in job.workers]))
    assert ends[0] == ends[1]


def storm(seed: int) -> Plan:
    return Plan("pushes_only", "sync", 2, 1, seed, Weather(0.01, cuts=0.2), pause=0.5)


def test_cut_connections_cost_no_more_than_what_was_on_the_way() -> None:
    """One Ready a gap, one resend a Ready."""
    for seed in range(20):
        calm, cut = Job(Plan("pushes_only", "sync", 2, 1, seed)), Job(storm(seed))
        for job in (calm, cut):
            job.run()
        assert cut.network.messages < 3 * calm.network.messages + 60 * cut.network.cuts


@pytest.mark.parametrize("broken", ["nothing is sent again", "nobody asks", "pushes count twice"])
def test_the_simulation_sees_a_session_that_is_broken(monkeypatch: pytest.MonkeyPatch, broken: str) -> None:
    undisturbed("pushes_only", "sync", 2, 1)  # while nothing is broken: it is remembered
    if broken == "nothing is sent again":
        ready = Session._ready

        def forgets(self: Session, channel: Channel, answer: m.Ready) -> None:
            pending, channel.pending = channel.pending, {}
            ready(self, channel, answer)
            channel.pending = pending

        monkeypatch.setattr(Session, "_ready", forgets)
    elif broken == "nobody asks":
        monkeypatch.setattr(session, "ASK_AFTER_S", 1e9)
        monkeypatch.setattr(Line, "renewed", lambda self: False)
    else:
        monkeypatch.setattr(Sync, "is_new", lambda self, rank, number, key: True)
        monkeypatch.setattr(Session, "_dispatch", twice(Session._dispatch))
    assert any(faults(storm(seed)) for seed in range(20))


def twice(dispatch: Callable[..., None]) -> Callable[..., None]:
    def sends(self: Session, channel: Channel, request: Request) -> None:
        dispatch(self, channel, request)
        if type(request.message).__name__ == "Push" and channel.next % 5 == 0:
            again = Request(replace(request.message), 0, None, None)
            dispatch(self, channel, again)

    return sends


def faults(plan: Plan) -> list[str]:
    job = Job(plan)
    job.run()
    return job.faults()


@pytest.mark.parametrize("moment", [*MOMENTS, "power"])
def test_servers_that_die_at_any_record_and_come_back_lose_nothing(moment: str) -> None:
    for program in PROGRAMS:
        for record in range(0, 24, 3):
            plan = Plan(program, "sync", 2, 2, record, Weather(0.005, cuts=5.0), pause=0.05, durability="journal")
            plan.fsync, plan.crashes = moment == "power", {0: (record, moment, 0.5), 1: (record + 5, moment, 2.0)}
            assert faults(plan) == [], plan


@pytest.mark.parametrize("program", ["pushpull", "by_key"])
def test_a_worker_that_reads_is_never_held_up_by_a_server_that_came_back(
    program: str, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Windows of some bytes, so that what these jobs send is many times as large. An answer that is
    given twice is already more than a worker may have unread: it says that it has read it with what
    it sends again."""
    caplog.set_level(logging.INFO)
    monkeypatch.setattr(wire, "WINDOW", 512)
    monkeypatch.setattr(worker_session, "CREDIT", 1024)
    for record in (10, 16):
        plan = Plan(program, "sync", 2, 2, record, Weather(0.005), pause=0.05, durability="journal")
        plan.crashes = {0: (record, "after", 0.5)}
        assert faults(plan) == [], plan
    assert "has come back" in caplog.text
    assert program != "by_key" or "more without an answer than it may" in caplog.text


def test_a_worker_that_holds_the_interpreters_lock_is_not_dead_and_a_stopped_one_is() -> None:
    for seed in range(10):
        plan = Plan("pushes_only", "sync", 2, 1, seed, Weather(0.01, cuts=2.0), pause=4.0)
        plan.hold = (1.0, "worker 1", 50.0)
        assert faults(plan) == []
        plan.hold, plan.stop = None, (1.0, "worker 1", 50.0)
        job = Job(plan)
        job.run()
        assert "worker 1 (" in str(job.workers[0].error)
        assert "has not been heard of for 10 s" in str(job.workers[0].error)
        assert job.noticed["worker 0"][1] < 1.0 + 10.0 + 20.0
