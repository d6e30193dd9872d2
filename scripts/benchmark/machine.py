"""What the machine is, and what others did on it while we measured."""

from __future__ import annotations

import os
import platform
import subprocess
from collections.abc import Iterable
from datetime import datetime, timezone
from pathlib import Path
from time import perf_counter
from typing import Any

import psutil

OTHERS = 0.03  # of one core: what other programs may use before a row is called disturbed
STOLEN = 0.01  # of one core, taken by the hypervisor
SWITCHES = 100  # involuntary context switches per second in the workers
IDLE = ("idle", "iowait", "guest", "guest_nice", "steal")


def describe() -> dict[str, Any]:
    return {
        "cpu": _cpu(),
        "cores": len(usable_cores()),
        "memory": f"{psutil.virtual_memory().total / 2**30:.0f} GiB",
        "system": f"{platform.system()} {platform.release()}",
        "huge_pages": _read("/sys/kernel/mm/transparent_hugepage/enabled"),
        "load": os.getloadavg()[0],
        "date": datetime.now(timezone.utc).isoformat(timespec="seconds"),
        "commit": _commit(),
    }


def where_and_when(about: dict[str, Any], threads: int | None = None) -> str:
    """What a picture says of the machine that `describe` has described."""
    cores = f"{about['cores']} cores" if threads is None else f"{threads} threads of {about['cores']} cores"
    return f"{about['cpu']}, {cores}; {about['date'][:10]}, commit {about['commit']}"


def usable_cores() -> list[int]:
    return sorted(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else list(range(os.cpu_count() or 1))


class Watch:
    """Watches the time between its making and `remarks`. `ours` are the processes that are meant to
    work."""

    def __init__(self, ours: Iterable[int]) -> None:
        self._processes = [psutil.Process(), *map(psutil.Process, ours)]
        self._start, self._before = perf_counter(), self._now()

    def remarks(self, involuntary: int, measured: float) -> list[str]:
        """What disturbed, in words. `involuntary` context switches came in `measured` seconds of
        the workers' own."""
        wall = perf_counter() - self._start
        busy, stolen, ours = (after - before for after, before in zip(self._now(), self._before, strict=True))
        shares = [
            ("others at work: {:.0%} of a core", (busy - ours) / wall, OTHERS),
            ("stolen: {:.0%} of a core", stolen / wall, STOLEN),
            ("{:.0f} forced switches a second", involuntary / max(measured, 1e-9), SWITCHES),
        ]
        # Clock ticks are 10 ms: of less than three nothing can be said.
        return [text.format(x) for text, x, bound in shares if x > bound and x * wall > 0.03]

    def _now(self) -> tuple[float, float, float]:
        """Seconds of all cores so far: at work, taken by the hypervisor, of our processes."""
        times = psutil.cpu_times()._asdict()
        busy = sum(seconds for what, seconds in times.items() if what not in IDLE)
        return busy, times.get("steal", 0.0), sum(map(_used, self._processes))


def _used(process: psutil.Process) -> float:
    try:
        times = process.cpu_times()
    except psutil.Error:
        return 0.0
    return float(sum(times[:4]))  # user and system, its own and that of its children which have ended


def _cpu() -> str:
    for line in _read("/proc/cpuinfo").splitlines():
        if line.startswith("model name"):
            return line.partition(":")[2].strip()
    return platform.processor() or platform.machine()


def _read(path: str) -> str:
    try:
        return Path(path).read_text().strip()
    except OSError:
        return ""


def _commit() -> str:
    try:
        command = ["git", "describe", "--always", "--dirty"]
        return subprocess.run(command, capture_output=True, text=True, cwd=Path(__file__).parent).stdout.strip()
    except OSError:
        return ""
