"""The messages between the processes of a job and its scheduler."""

from __future__ import annotations

from typing import Any, ClassVar

from msgspec import field

from mxopt.kvstore.message import Message
from mxopt.kvstore.wire import Float, Key, Lacks, Map, Members, Text, Texts, Whole, Wholes


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
    cuts: Wholes = field(default_factory=list)  # of a server: the newest in its journal


class Waiting(Message, tag=2):
    """Not yet: the scheduler's answer to Join until all are there or the place is free, and a
    server's to Hello of an epoch that it hasn't heard of; `text` says what is waited for."""

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
    """I am alive, and this is how far my loop has come."""

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
    cut: Whole = 0  # of a server: the newest that all workers have made there
    lost: Whole = 0  # of a server: pushes that it had answered, before it was started again from checkpoints


class Pulse(Message, tag=5):
    """The scheduler's answer to Beat: it is alive too, and how the job stands."""

    state: Text  # running, failed, finished
    text: Text  # why it failed
    ended: Wholes  # workers that have ended, or where others may come back have died
    endpoints: Texts
    members: Members = field(default_factory=list)  # the workers of the job, for a server
    beat: Whole = 0  # the number of the Beat that this answers
    cut: Whole = 0  # the number of the cut that workers make next, of which
    keeps: bool = False  # a checkpoint is made;
    exists: Whole = 0  # and that of the newest checkpoint that all servers have
    lost: Wholes = field(default_factory=list)  # by server: the pushes that it has lost in the whole job


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
    """A worker waits in its n-th call, all that it has sent is taken, and servers have just said
    whose pushes they lack. Sent again every time they have said so."""

    job: Text
    role: Text
    rank: Whole
    token: Text
    number: Whole
    lacks: Lacks


class Gone(Message, tag=14):
    """A launcher says that a process it has started has exited. The scheduler looks whether its
    connection is closed, and answers Farewell."""

    job: Text
    role: Text
    rank: Whole
    why: Text = ""  # how it has ended, where nobody comes in its place, and so the job has failed
