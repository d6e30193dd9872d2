"""A relay before a server: it delays what passes, cuts connections, and sends messages twice."""

from __future__ import annotations

import contextlib
import random
import socket
import threading
import time
from dataclasses import dataclass
from typing import BinaryIO

GREETING = 64  # bytes that either side begins with (ZMTP 3.1, section 3)
MORE, LONG, COMMAND = 1, 2, 4  # flags of a frame


@dataclass
class Weather:
    """What a relay does. Times in seconds."""

    delay: float = 0.0  # of each message, at most
    cut_after: float = 0.0  # the mean time until a connection is cut; 0: never
    twice: float = 0.0  # the part of the workers' messages that are sent twice


class Relay:
    """Listens at `port` of this machine, and passes on to the port `target`."""

    def __init__(self, weather: Weather, seed: int) -> None:
        self.weather, self.target = weather, 0
        self.cuts = self.doubles = 0
        self._rng = random.Random(seed)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        threading.Thread(target=self._accept, daemon=True).start()

    def close(self) -> None:
        """Takes no more connections."""
        self._listener.close()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
                server = socket.create_connection(("127.0.0.1", self.target))
            except OSError:
                return
            after = self.weather.cut_after
            if after:
                timer = threading.Timer(self._rng.expovariate(1 / after), self._cut, (client, server))
                timer.daemon = True
                timer.start()
            for source, sink, twice in ((client, server, self.weather.twice), (server, client, 0.0)):
                threading.Thread(target=self._pass, args=(source, sink, twice), daemon=True).start()

    def _cut(self, *ends: socket.socket) -> None:
        with contextlib.suppress(OSError):  # where it is over already
            for end in ends:
                end.shutdown(socket.SHUT_RDWR)
            self.cuts += 1

    def _pass(self, source: socket.socket, sink: socket.socket, twice: float) -> None:
        with contextlib.suppress(OSError, EOFError):
            for _ in range(GREETING):  # byte by byte, since each side waits for the other's in the middle of it
                sink.sendall(_exactly(source.recv(1), 1))
            stream = source.makefile("rb")
            while True:
                message = _message(stream)
                first = self._rng.randrange(len(message))  # a cut while it waits leaves a part of the message
                sink.sendall(message[:first])
                time.sleep(self._rng.uniform(0, self.weather.delay))
                sink.sendall(message[first:])
                if not message[0] & COMMAND and self._rng.random() < twice:
                    sink.sendall(message)
                    self.doubles += 1
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def _message(stream: BinaryIO) -> bytes:
    """The frames of one message, or a command, as they come."""
    read, more = b"", True
    while more:
        flags = _exactly(stream.read(1), 1)
        size = _exactly(stream.read(8 if flags[0] & LONG else 1), 8 if flags[0] & LONG else 1)
        length = int.from_bytes(size, "big")
        read += flags + size + _exactly(stream.read(length), length)
        more = bool(flags[0] & MORE)
    return read


def _exactly(data: bytes, size: int) -> bytes:
    if len(data) < size:
        raise EOFError
    return data
