"""An optimizer that crashes the servers which import it: as Adam, but for one update."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import mxopt


@mxopt.register
class Crashing(mxopt.optimizer.Adam):
    """Its 7th update of the key `w` is a segmentation fault, where there is a file or folder that
    `CRASHING` in the environment names; a file is removed before that."""

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        super().update(index, weight, grad, state)
        named = os.environ.get("CRASHING")
        if named and Path(named).exists() and getattr(index, "key", index) == "w" and self.count(index) == 7:
            if Path(named).is_file():
                Path(named).unlink()
            os.kill(os.getpid(), signal.SIGSEGV)
