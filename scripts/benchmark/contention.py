"""What an update takes when another program keeps one core busy, beside what one thread takes
undisturbed."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator, Mapping
from contextlib import contextmanager, nullcontext
from dataclasses import replace

from benchmark import driver
from benchmark.cases import Case
from benchmark.driver import Pace, Result
from benchmark.protocol import Worker

TURNS = 5  # times as long as elsewhere, for the scheduler's time slices to show
ALONE = "one thread"  # mxopt's, with no one else about: what the others are compared with


class Burner:
    """A program that keeps a core busy while it is `burning`, and else stands still."""

    def __init__(self, core: int) -> None:
        pin = f"os.sched_setaffinity(0, [{core}])" if hasattr(os, "sched_setaffinity") else "pass"
        self.process = subprocess.Popen([sys.executable, "-c", f"import os; {pin}\nwhile True: pass"])
        self.process.send_signal(signal.SIGSTOP)

    @contextmanager
    def burning(self) -> Iterator[None]:
        self.process.send_signal(signal.SIGCONT)
        try:
            yield
        finally:
            self.process.send_signal(signal.SIGSTOP)

    def __enter__(self) -> Burner:
        return self

    def __exit__(self, *_: object) -> None:
        self.process.kill()
        self.process.wait()


def run(case: Case, workers: Mapping[str, Worker], python: str, cores: list[int], pace: Pace) -> Result:
    """The row: every system with a core kept busy, and one thread of mxopt with none."""
    busy = {name: worker for name, worker in workers.items() if name != "limit"}
    with Burner(cores[-1]) as burner, Worker("mxopt", python, 1, cores) as alone:
        return driver.run(
            case,
            {**busy, ALONE: alone},
            replace(pace, turn=TURNS * pace.turn),
            reference=ALONE,
            around=lambda name: nullcontext() if name == ALONE else burner.burning(),
            helpers=(burner.process.pid,),
        )
