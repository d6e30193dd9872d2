"""The driver's side of a worker: a process of the system's own Python that answers lines of
JSON."""

from __future__ import annotations

import json
import os
import select
import subprocess
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

SCRIPTS = Path(__file__).resolve().parents[1]
LIMITS = ("limit", "loop", "wide")  # what mxopt is measured by
PATIENCE = 120.0  # seconds an answer may take


class WorkerError(Exception):
    """A worker refused, died, or took too long."""


def environment(system: str, threads: int, cores: list[int]) -> dict[str, str]:
    """The environment of a system's processes: as many threads as all others, and each at its
    best."""
    own = system in ("mxopt", "tensors", *LIMITS)
    chosen = {
        **dict.fromkeys(("OMP_NUM_THREADS", "MKL_NUM_THREADS", "OPENBLAS_NUM_THREADS"), str(threads)),
        "BENCH_CORES": ",".join(map(str, cores)),
        "PYTHONPATH": os.pathsep.join([str(SCRIPTS), *([str(SCRIPTS.parent)] if own else [])]),
        "JAX_PLATFORMS": "cpu",
        "GLOG_v": "4",
        "MXNET_STORAGE_FALLBACK_LOG_VERBOSE": "0",
    }
    if not own:  # NumPy asks for large pages by itself; this asks for them where others allocate
        chosen |= {"GLIBC_TUNABLES": "glibc.malloc.hugetlb=1", "THP_MEM_ALLOC_ENABLE": "1"}
    settings = ("MXOPT_NUM_THREADS", "MXOPT_ENGINE", "MXNET_OPTIMIZER_AGGREGATION_SIZE", "PYTHONSTARTUP")
    return {k: v for k, v in os.environ.items() if k not in settings} | chosen


class Worker:
    """A system's long-lived process. `with` ends it."""

    def __init__(self, system: str, python: str, threads: int, cores: list[int]) -> None:
        self.system = system
        self._folder = tempfile.TemporaryDirectory()  # some write files to where they are
        self._log = tempfile.TemporaryFile("w+")  # noqa: SIM115 - closed with the worker
        self.process = subprocess.Popen(
            [python, "-m", "benchmark.worker", system],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=self._log,
            text=True,
            cwd=self._folder.name,
            env=environment(system, threads, cores),
        )

    def ask(self, verb: str, patience: float = PATIENCE, **arguments: Any) -> dict[str, Any]:
        """What the worker answers within `patience` seconds. Raises WorkerError where it doesn't,
        or with its error."""
        self.send(verb, **arguments)
        return self.receive(patience)

    def send(self, verb: str, **arguments: Any) -> None:
        assert self.process.stdin is not None
        try:
            self.process.stdin.write(json.dumps({"do": verb, **arguments}) + "\n")
            self.process.stdin.flush()
        except OSError:
            raise WorkerError(self._epitaph()) from None

    def receive(self, patience: float) -> dict[str, Any]:
        assert self.process.stdout is not None
        if not select.select([self.process.stdout], [], [], patience)[0]:
            self.process.kill()
            self.process.wait()
            raise WorkerError(f"{self.system}: no answer in {patience:.0f} s")
        line = self.process.stdout.readline()
        if not line:
            raise WorkerError(self._epitaph())
        answer: dict[str, Any] = json.loads(line)
        if "error" in answer:
            raise WorkerError(f"{self.system}: {answer['error']}")
        return answer

    @property
    def alive(self) -> bool:
        return self.process.poll() is None

    def close(self) -> None:
        if self.process.stdin is not None and not self.process.stdin.closed:
            with suppress(OSError):
                self.process.stdin.close()
        try:
            self.process.wait(timeout=10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
        if self.process.stdout is not None:
            self.process.stdout.close()
        self._log.close()
        self._folder.cleanup()

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _epitaph(self) -> str:
        self.process.wait()
        self._log.seek(0)
        last = [line.strip() for line in self._log if line.strip()][-1:]
        return f"{self.system}: ended with {self.process.returncode}: {' '.join(last)}"
