"""ZeroMQ sockets as this protocol uses them, in the clear or with the job's keys (CurveZMQ)."""

from __future__ import annotations

import ipaddress
import os
import socket
import stat
import sys
from pathlib import Path
from typing import Any

import zmq
import zmq.auth
from zmq.auth.thread import ThreadAuthenticator

from mxopt.errors import ArgumentError, KVStoreError
from mxopt.kvstore.wire import MAX_FRAME, SMALL

LINGER_MS = 2000
RECEIVE_QUEUE = 256  # messages waiting on one connection before its sender is held back
SEND_QUEUE = 4096
ALLOW = "mxopt-job"
MORE, NOW = int(zmq.SNDMORE), int(zmq.DONTWAIT)

Keys = tuple[bytes, bytes]


def load_keys(path: str) -> Keys | None:
    """The job's key pair (public, secret) from a file of `mxopt-server keygen`; None where no file is named.

    Raises ArgumentError where the file can't be read, or others can read it too.
    """
    if not path:
        return None
    file = Path(path)
    if not file.is_file():
        raise ArgumentError(f"there is no key file {path}: make one with `mxopt-server keygen`")
    if os.name == "posix" and stat.S_IMODE(file.stat().st_mode) & 0o077:
        raise ArgumentError(f"the key file {path} can be read by others: chmod 600 it")
    try:
        public, secret = zmq.auth.load_certificate(path)
    except (OSError, ValueError) as error:
        raise ArgumentError(f"{path} is no key file: {error}") from error
    if secret is None:
        raise ArgumentError(f"{path} has no secret key")
    return public, secret


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, keys: Keys | None, insecure: bool) -> None:
    """Raises ArgumentError where others could reach an address without keys."""
    if keys is None and not insecure and not is_loopback(host):
        raise ArgumentError(
            f"binding to {host} lets other machines in: give --keys (see `mxopt-server keygen`), or --insecure"
        )


def connect(context: Any, endpoint: str, keys: Keys | None, identity: bytes = b"") -> Any:
    """A DEALER socket to `endpoint`."""
    made = context.socket(zmq.DEALER)
    _prepare(made)
    if identity:
        made.setsockopt(zmq.IDENTITY, identity)
    made.setsockopt(zmq.RECONNECT_IVL, 50)
    made.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    made.setsockopt(zmq.SNDHWM, 0)  # bounded by the window of requests
    made.setsockopt(zmq.SNDTIMEO, 100)  # while there is no connection; what isn't sent is sent again
    made.setsockopt(zmq.RCVHWM, 0)
    if keys is not None:
        made.curve_publickey, made.curve_secretkey = keys
        made.curve_serverkey = keys[0]
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise KVStoreError(f"can't connect to {endpoint}: {error}") from error
    return made


def send(made: Any, frames: list[Any]) -> None:
    """Sends a message, or nothing of it while there is no connection."""
    try:
        for frame in frames[:-1]:
            made.send(frame, MORE, len(frame) < SMALL)
        made.send(frames[-1], 0, len(frames[-1]) < SMALL)
    except zmq.Again:
        pass


def receive(made: Any, flags: int = 0) -> list[Any]:
    """The frames of a message: the first as bytes, of the others large ones as `zmq.Frame`, without a copy."""
    frame = made.recv(flags, False)
    frames = [frame.bytes]
    while frame.more:
        frame = made.recv(0, False)
        frames.append(frame if len(frame) >= SMALL else frame.bytes)
    return frames


def bind(context: Any, host: str, port: int, keys: Keys | None, lapse: float = 35) -> tuple[Any, int]:
    """A ROUTER socket bound to `host`, and its port (a free one for 0). It closes a connection after `lapse` seconds
    without a sign of life; ZeroMQ's own thread gives one when it is asked, whatever the process is busy with."""
    made = context.socket(zmq.ROUTER)
    _prepare(made)
    made.setsockopt(zmq.ROUTER_HANDOVER, 1)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)
    made.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
    made.setsockopt(zmq.SNDHWM, SEND_QUEUE)
    made.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    made.setsockopt(zmq.HEARTBEAT_IVL, int(lapse * 1000 / 3))
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(lapse * 1000 * 2 / 3))
    if keys is not None:
        made.curve_publickey, made.curve_secretkey = keys
        made.curve_server = True
        made.setsockopt(zmq.ZAP_DOMAIN, ALLOW.encode())
    try:
        if port:
            made.bind(f"tcp://{host}:{port}")
        else:
            port = made.bind_to_random_port(f"tcp://{host}")
    except zmq.ZMQError as error:
        made.close(0)
        raise KVStoreError(f"can't bind to {host}:{port}: {error}") from error
    return made, port


def bind_local(made: Any, port: int) -> str:
    """Lets processes of this machine reach a socket that is bound to a loopback `port` by a Unix socket too, which
    costs a third less than TCP. Its name is in Linux's abstract namespace: no file, gone with the process, and seen
    just where the loopback address is. Returns the endpoint; "" where there is none."""
    if sys.platform != "linux":
        return ""
    endpoint = f"ipc://@mxopt-{port}"
    try:
        made.bind(endpoint)
    except zmq.ZMQError:  # somebody else has the name
        return ""
    return endpoint


def authenticator(context: Any, keys: Keys | None) -> ThreadAuthenticator | None:
    """Lets in only those that hold the job's keys; to be stopped at the end. None without keys."""
    if keys is None:
        return None
    made = ThreadAuthenticator(context)
    made.start()
    made.configure_curve_callback(ALLOW, credentials_provider=_Holder(keys[0]))
    return made


class _Holder:
    def __init__(self, public: bytes) -> None:
        self.public = public

    def callback(self, domain: str, key: bytes) -> bool:
        """Whether a client with this key (in Z85) may come in."""
        return key == self.public


def _prepare(made: Any) -> None:
    made.setsockopt(zmq.LINGER, LINGER_MS)
    made.setsockopt(zmq.IPV6, 0)


def name_of_process() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"
