"""The sockets on which a scheduler or server listens, unencrypted or with the job's keys."""

from __future__ import annotations

import contextlib
import errno
import ipaddress
import os
import resource
import socket
from pathlib import Path
from typing import TYPE_CHECKING

import zmq

from mxopt.errors import ArgumentError, KVStoreError
from mxopt.kvstore import sockets, unix
from mxopt.kvstore.keys import KeyPair
from mxopt.kvstore.wire import MAX_FRAME

if TYPE_CHECKING:
    from zmq.auth.thread import ThreadAuthenticator

RECEIVE_QUEUE = 256  # messages waiting on one connection before its sender is held back
SEND_QUEUE = 4096
HANDSHAKE_MS = 5000  # how long a connection may be without its handshake
ALLOW = "mxopt-job"


def is_loopback(host: str) -> bool:
    """Whether an address to bind to can be reached from this machine only."""
    if host == "localhost":
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False


def check_bind(host: str, keys: KeyPair | None, insecure: bool) -> None:
    """Raises ArgumentError if other machines could reach an address without keys."""
    if keys is None and not insecure and not is_loopback(host):
        raise ArgumentError(
            f"binding to {host} lets other machines in: give --keys (see `mxopt-server keygen`), or --insecure"
        )


def router(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair | None, lapse: float) -> zmq.Socket[bytes]:
    """A ROUTER socket, with `keys` for holders of them only. It closes a connection after `lapse`
    seconds without a sign of life; ZeroMQ's own thread gives one when it is asked, whatever the
    process is busy with."""
    made = context.socket(zmq.ROUTER)
    sockets.prepare(made)
    made.setsockopt(zmq.ROUTER_HANDOVER, 1)
    made.setsockopt(zmq.ROUTER_MANDATORY, 1)
    made.setsockopt(zmq.RCVHWM, RECEIVE_QUEUE)
    made.setsockopt(zmq.SNDHWM, SEND_QUEUE)
    made.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME)
    made.setsockopt(zmq.HANDSHAKE_IVL, HANDSHAKE_MS)
    made.setsockopt(zmq.HEARTBEAT_IVL, int(lapse * 1000 / 3))
    made.setsockopt(zmq.HEARTBEAT_TIMEOUT, int(lapse * 1000 * 2 / 3))
    if keys is not None:
        made.curve_publickey, made.curve_secretkey = keys
        made.curve_server = True
        made.setsockopt(zmq.ZAP_DOMAIN, ALLOW.encode())
    return made


def allow_connections() -> None:
    """Lets this process have as many connections as the system grants, so that those of strangers
    leave room for others'."""
    with contextlib.suppress(OSError, ValueError):
        _, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))


def bind_tcp(made: zmq.Socket[bytes], host: str, port: int) -> int:
    """Binds a socket to `host` and `port`, a free one for 0; returns the port."""
    try:
        made.bind(f"tcp://{host}:{port or '*'}")
    except zmq.ZMQError as error:
        raise KVStoreError(f"can't bind to {host}:{port}: {error}") from error
    bound = made.getsockopt(zmq.LAST_ENDPOINT)
    assert isinstance(bound, bytes)
    return int(bound.rstrip(b"\0").rpartition(b":")[2])


def bind_unix(made: zmq.Socket[bytes], endpoint: str) -> None:
    """Binds a socket to `ipc://PATH`, which only its owner may open. A path that a dead process has
    left is taken."""
    if listens(endpoint):
        raise KVStoreError(f"can't bind to {unix.path_of(endpoint)}: another process listens there")
    before = os.umask(0o177)
    try:
        made.bind(endpoint)
    except zmq.ZMQError as error:
        raise KVStoreError(f"can't bind to {unix.path_of(endpoint)}: {error}") from error
    finally:
        os.umask(before)


def sweep(folder: Path) -> None:
    """Removes the sockets in a folder that killed processes have left."""
    with contextlib.suppress(OSError):
        for path in folder.iterdir():
            if path.is_socket() and _connects(path) == errno.ECONNREFUSED:
                path.unlink(missing_ok=True)


def listens(endpoint: str) -> bool:
    """Whether a process of this machine listens at the Unix socket of an endpoint, if that has one;
    a stopped one does."""
    local = endpoint.partition(" ")[0]
    with contextlib.suppress(ArgumentError):  # there can be no such socket
        return unix.is_unix(local) and _connects(unix.path_of(local)) in (0, errno.EAGAIN)
    return False


def _connects(path: Path) -> int:
    with socket.socket(socket.AF_UNIX) as made:
        made.setblocking(False)
        return made.connect_ex(str(path))


def authenticator(context: zmq.Context[zmq.Socket[bytes]], keys: KeyPair | None) -> ThreadAuthenticator | None:
    """Lets in only those that hold the job's keys; to be stopped at the end. None without keys."""
    if keys is None:
        return None
    from zmq.auth.thread import ThreadAuthenticator  # which brings in asyncio

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
