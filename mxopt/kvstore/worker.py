"""This process as a worker of its job: calls of a store one at a time, and how all of it ends."""

from __future__ import annotations

import os
import threading
from collections.abc import Callable
from typing import Any

from mxopt.errors import KVStoreError
from mxopt.kvstore.connection import Connections
from mxopt.kvstore.membership import Membership
from mxopt.kvstore.transport import Transport
from mxopt.settings import Job


class Worker:
    """Joins the job that `settings` name, with a store of `mode` (sync, async or ssp). As a context
    it is one call.

    Raises DeadlineError if the job doesn't come together in time, KVStoreError where it doesn't
    want this process.

    Attributes
    ----------
    member : Membership
    connections : Connections
    last : called before it leaves a job that it hasn't failed; may make requests
    """

    def __init__(self, transport: Transport, settings: Job, name: str, mode: str) -> None:
        self._transport = transport
        self._process = os.getpid()
        self._lock = threading.RLock()
        self._closed = ""  # why, once it is
        self._changing = ""  # the call under way, where others can't see it begun and not ended
        self._partial = False  # whether it has sent a part of what counts together
        self.last: Callable[[], None] = lambda: None
        try:
            self.member: Membership = Membership(transport, settings, "worker", name, mode=mode)
        except BaseException:
            transport.close()
            raise
        try:
            self.connections: Connections = Connections(transport, self.member, mode)
        except BaseException as failure:
            self.member.leave(f"{type(failure).__name__}: {failure}")
            transport.close()
            raise
        self._stay = transport.at_exit(self.close)  # a process stays in its job until it ends, or closes the store

    def __enter__(self) -> Worker:
        if os.getpid() != self._process:
            raise KVStoreError(
                f"this store belongs to process {self._process}, from which this one was forked: only that can use it"
            )
        self._lock.acquire()
        try:
            if self._closed:
                raise KVStoreError(self._closed)
            self.connections.check()
        except BaseException:
            self._lock.release()
            raise
        return self

    def __exit__(self, kind: object, error: BaseException | None, trace: object) -> None:
        try:
            if error is not None and self._changing and (self._partial or not isinstance(error, Exception)):
                why, self._changing = f"{type(error).__name__} within {self._changing}", ""
                if not self._closed:
                    self._close(f"this store was closed by {why}: a part of it may have been sent", why)
        finally:
            self._changing, self._partial = "", False
            self._lock.release()

    def changes(self, what: str, partial: bool = False) -> None:
        """Says that the call under way changes what others see, or has handed on arrays of its
        caller: where something like Ctrl-C interrupts it, the store is closed. With `partial` so it
        is by any exception."""
        self._changing, self._partial = what, partial

    def settled(self) -> None:
        """All of the call has been sent, and no array of the caller's is needed any more."""
        self._changing, self._partial = "", False

    def close(self, error: str = "") -> None:
        """Waits until all pushes are taken, and leaves the job; `error` makes it fail. Does nothing
        the second time, or in a forked process."""
        if os.getpid() == self._process:
            with self._lock:
                if not self._closed:
                    self._close("this store is closed", error)

    def _close(self, why: str, error: str) -> None:
        self._closed = why
        self._stay()
        try:
            if not error:
                self.last()
                self.connections.flush(self.member.settings.timeout)
        except Exception as failure:
            error = f"{type(failure).__name__}: {failure}"
            raise
        finally:
            self.connections.close()
            self.member.leave(error)
            self._transport.close()

    def barrier(self, payload: object = None) -> Any:
        """Waits until all pushes of this worker are taken and all workers have come here; returns
        rank 0's payload."""
        self.changes("barrier")
        self.connections.flush(self.member.settings.timeout)
        return self.member.barrier(payload)


class Outside:
    """What a process has instead that is no worker: it can make a store, but not use it."""

    def __enter__(self) -> None:
        raise KVStoreError("this process is no worker of its job: DMLC_ROLE says so")

    def __exit__(self, *error: object) -> None: ...

    def close(self) -> None:
        """Does nothing."""
