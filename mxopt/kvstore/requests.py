"""What a worker asks of a server, and the answers.

`seq` numbers a worker's requests to one server; the answer carries the request's number. `read` is
how many bytes of data of this server's answers the worker has taken so far.
"""

from __future__ import annotations

from typing import ClassVar

from msgspec import field

from mxopt.kvstore.message import Framed, Message
from mxopt.kvstore.wire import Data, Dtype, Float, Key, KeyList, Lacks, Shape, Shapes, Text, Whole, Wholes
from mxopt.sparse.initial import Begin


class Hello(Message, tag=20):
    """First message of a worker to a server, and again when it has waited long."""

    version: Whole
    job: Text
    rank: Whole
    epoch: Whole
    token: Text
    workers: Whole
    mode: Text  # sync, async, ssp
    staleness: Whole
    knows: Whole = 0  # the epoch of this server that the worker has talked to
    read: Whole = 0


class Ready(Message, tag=21):
    """The answer to Hello: the next sequence number the server expects, and whose pushes the worker
    waits for. With `expects` 0 the server doesn't know the worker: it is to say Hello."""

    rank: Whole
    epoch: Whole  # of the server; a new one begins a new session
    expects: Whole
    lacks: Lacks = field(default_factory=list)


class Init(Framed, tag=22):
    """First values: of several keys that this server has all of, one after the other in the frame,
    or one piece of the part of one key that it holds."""

    seq: Whole
    keys: KeyList
    dtype: Dtype
    shapes: Shapes  # of this server's part of each: (units, elements of a unit...)
    wholes: Shapes  # of the whole arrays
    first: Whole  # where the part begins, in units
    piece: Whole
    round: Whole  # that the keys begin with: pushes count on from it
    data: Data = field(default_factory=list)
    read: Whole = 0


class InitTable(Framed, tag=37):
    """A key that is stored by rows, and some of the rows that are there from the beginning: frame 1
    their int64 numbers, frame 2 the rows. There are `total`, these after `offset` others."""

    FRAMES: ClassVar[int] = 2

    seq: Whole
    key: Key
    dtype: Dtype
    whole: Shape
    servers: Whole  # that have a part of the rows each
    declared: bool  # a table, not a value that was row-sparse
    init: Begin
    scale: Float
    seed: Whole
    offset: Whole
    total: Whole
    round: Whole  # as that of Init
    data: Data = field(default_factory=list)
    read: Whole = 0


class Done(Message, tag=23):
    """A request has been met, and `also` those of these numbers."""

    seq: Whole
    version: Whole = 0  # of a Config: the number of the change that it is on this server, 0 for none
    also: Wholes = field(default_factory=list)


class Push(Framed, tag=24):
    """Gradients: of several keys, one after the other in the frame, or of one piece of one key."""

    seq: Whole
    answer: bool  # send the values when the round is complete
    keys: KeyList
    piece: Whole
    round: Whole  # of each of the keys: which of the worker's pushes this is
    step: Whole  # of the worker's training, 0 where it counts none
    codec: Whole  # 0 raw, 1 two bits, 2 one bit; see compression.py
    threshold: Float
    update: Whole  # the worker's count of updates, 0 where others count too
    config: Whole  # the number of the worker's last Config, 0 where it never set an optimizer
    later: bool  # whether its Done may come with another answer
    data: Data = field(default_factory=list)
    read: Whole = 0


class Pull(Message, tag=25):
    """Asks for values, once the worker's own push for `round` is in them."""

    seq: Whole
    keys: KeyList
    piece: Whole
    round: Whole
    step: Whole = 0
    read: Whole = 0


class Values(Framed, tag=26):
    """The values asked for by Push or Pull, one after the other in the frame. `also` as in Done."""

    seq: Whole
    also: Wholes
    data: Data = field(default_factory=list)


class PushRows(Framed, tag=27):
    """Rows of a row-sparse gradient: frame 1 their int64 numbers within this server's part, frame 2
    the rows. A large push comes in several, which bring `total` rows: these after `offset`
    others."""

    FRAMES: ClassVar[int] = 2

    seq: Whole
    key: Key
    round: Whole
    step: Whole
    offset: Whole
    total: Whole
    update: Whole
    config: Whole
    data: Data = field(default_factory=list)
    read: Whole = 0


class PullRows(Framed, tag=28):
    """Asks for rows: the frame has their int64 numbers within this server's part."""

    seq: Whole
    key: Key
    round: Whole
    step: Whole = 0
    data: Data = field(default_factory=list)
    read: Whole = 0


class ListRows(Message, tag=38):
    """Asks which rows a server has of a key that is stored by rows: their int64 numbers as a
    document, in the order in which they came, from byte `offset` on."""

    seq: Whole
    key: Key
    round: Whole
    offset: Whole
    step: Whole = 0
    read: Whole = 0


class SetOptimizer(Message, tag=29):
    """The optimizer to update with, by the number of its Config, 0 for none; `event` counts a
    worker's calls, and the first of each number counts."""

    seq: Whole
    event: Whole
    config: Whole
    read: Whole = 0


class FetchStates(Message, tag=30):
    """Asks for a key's optimizer state as a document of `mxopt.document`, from byte `offset` on."""

    seq: Whole
    key: Key
    offset: Whole
    read: Whole = 0


class FetchOptimizer(Message, tag=39):
    """Asks how the optimizer stands in a job that goes on, as a document of `mxopt.document`, from
    byte `offset` on; `config` is the number of what the worker has given."""

    seq: Whole
    config: Whole
    offset: Whole
    read: Whole = 0


class Chunk(Framed, tag=31):
    """Part of a document of `total` bytes."""

    seq: Whole
    total: Whole
    data: Data = field(default_factory=list)


class StoreStates(Framed, tag=32):
    """Part of a document with a key's optimizer state, to be taken over when all `total` bytes are
    there."""

    seq: Whole
    event: Whole
    key: Key
    offset: Whole
    total: Whole
    data: Data = field(default_factory=list)
    read: Whole = 0


class Config(Framed, tag=33):
    """Part of an optimizer's config, which is `total` bytes of MessagePack. `number` counts those
    of a worker; a server keeps the last. It is that of the worker's call number `event` of
    set_optimizer, or a change since."""

    seq: Whole
    number: Whole
    event: Whole
    changed: bool  # whether it isn't what that call gave, but a change since
    version: Whole  # what the server's answer has called the change, 0 before; where every push is an update
    drawn: bool  # whether the seed in it wasn't given
    offset: Whole
    total: Whole
    data: Data = field(default_factory=list)
    read: Whole = 0


class Rounds(Message, tag=34):
    """Asks from which rounds on a worker counts its pushes of these keys. In `pushed` it says which
    of its pushes of each has been taken last: those of them that a server which came back from a
    checkpoint hasn't are lost."""

    seq: Whole
    keys: KeyList
    pushed: Wholes = field(default_factory=list)
    read: Whole = 0


class Present(Message, tag=35):
    """The rounds of the keys that Rounds names: the last of each that is over."""

    seq: Whole
    rounds: Wholes
    lost: Whole = 0  # pushes that the server had answered, before it was started again from checkpoints


class Cut(Message, tag=36):
    """A worker is at cut `number` of its program: what it pushes from here on is behind it. With
    `keeps` a checkpoint is to be made of it."""

    seq: Whole
    number: Whole
    keeps: bool
    read: Whole = 0
