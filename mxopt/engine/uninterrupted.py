"""Work that no signal can interrupt halfway.

Python runs signal handlers, and so raises KeyboardInterrupt, only in the main thread and only
between its own instructions: never inside a call of a function written in C. So an update that is
one call into compiled code goes through `exhaust` together with what counts it. Work of several
calls is done by a thread of ours, while the main thread waits for it in one call. If no thread can
be started, the main thread does it, and signals wait.
"""

from __future__ import annotations

import _thread
import ctypes
import os
import queue
import signal
import sys
import threading
from collections import deque
from collections.abc import Callable, Iterable
from contextlib import suppress
from contextvars import Context, copy_context
from itertools import chain

from mxopt.engine import modes, team
from mxopt.errors import MXOptError

# Runs an iterator that calls functions of C, as `map(setattr, ...)` does, without interruption.
exhaust: Callable[[Iterable[object]], None] = deque[object](maxlen=0).extend


class _Task:
    def __init__(self, work: Callable[[], object], context: Context) -> None:
        self.work = work
        self.context, self.mode = context, modes.present()
        self.error: BaseException | None = None

    def do(self) -> None:
        try:
            modes.take(self.mode)
            self.context.run(self.work)
        except BaseException as error:
            self.error = error


class _Worker:
    """A thread that does the main thread's tasks, one after the other."""

    def __init__(self) -> None:
        self._tasks: queue.SimpleQueue[_Task] = queue.SimpleQueue()
        self._done = team.new_lock()
        _thread.start_new_thread(self._serve, ())  # if the start is interrupted, it waits for a task for ever

    def run(self, task: _Task) -> None:
        exhaust(chain(map(self._tasks.put, [task]), map(team.acquire(), [self._done], [1])))

    def _serve(self) -> None:
        release = ctypes.pythonapi.PyThread_release_lock
        while True:
            self._tasks.get().do()
            release(ctypes.c_void_p(self._done))


_worker: _Worker | None = None


def interruptible() -> bool:
    """Whether signal handlers may run in this thread, and another thread may still start."""
    return threading.current_thread() is threading.main_thread() and not sys.is_finalizing()


def uninterrupted(work: Callable[[], object]) -> None:
    """Calls `work`. A signal handler may raise before or after it, not within. Raises what `work`
    raises."""
    global _worker
    worker = _worker
    if worker is None and interruptible():
        with suppress(RuntimeError):  # no more threads can be had
            worker = _worker = _Worker()
    if not interruptible():
        work()
        return
    if worker is None:
        _with_signals_kept(work)
        return
    task = _Task(work, copy_context())
    worker.run(task)
    if task.error is not None:
        try:
            raise task.error
        finally:
            del task  # breaks the cycle of task, error and traceback


def _with_signals_kept(work: Callable[[], object]) -> None:
    """Calls `work` while a function of C only notes signals down; their handlers are called
    afterwards."""
    came: dict[int, object] = {}
    handlers = {number: signal.getsignal(number) for number in signal.valid_signals()}
    handlers = {number: handler for number, handler in handlers.items() if callable(handler)}
    try:
        for number in handlers:
            signal.signal(number, came.__setitem__)
        work()
    finally:
        _put_back(handlers)
        _raise_all([*came])


def _put_back(handlers: dict[signal.Signals, signal._HANDLER]) -> None:
    try:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    except BaseException:  # raised by a handler that is back already
        _put_back(handlers)
        raise


def _raise_all(numbers: list[int]) -> None:
    """Raises signals in this process, all of them even if a handler raises an exception."""
    try:
        if numbers:
            signal.raise_signal(numbers[0])
    finally:
        if numbers[1:]:
            _raise_all(numbers[1:])


def tell(error: BaseException, updated: int, of: int) -> None:
    """Adds a note to an exception from outside mxopt that says how far a call had come; it replaces
    the note of an inner call."""
    if isinstance(error, MXOptError) or of < 2:
        return
    notes = [note for note in getattr(error, "__notes__", []) if not isinstance(note, _Note)]
    error.__notes__ = [*notes, _Note(f"mxopt: of {of} parameters {updated} were updated and counted, the others not")]


class _Note(str):
    """A note that `tell` has added."""


def _after_fork() -> None:
    global _worker
    _worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
