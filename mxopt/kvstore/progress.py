"""The progress of a process's loop: counted by the loop, reported to the scheduler by the heart, in
another thread."""

from __future__ import annotations

from mxopt.kvstore.wire import MAX_TEXT


class Progress:
    """A counter that a loop moves, and what it is doing where it can't move it: a call of code that
    isn't its own, as an optimizer's update, which compiles when it is called first.

    Attributes
    ----------
    count : a number that rises while the loop runs
    call : such a call, in words and about what, None outside. Set by `begin` and `end`, or directly
        where each call of a function counts
    """

    count: int
    call: tuple[str, object] | None
    __slots__ = ("call", "count")

    def __init__(self) -> None:
        self.count = 0
        self.call = None

    def begin(self, what: str, about: object) -> None:
        """Notes that such a call begins."""
        self.call = what, about

    def end(self) -> None:
        """Notes that it has ended."""
        self.call = None
        self.count += 1

    @property
    def doing(self) -> str:
        """What such a call does; "" outside."""
        call = self.call
        return "" if call is None else f"{call[0]} {call[1]!r}"[:MAX_TEXT]
