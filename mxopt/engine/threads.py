"""The crew: a few threads that help with the pieces of a job.

The calling thread always works itself, and takes all pieces no one else takes, so a helper that never gets a core
only helps less. A helper is waited for only once it has started on the job. It joins only where nothing can make the
caller leave before it has done (`uninterrupted.py`). After `os.fork` the child starts a crew of its own; a second
thread that calls while the crew is busy works alone.
"""

from __future__ import annotations

import ctypes
import os
import platform
import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from functools import cache
from typing import Any

from mxopt import settings
from mxopt.assembler import compile_assembly
from mxopt.engine.kernel import LEFT
from mxopt.errors import ArgumentError

Work = Callable[[int], Any]
SPINS = 10_000  # looks at a word before a thread goes to sleep, some 0.2 ms


class _Call:
    """One call that helpers may join until it is closed. `lock` orders joining and closing."""

    def __init__(self, work: Work, address: int) -> None:
        self.work, self.address = work, address
        self.lock = threading.Lock()
        self.closed = False
        self.joined = 0
        self.finished = queue.SimpleQueue[None]()

    def help(self) -> None:
        with self.lock:
            if self.closed:
                return
            self.joined += 1
        try:
            self.work(self.address)
        finally:
            self.finished.put(None)

    def close(self) -> None:
        """Returns when no helper is at work any more, and none can come."""
        with self.lock:
            self.closed = True
        # A helper is at most a piece behind, some 10 µs: far less than it takes to be woken by it.
        if self.joined and not _settle()(self.address, self.joined + 1):
            for _ in range(self.joined):
                self.finished.get()


@cache
def _settle() -> Callable[[int, int], int]:
    """Waits, a fraction of a millisecond at most, for LEFT of a job to reach a number; returns whether it did."""
    assembly = f"""
declare void @llvm.x86.sse2.pause()
define i64 @settle(ptr %job, i64 %number) {{
  %at = getelementptr i64, ptr %job, i64 {LEFT}
  br label %look
look:
  %round = phi i64 [ 0, %0 ], [ %next, %again ]
  %left = load atomic i64, ptr %at acquire, align 8
  %done = icmp eq i64 %left, %number
  br i1 %done, label %yes, label %again
again:
  {"call void @llvm.x86.sse2.pause()" if platform.machine() in ("x86_64", "AMD64") else ""}
  %next = add i64 %round, 1
  %end = icmp eq i64 %next, {SPINS}
  br i1 %end, label %no, label %look
yes:
  ret i64 1
no:
  ret i64 0
}}
"""
    if "pause()" not in assembly.split("define")[1]:
        assembly = assembly.replace("declare void @llvm.x86.sse2.pause()", "")
    return ctypes.CFUNCTYPE(ctypes.c_int64, ctypes.c_void_p, ctypes.c_int64)(compile_assembly(assembly, "settle"))


class Crew:
    """`helpers` threads, started when first needed."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self._busy = threading.Lock()
        self._invitations: queue.SimpleQueue[_Call | None] = queue.SimpleQueue()
        self._started, self._running = False, 0

    def run(self, work: Work, address: int) -> None:
        """Calls `work(address)` here and in the helpers; returns when all of them have returned."""
        if not self.helpers or not self._busy.acquire(blocking=False):
            work(address)
            return
        try:
            if not self._started:
                self._start()
            call = _Call(work, address)
            for _ in range(self._running):
                self._invitations.put(call)
            try:
                work(address)
            finally:
                call.close()
        finally:
            self._busy.release()

    def dismiss(self) -> None:
        """Lets the helpers end."""
        for _ in range(self._running):
            self._invitations.put(None)

    def _start(self) -> None:
        self._started = True
        with suppress(RuntimeError):  # where there are no more threads to be had, those that run must do
            for k in range(self.helpers):
                threading.Thread(target=self._serve, name=f"mxopt-{k + 1}", daemon=True).start()
                self._running = k + 1

    def _serve(self) -> None:
        while (call := self._invitations.get()) is not None:
            call.help()
            del call  # not kept alive while waiting


_crew: Crew | None = None


def crew() -> Crew:
    """The crew of this process."""
    global _crew
    if _crew is None:
        _crew = Crew(settings.default_threads() - 1)
    return _crew


def get_num_threads() -> int:
    """The number of threads of a large update, the calling one included."""
    return crew().helpers + 1


def set_num_threads(n: int) -> None:
    """Sets the number of threads of a large update, the calling one included. The result doesn't depend on it."""
    global _crew
    if not isinstance(n, int) or isinstance(n, bool) or n < 1:
        raise ArgumentError(f"set_num_threads: needs a whole number of 1 or more, got {n!r}")
    old, _crew = _crew, Crew(n - 1)
    if old is not None:
        old.dismiss()


def _after_fork() -> None:
    global _crew
    if _crew is not None:
        _crew = Crew(_crew.helpers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
