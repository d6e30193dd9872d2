"""A simulated network, as ZeroMQ's sockets show it: routers that are bound, lines that are
connected to them.

On a connection messages keep their order. A connection may be cut: of what is on the way, in either
direction, a first part arrives and the rest is lost; the line connects again after a while, and
what was sent meanwhile leaves then. A router knows a line by the identity it gives, or else by a
new name for every connection.
"""

from __future__ import annotations

import math
import random
from collections import deque
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from simulation.world import Process, World

from mxopt.kvstore.heart import Heart
from mxopt.kvstore.loans import plain_room
from mxopt.kvstore.transport import SLICE_S
from mxopt.kvstore.wire import SMALL


@dataclass(frozen=True)
class Weather:
    """How the network behaves: the typical delay of a message in seconds, the mean time between two
    cuts of a connection (0: none), the chance that a message is delayed by seconds."""

    delay: float = 0.001
    cuts: float = 0.0
    stalls: float = 0.0


class Router:
    """A bound socket: what comes is put to `take(route, frames)` while its process is awake."""

    def __init__(self, process: Process, take: Callable[[bytes, list[Any]], None], lapse: float = math.inf) -> None:
        self.process, self._take = process, take
        self.lapse = lapse  # seconds of silence after which it closes a connection
        self.lines: dict[bytes, Line] = {}
        self._inbox: deque[tuple[bytes, list[Any]]] = deque()

    def send(self, route: bytes, frames: list[Any]) -> bool:
        """Sends to who is connected by that name. Whether there was one."""
        line = self.lines.get(route)
        if line is None or not line.connected or line.closed or line.process.dead or line.process.numb > self.lapse:
            return False
        line.travel(frames, back=True)
        return True

    def arrive(self, route: bytes, frames: list[Any]) -> None:
        """A message has come."""
        self._inbox.append((route, frames))
        self._work()

    def _work(self) -> None:
        if self.process.dead:
            return
        if not self.process.awake:
            self.process.world.at(self.process.asleep_until, self._work)
            return
        while self._inbox:
            self._take(*self._inbox.popleft())


class Network:
    """All connections of a job. `random` decides about delays and cuts."""

    def __init__(self, world: World, seed: random.Random, weather: Weather) -> None:
        self.world, self.random, self.weather = world, seed, weather
        self.routers: dict[str, Router] = {}
        self.messages = self.cuts = 0  # so far
        self._names = 0

    def delay(self) -> float:
        """How long the next message is on its way."""
        if self.random.random() < self.weather.stalls:
            return self.random.uniform(0.5, 5.0)
        return self.random.expovariate(1 / self.weather.delay)

    def name(self) -> bytes:
        """A name that no other has."""
        self._names += 1
        return b"%d" % self._names


class Line:
    """A connection of a process to a router, as `mxopt.kvstore.transport.Line`."""

    def __init__(self, network: Network, process: Process, endpoint: str, identity: bytes) -> None:
        self.network, self.process, self.endpoint, self.identity = network, process, endpoint, identity
        self.inbox: deque[list[Any]] = deque()
        self.on_arrival: Callable[[], None] = process.wake
        self.closed = self.connected = self._renewed = False
        self._connections = 0  # so far
        self._survives: dict[object, float] = {}  # until when what was on the way of a broken connection arrives
        self._held: deque[list[Any]] = deque()  # what is to leave once there is a connection
        self._connect()

    def send(self, frames: list[Any], alone: bool = False) -> None:
        if self.process.dead or self.closed:
            return
        if self.connected:
            self.travel(frames, back=False)
        else:
            self._held.append(frames)

    def room(self, *sizes: int) -> list[Any]:
        return plain_room(sizes)

    def receive(self, wait: bool) -> list[Any] | None:
        if wait and not self.inbox:
            self.process.sleep(SLICE_S)
        return self.inbox.popleft() if self.inbox else None

    def renewed(self) -> bool:
        found, self._renewed = self._renewed, False
        return found

    def close(self) -> None:
        self.closed = True

    def travel(self, frames: list[Any], back: bool) -> None:
        """Puts a message on the way of this connection."""
        self.network.messages += 1
        network, connection, route = self.network, self._connection, self.route
        frames = [frame if len(frame) >= SMALL else bytes(frame) for frame in frames]  # large ones aren't copied
        arrival = self._last[back] = max(self._last[back], network.world.now + network.delay())
        network.world.at(arrival, lambda: self._arrive(connection, route, frames, back, arrival))

    def cut(self) -> None:
        """Breaks the connection; it comes back after a while."""
        network, world = self.network, self.network.world
        if self.closed or self.process.dead:
            return
        self._survives[self._connection] = world.now + network.random.random() * network.weather.delay * 3
        self.connected = False
        network.cuts += 1
        world.at(world.now + network.random.uniform(0.05, 1.0), self._connect)

    def _connect(self) -> None:
        network, world = self.network, self.network.world
        if self.closed or self.process.dead:
            return
        self._connection = object()
        self._last = [world.now, world.now]
        router = network.routers.get(self.endpoint)
        self.connected = False
        if router is None or router.process.dead:
            world.at(world.now + 0.5, self._connect)
            return
        self.connected = True
        self._connections += 1
        self._renewed = self._connections > 1
        self.route = self.identity or network.name()
        router.lines[self.route] = self
        while self._held:
            self.travel(self._held.popleft(), back=False)
        if network.weather.cuts:
            connection = self._connection
            when = world.now + network.random.expovariate(1 / network.weather.cuts)
            world.at(when, lambda: self.cut() if connection is self._connection else None)

    def _arrive(self, connection: object, route: bytes, frames: list[Any], back: bool, arrival: float) -> None:
        broken = connection is not self._connection or not self.connected
        if broken and arrival > self._survives.get(connection, 0.0):
            return  # lost with its connection
        frames = [bytes(frame) for frame in frames]
        if back:
            if not self.closed and not self.process.dead:
                self.inbox.append(frames)
                self.on_arrival()
            return
        router = self.network.routers.get(self.endpoint)
        if router is not None:
            router.arrive(route, frames)


class Transport:
    """What a process has of the network, as `mxopt.kvstore.transport.Transport`."""

    def __init__(self, network: Network, process: Process) -> None:
        self.network, self.process = network, process
        self.exit: Callable[[str], None] = lambda error: None  # what the process does at its end

    def clock(self) -> float:
        return self.network.world.now

    awake = clock

    def token(self) -> str:
        return f"{self.process.name} {self.network.name().decode()}"

    def connect(self, endpoint: str, identity: bytes = b"") -> Line:
        return Line(self.network, self.process, endpoint, identity)

    def wait(self, lines: Sequence[Any]) -> Sequence[Any]:
        if not any(line.inbox for line in lines):
            self.process.sleep(SLICE_S)
        return [line for line in lines if line.inbox]

    def beat(self, heart: Heart, endpoint: str) -> Callable[[], None]:
        world, process = self.network.world, self.process
        line = self.connect(endpoint, heart.identity)

        def hear() -> None:
            while process.awake and line.inbox:
                heart.hear(line.inbox.popleft(), world.now)

        def turn() -> None:
            if process.dead or line.closed:
                return
            if process.awake:
                hear()
                beat = heart.turn(world.now)
                if beat is not None:
                    line.send(beat)
            world.at(max(heart.due, process.asleep_until, world.now + 0.001), turn)

        def now() -> None:
            if process.awake and not process.dead and not line.closed:
                beat = heart.turn(world.now)
                if beat is not None:
                    line.send(beat)

        line.on_arrival = hear
        heart.wake = lambda: world.at(world.now, now)
        turn()
        return line.close

    def at_exit(self, action: Callable[[str], None]) -> Callable[[], None]:
        self.exit = action
        return lambda: None

    def close(self) -> None: ...
