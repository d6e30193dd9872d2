"""ZeroMQ sockets as this protocol uses them, unencrypted or with the job's keys."""

from __future__ import annotations

import os
import socket

import zmq

from mxopt.errors import KVStoreError
from mxopt.kvstore import unix
from mxopt.kvstore.keys import KeyPair
from mxopt.kvstore.wire import SMALL, Frame

LINGER_MS = 2000
FRAMES = 8  # of a message that are kept
MORE, NOW = int(zmq.SNDMORE), int(zmq.DONTWAIT)


def connect(
    context: zmq.Context[zmq.Socket[bytes]], endpoint: str, keys: KeyPair | None, identity: bytes = b""
) -> zmq.Socket[bytes]:
    """A DEALER socket to `endpoint`, or that of several which `unix.choose` takes; with `keys`
    where it is by TCP."""
    endpoint = unix.choose(endpoint)
    made = context.socket(zmq.DEALER)
    prepare(made)
    if identity:
        made.setsockopt(zmq.IDENTITY, identity)
    made.setsockopt(zmq.RECONNECT_IVL, 50)
    made.setsockopt(zmq.RECONNECT_IVL_MAX, 1000)
    made.setsockopt(zmq.SNDHWM, 0)  # bounded by the window of requests
    made.setsockopt(zmq.SNDTIMEO, 100)  # while there is no connection; what isn't sent is sent again
    made.setsockopt(zmq.RCVHWM, 0)
    if keys is not None and not unix.is_unix(endpoint):
        made.curve_publickey, made.curve_secretkey = keys
        made.curve_serverkey = keys[0]
    try:
        made.connect(endpoint)
    except zmq.ZMQError as error:
        made.close(0)
        raise KVStoreError(f"can't connect to {endpoint}: {error}") from error
    return made


def send(made: zmq.Socket[bytes], frames: list[Frame]) -> bool:
    """Sends a message, or nothing of it while there is no connection; says which."""
    try:
        for frame in frames[:-1]:
            made.send(frame, MORE, len(frame) < SMALL)
        made.send(frames[-1], 0, len(frames[-1]) < SMALL)
    except zmq.Again:
        return False
    return True


def receive(made: zmq.Socket[bytes], flags: int = 0) -> list[Frame]:
    """The frames of a message: the first as bytes, of the others large ones as `zmq.Frame`, without
    a copy. What is beyond FRAMES of them, so none of this protocol's messages, is thrown away as it
    comes."""
    frame = made.recv(flags, False)
    frames: list[Frame] = [frame.bytes]
    while frame.more:
        frame = made.recv(0, False)
        if len(frames) < FRAMES:
            frames.append(frame if len(frame) >= SMALL else frame.bytes)
    return frames


def prepare(made: zmq.Socket[bytes]) -> None:
    """Sets the options that all sockets share."""
    made.setsockopt(zmq.LINGER, LINGER_MS)
    made.setsockopt(zmq.IPV6, 0)


def name_of_process() -> str:
    return f"{socket.gethostname()}, process {os.getpid()}"
