"""Every message of the protocol, one small class each. `docs/protocol.md` says when each is sent.

`seq` numbers a worker's requests to one server; the answer carries the request's number.
"""

from __future__ import annotations

from dataclasses import field

from mxopt.kvstore.wire import (
    Dtype,
    Frame,
    Key,
    Keys,
    Map,
    MaybeKey,
    MaybeMap,
    Message,
    Plain,
    Shape,
    Text,
    Texts,
    Whole,
    Wholes,
    message,
)  # fmt: skip

# Any process and the scheduler.


@message(1)
class Join(Message):
    """A process wants to be part of the job. Sent again until Welcome or Refused comes."""

    version: Whole
    job: Text  # "" joins whatever job runs there
    role: Text  # worker or server
    rank: int  # the rank wished for, or -1
    workers: Whole  # how many workers and servers the sender believes the job has; 0: it doesn't know
    servers: Whole
    endpoint: Text  # where workers reach a server; "" for a worker
    incarnation: Text  # drawn by each process anew
    name: Text  # for people: host and process id


@message(2)
class Waiting(Message):
    """The scheduler's answer to Join until all are there; `text` says who is missing."""

    text: Text


@message(3)
class Welcome(Message):
    """All have joined."""

    job: Text
    rank: Whole
    workers: Whole
    servers: Whole
    endpoints: Texts  # of the servers, by rank
    heartbeat: float  # seconds from one Beat to the next
    dead_after: float  # seconds of silence after which a process counts as dead


@message(4)
class Beat(Message):
    """I am alive."""

    job: Text
    role: Text
    rank: Whole
    incarnation: Text


@message(5)
class Pulse(Message):
    """The scheduler's answer to Beat: it is alive too, and how the job stands."""

    state: Text  # running, failed, finished
    text: Text  # why it failed
    ended: Wholes  # workers that have ended normally
    endpoints: Texts


@message(6)
class Barrier(Message):
    """A worker has come to its n-th barrier; rank 0's `payload` goes to all."""

    job: Text
    rank: Whole
    number: Whole
    payload: Plain


@message(7)
class Passed(Message):
    """All workers have come to the barrier."""

    number: Whole
    payload: Plain


@message(8)
class Goodbye(Message):
    """A process leaves, with an error or normally ("")."""

    job: Text
    role: Text
    rank: Whole
    incarnation: Text
    error: Text


@message(9)
class Farewell(Message):
    """The answer to Goodbye."""


@message(10)
class Refused(Message):
    """The answer to a request that can't be met. `seq` is 0 where the request has none."""

    seq: Whole
    code: Text  # a class of mxopt.errors
    text: Text
    key: MaybeKey


@message(11)
class Inquire(Message):
    """How do things stand? To a scheduler or a server, by anyone."""


@message(12)
class Report(Message):
    """The answer to Inquire."""

    content: Map


# A worker and a server.


@message(20)
class Hello(Message):
    """First message of a worker to a server, and again when it has waited long."""

    version: Whole
    job: Text
    rank: Whole
    incarnation: Text
    workers: Whole
    mode: Text  # sync, async, ssp
    staleness: Whole
    oldest: Whole  # the lowest sequence number the worker may still send


@message(21)
class Ready(Message):
    """The answer to Hello: the next sequence number the server expects, and that up to which pushes are in a
    snapshot."""

    rank: Whole
    incarnation: Text
    expects: Whole
    durable: Whole


@message(22, frames=1)
class Init(Message):
    """One piece of the first value of the part of a key that this server holds."""

    seq: Whole
    key: Key
    dtype: Dtype
    shape: Shape  # of this server's part: (units, elements of a unit...)
    whole: Shape  # of the whole array
    first: Whole  # where the part begins, in units
    step: Whole  # units of a piece
    piece: Whole
    data: list[Frame] = field(default_factory=list)


@message(23)
class Done(Message):
    """A request has been met; for Push: taken, the worker may forget it."""

    seq: Whole
    durable: Whole


@message(24, frames=1)
class Push(Message):
    """Gradients: of several keys, one after the other in the frame, or of one piece of one key."""

    seq: Whole
    answer: bool  # send the values when the round is complete
    keys: Keys
    piece: Whole
    codec: Whole  # 0 raw, 1 two bits, 2 one bit; see compression.py
    threshold: float
    update: Whole  # the worker's count of updates, 0 where others count too
    config: MaybeMap  # the optimizer, where it has changed since the worker's last push to this server
    data: list[Frame] = field(default_factory=list)


@message(25)
class Pull(Message):
    """Asks for values, once the worker's own pushes of them are complete."""

    seq: Whole
    keys: Keys
    piece: Whole


@message(26, frames=1)
class Values(Message):
    """The values asked for by Push or Pull, one after the other in the frame."""

    seq: Whole
    durable: Whole
    data: list[Frame] = field(default_factory=list)


@message(27, frames=2)
class PushRows(Message):
    """Rows of a row-sparse gradient: frame 1 their int64 numbers within this server's part, frame 2 the rows. A large
    push comes in several, `last` marks its end."""

    seq: Whole
    key: Key
    last: bool
    update: Whole
    config: MaybeMap
    data: list[Frame] = field(default_factory=list)


@message(28, frames=1)
class PullRows(Message):
    """Asks for rows: the frame has their int64 numbers within this server's part."""

    seq: Whole
    key: Key
    data: list[Frame] = field(default_factory=list)


@message(29)
class SetOptimizer(Message):
    """The optimizer to update with; `event` counts a worker's calls, and the first of each number counts."""

    seq: Whole
    event: Whole
    config: MaybeMap


@message(30)
class FetchStates(Message):
    """Asks for a key's optimizer state as a document of `mxopt.states`, from byte `offset` on."""

    seq: Whole
    key: Key
    offset: Whole


@message(31, frames=1)
class Chunk(Message):
    """Part of a document of `total` bytes."""

    seq: Whole
    total: Whole
    data: list[Frame] = field(default_factory=list)


@message(32, frames=1)
class StoreStates(Message):
    """Part of a document with a key's optimizer state, to be taken over when all `total` bytes are there."""

    seq: Whole
    event: Whole
    key: Key
    offset: Whole
    total: Whole
    data: list[Frame] = field(default_factory=list)
