"""The examples that no other test runs, as a user would run them."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


def run(*command: str) -> str:
    env = {**os.environ, "OMP_NUM_THREADS": "1"}
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=200, env=env)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.parametrize("example", sorted((ROOT / "docs" / "examples").glob("*.py")), ids=lambda path: path.name)
def test_an_example_says_how_it_is_run(example: Path) -> None:
    doc = ast.get_docstring(ast.parse(example.read_text()))
    lines = [line.strip() for line in str(doc).splitlines() if line.startswith("    ")]
    command = rf"(mxopt-launch -n 2 -s 2 .*)?python docs/examples/{example.name}( \[.*\])?"
    assert lines
    assert [line for line in lines if not re.fullmatch(command, line)] == []


def test_digits_are_learnt_and_a_resumed_run_ends_with_the_same_bits() -> None:
    output = run(sys.executable, "docs/examples/digits.py")
    assert "the resumed run ended with the same weights, bit for bit" in output
    assert float(re.findall(r"test accuracy ([\d.]+)%", output)[-1]) >= 97


@pytest.mark.skipif(importlib.util.find_spec("torch") is None, reason="PyTorch is not installed")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
def test_a_pytorch_model_is_trained_in_place(dtype: str) -> None:
    assert "test accuracy" in run(sys.executable, "docs/examples/torch_lamb.py", "--dtype", dtype)


def test_digits_are_learnt_by_two_workers_and_two_servers(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "mxopt-launch")
    launch = [program, "-n", "2", "-s", "2", "--run-dir", str(tmp_path / "logs")]
    output = run(*launch, sys.executable, "docs/examples/digits_distributed.py", "--save", str(tmp_path / "saved"))
    accuracy, mark = re.findall(r"test accuracy ([\d.]+)%, weights (\w+); saved", output)[0]
    assert float(accuracy) >= 97
    assert re.findall(r"ends with weights (\w+)", output) == [mark, mark]
    assert sorted(p.name for p in (tmp_path / "saved").iterdir()) == ["states.mxopt", "weights.mxopt"]


def test_a_factorisation_guesses_hidden_pixels_on_tables_alone_and_on_servers(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "mxopt-launch")
    launch = [program, "-n", "2", "-s", "2", "--run-dir", str(tmp_path / "logs")]
    for command in ([], launch):
        output = run(*command, sys.executable, "docs/examples/factorization.py")
        found = re.findall(r"worker \d: hidden pixels are guessed to ([\d.]+), by their mean to ([\d.]+)", output)
        assert len(found) == (2 if command else 1)
        assert len(set(found)) == 1  # both workers ask the same servers
        assert float(found[0][0]) < 0.6 * float(found[0][1])


def test_a_job_that_died_goes_on_by_its_servers_rounds_and_ends_with_the_same_bits(tmp_path: Path) -> None:
    program = str(Path(sys.executable).parent / "mxopt-launch")
    script = (sys.executable, "docs/examples/digits_resumed.py", "--rounds", "4000")
    often = ("--env", "MXOPT_KVSTORE_HEARTBEAT=0.1")
    launch = (program, "-n", "2", "-s", "2", *often, "--run-dir", str(tmp_path / "logs"))
    state = str(tmp_path / "state")
    undisturbed = run(*launch, "--durability", "none", *script)
    with pytest.raises(AssertionError, match="worker-0 failed: killed by SIGKILL"):
        run(*launch, "--durability", "journal", "--state-dir", state, *script, "--die-in", "3500")  # after some seconds
    resumed = run(*launch, "--resume", state, *script)
    (first, *mark), (began, *same) = (
        re.findall(r"from round (\d+): ([\d.]+%) of the digits, weights (\w+)", output)[0]
        for output in (undisturbed, resumed)
    )
    assert same == mark
    assert int(first) == 0 < int(began) <= 3500
