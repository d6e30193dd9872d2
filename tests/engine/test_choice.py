"""Which engine runs an update of NumPy arrays."""

from __future__ import annotations

import subprocess
import sys
import threading
from pathlib import Path

import pytest

import mxopt
from mxopt.engine import engine_in_use
from mxopt.errors import UnknownNameError


def in_a_process(engine: str) -> subprocess.CompletedProcess[str]:
    code = "import mxopt.engine; print(mxopt.engine.engine_in_use())"
    folder = Path(mxopt.__file__).parent.parent
    environment = {"MXOPT_ENGINE": engine, "PATH": ""}
    command = [sys.executable, "-c", code]
    return subprocess.run(command, capture_output=True, text=True, check=False, env=environment, cwd=folder)


@pytest.mark.parametrize(("name", "engine"), [("numpy", "numpy"), ("llvm", "llvm"), ("numba", "llvm"), ("", "llvm")])
def test_the_environment_chooses(name: str, engine: str) -> None:
    assert in_a_process(name).stdout == f"{engine}\n"


def test_the_environment_may_be_wrong() -> None:
    result = in_a_process("cuda")
    assert result.returncode
    assert "ArgumentError: MXOPT_ENGINE='cuda': needs llvm or numpy" in result.stderr.splitlines()[-1]


def test_a_block_chooses_and_puts_back() -> None:
    before = engine_in_use()
    with mxopt.use_engine("numpy"):
        assert engine_in_use() == "numpy"
        with mxopt.use_engine("llvm"):
            assert engine_in_use() == "llvm"
        with pytest.raises(UnknownNameError, match="'torch'"), mxopt.use_engine("torch"):
            pass
        with pytest.raises(KeyError), mxopt.use_engine("llvm"):
            raise KeyError
        assert engine_in_use() == "numpy"
    assert engine_in_use() == before


def test_a_block_chooses_for_its_own_thread() -> None:
    seen = []
    with mxopt.use_engine("numpy"):
        other = threading.Thread(target=lambda: seen.append(engine_in_use()))
        other.start()
        other.join()
    assert seen == [engine_in_use()]
