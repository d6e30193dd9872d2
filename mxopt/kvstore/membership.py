"""A process's place in a job: joining, barriers, leaving. Used by workers and servers."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from mxopt.errors import DeadlineError, JobFailedError, ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.heart import Heart
from mxopt.kvstore.message import Message
from mxopt.kvstore.progress import Progress
from mxopt.kvstore.refusals import error_of
from mxopt.kvstore.transport import Transport
from mxopt.kvstore.wire import Key
from mxopt.settings import Job

REPEAT_S = 2.0  # seconds until a question to the scheduler is asked again


class Finished(Exception):  # noqa: N818 no error
    """The job has ended well, and needs this process no more."""


class Membership:
    """This process as member `role` of the job that `settings` names.

    `endpoint` is where workers reach a server, `name` is for people, `progress` that of a server's
    loop, `mode` a worker's store's; `durability` and `cuts` are a server's, as in Join. Raises
    DeadlineError where the job doesn't come together in time, KVStoreError where the scheduler
    refuses the process, Finished to a server that comes back when all is over.

    Attributes
    ----------
    epoch, token : which of the processes with this role and rank it is, and what shows that
    beat : what is said next; its owner sets how far the process is
    leased : called without arguments, whether this place is certainly still this process'
    """

    def __init__(
        self,
        transport: Transport,
        settings: Job,
        role: str,
        name: str,
        endpoint: str = "",
        rank: int = -1,
        progress: Progress | None = None,
        mode: str = "",
        durability: str = "none",
        cuts: Sequence[int] = (),
    ) -> None:
        self._keeps = durability, list(cuts)
        self.settings = settings
        self.role = role
        self._transport = transport
        self._nonce = transport.token()
        self._mode = mode
        self._line = transport.connect(settings.scheduler)
        self._barriers = 0
        try:
            self.welcome: m.Welcome = self._join(name, endpoint, rank)
        except BaseException:
            self._line.close()
            raise
        self.rank: int = self.welcome.rank
        self.job: str = self.welcome.job
        self.epoch: int = self.welcome.epoch
        self.token: str = self.welcome.token
        self.beat: m.Beat = m.Beat(self.job, role, self.rank, self.token)
        self._heart = Heart(
            self.beat, self.welcome.heartbeat, self.welcome.dead_after, settings.scheduler, transport.clock(), progress,
            transport.awake,
        )  # fmt: skip
        self.leased: Callable[[], bool] = self._heart.leased
        self._stop_heart: Callable[[], None] | None = transport.beat(self._heart, settings.scheduler)

    @property
    def pulse(self) -> m.Pulse | None:
        """The last message of the scheduler about the job."""
        return self._heart.pulse

    @property
    def members(self) -> list[tuple[int, int, str]]:
        """The workers of the job, (rank, epoch, token), as a server has last heard of them."""
        return (self._heart.pulse or self.welcome).members

    def reach_cut(self, number: int) -> None:
        """A server has made a cut: the scheduler hears of it at once."""
        if self.beat.cut != number:
            self.beat.cut = number
            self._heart.hasten()

    def watch(self, listener: Callable[[], None]) -> None:
        """Calls `listener`, from the heart's thread, whenever the job's state changes."""
        self._heart.listener = listener

    @property
    def failure(self) -> str:
        """Why the job has failed; "" while it hasn't."""
        return self._heart.failure

    def check(self) -> None:
        """Raises JobFailedError if another process has failed."""
        if self._heart.failure:
            raise JobFailedError(self._heart.failure)

    def barrier(self, payload: object = None) -> Any:
        """Waits until all workers have come to this barrier; returns rank 0's payload."""
        self._barriers += 1
        question = m.encode(m.Barrier(self.job, self.rank, self.token, self._barriers, payload))
        clock = self._transport.clock
        deadline, ask_at = clock() + self.settings.timeout, clock()
        while True:
            self.check()
            now = clock()
            if now > deadline:
                raise DeadlineError(
                    f"barrier {self._barriers}: not all workers came within {self.settings.timeout:g} s"
                )
            if now >= ask_at:
                self._line.send(question)
                ask_at = now + REPEAT_S
            answer = self._receive()
            if isinstance(answer, m.Passed) and answer.number == self._barriers:
                return answer.payload
            if isinstance(answer, m.Refused):
                raise error_of(answer)

    def waits(self, number: int, lacks: list[tuple[int, Key, int]]) -> None:
        """Tells the scheduler that this worker waits, in its n-th call, for pushes of others:
        (rank, key, number)."""
        self._line.send(m.encode(m.Waits(self.job, self.role, self.rank, self.token, number, lacks)))

    def leave(self, error: str = "") -> None:
        """Says goodbye, and stops the heart. `error` makes the whole job fail."""
        if self._stop_heart is None:
            return
        stop, self._stop_heart = self._stop_heart, None
        stop()
        goodbye = m.Goodbye(self.job, self.role, self.rank, self.token, error[: wire.MAX_TEXT])
        self._line.send(m.encode(goodbye))
        deadline = self._transport.clock() + (0.5 if self._heart.failure else 3)
        while self._transport.clock() < deadline and not isinstance(self._receive(), m.Farewell):
            pass
        self._line.close()

    def _join(self, name: str, endpoint: str, rank: int) -> m.Welcome:
        s = self.settings
        join = m.Join(wire.VERSION, s.job, self.role, rank if rank >= 0 else s.rank, s.workers, s.servers, endpoint,
                      self._nonce, name, self._mode, *self._keeps)  # fmt: skip
        clock = self._transport.clock
        deadline, ask_at = clock() + s.join_timeout, clock()
        missing = f"the scheduler at {s.scheduler} doesn't answer"
        if not s.keys:
            missing += " (if it uses keys, MXOPT_KVSTORE_KEYS must name them)"
        while (now := clock()) < deadline:
            if now >= ask_at:
                self._line.send(m.encode(join))
                ask_at = now + s.heartbeat
            answer = self._receive()
            if isinstance(answer, m.Welcome):
                return answer
            if isinstance(answer, m.Waiting):
                missing = answer.text
            if isinstance(answer, m.Farewell):
                raise Finished
            if isinstance(answer, m.Refused):
                raise error_of(answer)
        raise DeadlineError(f"the job didn't come together within {s.join_timeout:g} s: {missing}")

    def _receive(self) -> Message | None:
        frames = self._line.receive(wait=True)
        try:
            return None if frames is None else m.decode(frames)
        except ProtocolError:
            return None
