"""A worker's pulls of dense values, and those that it is about to make: where a script pulls what
it has pushed, round after round, as MXNet's do, the values come with the answer to the push.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.channel import Call
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.exchange import Item, scatter, sink
from mxopt.kvstore.values import Key
from mxopt.kvstore.wire import Frame
from mxopt.typing import Array


class Ahead:
    """The values that the answer to a push may bring, before they are pulled. In a synchronous job
    they stay what they are until the worker's next push."""

    def __init__(self, push: m.Push) -> None:
        self.push = push
        self.frame: Frame | None = None  # the values, once they are here

    def take(self, answer: Any) -> None:
        """Takes the answer: Values, or Done from a server that was asked what it has taken."""
        if isinstance(answer, m.Values):
            self.frame = bytes(wire.buffer_of(answer.data[0]))


def expect(item: Item, push: m.Push) -> Ahead | None:
    """What takes the values with the answer to a push, which is then asked for them: if they are
    small, and were pulled after the push before this one; else None."""
    expected = item.pulled and item.nbytes < wire.SMALL
    item.pulled = False
    item.ahead = ahead = Ahead(push) if expected else None
    push.answer = expected
    return ahead


def pull(
    connections: Connections, items: Iterable[Item], outs: dict[Key, list[Array]], step: int, priority: int, what: str
) -> None:
    """Writes the values of items into the outs of their keys, once they have come."""
    call, coming = Call(), list[tuple[Item, Ahead]]()
    for item in items:
        ahead, item.ahead, item.pulled = item.ahead, None, True
        known = ahead is not None and ahead.push.round == item.infos[0].round
        if (
            ahead is not None
            and known
            and (ahead.frame is not None or connections.session.join(item.server, ahead.push, call))
        ):
            coming.append((item, ahead))
        else:
            _ask(connections, item, outs, step, priority, call)
    connections.wait(call, what)
    again = Call()
    for item, ahead in coming:
        if ahead.frame is not None:
            scatter(item, ahead.frame, outs)
        else:
            _ask(connections, item, outs, step, priority, again)
    connections.wait(again, what)


def _ask(
    connections: Connections, item: Item, outs: dict[Key, list[Array]], step: int, priority: int, call: Call
) -> None:
    message = m.Pull(0, item.keys, item.piece, item.infos[0].round, step)
    connections.send(item.server, message, call, sink(item, outs), item.nbytes, priority)
