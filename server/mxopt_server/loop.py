"""The event loops that move a scheduler and a server: one thread, one socket."""

from __future__ import annotations

import logging
import secrets
import signal
import socket as socket_module
import time
from collections.abc import Callable
from typing import Any

import zmq

from mxopt.errors import JobFailedError
from mxopt.kvstore import messages as m
from mxopt.kvstore import sockets, wire
from mxopt.kvstore.heart import lapse
from mxopt.kvstore.membership import Membership
from mxopt.kvstore.network import Network
from mxopt.settings import Job
from mxopt_server.scheduler import Scheduler
from mxopt_server.server import Server

log = logging.getLogger("mxopt.server")

TICK = 0.1  # seconds between looks at the clock


class Stopped(BaseException):
    """A signal asked the process to end."""


def stop_on_signals() -> None:
    """Makes SIGTERM and SIGINT end the loop in an orderly way."""

    def stop(number: int, frame: object) -> None:
        raise Stopped(signal.Signals(number).name)

    signal.signal(signal.SIGTERM, stop)
    signal.signal(signal.SIGINT, stop)


def sender(socket: Any) -> Callable[[bytes, Any], bool]:
    """A function that sends a message to a route; to one that is gone, or reads too slowly, it drops it. It tells
    whether there is a connection."""
    more = sockets.MORE | sockets.NOW

    def send(route: bytes, message: Any) -> bool:
        frames = m.encode(message)
        last = frames.pop()
        try:
            socket.send(route, more)
            for frame in frames:
                socket.send(frame, more)
            socket.send(last, sockets.NOW, len(last) < wire.SMALL)
        except zmq.ZMQError as error:
            log.info("an answer couldn't be sent: %s", error)
            return error.errno != zmq.EHOSTUNREACH
        return True

    return send


def run_scheduler(settings: Job, host: str, port: int, insecure: bool, ready: Callable[[str], None]) -> int:
    """Runs a scheduler until its job is over. Returns the exit code: 0 where the job finished."""
    wire.tune_memory()
    context = zmq.Context()
    keys = sockets.load_keys(settings.keys)
    sockets.check_bind(host, keys, insecure)
    guard = sockets.authenticator(context, keys)
    socket, port = sockets.bind(context, host, port, keys, lapse(settings.heartbeat, settings.dead_after))
    socket.setsockopt(zmq.RCVTIMEO, int(TICK * 1000))
    scheduler = Scheduler(
        sender(socket),
        settings.workers or 1,
        settings.servers or 1,
        settings.job or secrets.token_hex(8),
        settings.heartbeat,
        settings.dead_after,
    )
    ready(f"tcp://{host}:{port}")
    try:
        stop_on_signals()
        began = time.monotonic()
        while not scheduler.over:
            for route, *frames in received(socket):
                scheduler.handle(route, frames)
            scheduler.tick()
            if scheduler.state == "gathering" and time.monotonic() - began > settings.join_timeout:
                scheduler.fail(
                    f"the job didn't come together within {settings.join_timeout:g} s: {scheduler._missing()}"
                )
    except Stopped as stopped:
        log.warning("stopped by %s", stopped)
        scheduler.fail(f"the scheduler was stopped by {stopped}")
    finally:
        if guard is not None:
            guard.stop()
        socket.close()
        context.term()
    return 0 if scheduler.state == "finished" else 1


def run_server(
    settings: Job, host: str, port: int, insecure: bool, ready: Callable[[str], None], attach: Callable[[Server], Any]
) -> int:
    """Runs a server until its job is over. `attach` makes what else looks after it (snapshots, metrics): an object with
    `tick()` and `close()`. Returns the exit code: 0 where the job finished."""
    wire.tune_memory()
    context = zmq.Context()
    keys = sockets.load_keys(settings.keys)
    sockets.check_bind(host, keys, insecure)
    guard = sockets.authenticator(context, keys)
    socket, port = sockets.bind(context, host, port, keys)
    socket.setsockopt(zmq.RCVTIMEO, int(TICK * 1000))
    endpoint = "" if settings.advertised or not sockets.is_loopback(host) else sockets.bind_local(socket, port)
    if not endpoint:
        shown = settings.advertised or (host if host != "0.0.0.0" else socket_module.gethostname())
        endpoint = f"tcp://{shown}" if ":" in shown else f"tcp://{shown}:{port}"
    ready(f"tcp://{host}:{port}")
    network: Network | None = None
    member: Membership | None = None
    error = ""
    try:
        stop_on_signals()
        network = Network.of(settings)
        member = Membership(network, settings, "server", sockets.name_of_process(), endpoint, settings.rank)
        server = Server(
            sender(socket), member.job, member.rank, member.welcome.workers, secrets.token_hex(8), time.monotonic
        )
        attached = attach(server)
        try:
            _serve(server, socket, member, attached)
        finally:
            attached.close()
    except JobFailedError as failure:
        log.error("the job has failed: %s", failure)
        error = str(failure)
    except Stopped as stopped:
        log.warning("stopped by %s", stopped)
        error = f"stopped by {stopped}"
    except BaseException as failure:
        error = f"{type(failure).__name__}: {failure}"
        raise
    finally:
        if member is not None:
            member.leave(error)
        if network is not None:
            network.close()
        if guard is not None:
            guard.stop()
        socket.close()
        context.term()
    return 1 if error else 0


def _serve(server: Server, socket: Any, member: Membership, attached: Any) -> None:
    handle, due = server.handle, 0.0
    while True:
        for route, *frames in received(socket):
            server.received += len(frames[-1]) if frames else 0
            handle(route, frames)
        now = time.monotonic()
        if now < due:
            continue
        due = now + TICK
        member.check()
        pulse = member.pulse
        if pulse is not None:
            server.set_ended(set(pulse.ended))
            if pulse.state == "finished":
                return
        attached.tick()


def received(socket: Any) -> Any:
    """Messages as they come: each a list of frames, the route first, large ones not copied. Ends after a tick's
    time."""
    until = time.monotonic() + TICK
    while time.monotonic() < until:
        try:
            frames = sockets.receive(socket)
        except zmq.Again:
            return
        yield frames
