"""Work that no signal can cut in two.

Python runs signal handlers, and so raises KeyboardInterrupt, in the main thread only, and there
between its own instructions: never inside one call of a function written in C. So an update that is
one call into compiled code goes through `exhaust` together with what counts it; and what takes
several is done by a thread of ours, while the main thread waits for it in one call. Where no thread
can be started the main thread does it, and signals wait.
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

# Calls whatever functions of C an iterator calls, as `map(setattr, ...)` does, and nothing comes in
# between.
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
    """Calls `work`; an exception of a signal handler comes before or after. Raises what `work`
    raises."""
    global _worker
    worker = _worker
    if worker is None and interruptible():
        with suppress(RuntimeError):  # where there are no more threads to be had
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
            del task  # or the error's traceback would hold it, and it the error


def _with_signals_kept(work: Callable[[], object]) -> None:
    """Calls `work` while signals are only noted down, by a function of C; their handlers are called
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
    except BaseException:  # of a handler that is back already
        _put_back(handlers)
        raise


def _raise_all(numbers: list[int]) -> None:
    """Raises signals in this process, the next one also where the handler of one raises an
    exception."""
    try:
        if numbers:
            signal.raise_signal(numbers[0])
    finally:
        if numbers[1:]:
            _raise_all(numbers[1:])


def tell(error: BaseException, updated: int, of: int) -> None:
    """Adds to an exception from outside mxopt how far a call had come, in the place of what an
    inner call has said."""
    if isinstance(error, MXOptError) or of < 2:
        return
    notes = [note for note in getattr(error, "__notes__", []) if not isinstance(note, _Note)]
    error.__notes__ = [*notes, _Note(f"mxopt: of {of} parameters {updated} were updated and counted, the others not")]


class _Note(str):
    """What `tell` has added."""


def _after_fork() -> None:
    global _worker
    _worker = None


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
