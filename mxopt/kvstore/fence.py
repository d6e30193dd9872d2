"""The order of reads and writes in memory that two processes share.

Processors may let a write overtake the reads before it, and a read those before it (ARM does, x86
lets neither). Lent memory (`lending`) needs three orders:

- Data is there when the message that names it is: the kernel hands the message from one process to
  the other under a lock, and what was written before that is seen behind it.
- Data has been read when the table says that its slot's use is over: between the two is a `Fence`.
- A slot is written again only after the table has said so: a branch lies between, and no processor
  writes what is behind a branch before that is decided.
"""

from __future__ import annotations

import threading


class Fence:
    """What a thread has read before it has `passed` is read before it writes anything behind."""

    def __init__(self) -> None:
        self._lock = threading.Lock()

    def passed(self) -> None:
        """Gives up a lock, before which all stays that was before it; then takes it, behind which
        all stays that is behind. These two keep their order."""
        self._lock.acquire()
        self._lock.release()
        self._lock.acquire()
        self._lock.release()
