"""The environment variables mxopt reads, all of them here, and the number of threads.

| variable | meaning | default |
|---|---|---|
| `MXOPT_ENGINE` | the engine for NumPy arrays: `llvm`, or `numpy`, the reference | `llvm` |
| `MXOPT_NUM_THREADS` | threads of an update, the calling one included | `OMP_NUM_THREADS`, else the usable cores |
| `MXNET_OPTIMIZER_AGGREGATION_SIZE` | tensors handed to `Optimizer.update` in one list; 0: one by one | all |

Of a distributed job (`Job`):

| variable | meaning | default |
|---|---|---|
| `DMLC_ROLE` | `worker`, `server` or `scheduler` | `worker` |
| `MXOPT_BECOME_ROLE` | whether `import mxopt` makes this process the server or scheduler that `DMLC_ROLE` says | 1 |
| `DMLC_PS_ROOT_URI`, `DMLC_PS_ROOT_PORT` | where the scheduler is; `ipc://PATH` needs no port | `127.0.0.1`, 9091 |
| `DMLC_NUM_WORKER`, `DMLC_NUM_SERVER` | how many workers and servers the job has | what the scheduler says |
| `DMLC_WORKER_ID`, `DMLC_SERVER_ID` | the rank this process wishes for | the order of joining |
| `DMLC_NODE_HOST` | the address under which others reach this server | that it is bound to |
| `MXOPT_JOB_ID` | the job's name, which all its processes must share | the scheduler's |
| `MXNET_KVSTORE_BIGARRAY_BOUND` | elements from which an array lies on all servers; worker 0's counts | 1000000 |
| `MXNET_UPDATE_ON_KVSTORE` | whether a Trainer's store updates the weights | 1 |
| `MXOPT_KVSTORE_TIMEOUT` | seconds a request may take, and a server that is to come back may be away | 600 |
| `MXOPT_KVSTORE_JOIN_TIMEOUT` | seconds in which the job has to come together | 60 |
| `MXOPT_KVSTORE_HEARTBEAT` | seconds between heartbeats, at most half of the next | 1, or that |
| `MXOPT_KVSTORE_DEAD_AFTER` | seconds of silence after which a process counts as dead | 10 |
| `MXOPT_KVSTORE_STALENESS` | `dist_ssp`: how many pushes a worker may be ahead of the slowest | 4 |
| `MXOPT_KVSTORE_KEYS` | the file with the job's keys (`mxopt-server keygen`); `-`: the standard input | none |
"""

from __future__ import annotations

import difflib
import math
import os
import re
import sys
import warnings
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from mxopt.errors import ArgumentError

BECOME_ROLE = "MXOPT_BECOME_ROLE"
ENGINES = {"llvm": "llvm", "numba": "llvm", "numpy": "numpy"}  # `numba` is a former name of `llvm`


def misspelt() -> list[tuple[str, str]]:
    """The variables that are set and not read, each with the one of the table it is like."""
    known = set(re.findall(r"`(MXOPT_\w+)`", __doc__ or ""))
    strange = [name for name in os.environ if name.startswith("MXOPT_") and name not in known]
    near = ((name, difflib.get_close_matches(name, known, n=1, cutoff=0.85)) for name in strange)
    return [(name, found[0]) for name, found in near if found]


for _name, _meant in misspelt():
    warnings.warn(f"no variable is called {_name}: did you mean {_meant}?", stacklevel=2)


def engine_name(variables: Mapping[str, str] = os.environ) -> str:
    """The engine for NumPy arrays (`MXOPT_ENGINE`)."""
    text = variables.get("MXOPT_ENGINE", "").strip() or "llvm"
    if text not in ENGINES:
        raise ArgumentError(f"MXOPT_ENGINE={text!r}: needs llvm or numpy, the engines for NumPy arrays")
    return ENGINES[text]


def aggregation_size(variables: Mapping[str, str] = os.environ) -> int:
    """How many tensors optimizers take in one list; below 1, as in MXNet, one tensor and no
    list."""
    name = "MXNET_OPTIMIZER_AGGREGATION_SIZE"
    text = variables.get(name, "").strip()
    try:
        return max(0, int(text)) if text else sys.maxsize
    except ValueError:
        raise ArgumentError(f"{name}={text!r}: needs a whole number") from None


def default_threads() -> int:
    """How many threads an update may take, the calling one included, where nobody has called
    `set_num_threads`."""
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


@dataclass(frozen=True)
class Job:
    """What the environment says of the distributed job this process belongs to."""

    role: str
    host: str
    port: int
    workers: int  # 0: not said
    servers: int
    rank: int  # -1: not said
    advertised: str
    job: str
    timeout: float
    join_timeout: float
    heartbeat: float
    dead_after: float
    staleness: int
    keys: str
    bound: int

    @property
    def scheduler(self) -> str:
        """Its endpoint."""
        return self.host if self.host.startswith("ipc://") else f"tcp://{self.host}:{self.port}"


def job(variables: Mapping[str, str] = os.environ) -> Job:
    """Reads the variables of a distributed job, by default this process's. Raises ArgumentError
    naming the one whose value isn't allowed."""

    def whole(name: str) -> int:
        return _whole(name, variables) or 0

    def seconds(name: str, default: float) -> float:
        return _seconds(name, default, variables)

    role = variables.get("DMLC_ROLE", "worker")
    if role not in ("worker", "server", "scheduler"):
        raise ArgumentError(f"DMLC_ROLE={role!r}: needs worker, server or scheduler")
    dead_after = seconds("MXOPT_KVSTORE_DEAD_AFTER", 10)
    heartbeat = seconds("MXOPT_KVSTORE_HEARTBEAT", min(1, dead_after / 2))
    if heartbeat > dead_after / 2:
        raise ArgumentError(
            f"MXOPT_KVSTORE_HEARTBEAT={heartbeat:g}: with MXOPT_KVSTORE_DEAD_AFTER={dead_after:g} needs at most half of"
            " that, or processes count as dead that are only between two heartbeats"
        )
    return Job(
        role=role,
        host=variables.get("DMLC_PS_ROOT_URI", "127.0.0.1"),
        port=_port("DMLC_PS_ROOT_PORT", variables) or 9091,
        workers=whole("DMLC_NUM_WORKER"),
        servers=whole("DMLC_NUM_SERVER"),
        rank=_rank("DMLC_SERVER_ID" if role == "server" else "DMLC_WORKER_ID", variables),
        advertised=variables.get("DMLC_NODE_HOST", ""),
        job=variables.get("MXOPT_JOB_ID", ""),
        timeout=seconds("MXOPT_KVSTORE_TIMEOUT", 600),
        join_timeout=seconds("MXOPT_KVSTORE_JOIN_TIMEOUT", 60),
        heartbeat=heartbeat,
        dead_after=dead_after,
        staleness=whole("MXOPT_KVSTORE_STALENESS") or 4,
        keys=variables.get("MXOPT_KVSTORE_KEYS", ""),
        bound=whole("MXNET_KVSTORE_BIGARRAY_BOUND") or 1_000_000,
    )


def becomes_role() -> bool:
    """Whether `import mxopt` makes this process the server or scheduler that `DMLC_ROLE` names."""
    return os.environ.get("DMLC_ROLE") in ("server", "scheduler") and _flag(BECOME_ROLE)


def in_job() -> bool:
    """Whether the environment says anything of a distributed job."""
    return any(name in os.environ for name in ("DMLC_ROLE", "DMLC_PS_ROOT_URI", "DMLC_PS_ROOT_PORT"))


def update_on_kvstore(variables: Mapping[str, str] = os.environ) -> bool:
    """Whether a Trainer's store updates the weights where the Trainer isn't told
    (`MXNET_UPDATE_ON_KVSTORE`). Raises ArgumentError for what is neither 0 nor another whole
    number."""
    return _flag("MXNET_UPDATE_ON_KVSTORE", variables)


def check(variables: Mapping[str, str]) -> None:
    """Raises ArgumentError if one of a process's variables has a value that isn't allowed."""
    job(variables)
    update_on_kvstore(variables)
    aggregation_size(variables)
    engine_name(variables)
    for name in ("MXOPT_NUM_THREADS", "OMP_NUM_THREADS"):
        _whole(name, variables)
    _flag(BECOME_ROLE, variables)


def _flag(name: str, variables: Mapping[str, str] = os.environ) -> bool:
    text = variables.get(name, "").strip()
    try:
        return bool(int(text or 1))
    except ValueError:
        raise ArgumentError(f"{name}={text!r}: needs 0 or 1") from None


def _seconds(name: str, default: float, variables: Mapping[str, str]) -> float:
    text = variables.get(name, "").strip()
    try:
        value = float(text) if text else default
    except ValueError:
        value = 0
    if not 0 < value < math.inf:
        raise ArgumentError(f"{name}={text!r}: needs a number of seconds above 0")
    return value


def _whole(name: str, variables: Mapping[str, str] = os.environ) -> int | None:
    """The variable `name` as a positive number; None if it is not set. `4,2` (as OpenMP has it)
    counts as 4."""
    text = variables.get(name, "").split(",")[0].strip()
    if not text:
        return None
    if not text.isdecimal() or int(text) < 1:
        raise ArgumentError(f"{name}={text!r}: needs a whole number of 1 or more")
    return int(text)


def _rank(name: str, variables: Mapping[str, str]) -> int:
    """The variable `name` as a rank; -1 where it is not set, or says so."""
    text = variables.get(name, "").strip()
    if text in ("", "-1"):
        return -1
    if not text.isdecimal():
        raise ArgumentError(f"{name}={text!r}: needs a rank, a whole number of 0 or more")
    return int(text)


def _port(name: str, variables: Mapping[str, str]) -> int | None:
    port = _whole(name, variables)
    if port is not None and port > 65535:
        raise ArgumentError(f"{name}={port}: needs a port from 1 to 65535")
    return port
