"""What was once taken and did harm, in `tests/attacks`: a file each, with what it did, whom it was
sent to, and its messages as hexadecimal frames."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from mxopt_server.scheduler import Scheduler
from peer import Peer, init, push

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m, wire

FILES = sorted((Path(__file__).parents[1] / "attacks").glob("*.frames"))


def read(path: Path) -> tuple[str, list[list[bytes]]]:
    """Whom the messages are sent to, and their frames."""
    to, *messages = [line for line in path.read_text().splitlines() if not line.startswith("#")]
    return to.removeprefix("to "), [[bytes.fromhex(frame) for frame in line.split()] for line in messages]


def test_there_are_attacks_on_both() -> None:
    assert {read(path)[0] for path in FILES} == {"scheduler", "server"}


@pytest.mark.parametrize("path", [p for p in FILES if read(p)[0] == "server"], ids=lambda path: path.stem)
def test_a_server_refuses_it_and_goes_on_as_if_it_had_not_come(path: Path) -> None:
    peer = Peer(2)
    assert isinstance(peer.ask(0, init(1)), m.Done)
    for frames in read(path)[1]:
        peer.server.handle(b"route1", frames)
    assert isinstance(peer.sent[-1][1], m.Refused), peer.sent
    assert list(peer.server.values.entries) == ["w"]
    assert peer.server.served.updater is None
    assert peer.server.served.event <= 1  # the workers' first, where it was refused to all of them
    assert peer.weight() == [0, 0]
    last = max([x.seq for _, x in peer.sent if hasattr(x, "seq")], default=0)  # the worker goes on behind it
    assert isinstance(peer.ask(1, push(last + 1, answer=False, value=2, number=1)), m.Done)
    assert isinstance(peer.ask(0, push(2, value=3, number=1)), m.Values)
    assert peer.weight() == [5, 5]


@pytest.mark.parametrize("path", [p for p in FILES if read(p)[0] == "scheduler"], ids=lambda path: path.stem)
def test_a_scheduler_refuses_it_and_the_job_comes_together(path: Path) -> None:
    sent: list[tuple[bytes, Any]] = []
    scheduler = Scheduler(lambda route, message: sent.append((route, message)) or True, 2, 1, "job")  # type: ignore[func-returns-value]
    join = m.Join(wire.VERSION, "", "worker", 0, 0, 0, "", "first", "first", "sync")
    scheduler.handle(b"first", m.encode(join))
    for frames in read(path)[1]:
        scheduler.handle(b"attacker", frames)
    assert isinstance(sent[-1][1], m.Refused), sent
    assert scheduler.course.state == "gathering"
    for name, role in (("second", "worker"), ("server", "server")):
        kind = "sync" if role == "worker" else ""
        scheduler.handle(name.encode(), m.encode(m.Join(wire.VERSION, "", role, -1, 0, 0, "", name, name, kind)))
    assert scheduler.course.state == "running"
    assert isinstance(next(x for route, x in reversed(sent) if route == b"first"), m.Welcome)


def test_none_of_them_is_of_a_version_that_is_gone() -> None:
    """Each is a message of today's protocol, or none of any."""
    for path in FILES:
        for frames in read(path)[1]:
            try:
                message = m.decode(frames)
            except ProtocolError:
                continue
            assert [bytes(f) for f in m.encode(message)] == frames, path
