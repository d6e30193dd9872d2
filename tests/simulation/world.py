"""A simulated world: time that passes only when nobody has anything to do, and processes that take
turns.

A process whose code waits (a worker's script) runs in a thread of its own, but only one of all
threads runs at a time. It runs until it waits, and the world then takes the next event in the order
of time: a run depends on its seed alone.
"""

from __future__ import annotations

import heapq
import threading
from collections.abc import Callable
from typing import Any


class Killed(BaseException):
    """Ends the thread of a process that is no more."""


class World:
    """The clock, and what is to happen when."""

    def __init__(self) -> None:
        self.now = 0.0
        self._events: list[tuple[float, int, Callable[[], None]]] = []
        self._count = 0

    def at(self, when: float, action: Callable[[], None]) -> None:
        """Has `action` called at a time, after what was planned for the same time before."""
        self._count += 1
        heapq.heappush(self._events, (max(when, self.now), self._count, action))

    def run(self, over: Callable[[], bool], limit: float) -> None:
        """Lets time pass until it is `over`, or the time is up."""
        while self._events and not over():
            when, _, action = heapq.heappop(self._events)
            if when > limit:
                return
            self.now = when
            action()


class Process:
    """A process of the world. `main` runs in its thread; what it raises is kept as `error`, its
    result as `result`."""

    def __init__(self, world: World, name: str, main: Callable[[Process], object]) -> None:
        self.world, self.name, self.main = world, name, main
        self.dead = self.ended = False
        self.asleep_until = self.asleep_since = 0.0  # a stopped process (SIGSTOP) does nothing till then
        self.held = False  # asleep, it holds the interpreter's lock: ZeroMQ's thread goes on
        self.error: BaseException | None = None
        self.result: Any = None
        self._mine, self._worlds = threading.Lock(), threading.Lock()  # who waits for its turn acquires its own
        self._mine.acquire()
        self._worlds.acquire()
        self._wait = 0  # which of its waits is under way
        self._started = False
        self._thread = threading.Thread(target=self._run, daemon=True)

    def start(self) -> None:
        """Begins, now."""
        self._started = True
        self._thread.start()
        self.world.at(self.world.now, self._turn)

    def sleep(self, seconds: float) -> None:
        """Waits until time has passed, or `wake`. Called by the process itself."""
        if self.dead:
            raise Killed
        self._wait += 1
        wait = self._wait
        self.world.at(self.world.now + seconds, lambda: self._wake(wait))
        self._worlds.release()
        self._mine.acquire()
        if self.dead:
            raise Killed

    def wake(self) -> None:
        """Ends its wait, if it is in one."""
        self._wake(self._wait)

    def kill(self) -> None:
        """Ends it at once, wherever it is."""
        self.dead = True
        if self._started and not self.ended:
            self._turn()

    def stop(self, seconds: float, held: bool = False) -> None:
        """Lets it do nothing for this time."""
        self.asleep_since, self.asleep_until, self.held = self.world.now, self.world.now + seconds, held

    @property
    def numb(self) -> float:
        """How long no part of it has done anything."""
        return 0.0 if self.awake or self.held else self.world.now - self.asleep_since

    @property
    def awake(self) -> bool:
        """Whether it does what it has to."""
        return not self.dead and self.world.now >= self.asleep_until

    def _wake(self, wait: int) -> None:
        if wait != self._wait or self.ended or self.dead:
            return
        if self.awake:
            self._wait += 1
            self._turn()
        else:
            self.world.at(self.asleep_until, lambda: self._wake(wait))

    def _turn(self) -> None:
        """Lets it run until it waits or ends. Called by the world."""
        self._mine.release()
        self._worlds.acquire()

    def _run(self) -> None:
        self._mine.acquire()
        try:
            if not self.dead:
                self.result = self.main(self)
        except BaseException as error:
            self.error = error
        self.ended = True
        self._worlds.release()
