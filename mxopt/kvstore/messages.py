"""Every message of the protocol, one small class each. `docs/protocol.md` says when each is sent.

    frame 0    a MessagePack array: [kind, field, field, ...]
    frame 1..  the bytes of arrays; those that are small stand in frame 0

`seq` numbers a worker's requests to one server; the answer carries the request's number. `read` is how many bytes of
data of this server's answers the worker has taken so far.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, ClassVar

import msgpack
import msgspec
from msgspec.structs import astuple

from mxopt import plain
from mxopt.errors import ProtocolError
from mxopt.kvstore.wire import (
    MAX_HEADER,
    SMALL,
    Data,
    Dtype,
    Float,
    Frame,
    Key,
    KeyList,
    Lacks,
    Map,
    Members,
    Shape,
    Text,
    Texts,
    Whole,
    Wholes,
)  # fmt: skip
from mxopt.sparse.initial import Begin


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The base of all messages. Its tag is the kind."""

    FRAMES: ClassVar[int] = 0
    FREE: ClassVar[str] = ""  # the field that may hold any plain value


class Framed(Message):
    """The base of messages with arrays: `data` is a list of them, `FRAMES` how many."""

    FRAMES: ClassVar[int] = 1


# Any process and the scheduler.


class Join(Message, tag=1):
    """A process wants to be part of the job. Sent again until Welcome or Refused comes."""

    version: Whole
    job: Text  # "" joins whatever job runs there
    role: Text  # worker or server
    rank: int  # the rank wished for, or -1
    workers: Whole  # how many workers and servers the sender believes the job has; 0: it doesn't know
    servers: Whole
    endpoint: Text  # where workers reach a server; "" for a worker
    nonce: Text  # drawn by each process anew, by which the scheduler knows a Join that comes again
    name: Text  # for people: host and process id
    mode: Text = ""  # of a worker's store: sync, async or ssp
    durability: Text = "none"  # of a server: none, snapshot or journal
    cuts: Wholes = []  # of a server: the newest in its journal


class Waiting(Message, tag=2):
    """Not yet: the scheduler's answer to Join until all are there or the place is free, and a server's to Hello of an
    epoch that it hasn't heard of; `text` says what is waited for."""

    text: Text


class Welcome(Message, tag=3):
    """All have joined."""

    job: Text
    rank: Whole
    epoch: Whole  # rises with every process that has this role and rank
    token: Text  # shows the others that the process is the one of this epoch
    workers: Whole
    servers: Whole
    endpoints: Texts  # of the servers, by rank
    heartbeat: Float  # seconds from one Beat to the next
    dead_after: Float  # seconds of silence after which a process counts as dead
    members: Members  # the workers of the job, for a server; [] for a worker
    goes_on: int = -1  # the cut that a server begins with, 0 for none; -1: all that it has; -2: the same, in a job
    # whose others have gone on


class Beat(Message, tag=4):
    """I am alive, and so far my loop has come."""

    job: Text
    role: Text
    rank: Whole
    token: Text
    number: Whole = 0  # counts the beats of a process
    progress: int = -1  # of a server: a number that rises while its loop runs
    doing: Text = ""  # what it has called that it can't move the number in
    round: int = -1  # of a worker of a synchronous job: the highest it has pushed for
    written: Whole = 0  # of a server: the newest checkpoint that it has
    full: bool = False  # of a server: whether its journal is so large that a checkpoint should replace it


class Pulse(Message, tag=5):
    """The scheduler's answer to Beat: it is alive too, and how the job stands."""

    state: Text  # running, failed, finished
    text: Text  # why it failed
    ended: Wholes  # workers that have ended, or where others may come back have died
    endpoints: Texts
    members: Members = []  # the workers of the job, for a server
    beat: Whole = 0  # the number of the Beat that this answers
    cut: Whole = 0  # the number of the cut that workers make next, of which
    keeps: bool = False  # a checkpoint is made;
    exists: Whole = 0  # and that of the newest checkpoint that all servers have


class Barrier(Message, tag=6):
    """A worker has come to its n-th barrier; rank 0's `payload` goes to all."""

    FREE: ClassVar[str] = "payload"

    job: Text
    rank: Whole
    token: Text
    number: Whole
    payload: Any


class Passed(Message, tag=7):
    """All workers have come to the barrier."""

    FREE: ClassVar[str] = "payload"

    number: Whole
    payload: Any


class Goodbye(Message, tag=8):
    """A process leaves, with an error or normally ("")."""

    job: Text
    role: Text
    rank: Whole
    token: Text
    error: Text


class Farewell(Message, tag=9):
    """The answer to Goodbye."""


class Refused(Message, tag=10):
    """The answer to a request that can't be met. `seq` is 0 where the request has none."""

    seq: Whole
    code: Text  # a class of mxopt.errors
    text: Text
    key: Key | None


class Inquire(Message, tag=11):
    """How do things stand? To a scheduler or a server, by anyone."""


class Report(Message, tag=12):
    """The answer to Inquire."""

    FREE: ClassVar[str] = "content"

    content: Map


class Waits(Message, tag=13):
    """A worker waits in its n-th call, all that it has sent is taken, and servers have just said whose pushes they
    lack. Sent again every time they have said so."""

    job: Text
    role: Text
    rank: Whole
    token: Text
    number: Whole
    lacks: Lacks


class Gone(Message, tag=14):
    """A launcher says that a process it has started has exited. The scheduler looks whether its connection is closed,
    and answers Farewell."""

    job: Text
    role: Text
    rank: Whole


# A worker and a server.


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
    read: Whole = 0


class Ready(Message, tag=21):
    """The answer to Hello: the next sequence number the server expects, and whose pushes the worker waits for. With
    `expects` 0 the server doesn't know the worker: it is to say Hello."""

    rank: Whole
    epoch: Whole  # of the server; a new one begins a new session
    expects: Whole
    lacks: Lacks = []


class Init(Framed, tag=22):
    """One piece of the first value of the part of a key that this server holds."""

    seq: Whole
    key: Key
    dtype: Dtype
    shape: Shape  # of this server's part: (units, elements of a unit...)
    whole: Shape  # of the whole array
    first: Whole  # where the part begins, in units
    piece: Whole
    data: Data = []
    read: Whole = 0


class InitTable(Framed, tag=37):
    """A key that is stored by rows, and some of the rows that are there from the beginning: frame 1 their int64
    numbers, frame 2 the rows. There are `total`, these after `offset` others."""

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
    data: Data = []
    read: Whole = 0


class Done(Message, tag=23):
    """A request has been met."""

    seq: Whole
    version: Whole = 0  # of a Config: the number of the change that it is on this server, 0 for none


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
    data: Data = []
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
    """The values asked for by Push or Pull, one after the other in the frame."""

    seq: Whole
    data: Data = []


class PushRows(Framed, tag=27):
    """Rows of a row-sparse gradient: frame 1 their int64 numbers within this server's part, frame 2 the rows. A large
    push comes in several, which bring `total` rows: these after `offset` others."""

    FRAMES: ClassVar[int] = 2

    seq: Whole
    key: Key
    round: Whole
    step: Whole
    offset: Whole
    total: Whole
    update: Whole
    config: Whole
    data: Data = []
    read: Whole = 0


class PullRows(Framed, tag=28):
    """Asks for rows: the frame has their int64 numbers within this server's part."""

    seq: Whole
    key: Key
    round: Whole
    step: Whole = 0
    data: Data = []
    read: Whole = 0


class SetOptimizer(Message, tag=29):
    """The optimizer to update with, by the number of its Config, 0 for none; `event` counts a worker's calls, and the
    first of each number counts."""

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


class Chunk(Framed, tag=31):
    """Part of a document of `total` bytes."""

    seq: Whole
    total: Whole
    data: Data = []


class StoreStates(Framed, tag=32):
    """Part of a document with a key's optimizer state, to be taken over when all `total` bytes are there."""

    seq: Whole
    event: Whole
    key: Key
    offset: Whole
    total: Whole
    data: Data = []
    read: Whole = 0


class Config(Framed, tag=33):
    """Part of an optimizer's config, which is `total` bytes of MessagePack. `number` counts those of a worker; a server
    keeps the last. It is that of the worker's call number `event` of set_optimizer, or a change since."""

    seq: Whole
    number: Whole
    event: Whole
    changed: bool  # whether it isn't what that call gave, but a change since
    version: Whole  # what the server's answer has called the change, 0 before; where every push is an update
    drawn: bool  # whether the seed in it wasn't given
    offset: Whole
    total: Whole
    data: Data = []
    read: Whole = 0


class Rounds(Message, tag=34):
    """Asks from which rounds on a worker counts its pushes of these keys."""

    seq: Whole
    keys: KeyList
    read: Whole = 0


class Present(Message, tag=35):
    """The rounds of the keys that Rounds names: the last of each that is over."""

    seq: Whole
    rounds: Wholes


class Cut(Message, tag=36):
    """A worker is at cut `number` of its program: what it pushes from here on is behind it. With `keeps` a checkpoint
    is to be made of it."""

    seq: Whole
    number: Whole
    keeps: bool
    read: Whole = 0


# Messages as frames.

KINDS = {
    kind.__struct_config__.tag: kind
    for base in (Message, Framed)
    for kind in base.__subclasses__()
    if kind is not Framed
}
_TAGS = {kind: tag for tag, kind in KINDS.items()}
_pack = msgpack.Packer().pack
_AS_THEY_ARE = (bytes,)  # for `convert`, which would take a text for bytes in base64


def encode(message: Any) -> list[Frame]:
    """All frames of a message."""
    if not message.FRAMES or sum(map(len, message.data)) < SMALL:
        return [_header(message)]
    data = message.data
    message.data = len(data)
    frames = [_header(message), *data]
    message.data = data
    return frames


def _header(message: Any) -> bytes:
    packed: bytes = _pack((_TAGS[type(message)], *astuple(message)))
    return packed


def decode(frames: Sequence[Frame]) -> Any:
    """The message that `frames` are: one whose fields have the types its class names. Raises ProtocolError where they
    are none. What it allocates is bounded by the frames that have really arrived."""
    if not frames:
        raise ProtocolError("a message without a header")
    if len(frames[0]) > MAX_HEADER:
        raise ProtocolError(f"a header of {len(frames[0])} bytes; the limit is {MAX_HEADER}")
    try:
        fields = plain.unpack(frames[0])
        kind = KINDS.get(fields[0]) if type(fields) is list and fields and type(fields[0]) is int else None
        if kind is None:
            raise ProtocolError(f"it begins with no message's number: {fields!r:.80}")
        message: Any = msgspec.convert(fields, kind, builtin_types=_AS_THEY_ARE)
        if kind.FREE:
            plain.check(getattr(message, kind.FREE))
    except ValueError as error:
        raise ProtocolError(f"a header that is no message: {error}") from None
    following = 0
    if message.FRAMES:
        if type(message.data) is int:
            following, message.data = message.data, list(frames[1:])
        if len(message.data) != message.FRAMES:
            raise ProtocolError(f"{type(message).__name__} has {message.FRAMES} arrays, {len(message.data)} came")
    if len(frames) != following + 1:
        raise ProtocolError(f"{type(message).__name__} announced {following} frames, {len(frames) - 1} came")
    return message
