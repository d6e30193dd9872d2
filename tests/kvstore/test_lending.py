"""Memory that processes of one machine lend each other: what is large in a message lies there, is
the sender's again once the receiver has dropped it, and travels through the socket where it
can't."""

# mypy: disable-error-code="index"

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mxopt.kvstore import lending, wire
from mxopt.kvstore.loans import Loans

pytestmark = pytest.mark.skipif(not lending.POSSIBLE, reason="this system has no memory to lend")

BIG = np.arange(wire.PIECE_BYTES // 4, dtype=np.float32)


class Wire(list[Any]):
    """What was posted; `works` says whether that was possible."""

    works = True

    def __call__(self, frames: list[Any]) -> bool:
        if self.works:
            self.append(frames)
        return self.works


def connected() -> tuple[Loans, Loans]:
    """Both sides of a connection that lend each other."""
    first = Loans()
    second = Loans(first.offer())
    first.answered(second.offer())
    return first, second


def values(frame: object) -> Any:
    return np.frombuffer(wire.buffer_of(frame), np.float32).tolist()


def test_only_where_it_is_goes_through_the_socket() -> None:
    first, second = connected()
    for sender, receiver in ((first, second), (second, first)):
        posted = Wire()
        assert sender.send([b"header", wire.bytes_of(BIG)], posted)
        ((message,),) = posted
        assert len(message) < 100
        header, data = receiver.received(message)  # type: ignore[misc]
        assert header == b"header"
        assert values(data) == BIG.tolist()


def test_two_arrays_of_a_message_share_a_loan() -> None:
    first, second = connected()
    ids, rows = np.arange(4097, dtype=np.int64), BIG[:100_001]
    posted = Wire()
    first.send([b"header", wire.bytes_of(ids), wire.bytes_of(rows)], posted)
    _, one, two = second.received(posted[0][0])  # type: ignore[misc]
    assert wire.array_of(one, np.dtype(np.int64), 4097, "k").tolist() == ids.tolist()
    assert wire.array_of(two, np.dtype(np.float32), 100_001, "k").tolist() == rows.tolist()


def test_a_slot_is_used_again_when_the_receiver_has_dropped_all_of_it_and_not_before() -> None:
    first, second = connected()
    held = []
    for k in range(lending.SLOTS):
        posted = Wire()
        first.send([b"", wire.bytes_of(BIG + k)], posted)
        held.append(second.received(posted[0][0]))
    posted = Wire()
    first.send([b"header", wire.bytes_of(BIG)], posted)
    assert [len(frame) for frame in posted[0]] == [6, BIG.nbytes]  # there is no slot: by the socket
    kept = np.frombuffer(held[3][1], np.float32)  # an array on it holds it, too
    held[3] = None
    first.send([b"header", wire.bytes_of(BIG)], posted)
    assert len(posted[1]) == 2
    assert kept.tolist() == (BIG + 3).tolist()
    del kept
    second.send([b"answer"], Wire())  # the other hears of it with whatever is done next
    first.send([b"header", wire.bytes_of(-BIG)], posted)
    assert values(second.received(posted[2][0])[1]) == (-BIG).tolist()
    assert [values(each[1])[0] for each in held if each] == [k for k in range(lending.SLOTS) if k != 3]


def test_what_was_not_sent_takes_no_slot() -> None:
    first, _ = connected()
    posted = Wire()
    posted.works = False
    for _ in range(3 * lending.SLOTS):
        assert not first.send([b"header", wire.bytes_of(BIG)], posted)
        first.room([BIG.nbytes])
    posted.works = True
    first.send([b"header", wire.bytes_of(BIG)], posted)
    assert len(posted[0]) == 1


def test_what_lies_in_a_loan_is_sent_from_there_again_and_again() -> None:
    first, second = connected()
    (frame,) = first.room([BIG.nbytes])
    wire.array_of(frame, BIG.dtype, BIG.size, "k")[:] = BIG
    posted = Wire()
    for _ in range(3):
        first.send([b"header", frame], posted)
        assert len(posted[-1]) == 1
        assert values(second.received(posted[-1][0])[1]) == BIG.tolist()
    second.send([b"answer"], Wire())
    number = frame.loan.slots[0].number
    assert first.room([BIG.nbytes])[0].loan.slots[0].number != number  # the sender may need it still
    del frame
    assert first.room([BIG.nbytes])[0].loan.slots[0].number == number


@pytest.mark.parametrize("held", [0, 1, None])
def test_of_a_message_that_came_twice_each_keeps_the_slot(held: int | None) -> None:
    first, second = connected()
    (frame,) = first.room([BIG.nbytes])
    wire.array_of(frame, BIG.dtype, BIG.size, "k")[:] = BIG
    posted, others = Wire(), Wire()
    for _ in range(2):
        first.send([b"header", frame], posted)
    del frame  # the first of them has been answered
    came = [second.received(message[0]) for message in posted[: 1 if held is None else 2]]
    data = None if held is None else came[held][1]
    del came
    second.send([b"answer"], Wire())
    for _ in range(2 * lending.SLOTS):
        first.send([b"header", wire.bytes_of(-BIG)], others)
    data = second.received(posted[1][0])[1] if held is None else data  # None: it was still on its way
    assert values(data) == BIG.tolist()
    del data
    second.send([b"answer"], Wire())
    first.send([b"header", wire.bytes_of(-BIG)], others)
    assert [len(message) for message in others[-2:]] == [2, 1]  # then it is free


LARGE = np.arange(5 * wire.PIECE_BYTES // 8, dtype=np.float32)  # two slots and a half


def test_what_is_larger_than_a_slot_lies_in_several_that_follow_each_other() -> None:
    first, second = connected()
    ids, posted = np.arange(1000, dtype=np.int64), Wire()
    held = []
    for k in range(lending.SLOTS // 3):
        first.send([b"header", wire.bytes_of(ids + k), wire.bytes_of(LARGE + k)], posted)
        assert len(posted[-1]) == 1
        held.append(second.received(posted[-1][0]))
    first.send([b"header", wire.bytes_of(LARGE)], posted)
    assert len(posted[-1]) == 2  # two slots are left
    for k, (_, numbers, rows) in enumerate(held):  # type: ignore[misc]
        assert np.array_equal(np.frombuffer(numbers, np.int64), ids + k)
        assert np.array_equal(np.frombuffer(rows, np.float32), LARGE + k)


@pytest.mark.parametrize("first_goes", [True, False])
def test_slots_of_a_loan_are_used_again_when_all_uses_of_it_are_over(first_goes: bool) -> None:
    first, second = connected()
    (frame,) = first.room([LARGE.nbytes])
    wire.array_of(frame, LARGE.dtype, LARGE.size, "k")[:] = LARGE
    posted = Wire()
    for _ in range(2):  # it is sent again
        first.send([b"header", frame], posted)
    one, two = (second.received(message[0]) for message in posted)
    before = frame.loan.slots
    assert [slot.number for slot in before] == [0, 1, 2]
    del frame
    data = (two if first_goes else one)[1]
    del one, two
    second.send([b"answer"], Wire())
    small = [first.room([BIG.nbytes])[0] for _ in range(lending.SLOTS - 3)]
    assert min(each.loan.slots[0].number for each in small) == 3
    assert type(first.room([BIG.nbytes])[0]) is not type(small[0])  # there is none
    assert np.array_equal(np.frombuffer(data, np.float32), LARGE)
    del data
    second.send([b"answer"], Wire())
    again = [first.room([BIG.nbytes])[0] for _ in range(3)]
    assert [each.loan.slots[0].number for each in again] == [0, 1, 2]
    for frame in again:  # slots that were others' lead by themselves now
        first.send([b"header", frame], posted)
        assert len(second.received(posted[-1][0])[1]) == BIG.nbytes
    del again, frame
    second.send([b"answer"], Wire())
    assert first.room([LARGE.nbytes])[0].loan.slots[0].number == 0


def test_a_loan_that_reaches_beyond_the_memory_is_none() -> None:
    first, second = connected()
    posted = Wire()
    first.send([b"header", wire.bytes_of(LARGE)], posted)
    kind, name, _, *rest = lending._LOAN.unpack_from(posted[0][0])
    for slot, fits in ((lending.SLOTS - 3, True), (lending.SLOTS - 2, False), (lending.SLOTS, False)):
        message = lending._LOAN.pack(kind, name, slot, *rest) + b"header"
        assert (second.received(message) is not None) == fits


def test_the_answer_to_an_offer_of_before_is_none() -> None:
    before, now = Loans(), Loans()
    old, new = Loans(before.offer()), Loans(now.offer())
    with pytest.raises(OSError, match="answers another offer"):
        now.answered(old.offer())
    posted = Wire()
    now.send([b"header", wire.bytes_of(BIG)], posted)
    assert len(posted[0]) == 2  # nothing is lent
    for _ in range(2):  # an offer that came twice is answered twice
        now.answered(new.offer())
    now.send([b"header", wire.bytes_of(BIG)], posted)
    assert values(new.received(posted[1][0])[1]) == BIG.tolist()


def test_without_an_answer_nothing_is_lent() -> None:
    alone, posted = Loans(), Wire()
    (frame,) = alone.room([BIG.nbytes])
    alone.send([b"header", frame], posted)
    assert len(posted[0]) == 2


def test_loans_of_a_connection_before_are_sent_as_they_are() -> None:
    first, _ = connected()
    again, second = connected()
    (frame,) = first.room([BIG.nbytes])
    wire.array_of(frame, BIG.dtype, BIG.size, "k")[:] = BIG
    posted = Wire()
    again.send([b"header", frame], posted)
    assert values(second.received(posted[0][0])[1]) == BIG.tolist()


def test_the_memory_cannot_be_shrunk_nor_written_by_who_borrows_it() -> None:
    first, second = connected()
    with pytest.raises(PermissionError):
        os.ftruncate(first._mine._file, 0)
    posted = Wire()
    first.send([b"", wire.bytes_of(BIG)], posted)
    assert second.received(posted[0][0])[1].readonly


def offers(tmp_path: Path) -> Iterator[bytes]:
    """Offers that nobody should take."""
    name, here = bytes(8), os.getpid()
    secret = os.open(tmp_path / "secret", os.O_RDWR | os.O_CREAT)
    os.ftruncate(secret, lending.SIZE)
    pipe, _ = os.pipe()
    loose = os.memfd_create(f"mxopt-{name.hex()}", os.MFD_ALLOW_SEALING)
    os.ftruncate(loose, lending.SIZE)
    small = os.memfd_create(f"mxopt-{name.hex()}")
    real = Loans()
    for number in (secret, pipe, loose, small, 9999):
        yield lending._OFFER.pack(lending.OFFER, here, number, lending.NONE, lending.NONE, name)
    yield lending._OFFER.pack(lending.OFFER, here, real._mine._file, lending.NONE, lending.NONE, b"guessed!")
    yield lending._OFFER.pack(
        lending.OFFER, (1 << 32) - 1, real._mine._file, lending.NONE, lending.NONE, real._mine.name
    )
    assert real.pipes is not None
    yield real._mine.offer(secret, real.pipes.reads)
    yield real._mine.offer(real.pipes.writes, secret)
    yield real._mine.offer(real.pipes.writes, 9999)
    yield real._mine.offer(real.pipes.writes, real.pipes.writes)
    yield real._mine.offer(os.openpty()[1], real.pipes.reads)
    yield lending.OFFER
    yield real.offer() + b"more"


def test_nothing_is_opened_but_memory_of_this_protocol(tmp_path: Path) -> None:
    for offer in offers(tmp_path):
        with pytest.raises(OSError):  # noqa: PT011 of several kinds
            Loans(offer)


@pytest.mark.parametrize("seed", range(20))
def test_messages_that_are_no_loans_are_none(seed: int) -> None:
    first, second = connected()
    posted = Wire()
    first.send([b"header", wire.bytes_of(BIG)], posted)
    rng = np.random.default_rng(seed)
    for _ in range(200):
        changed = bytearray(posted[0][0])
        for at in rng.integers(2, lending._LOAN.size, rng.integers(1, 6)):
            changed[at] = rng.integers(256)
        found = second.received(bytes(changed[: rng.integers(2, len(changed) + 1)]))
        assert found is None or len(found) in (2, 3)
