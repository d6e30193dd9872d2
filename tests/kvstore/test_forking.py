"""A process of a job that is forked is like one that is started."""

from __future__ import annotations

import json
import sys
from pathlib import Path

import pytest
from jobs import SERVE, Process, environment

PROBE = """
import ctypes, importlib, json, os, signal, sys, threading, warnings
from forking import IMPORTS

if sys.argv[1] != "look":
    exec(sys.argv[1])
for name in IMPORTS:
    importlib.import_module(name)
death = ctypes.c_int()
ctypes.CDLL(None).prctl(2, ctypes.byref(death))  # PR_GET_PDEATHSIG
print(json.dumps({
    "main": [__name__, __file__, sys.modules["__main__"].__dict__ is globals()],
    "arguments": sys.argv, "path": sys.path, "environment": dict(os.environ), "folder": os.getcwd(),
    "leads a session": os.getsid(0) == os.getpgid(0) == os.getpid(),
    "signals": [str(signal.getsignal(number)) for number in sorted(signal.valid_signals())],
    "blocked": [str(number) for number in signal.pthread_sigmask(signal.SIG_BLOCK, [])],
    "dies with": death.value,
    "threads": [threading.active_count(), len(os.listdir("/proc/self/task"))],
    "main thread": threading.current_thread() is threading.main_thread(),
    "files": sorted(os.listdir("/proc/self/fd")),
    "streams": [[s.encoding, s.errors, s.write_through, s.isatty()] for s in (sys.stdout, sys.stderr)],
    "interpreter": [sys.executable, str(sys.flags), [str(each) for each in warnings.filters]],
}))
"""


@pytest.fixture
def probe(tmp_path: Path) -> Path:
    path = tmp_path / "probe.py"
    path.write_text(PROBE)
    return path


def ended(probe: Path, code: str, forked: bool, **env: object) -> tuple[int, list[str]]:
    process = Process([sys.executable, str(probe), code], environment(**env), forked=forked)
    return process.finish(), process.lines


def test_it_is_like_one_that_was_started(probe: Path, tmp_path: Path) -> None:
    path = f"{environment()['PYTHONPATH']}:{tmp_path / 'more'}"
    (started, (there,)), (forked, (here,)) = (
        ended(probe, "look", forked, PYTHONPATH=path, DMLC_ROLE="worker", MXOPT_OWN="é") for forked in (False, True)
    )
    assert json.loads(here) == json.loads(there)
    assert forked == started == 0
    assert json.loads(here)["environment"]["MXOPT_OWN"] == "é"


@pytest.mark.parametrize(
    "code", ["sys.exit(7)", "sys.exit('in words')", "1 / 0", "os._exit(5)", "os.kill(os.getpid(), 9)", "os.abort()"]
)
def test_it_ends_like_one(probe: Path, code: str) -> None:
    (started, there), (forked, here) = (ended(probe, code, forked) for forked in (False, True))
    assert forked == started != 0
    assert here[-1:] == there[-1:]


def test_a_package_is_run_like_one() -> None:
    processes = [Process([*SERVE, "--version"], environment(), forked=forked) for forked in (False, True)]
    assert [p.finish() for p in processes] == [0, 0]
    assert processes[0].lines == processes[1].lines != []


def test_each_has_random_numbers_of_its_own_and_two_in_a_row_hash_differently(probe: Path) -> None:
    code = "import random, numpy as np; print(random.random(), np.random.rand(), hash('a')); sys.exit()"
    found = [ended(probe, code, True)[1][0].split() for _ in range(4)]
    assert [len({each[k] for each in found}) for k in range(3)] == [4, 4, 2]
    assert found[0][2] != found[1][2]


def test_what_is_read_at_a_start_only_is_refused(probe: Path) -> None:
    with pytest.raises(AssertionError, match="PYTHONHASHSEED"):
        ended(probe, "look", True, PYTHONHASHSEED="1")
