"""What is sent to processes that don't read it, whatever they say: bounded in bytes."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
import zmq
from mxopt_server import routers, unsent
from mxopt_server.door import Door

from mxopt.kvstore import messages as m, wire

MIB = 1 << 20
MOST = 96  # MiB, of which the system's buffers may have most


@pytest.fixture
def context() -> Iterator[zmq.Context[Any]]:
    with zmq.Context() as made:
        yield made


@pytest.fixture
def door(context: zmq.Context[Any]) -> Iterator[Door]:
    with routers.router(context, None, 35) as router:
        router.linger = 0
        yield Door(router)


def connected(context: zmq.Context[Any], door: Door, name: bytes) -> zmq.Socket[Any]:
    """A process that keeps no message that it hasn't read."""
    made: zmq.Socket[Any] = context.socket(zmq.DEALER)
    made.setsockopt(zmq.IDENTITY, name)
    made.linger, made.rcvhwm, made.rcvtimeo = 0, 1, 30_000
    made.connect(f"tcp://127.0.0.1:{routers.bind_tcp(door.socket, '127.0.0.1', 0)}")
    made.send(b"here")
    assert door.receive(30_000) == [name, b"here"]
    return made


def sent(door: Door, route: bytes, count: int) -> None:
    for number in range(count):
        assert door.send(route, m.Values(number, [], [bytes(MIB)]))  # there is a connection


def read(made: zmq.Socket[Any], last: int) -> list[int]:
    """The numbers of the answers that come, up to this one."""
    found = [-1]
    while found[-1] != last:
        found.append(m.decode(made.recv_multipart()).seq)
    return found[1:]


def test_answers_do_not_pile_up_for_who_never_reads_them(context: zmq.Context[Any], door: Door) -> None:
    with connected(context, door, b"worker") as worker:
        sent(door, b"worker", 400)
        assert door.send(b"worker", m.Done(400))  # which is small
        answers = read(worker, 400)
        assert unsent.MOST // MIB <= len(answers) <= MOST
        assert answers[: unsent.MOST // MIB] == list(range(unsent.MOST // MIB))
        sent(door, b"worker", 5)  # what it had has left
        assert read(worker, 4) == list(range(5))


def test_nor_by_many_connections(context: zmq.Context[Any], door: Door, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "IN_ALL", 2 * unsent.MOST)
    names = [b"%d" % k for k in range(5)]
    processes = [connected(context, door, name) for name in names]
    for name in names:
        sent(door, name, 100)
        assert door.send(name, m.Done(100))
    counts = [len(read(process, 100)) for process in processes]
    assert sum(counts) <= 5 * MOST
    assert sum(counts[-2:]) < sum(counts[:2])
    sent(door, names[-1], wire.WINDOW // MIB)
    assert len(read(processes[-1], wire.WINDOW // MIB - 1)) == wire.WINDOW // MIB
    for process in processes:
        process.close()


class Tracker:
    """Of a frame that has left, or hasn't, of which this process hears once it waits for it."""

    def __init__(self, left: bool) -> None:
        self.left, self.done, self.waits = left, False, 0

    def wait(self, timeout: float) -> None:
        self.waits += 1
        if not self.left:
            raise zmq.NotDone
        self.done = True


def full(left: bool) -> tuple[unsent.Unsent, list[Tracker]]:
    """As many frames to one connection as it may have."""
    made, trackers = unsent.Unsent(), [Tracker(left) for _ in range(unsent.MOST // MIB)]
    for tracker in trackers:
        made.add(b"worker", MIB, tracker)  # type: ignore[arg-type]
    return made, trackers


def test_what_has_left_and_is_not_yet_known_to_have_holds_nobody_up() -> None:
    made, trackers = full(left=True)
    assert made.has_room(b"worker", MIB)
    assert sum(tracker.waits for tracker in trackers) == 1


def test_who_takes_nothing_is_waited_for_once(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(unsent, "PATIENCE", 0.0)
    made, trackers = full(left=False)
    assert [made.has_room(b"worker", MIB) for _ in range(9)] == [False] * 9
    assert sum(tracker.waits for tracker in trackers) == 1
    assert made.has_room(b"another", MIB)
    trackers[0].done = True  # and again since some has left
    assert made.has_room(b"worker", MIB)
    made.add(b"worker", MIB, trackers[1])  # type: ignore[arg-type]
    assert not made.has_room(b"worker", MIB)
    assert trackers[1].waits == 1
