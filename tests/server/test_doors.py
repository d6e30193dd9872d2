"""Messages as a server's loop takes them."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack

import pytest
import zmq
from mxopt_server import doors
from mxopt_server.door import Door
from mxopt_server.doors import Doors

MESSAGES = [b"first", b"second", b"third"]


@pytest.fixture(params=[1, 2])
def opened(request: pytest.FixtureRequest) -> Iterator[Doors]:
    """Doors of one socket or of two, at the last of which three messages have come."""
    with ExitStack() as stack:
        context = stack.enter_context(zmq.Context())
        routers = [stack.enter_context(context.socket(zmq.ROUTER)) for _ in range(request.param)]
        for k, router in enumerate(routers):
            router.bind(f"inproc://door{k}")
        worker = stack.enter_context(context.socket(zmq.DEALER))
        worker.connect(f"inproc://door{request.param - 1}")
        for message in MESSAGES:
            worker.send(message)
        made = Doors.__new__(Doors)  # without the files and keys of a job
        made._doors = [Door(router) for router in routers]
        yield made


def test_a_pause_comes_when_all_that_is_there_is_taken(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "TICK", 10.0)
    found = opened.received(pauses=True)
    assert [next(found)[-1] for _ in MESSAGES] == MESSAGES
    assert next(found) == []


def test_who_asks_for_no_pauses_gets_messages_only(opened: Doors, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(doors, "TICK", 0.05)
    assert [message[-1] for message in opened.received()] == MESSAGES
