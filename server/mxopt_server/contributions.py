"""What workers contribute to rounds and wait for, and why contributions to one round may not fit
together."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from mxopt.errors import KVStoreError
from mxopt.kvstore.wire import Key
from mxopt.typing import Array
from mxopt_server.told import Told, difference as told_difference

ALL = -1  # as a worker: all of them together


class Request:
    """A worker's request that waits for round `number` of `parts`; it is over once nothing is
    `missing`."""

    __slots__ = ("answer", "error", "missing", "nbytes", "number", "over", "parts", "pushes", "rank", "seq", "since")

    def __init__(
        self,
        rank: int,
        seq: int,
        parts: Sequence[Any],
        number: int,
        nbytes: int,
        answer: Callable[[Any, int, Sequence[Any]], None],
        over: Callable[[Request], None],
        pushes: bool,
        since: float,
    ) -> None:
        self.rank, self.seq, self.missing = rank, seq, 1
        self.answer, self.over = answer, over  # by what it is answered; what is called when it can be
        self.parts, self.number = parts, number
        self.nbytes = nbytes  # of what it keeps in memory, or of its answer
        self.pushes = pushes  # whether it is refused where the round has ended with an error
        self.since = since  # when it began to wait
        self.error: Exception | None = None

    def met(self, error: Exception | None = None) -> None:
        """One of the things it waits for has come, or has failed."""
        self.missing -= 1
        if self.pushes:
            self.error = self.error or error
        if self.missing == 0:
            self.over(self)


@dataclass(slots=True)
class Contribution:
    """What one worker pushed for a round: `value` is flat over the parts, or row-sparse over a
    whole entry."""

    rank: int
    number: int
    value: Array
    optimizer: Told | None  # that it counts on; None if it never set one
    update: int
    step: int = 0  # of the worker's training, 0 where it counts none


def difference(heads: Sequence[Contribution]) -> Exception | None:
    """Why several workers' pushes for one round can't make an update; None if they can."""
    first = next((c for c in heads if c.step), None)
    for c in heads:
        if first is not None and c.step and c.step != first.step:
            return KVStoreError(
                f"worker {first.rank} pushed for round {c.number} in step {first.step}, worker {c.rank} in step"
                f" {c.step}: one of them has left out a push"
            )
    told = [(c.rank, c.optimizer) for c in heads if c.optimizer is not None]
    for rank, optimizer in told[1:]:
        differs = told_difference(*told[0], rank, optimizer)
        if differs:
            return KVStoreError(f"{differs}: in a round of all workers both have to be the same")
    return None


def missing(key: Key, rank: int, number: int, last: int) -> KVStoreError:
    """The error for a push whose round is too far ahead."""
    return KVStoreError(
        f"key {key!r}: worker {rank} pushes for round {number}, and its last push here was for round {last}: what it"
        " has pushed in between is missing"
    )
