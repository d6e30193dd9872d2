"""What a member of a job needs from outside: connections, time and threads. Real processes have
`network.Network`, tests a simulation."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Protocol

from mxopt.kvstore.heart import Heart
from mxopt.kvstore.wire import Frame

SLICE_S = 0.1  # how long a wait lasts at most before it looks whether the job has failed


class Line(Protocol):
    """A connection to one process. It is made again when it breaks; messages on their way are lost
    then."""

    def send(self, frames: list[Frame], alone: bool = False) -> None:
        """Sends a message, or nothing of it while there is no connection. Messages arrive in their
        order, where they arrive; one that is `alone` needn't come behind those before."""

    def room(self, *sizes: int) -> list[Frame]:
        """Memory for the arrays of one message, of these sizes in bytes, to be written before it is
        sent: what lies there needn't be copied again."""

    def receive(self, wait: bool) -> list[Frame] | None:
        """The next message; None if there is none, at once or after `wait`ing for SLICE_S."""

    def renewed(self) -> bool:
        """Whether it has been made again since the last call, so that messages may be lost."""

    def close(self) -> None:
        """Ends the connection. Sent messages still leave, if they can."""


class Transport(Protocol):
    """Connections, the time, and what goes on while the process is busy."""

    def clock(self) -> float:
        """The time in seconds, which never goes back."""

    def awake(self) -> float:
        """The time in seconds of a clock that also runs while the machine is suspended."""

    def token(self) -> str:
        """A unique text."""

    def connect(self, endpoint: str, identity: bytes = b"") -> Line:
        """A line to the process at `endpoint`, which knows this one by `identity`, or by a new name
        at every connection."""

    def wait(self, lines: Sequence[Line]) -> Sequence[Line]:
        """The lines that have a message, after waiting for up to SLICE_S."""

    def beat(self, heart: Heart, endpoint: str) -> Callable[[], None]:
        """Lets a heart beat, on a line of its own to the scheduler at `endpoint`, until the result
        is called."""

    def at_exit(self, action: Callable[[str], None]) -> Callable[[], None]:
        """Has `action` called when the process ends, unless the result is called before: with the
        exception that has ended it, or "". Where `action` raises the process has failed."""

    def close(self) -> None:
        """Gives back what belongs to the transport itself. All lines are closed."""
