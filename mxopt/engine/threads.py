"""The crew: a few threads that help with the batches of a job.

The calling thread always works too, and takes every batch that no helper takes, so a helper that
never gets a core does no harm. `team.py` says how they share the work. After `os.fork` the child
starts a crew of its own. A second thread that calls while the crew is busy works alone.
"""

from __future__ import annotations

import ctypes
import os
import threading
from array import array
from contextlib import suppress

from mxopt import settings
from mxopt.engine import team
from mxopt.options import whole


class Crew:
    """`helpers` threads, started when first needed."""

    def __init__(self, helpers: int) -> None:
        self.helpers = helpers
        self._words = array("q", bytes(8 * team.SLOT_WORDS * (helpers + 1)))  # how many there are, then a slot of each
        self._words[0] = helpers
        self._started, self._starting = False, threading.Lock()

    def ready(self) -> int:
        """The address of the crew's words, for a job; 0 if there are no helpers."""
        if not self._started:
            with self._starting:
                self._start()
        return self._words.buffer_info()[0] if self.helpers else 0

    def dismiss(self) -> None:
        """Tells the helpers to end."""
        for slot in self._slots() if self._started else ():
            self._words[slot + team.STOP] = 1
            ctypes.pythonapi.PyThread_release_lock(ctypes.c_void_p(self._words[slot + team.LOCK]))

    def _slots(self) -> range:
        return range(team.SLOT_WORDS, len(self._words), team.SLOT_WORDS)

    def _start(self) -> None:
        if self._started:  # another thread was faster
            return
        for slot in self._slots():
            self._words[slot + team.LOCK] = team.new_lock()
        self._started = True
        with suppress(RuntimeError):  # no more threads can be had: those that run must do
            for k, slot in enumerate(self._slots()):
                threading.Thread(target=self._serve, args=(slot,), name=f"mxopt-{k + 1}", daemon=True).start()

    def _serve(self, slot: int) -> None:
        team.server()(self._words.buffer_info()[0] + 8 * slot)

    def __del__(self) -> None:
        """Frees the locks: no thread and no running part holds the crew any more."""
        for slot in self._slots():
            if lock := self._words[slot + team.LOCK]:
                ctypes.pythonapi.PyThread_free_lock(ctypes.c_void_p(lock))


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
    """Sets the number of threads of a large update, the calling one included. The result doesn't
    depend on it."""
    global _crew
    old, _crew = _crew, Crew(whole("set_num_threads: n", n) - 1)
    if old is not None:
        old.dismiss()


def _after_fork() -> None:
    global _crew
    if _crew is not None:
        _crew = Crew(_crew.helpers)


if hasattr(os, "register_at_fork"):
    os.register_at_fork(after_in_child=_after_fork)
