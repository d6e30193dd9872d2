"""Workers that haven't pushed the same: whose push a worker waits for, and who has left one out."""

from __future__ import annotations

from collections.abc import Sequence

from mxopt.errors import JobFailedError, KVStoreError, counted
from mxopt.kvstore.wire import Key
from mxopt_server.entries import Group, Part
from mxopt_server.worker_session import Session

LACKS = 8  # missing pushes that a worker is told of


def lacks(session: Session) -> list[tuple[int, Key, int]]:
    """(rank, key, number) of the pushes of others that a worker waits for, some of them."""
    found: dict[tuple[int, Key, int], None] = {}
    for request in session.waiting.values():
        for part in request.parts:
            if part.group is not None:
                counts = part.group.rounds.counts
                for rank in part.group.rounds.lacking(session.rank):
                    found[rank, part.entry.key, counts[rank] + 1] = None
            if len(found) >= LACKS:
                return list(found)[:LACKS]
    return list(found)


def lost(rank: int, parts: Sequence[Part], pushing: bool = False) -> Exception | None:
    """Why a worker would wait in vain for pushes of others that have ended; None if it
    wouldn't."""
    for part in parts:
        group = part.group
        if group is None or (not pushing and group.rounds.has(rank, group.rounds.last(rank))):
            continue
        lost = group.rounds.lost(rank)
        if lost is not None:
            mine, theirs = group.rounds.counts[rank] + pushing, group.rounds.counts[lost]
            return JobFailedError(
                f"worker {lost} has ended with {counted(theirs, 'push')} of key {part.entry.key!r}, so worker"
                f" {rank} waits in vain for the round of its push number {mine}"
            )
    return None


def check_left_out(rank: int, group: Group, step: int, doing: str) -> None:
    """Raises if somebody has pushed in `step` or before for a round that a worker hasn't pushed
    for."""
    for c in group.rounds.open:
        if 0 < c.step <= step and c.number > group.rounds.last(rank):
            raise KVStoreError(
                f"worker {rank} {doing} without having pushed key {group.parts[0].entry.key!r}, which worker"
                f" {c.rank} pushed in step {c.step}: every worker has to push the same keys in a step"
            )
