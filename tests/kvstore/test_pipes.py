"""Pipes beside a connection: messages come whole and in order, whatever their size, and go by the
socket where there are no pipes."""

# mypy: disable-error-code="union-attr"

from __future__ import annotations

import fcntl
import os
import select
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import zmq
from lines import door_at, line_to
from mxopt_server.door import Door

from mxopt.errors import ProtocolError
from mxopt.kvstore import pipes as p, wire
from mxopt.kvstore.inlet import Inlet
from mxopt.kvstore.loans import Loans
from mxopt.kvstore.network import Network, SocketLine
from mxopt.kvstore.pipes import Pipes

pytestmark = pytest.mark.skipif(not p.POSSIBLE, reason="this system can't make them")


@pytest.fixture
def both() -> Iterator[tuple[Pipes, Pipes]]:
    """Both sides' ends."""
    first = Pipes.made()
    second = Pipes.opened(os.getpid(), first.writes, first.reads)
    yield first, second
    first.close()
    second.close()


def taken(pipes: Pipes, count: int) -> list[list[bytes]]:
    """So many messages, as they come."""
    found: list[list[Any]] = []
    while len(found) < count:
        select.select([pipes.reads], [], [], 30)
        found += pipes.take()
    return [[bytes(frame) for frame in message] for message in found]


def messages(seed: int, count: int) -> list[list[bytes]]:
    rng = np.random.default_rng(seed)
    sizes = rng.choice([0, 1, 100, 4096, 70_000, 1 << 20], (count, 3), p=[0.2, 0.2, 0.3, 0.2, 0.07, 0.03])
    return [
        [rng.bytes(max(1, size)) if k == 0 else rng.bytes(size) for k, size in enumerate(row[: rng.integers(1, 4)])]
        for row in sizes
    ]


def test_a_message_is_the_lengths_of_its_frames_and_the_frames(both: tuple[Pipes, Pipes]) -> None:
    first, second = both
    first.send([b"head", b"", b"two"])
    first.send([b"h"])
    assert os.read(second.reads, 100).hex() == (
        "040000000000000003000000" + b"headtwo".hex() + "01000000ffffffffffffffff" + b"h".hex()
    )


@pytest.mark.parametrize("seed", range(5))
def test_messages_come_whole_and_in_order(both: tuple[Pipes, Pipes], seed: int) -> None:
    first, second = both
    sent, came = messages(seed, 200), []
    reader = threading.Thread(target=lambda: came.extend(taken(second, len(sent))))
    reader.start()
    assert all(first.send(message) for message in sent)  # which waits for the reader, where the pipe is full
    reader.join(30)
    assert came == sent
    answers = [message for message in sent if second.offer(message) and taken(first, 1) == [message]]
    assert answers == [message for message in sent if sum(map(len, message)) <= 40_000]


def test_an_offer_is_taken_whole_or_not_at_all(both: tuple[Pipes, Pipes]) -> None:
    first, second = both
    small, large = [b"a" * 1000], [b"b" * 30_000]
    count = 0
    while second.offer(small):
        count += 1
    assert not second.offer(large)
    assert taken(first, count) == [small] * count
    assert second.offer(large)
    assert not second.offer(large)  # there may be no room for all of it
    assert second.offer(small)
    assert taken(first, 2) == [large, small]
    first.close()
    assert not second.offer(small)


def test_an_offer_knows_how_much_a_small_pipe_takes(both: tuple[Pipes, Pipes]) -> None:
    first, _ = both
    fcntl.fcntl(first.reads, fcntl.F_SETPIPE_SZ, 4096)  # as Linux makes them for a user who has many
    second = Pipes.opened(os.getpid(), first.writes, first.reads)
    assert not second.offer([bytes(20_000)])
    for size in (4084, 4000, 1):  # with the lengths the first fills it
        assert second.offer([bytes(size)])
        assert taken(first, 1) == [[bytes(size)]]
    second.close()


def test_an_offer_that_is_taken_in_part_is_no_answer(both: tuple[Pipes, Pipes]) -> None:
    first, second = both
    fcntl.fcntl(first.reads, fcntl.F_SETPIPE_SZ, 4096)  # after it was opened
    with pytest.raises(OSError, match="4096 bytes of a message of 20012"):
        second.offer([bytes(20_000)])


def test_what_finds_no_room_for_long_is_said_not_to_have_left(
    both: tuple[Pipes, Pipes], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p, "PATIENCE", 0.01)
    assert not both[0].send([bytes(4 << 20)])


@pytest.mark.parametrize("wrong", [(wire.MAX_HEADER + 1, 0, 0), (9, wire.MAX_FRAME + 1, 0), (p.NONE,) * 3])
def test_no_room_is_made_for_what_is_no_message(both: tuple[Pipes, Pipes], wrong: tuple[int, ...]) -> None:
    first, second = both
    os.write(first.writes, p._LENGTHS.pack(*wrong))
    with pytest.raises(ProtocolError):
        second.take()


def test_who_writes_to_a_process_that_is_gone_is_not_killed() -> None:
    code = """
import os, signal
from mxopt.kvstore.pipes import Pipes
signal.signal(signal.SIGPIPE, signal.SIG_DFL)
first = Pipes.made()
second = Pipes.opened(os.getpid(), first.writes, first.reads)
second.close()
assert first.send([b"to nobody"])
try:
    first.take()
except OSError:
    print("heard")
"""
    ended = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=60, check=False)
    assert (ended.returncode, ended.stdout) == (0, "heard\n"), signal.Signals(-ended.returncode)


@pytest.fixture
def beside(both: tuple[Pipes, Pipes]) -> Iterator[tuple[Inlet, zmq.Socket[bytes], Pipes]]:
    """What comes by a socket and pipes beside it, and the two that send there."""
    with zmq.Context() as context, context.socket(zmq.PAIR) as there, context.socket(zmq.PAIR) as here:
        here.bind("inproc://here")
        there.connect("inproc://here")
        inlet = Inlet(here)
        inlet.add(b"pipe", both[1])
        yield inlet, there, both[0]


def test_socket_and_pipes_take_turns(beside: tuple[Inlet, zmq.Socket[bytes], Pipes]) -> None:
    inlet, there, pipes = beside
    for k in range(20):
        there.send(b"socket %d" % k)
    found: list[Any] = []
    for k in range(10):  # one by the pipe comes in while there is more at the socket
        assert pipes.send([b"pipe %d" % k])
        found += [inlet.receive(0) for _ in range(2)]
    found += [inlet.receive(0) for _ in range(10)]
    assert [message for message in found if message[0] is None] == [(None, [b"socket %d" % k]) for k in range(20)]
    by_pipe = [message for message in found[:21] if message[0] is not None]
    assert by_pipe == [(b"pipe", [b"pipe %d" % k]) for k in range(10)]
    for _ in range(2):
        since = time.monotonic()
        assert inlet.receive(30) is None
        assert time.monotonic() - since >= 0.03
        there.send(b"again")
        assert inlet.receive(1000) == (None, [b"again"])


def test_pipes_that_were_closed_elsewhere_keep_nobody_awake(
    beside: tuple[Inlet, zmq.Socket[bytes], Pipes], both: tuple[Pipes, Pipes]
) -> None:
    inlet, closed = beside[0], both[1]
    closed.close()
    assert inlet.receive(0) is None
    assert closed.reads not in inlet.files
    assert inlet._poll.poll(0) in ([], [(inlet._file, select.POLLIN)])


# Lines and doors.


def agreed(stack: ExitStack, context: zmq.Context[Any], path: Path, door: Door) -> SocketLine:
    """A line, when it has its pipes."""
    line = line_to(stack, context, path)
    while line._pipes is None:
        assert not door.receive(0)
        assert line.receive(wait=True) is None
    return line


def test_messages_go_by_pipes_once_both_have_them(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    for k in range(300):
        line.send([b"question %d" % k], alone=True)
        assert door.receive(1000) == [b"me", b"question %d" % k]
        door._post(b"me", [b"answer", bytes(1000 * (k % 60))])  # of which some go by the socket
        assert [bytes(frame) for frame in line.receive(wait=True) or ()] == [b"answer", bytes(1000 * (k % 60))]
    door.socket.close(0)
    line.send([b"by no socket"], alone=True)
    (pipes,) = door._pipes.values()
    assert pipes.take() == [[b"by no socket"]]


def test_a_wait_for_several_lines_hears_of_pipes_and_sockets(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    doors = [door_at(stack, context, tmp_path / name) for name in "ab"]
    lines = [agreed(stack, context, tmp_path / name, door) for name, door in zip("ab", doors, strict=True)]
    network = Network.__new__(Network)
    while network.wait(lines):
        assert [line.receive(wait=False) for line in lines] == [None, None]
    for size in (10, 60_000):  # by the pipe, and by the socket
        for line, door in zip(lines, doors, strict=True):
            line.send([b"question"], alone=True)
            assert door.receive(1000) == [b"me", b"question"]
            door._post(b"me", [bytes(size)])
            while (came := line.receive(wait=False)) is None:
                # It may be ready in vain: ZeroMQ has words of its own with the other side.
                assert network.wait(lines)
                lines[lines.index(line) - 1].receive(wait=False)
            assert len(came[0]) == size


def test_what_is_no_message_ends_the_pipes_and_all_goes_by_the_sockets(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line.send([b"one"], alone=True)
    assert door.receive(1000) == [b"me", b"one"]
    os.write(line._pipes.writes, b"\xff" * 100)
    assert door.receive(1000) is None
    assert line.receive(wait=True) is None
    line.send([b"two"], alone=True)
    assert door.receive(1000) == [b"me", b"two"]
    door._post(b"me", [b"three"])
    assert line.receive(wait=True) == [b"three"]


def test_an_answer_that_a_pipe_takes_in_part_goes_by_the_socket_and_ends_the_pipes(
    stack: ExitStack, tmp_path: Path
) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line.send([b"one"], alone=True)
    assert door.receive(1000) == [b"me", b"one"]
    fcntl.fcntl(line._pipes.reads, fcntl.F_SETPIPE_SZ, 4096)
    for size in (20_000, 10, 20_000):
        door._post(b"me", [b"answer", bytes(size)])
        # The end of the pipe is no message.
        came = line.receive(wait=True) or line.receive(wait=True) or ()
        assert [bytes(frame) for frame in came] == [b"answer", bytes(size)]
    line.send([b"two"], alone=True)
    assert line._pipes is None
    assert door.receive(1000) == [b"me", b"two"]


def test_a_line_whose_pipe_stays_full_is_made_again(
    stack: ExitStack, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(p, "PATIENCE", 0.01)
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line.send([bytes(1 << 20)], alone=True)
    assert line.receive(wait=False) is None
    assert line.renewed()
    line.send([b"whole"], alone=True)
    came = []
    while [b"me", b"whole"] not in came:
        came.append(door.receive(1000))
    assert [message for message in came if message] == [[b"me", b"whole"]]


def test_a_line_that_was_torn_offers_once_and_goes_on_by_pipes_and_loans(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line._torn = True  # as after Ctrl-C
    assert line.receive(wait=False) is None
    offer = line._loans.offer()
    for _ in range(100):
        if door._loans[b"me"].is_of(offer):
            break
        door.receive(100)  # it answers before the line tells
    assert line.renewed()
    assert line._loans.offer() == offer
    assert not line.renewed()
    for _ in range(100):
        if line._pipes is not None:
            break
        line.receive(wait=True)
    large = bytes(1 << 20)
    for header in ([b"by a loan", large], [b"by the pipe"]):
        line.send(header, alone=True)
        came = next(message for message in (door.receive(1000) for _ in range(5)) if message)
        assert [bytes(frame) for frame in came] == [b"me", *header]
    assert set(door._pipes) == {b"me"}


def test_an_answer_that_comes_after_the_line_lends_again_is_not_taken_for_the_new_ones(
    stack: ExitStack, tmp_path: Path
) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    late = Loans(line._loans.offer())
    line._lend()  # as after a cut
    assert line._lent(late.offer()) is None
    assert line._pipes is None
    for _ in range(100):
        if line._pipes is not None:
            break
        door.receive(0)
        line.receive(wait=True)
    line.send([b"by the pipe"], alone=True)
    assert [message for message in (door.receive(1000) for _ in range(2)) if message] == [[b"me", b"by the pipe"]]
    assert set(door._pipes) == {b"me"}


def test_what_has_frames_of_its_own_and_what_follows_go_by_the_socket_until_all_is_answered(
    stack: ExitStack, tmp_path: Path
) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line.send([b"small"], alone=True)
    line.send([b"large", bytes(1 << 20)])  # behind it, so by the same way
    assert door.receive(1000) == [b"me", b"small"]
    assert door._pipes
    assert door.receive(1000)[1] == b"large"  # type: ignore[index]
    line.send([b"large", bytes(1 << 20)], alone=True)
    line.send([b"small"])
    line._pipes.close()  # which isn't used
    assert [door.receive(1000)[1] for _ in range(2)] == [b"large", b"small"]  # type: ignore[index]
    assert not door._pipes


def test_what_a_process_has_sent_before_it_was_gone_is_taken(stack: ExitStack, tmp_path: Path) -> None:
    context = stack.enter_context(zmq.Context())
    door = door_at(stack, context, tmp_path / "door")
    line = agreed(stack, context, tmp_path / "door", door)
    line.send([b"one"], alone=True)
    line.send([b"two"])
    assert door.receive(1000) == [b"me", b"one"]
    door._forget(b"me")  # as where an answer finds nobody
    assert door.receive(1000) == [b"me", b"two"]
    assert not door.receive(0)
