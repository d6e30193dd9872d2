"""A worker's pushes: gradients, with the optimizer that they rely on."""

from __future__ import annotations

import math
from collections.abc import Callable

from mxopt.kvstore import messages as m, pulls, rows, wire
from mxopt.kvstore.channel import Call, Sink
from mxopt.kvstore.compression import GradientCompression
from mxopt.kvstore.cut import Cuts
from mxopt.kvstore.exchange import compressed, copy, gather, sink
from mxopt.kvstore.follow import Followed
from mxopt.kvstore.held import Held
from mxopt.kvstore.values import Key
from mxopt.kvstore.worker import Worker
from mxopt.optimizer import Optimizer
from mxopt.sparse import RowSparse
from mxopt.typing import Array


class Pushes:
    """The pushes of `worker` of the keys that are `held`, where updates are made by all workers
    together with `cuts` of their program.

    Attributes
    ----------
    followed : the optimizer that the servers update by, as this worker has set it
    compression : of dense gradients, if any
    first : whether the next push is this worker's first
    """

    def __init__(self, worker: Worker, held: Held, cuts: Cuts | None) -> None:
        self._worker, self._connections, self._held, self._cuts = worker, worker.connections, held, cuts
        self.followed: Followed | None = None
        self.compression: GradientCompression | None = None
        self._events = 0  # calls of set_optimizer
        self.first = True

    def set_optimizer(self, optimizer: Optimizer) -> None:
        """Sends the servers an optimizer, and waits until they have it."""
        followed = Followed(optimizer, self._connections, self._events + 1)
        self._worker.changes("set_optimizer")
        self._events += 1
        call = Call()
        for channel in self._connections.channels:
            followed.tell(channel.server)
            message = m.SetOptimizer(0, self._events, followed.number)
            self._connections.send(channel.server, message, call)
        self._connections.wait(call, "set_optimizer")
        if self._worker.member.welcome.goes_on > 0:
            followed.go_on()
        self.followed = followed

    def push(
        self,
        values: dict[Key, Array],
        step: int,
        outs: dict[Key, list[Array]] | None,
        call: Call | None,
        priority: int,
    ) -> None:
        """Sends `values`, pushed in a step of the training; with `outs` their new values are asked
        for too, and `call` waits for them."""
        update = 0
        if self.followed is not None:
            self.followed.look(values)
            update = self.followed.count(values)
            if self._worker.member.welcome.workers > 1:  # where others count too, the servers do
                update = 0
        what = "push" if outs is None else "pushpull"
        self._worker.changes(what, partial=True)
        self.first = False
        highest = self._held.push(values)
        if self._cuts is not None:
            self._cuts.before(highest, step)
        tell = _nothing if self.followed is None else self.followed.tell
        if RowSparse in map(type, values.values()):
            self._push_rows(values, step, update, tell, call)
        for item in self._held.items(tuple(values)) if values else ():
            frame: wire.Frame
            codec, threshold = 0, 0.0
            if self.compression is not None:
                codec, threshold = self.compression.codec, self.compression.threshold
                frame = wire.bytes_of(compressed(item, gather(item, values), self.compression))
            elif item.nbytes < wire.SMALL:  # it will stand in the header
                frame = gather(item, values).tobytes()
            elif outs is not None and len(item.infos) == 1:
                frame = wire.bytes_of(gather(item, values))
            else:
                (frame,) = self._connections.room(item.server, item.nbytes)
                copy(item, values, frame)
            config = tell(item.server)
            message = m.Push(0, outs is not None, item.keys, item.piece, item.infos[0].round, step, codec, threshold,
                             update, config, call is None, [frame])  # fmt: skip
            into: Sink | None = None
            if outs is not None:
                into = sink(item, outs)
            elif self._cuts is not None:
                ahead = pulls.expect(item, message)
                into = None if ahead is None else ahead.take
            self._connections.send(item.server, message, call, into, item.nbytes, priority)
        if outs is None:
            self._worker.settled()
        else:
            self._worker.changes(what)

    def _push_rows(
        self, values: dict[Key, Array], step: int, update: int, tell: Callable[[int], int], call: Call | None
    ) -> None:
        """Sends those of `values` that are row-sparse, and takes them out; rows larger than a piece
        become dense."""
        for key in [k for k, v in values.items() if type(v) is RowSparse]:
            value, info = values.pop(key), self._held.infos[key]
            if info.layout.by_rows or math.prod(value.shape[1:]) == info.layout.unit:
                rows.push(self._connections, info, value, step, update, tell, call)
            else:
                values[key] = value.todense()


def _nothing(server: int) -> int:
    """The number of the config that servers know of who never set an optimizer."""
    return 0
