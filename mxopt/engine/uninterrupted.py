"""Work that no signal can cut in two.

Python runs signal handlers, and so raises KeyboardInterrupt, in the main thread only, and there between its own
instructions: never inside one call of a function written in C. So an update that is one call into compiled code goes
through `exhaust` together with what counts it; and what takes several is done by a thread of ours, while the main
thread waits for it in one call.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import queue
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import chain

from mxopt.engine import team

# Calls whatever functions of C an iterator calls, as `map(setattr, ...)` does, and nothing comes in between.
exhaust: Callable[[Iterable[object]], None] = deque[object](maxlen=0).extend


class _Task:
    def __init__(self, work: Callable[[], object], context: Context) -> None:
        self.work = work
        self.context = context
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            self.context.run(self.work)
        except BaseException as error:
            self.error = error


class _Worker:
    """A thread that does one task after the other, all of them the main thread's."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._done = team.new_lock()
        _thread.start_new_thread(self._serve, ())  # a thread that starts in vain waits for its first task for ever

    def run(self, task: _Task) -> None:
        exhaust(chain(map(self._tasks.put, [task]), map(team.acquire(), [self._done], [1])))

    def _serve(self) -> None:
        release = ctypes.pythonapi.PyThread_release_lock
        while True:
            self._tasks.get().do()
            release(ctypes.c_void_p(self._done))


_worker: _Worker | None = None


def interruptible() -> bool:
    """Whether signal handlers may run in this thread, and another thread could be had."""
    return threading.current_thread() is threading.main_thread() and not sys.is_finalizing()


def uninterrupted(work: Callable[[], object]) -> None:
    """Calls `work`; an exception of a signal handler comes before or after. Raises what `work` raises.

    Where no thread can be started the caller works by itself, and may be interrupted.
    """
    global _worker
    worker = _worker
    if worker is None and interruptible():
        with suppress(RuntimeError):  # where there are no more threads to be had
            worker = _worker = _Worker()
    if worker is None or not interruptible():
        work()
        return
    task = _Task(work, copy_context())
    worker.run(task)
    if task.error is not None:
        try:
            raise task.error
        finally:
            del task  # or the error's traceback would hold it, and it the error


def _after_fork() -> None:
    global _worker
    _worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
