"""Lines and doors that lend each other memory, and what becomes of it when one of them is gone."""

# mypy: disable-error-code="index"

from __future__ import annotations

import fcntl
import mmap
import os
import subprocess
import sys
import time
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from lines import door_at, line_to
from mxopt_server.door import Door

from mxopt.kvstore import lending, messages as m, wire
from mxopt.kvstore.loans import Loans
from mxopt.kvstore.network import SocketLine

pytestmark = pytest.mark.skipif(not lending.POSSIBLE, reason="this system has no memory to lend")

BIG = np.arange(wire.PIECE_BYTES // 4, dtype=np.float32)


def values(frame: object) -> Any:
    return np.frombuffer(wire.buffer_of(frame), np.float32).tolist()


def agree(line: SocketLine, door: Door) -> None:
    """Lets both take each other's offer."""
    while not line._loans._agreed:  # type: ignore[union-attr]
        assert not door.receive(0)
        assert line.receive(wait=True) is None


def test_a_line_and_a_door_lend_each_other(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door, line = door_at(stack, context, tmp_path / "door"), line_to(stack, context, tmp_path / "door")
    line.send([b"before", BIG.tobytes()])  # it needn't wait for the answer
    agree(line, door)
    assert [bytes(frame) for frame in door.receive(100) or ()] == [b"me", b"before", BIG.tobytes()]
    line.send([b"small"])
    assert door.receive(100) == [b"me", b"small"]
    (frame,) = line.room(BIG.nbytes)
    wire.array_of(frame, BIG.dtype, BIG.size, "k")[:] = BIG
    line.send([b"lent", frame])
    route, _, data = door.receive(100)  # type: ignore[misc]
    assert (type(data), values(data)) == (memoryview, BIG.tolist())
    assert door.send(route, m.Values(1, [], [wire.bytes_of(2 * BIG)]))
    (answer,) = [m.decode(frames) for frames in [line.receive(wait=True)] if frames]
    assert (type(answer.data[0]), values(answer.data[0])) == (memoryview, (2 * BIG).tolist())


def test_an_answer_that_lies_in_a_loan_goes_as_it_is_where_the_loans_are_gone(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door, line = door_at(stack, context, tmp_path / "door"), line_to(stack, context, tmp_path / "door")
    agree(line, door)
    line.send([b"from here", BIG.tobytes()])  # a server lends once it is lent
    assert [len(frame) for frame in door.receive(1000) or ()] == [2, 9, BIG.nbytes]
    frame = door.room(b"me", BIG.nbytes)
    assert isinstance(frame, lending.Lent)
    wire.array_of(frame, BIG.dtype, BIG.size, "k")[:] = BIG
    door._forget(b"me")
    for number, data in enumerate([frame, wire.bytes_of(BIG)]):
        assert door.send(b"me", m.Values(number, [], [data]))
        came = next(came for came in (line.receive(wait=True) for _ in range(10)) if came)
        answer = m.decode(came)
        assert (answer.seq, values(answer.data[0])) == (number, BIG.tolist())


def test_a_line_that_is_made_again_lends_anew(stack: ExitStack, tmp_path: Path) -> None:
    context, other = stack.enter_context(zmq.Context()), zmq.Context()
    door, line = door_at(stack, other, tmp_path / "door"), line_to(stack, context, tmp_path / "door")
    agree(line, door)
    door.socket.close(0)
    other.term()  # nobody listens there any more
    door = door_at(stack, context, tmp_path / "door")  # a process that knows of no loans
    line.send([b"lost", BIG.tobytes()])
    while not line.renewed():
        line.receive(wait=True)
    agree(line, door)  # to whom the first message came as none
    line.send([b"again", BIG.tobytes()])
    route, header, data = door.receive(100)  # type: ignore[misc]
    assert (route, header, values(data)) == (b"me", b"again", BIG.tolist())


def test_memory_of_processes_that_are_gone_is_given_back(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    code = """
import sys, time
from mxopt.kvstore.loans import Loans
loans = Loans()
print(loans.offer().hex(), flush=True)
sys.stdin.read()
"""
    command = [sys.executable, "-c", code]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as other:
        door._offered(b"other", None, bytes.fromhex(other.stdout.readline()))  # type: ignore[union-attr]
        assert set(door._loans) == {b"other"}
        other.stdin.close()  # type: ignore[union-attr]
        other.wait(30)
    until = time.monotonic() + 30
    while door._loans[b"other"].alive:
        assert time.monotonic() < until
    mine = Loans()
    door._offered(b"me", None, mine.offer())
    assert set(door._loans) == {b"me"}


def test_memory_of_lines_that_are_closed_is_given_back(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    before = None
    for k in range(40):  # stores of one process that are made and closed, one after the other
        mine = Loans()
        door._offered(b"line %d" % k, None, mine.offer())
        with suppress(OSError):
            mine.answered(door._loans[b"line %d" % k].offer())
        del mine
        assert len(door._loans) == 1
        files = len(os.listdir("/proc/self/fd"))
        before = before or files
        assert files == before


def test_a_line_that_is_closed_gives_its_memory_back_though_what_lay_there_is_held(
    stack: ExitStack, tmp_path: Path
) -> None:
    context = stack.enter_context(zmq.Context())
    door, line = door_at(stack, context, tmp_path / "door"), line_to(stack, context, tmp_path / "door")
    agree(line, door)
    held = line.room(BIG.nbytes)
    line._lend()  # as after a cut
    agree(line, door)
    assert [loans.alive for loans in door._loans.values()] == [True]
    held += line.room(BIG.nbytes)
    line._close(0)
    assert [loans.alive for loans in door._loans.values()] == [False]
    line._connect()
    assert [type(frame) for frame in held] == [lending.Lent] * 2


@pytest.mark.parametrize(
    ("module", "name"), [(os, "memfd_create"), (os, "ftruncate"), (fcntl, "fcntl"), (mmap, "mmap")]
)
@pytest.mark.parametrize("where", ["worker", "server"])
def test_where_no_memory_can_be_had_all_goes_through_the_sockets(
    stack: ExitStack, tmp_path: Path, module: Any, name: str, where: str
) -> None:
    def fails(*_: object) -> None:
        raise OSError("too many open files, no memory, not permitted")

    context = stack.enter_context(zmq.Context())
    door, offered = door_at(stack, context, tmp_path / "door"), Loans()
    with pytest.MonkeyPatch.context() as patch:
        line = None if where == "server" else line_to(stack, context, tmp_path / "door")
        files = os.listdir("/proc/self/fd")
        patch.setattr(module, name, fails)
        if line is None:
            door._offered(b"me", None, offered.offer())
        else:
            line._lend()
        assert door._loans == {}
        if line is None:
            assert os.listdir("/proc/self/fd") == files
            line = line_to(stack, context, tmp_path / "door")
        assert line._loans is None
    line.send([b"header", *line.room(BIG.nbytes)])
    message: list[Any] | None = []
    while not message:
        message = door.receive(100)
    assert [len(frame) for frame in message] == [2, 6, BIG.nbytes]
    assert door.send(b"me", m.Values(1, [], [wire.bytes_of(BIG)]))
    answer = None
    while answer is None:
        answer = line.receive(wait=True)
    assert values(answer[1]) == BIG.tolist()
