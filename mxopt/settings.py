"""The environment variables mxopt reads, all of them here, and the number of threads.

| variable | meaning | default |
|---|---|---|
| `MXOPT_ENGINE` | the engine for NumPy arrays: `llvm`, or `numpy`, the reference | `llvm` |
| `MXOPT_NUM_THREADS` | threads of an update, the calling one included | `OMP_NUM_THREADS`, else the usable cores |
| `MXNET_OPTIMIZER_AGGREGATION_SIZE` | tensors handed to `Optimizer.update` in one list | all |
"""

from __future__ import annotations

import math
import os
import sys
from pathlib import Path

from mxopt.errors import ArgumentError


def engine_name() -> str:
    return os.environ.get("MXOPT_ENGINE", "llvm")


def aggregation_size() -> int:
    return _whole("MXNET_OPTIMIZER_AGGREGATION_SIZE") or sys.maxsize


def default_threads() -> int:
    return _whole("MXOPT_NUM_THREADS") or _whole("OMP_NUM_THREADS") or usable_cores()


def usable_cores() -> int:
    """The cores this process may use: its affinity, and the share its control group grants it."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    return max(1, math.ceil(min(cores, _cgroup_cores())))


def _cgroup_cores() -> float:
    """The control group's quota in cores (version 2, then 1); infinite without one."""
    try:
        quota, period = Path("/sys/fs/cgroup/cpu.max").read_text().split()
        return math.inf if quota == "max" else int(quota) / int(period)
    except (OSError, ValueError):
        pass
    try:
        folder = Path("/sys/fs/cgroup/cpu")
        quota_us = int((folder / "cpu.cfs_quota_us").read_text())
        return quota_us / int((folder / "cpu.cfs_period_us").read_text()) if quota_us > 0 else math.inf
    except (OSError, ValueError):
        return math.inf


def _whole(name: str) -> int | None:
    """The variable `name` as a positive number; None where it is not set. `4,2` (as OpenMP has it) counts as 4."""
    text = os.environ.get(name, "").split(",")[0].strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{name}={text!r}: needs a whole number of 1 or more")
    return int(text)
