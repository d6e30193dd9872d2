"""The floor: the same bytes through plain pyzmq, in pieces of 1 MiB, to an echo for each server and
back; over TCP, and over Unix sockets, which are what processes of one machine use."""

from __future__ import annotations

import sys
from typing import Any

import numpy as np
import zmq

PIECE_BYTES = 1 << 20


class Echo:
    """The client's side. Sends as fast as pyzmq alone can, then takes all back."""

    def __init__(self, endpoints: list[str]) -> None:
        self.context = zmq.Context()
        self.sockets = []
        for endpoint in endpoints:
            socket = self.context.socket(zmq.DEALER)
            socket.setsockopt(zmq.SNDHWM, 0)
            socket.setsockopt(zmq.RCVHWM, 0)
            socket.setsockopt(zmq.LINGER, 0)
            socket.connect(endpoint)
            self.sockets.append(socket)
        self.buffer: Any = np.zeros(100_000_000, np.uint8)

    def round(self, nbytes: int) -> None:
        """So many bytes there and back."""
        counts = [0] * len(self.sockets)
        for k, at in enumerate(range(0, nbytes, PIECE_BYTES)):
            piece = self.buffer[at : min(at + PIECE_BYTES, nbytes)]
            self.sockets[k % len(self.sockets)].send(piece, copy=len(piece) < 1 << 15)
            counts[k % len(self.sockets)] += 1
        for socket, count in zip(self.sockets, counts, strict=True):
            for _ in range(count):
                socket.recv(copy=False)


def serve(path: str) -> None:
    """The server's side, for ever; on a free port, and on the Unix socket `path`."""
    socket = zmq.Context().socket(zmq.ROUTER)
    socket.setsockopt(zmq.SNDHWM, 0)
    socket.setsockopt(zmq.RCVHWM, 0)
    port = socket.bind_to_random_port("tcp://127.0.0.1")
    socket.bind(f"ipc://{path}")
    print(f"listening on tcp://127.0.0.1:{port}", flush=True)
    while True:
        frames = socket.recv_multipart(copy=False)
        socket.send_multipart(frames, copy=False)


if __name__ == "__main__":
    serve(sys.argv[1])
