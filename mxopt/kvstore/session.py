"""A worker's session with the servers of its job: numbered requests, answers in any order, repeats.

A request is kept until it is answered. While too much is on the way, requests wait in a backlog,
the highest priority first. After a silence, Hello asks the server which number it expects: what has
not arrived is sent again, and what may have been answered is asked for again. A server that was
started again begins a new session: what has no answer is numbered from 1 again, and the server
knows by rounds and events what it has taken before.

Nothing here waits, and nothing knows of sockets, threads or the time: what moves a session are the
requests of its owner, the messages that come, and a clock that it is given.
"""

from __future__ import annotations

import logging
import math
from collections.abc import Callable, Sequence
from typing import Any

from msgspec.structs import replace

from mxopt.errors import JobFailedError
from mxopt.kvstore import messages as m
from mxopt.kvstore.channel import ASK_AFTER_S, Call, Channel, Post, Request, Sink
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.wire import Frame, Key

SOON = 0.1  # seconds until a server that hasn't heard of the worker is asked again
LACKING = 0.5  # seconds of silence until a server that has said whose push it lacks is asked again

log: logging.Logger = logging.getLogger("mxopt.kvstore")


class Session:
    """The requests of a worker to all servers of its job.

    Parameters
    ----------
    hello : how the worker presents itself
    endpoints : where the servers are, by rank
    connect : called with (server, endpoint) for each, and again where one was started elsewhere;
        returns what sends the frames of a message there. What gets lost is sent again.
    clock : tells the time in seconds

    Attributes
    ----------
    channels : list of Channel
    answers : how often a server has answered Hello
    came_back : called with a server that was started again, once all it lacks is sent again
    deferred : what went wrong with a request that no call waits for
    failure : why a server doesn't talk to this worker; None if all do
    """

    def __init__(
        self,
        hello: m.Hello,
        endpoints: Sequence[str],
        connect: Callable[[int, str], Post],
        clock: Callable[[], float],
    ) -> None:
        self._hello = hello
        self._connect = connect
        self._clock = clock
        self.channels: list[Channel] = [
            Channel(server, endpoint, connect(server, endpoint), clock()) for server, endpoint in enumerate(endpoints)
        ]
        self.deferred: Exception | None = None
        self.failure: Exception | None = None
        self.answers: int = 0
        self.came_back: Callable[[int], None] = lambda server: None

    @property
    def ready(self) -> bool:
        """Whether the handshake with every server is done."""
        return all(channel.epoch for channel in self.channels)

    @property
    def lacks(self) -> list[tuple[int, Key, int]]:
        """(worker, key, number) of pushes of others that are waited for; none unless all that this
        worker has sent is taken."""
        if any(c.backlog or (c.pending and not c.taken) for c in self.channels):
            return []
        return [lack for channel in self.channels for lack in channel.lacks][:8]

    @property
    def idle(self) -> bool:
        """Whether all requests are answered."""
        return not any(channel.pending or channel.backlog for channel in self.channels)

    def send(
        self,
        server: int,
        message: Any,
        call: Call | None = None,
        sink: Sink | None = None,
        nbytes: int = 0,
        priority: int | None = None,
    ) -> bool:
        """Makes a request, which is sent when there is room: returns whether it was sent at once.
        `sink` is given the answer, `call` counts it.

        `nbytes` is how much it and its answer bring on the way. With a `priority` it may overtake
        requests that are of other keys and wait for room; without, it neither overtakes nor is
        overtaken.
        """
        channel = self.channels[server]
        request = Request(message, nbytes, call, sink)
        if call is not None:
            call.missing += 1
        if not channel.full and not channel.backlog.waiting:
            self._dispatch(channel, request)
            return True
        keys: Any = message.keys if hasattr(message, "keys") else [getattr(message, "key", None)]
        channel.backlog.put(request, None if priority is None else frozenset(keys), priority or 0, nbytes)
        return False

    def join(self, server: int, message: Any, call: Call) -> bool:
        """Lets `call` wait for the answer to a request that was made before; False where that has
        come."""
        channel = self.channels[server]
        for request in (channel.pending.get(message.seq), *channel.backlog):
            if request is not None and request.message is message:
                request.call = call
                call.missing += 1
                return True
        return False

    def forget(self, call: Call) -> None:
        """What is still on its way for `call` is no longer written anywhere, nor read from its
        arrays."""
        for channel in self.channels:
            for request in (*channel.pending.values(), *channel.backlog):
                if request.call is call:
                    request.sink = None
                    request.keep()

    def take(self, server: int, answer: Any) -> None:
        """Handles a message of a server."""
        channel = self.channels[server]
        if isinstance(answer, m.Ready):
            self._ready(channel, answer)
            return
        if isinstance(answer, m.Waiting):  # it will have heard of this worker soon
            channel.ask_at = self._clock() + SOON
            return
        seq = getattr(answer, "seq", 0)
        if answer.FRAMES:
            channel.read += len(answer.data[0])
        if isinstance(answer, m.Refused) and seq == 0:
            self.failure = self.failure or error_of(answer)
            return
        for number in getattr(answer, "also", ()):
            self.take(server, m.Done(number))
        request = channel.answered(seq, answer)
        if request is None:
            return  # answered before
        if channel.lacks:
            channel.lacks = []
        if isinstance(answer, m.Done) and getattr(request.message, "answer", False):  # its round isn't over
            channel.ask_at = self._clock() + LACKING  # whose push it lacks, if that is waited for
        call = request.call
        if isinstance(answer, m.Refused):
            self._failed(call, error_of(answer))
        elif request.sink is not None:
            try:
                request.sink(answer)
            except Exception as error:
                self._failed(call, error)
        if call is not None:
            call.missing -= 1
        while channel.backlog.waiting and not channel.full:
            self._dispatch(channel, channel.backlog.take())

    def heard(self, server: int) -> None:
        """Notes that a server isn't silent."""
        self.channels[server].heard = self._clock()

    def look(self, endpoints: Sequence[str]) -> None:
        """Asks the servers that have been silent, and follows those that are now elsewhere. To be
        called often."""
        now = self._clock()
        for channel in self.channels:
            if len(endpoints) == len(self.channels) and endpoints[channel.server] != channel.endpoint:
                channel.endpoint = endpoints[channel.server]
                log.warning("%s is now there", channel)
                channel.post = self._connect(channel.server, channel.endpoint)
                self.greet(channel)
            patience = LACKING if channel.lacks else ASK_AFTER_S
            if channel.waits and (now - max(channel.heard, channel.asked) > patience or now >= channel.ask_at):
                self.greet(channel)

    def greet(self, channel: Channel) -> None:
        """Asks a server which number it expects."""
        channel.asked, channel.ask_at, channel.greeted = self._clock(), math.inf, True
        hello = replace(self._hello, knows=channel.epoch, read=channel.read)
        channel.post(m.encode(hello), not channel.pending)  # a Hello is none of them

    def told_lost(self, server: int, pushes: int) -> None:
        """Hears how many pushes of the workers a server has lost, as far as it knows."""
        channel = self.channels[server]
        if pushes > channel.lost:
            channel.lost = pushes
            log.warning("%s came back from its last checkpoint: %d of the workers' pushes are lost", channel, pushes)

    def silent(self) -> str:
        """In words, which servers owe which answers."""
        return "; ".join(f"{c}: {c.describe()}" for c in self.channels if c.waits)

    # Inside.

    def _dispatch(self, channel: Channel, request: Request) -> None:
        """Gives a request its number and sends it."""
        request.message.seq = seq = channel.next
        if not channel.pending:
            channel.heard = self._clock()
        channel.pending[seq] = request
        channel.taken = False
        channel.next = seq + 1
        channel.outstanding += request.nbytes
        self._post(channel, request)

    @staticmethod
    def _post(channel: Channel, request: Request) -> None:
        """Sends a request, or sends it again. It says how much of the answers has been read by now,
        without which a server that has given some twice might never take it."""
        request.message.read = channel.read
        request.frames = m.encode(request.message)
        channel.post(request.frames, len(channel.pending) <= 1)

    def _failed(self, call: Call | None, error: Exception) -> None:
        if call is None:
            self.deferred = self.deferred or error
        else:
            call.error = call.error or error

    def _ready(self, channel: Channel, ready: m.Ready) -> None:
        if ready.expects == 0:  # it doesn't know this worker: it was started again
            if not channel.greeted:
                self.greet(channel)
            return
        if ready.epoch < channel.epoch:
            return  # of a server that has been replaced
        before, channel.epoch = channel.epoch, ready.epoch
        asked, channel.greeted = channel.greeted, False
        if before and before != ready.epoch:
            log.warning("%s was started again", channel)
            channel.read = 0
            for request in channel.again():
                self._dispatch(channel, request)
            self.came_back(channel.server)
        if ready.expects > channel.next:
            raise JobFailedError(f"{channel} has taken requests of this worker that it never sent")
        channel.taken, channel.lacks = ready.expects == channel.next, list(ready.lacks)
        self.answers += asked
        if before != ready.epoch:
            return
        for seq, request in list(channel.pending.items()):
            if seq >= ready.expects:
                self._post(channel, request)
            else:
                channel.post(_question(seq, request), len(channel.pending) <= 1)


def _question(seq: int, request: Request) -> list[Frame]:
    """What asks for the answer to a request that the server has taken: it is known, and a push
    needn't travel again. For values they are pulled; another push that doesn't wait any more was
    answered by Done, which needs no round to be over."""
    message = request.message
    if isinstance(message, m.Push) and message.answer and not message.later:
        return m.encode(m.Pull(seq, message.keys, message.piece, message.round))
    if isinstance(message, m.Push | m.PushRows):
        return m.encode(replace(message, data=[b""] * message.FRAMES))
    return request.frames
