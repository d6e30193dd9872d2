"""Signals that ask a scheduler or server to end."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator

import pytest
from mxopt_server.signals import Stop, Stopped


@pytest.fixture
def stop() -> Iterator[Stop]:
    before = {number: signal.getsignal(number) for number in (signal.SIGTERM, signal.SIGINT)}
    yield Stop()
    for number, handler in before.items():
        signal.signal(number, handler)


def send(number: int) -> None:
    os.kill(os.getpid(), number)


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_what_waits_at_once(stop: Stop, number: signal.Signals) -> None:
    with pytest.raises(Stopped, match=number.name):
        send(number)


def test_a_signal_within_a_finalizer_is_not_lost_while_messages_are_handled(stop: Stop) -> None:
    class Finalized:
        def __del__(self) -> None:
            send(signal.SIGTERM)

    stop.held = True
    stop.check()
    made = Finalized()
    del made  # raised in there it would be printed, and go unheard
    with pytest.raises(Stopped, match="SIGTERM"):
        stop.check()


def test_a_second_signal_does_not_wait_for_a_call_that_does_not_return(stop: Stop) -> None:
    stop.held = True
    send(signal.SIGTERM)
    with pytest.raises(Stopped, match="SIGINT"):
        send(signal.SIGINT)
