"""The event loops of a scheduler and of a server, in one thread each."""

from __future__ import annotations

import logging
import os
import secrets
import threading
import time
from collections.abc import Callable
from typing import Any

from mxopt.errors import JobFailedError, KVStoreError, counted
from mxopt.kvstore import sockets, wire
from mxopt.kvstore.heart import lapse
from mxopt.kvstore.membership import Finished, Membership
from mxopt.kvstore.network import Network
from mxopt.kvstore.progress import Progress
from mxopt.kvstore.wire import Frame
from mxopt.settings import Job
from mxopt_server import logs, state_dir
from mxopt_server.attached import Attached
from mxopt_server.checkpoints import Checkpoints
from mxopt_server.doors import TICK, Doors, Wanted
from mxopt_server.durability import Durability
from mxopt_server.failures import tell_crashes
from mxopt_server.journal import Unkept
from mxopt_server.kept import Hopeless, Kept, cuts_of
from mxopt_server.latency import Latency
from mxopt_server.machine import OutOfMemory
from mxopt_server.notes import Notes
from mxopt_server.routers import listens
from mxopt_server.scheduler import Scheduler
from mxopt_server.server import Server
from mxopt_server.signals import Stop, Stopped

log = logging.getLogger("mxopt.server")


def run_scheduler(
    settings: Job,
    wanted: Wanted,
    ready: Callable[[str], None],
    durability: Durability,
    attach: Callable[[Scheduler], None],
) -> int:
    """Runs a scheduler until its job is over. `ready` is told where it listens; `attach` may have
    it looked after (metrics). Returns the exit code: 0 where the job finished."""
    wire.tune_memory()
    stop = Stop()
    workers, servers, root = settings.workers or 1, settings.servers or 1, durability.root
    job = settings.job
    notes: Any = {}
    if root is not None:
        state_dir.lock(root / "scheduler")  # until this process ends
        facts = {"workers": workers, "servers": servers, "durability": durability.kind}
        job, notes = state_dir.job_in(root, facts, job), Notes(root / "scheduler")
    doors = Doors("scheduler", settings, wanted, lapse(settings.heartbeat, settings.dead_after))
    scheduler = Scheduler(
        doors.sender(),
        workers,
        servers,
        job or secrets.token_hex(8),
        settings.heartbeat,
        settings.dead_after,
        timeout=settings.timeout,
        issued=lambda role, rank, epoch: notes.__setitem__((role, rank), epoch),
        returns=durability.kind == "journal",
        checkpoints=Checkpoints(durability.kind, durability.every, settings.heartbeat, notes),
        listens=listens,
    )
    scheduler.roster.epochs.update({place: epoch for place, epoch in notes.items() if isinstance(place, tuple)})
    try:
        attach(scheduler)
        ready(doors.announced)
        log.info("waiting for %s and %s", *(counted(n, role) for role, n in scheduler.roster.wanted.items()))
        began, stop.held = time.monotonic(), True
        while not scheduler.course.over:
            for route, *frames in doors.received():
                _timed(scheduler.handling, scheduler.handle, route, frames)
                stop.check()
            stop.check()
            scheduler.tick()
            if scheduler.course.state == "gathering" and time.monotonic() - began > settings.join_timeout:
                scheduler.course.fail(
                    f"the job didn't come together within {settings.join_timeout:g} s: {scheduler.roster.missing()}"
                )
    except Stopped as stopped:
        log.warning("stopped by %s", stopped)
        scheduler.course.fail(f"the scheduler was stopped by {stopped}")
    finally:
        doors.close()
    return 0 if scheduler.course.state == "finished" else 1


def run_server(
    settings: Job,
    wanted: Wanted,
    ready: Callable[[str], None],
    durability: Durability,
    attach: Callable[[Server], Attached],
) -> int:
    """Runs a server until its job is over. `ready` is told where it listens, `attach` makes what
    looks after it where its state isn't kept in a folder. Returns the exit code: 0 where the job
    finished."""
    wire.tune_memory()
    stop = Stop()
    network = Network.of(settings)
    doors = Doors("server", settings, wanted)
    member: Membership | None = None
    progress, error = Progress(), ""
    try:
        ready(doors.announced)
        log.info("asking the scheduler at %s for a place", settings.scheduler)
        member = Membership(
            network, settings, "server", sockets.name_of_process(), doors.endpoint, settings.rank, progress,
            "", durability.kind, cuts_of(durability, settings.rank),
        )  # fmt: skip
        logs.call(f"server {member.rank}")
        kept = None
        if durability.root is not None:
            kept = Kept(durability, member.job, member.rank, member.epoch, member.welcome.goes_on)
        server = Server(
            doors.sender(), member.job, member.rank, member.welcome.workers, member.epoch, time.monotonic,
            kept.journal if kept is not None else None, member.leased, doors.room,
        )  # fmt: skip
        server.handshakes.hear(member.members)
        if member.welcome.goes_on == -1:
            server.members.begun = {rank: epoch for rank, epoch, _ in member.members}
        server.applier.progress = progress
        progress.begin("loading the snapshot of server", member.rank)
        attached: Attached | Kept = attach(server)
        if kept is not None:
            attached = kept
            if kept.journal is not None:
                tell_crashes(kept.folder.path)
            kept.restore(server)
            kept.check_alone()
        progress.end()
        watchdog = Watchdog(member, progress)
        try:
            stop.held = True
            _serve(server, doors, member, attached, progress, stop)
        finally:
            watchdog.stop()
            progress.begin("the last snapshot of server", member.rank)
            if server.machine.intact:
                attached.close()
    except Finished:
        log.info("the job has finished without this server")
    except JobFailedError as failure:
        log.error("the job has failed: %s", failure)
        error = str(failure)
    except Stopped as stopped:
        log.warning("stopped by %s", stopped)
        error = f"stopped by {stopped}"
    except OutOfMemory as failure:
        log.error("%s", failure)
        error = str(failure)
        if durability.kind == "journal":
            os.abort()  # as where it crashes: whoever comes after it tries once more
    except (Unkept, Hopeless, KVStoreError) as failure:
        log.error("%s", failure)
        error = str(failure)
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        doors.close()
        if member is not None:
            member.leave(error)
        network.close()
    return 1 if error else 0


class Watchdog:
    """Ends a server of a failed job whose loop doesn't hear of that: it stands still in a call that
    doesn't return."""

    def __init__(self, member: Membership, progress: Progress) -> None:
        self._member, self._progress = member, progress
        self._timer: threading.Timer | None = None
        member.watch(self._changed)

    def stop(self) -> None:
        """Stops watching: the loop has ended by itself."""
        self._member.watch(lambda: None)
        if self._timer is not None:
            self._timer.cancel()

    def _changed(self) -> None:
        if self._member.failure and self._timer is None:
            self._timer = threading.Timer(self._member.welcome.dead_after, self._look, [self._progress.count])
            self._timer.daemon = True
            self._timer.start()

    def _look(self, before: int) -> None:
        if self._progress.count == before:
            log.error("the job has failed: %s; this process ends within %s", self._member.failure, self._progress.doing)
            os._exit(1)


def _serve(server: Server, doors: Doors, member: Membership, attached: Any, progress: Progress, stop: Stop) -> None:
    due = 0.0
    while True:
        for message in doors.received(pauses=server.answers.gathers):
            if not message:
                server.answers.flush()
                continue
            route, *frames = message
            server.received += len(frames[-1]) if frames else 0
            _timed(server.handling, server.handle, route, frames)
            progress.count += 1
            stop.check()
        server.answers.flush()
        stop.check()
        progress.count += 1
        now = time.monotonic()
        if now < due:
            continue
        due = now + TICK
        member.check()
        pulse = member.pulse
        if pulse is not None:
            server.handshakes.hear(pulse.members)
            server.set_ended(set(pulse.ended))
            if pulse.state == "finished":
                return
        attached.tick(0 if pulse is None else pulse.exists)
        if isinstance(attached, Kept):
            member.beat.written, member.beat.full = attached.written, attached.full
            member.reach_cut(server.machine.cut)
        member.beat.lost = server.members.lost


def _timed(latency: Latency, handle: Callable[[bytes, list[Frame]], None], route: bytes, frames: list[Frame]) -> None:
    began = time.perf_counter()
    handle(route, frames)
    latency.add(time.perf_counter() - began)
