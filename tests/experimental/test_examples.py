"""The examples of the documentation, as a user runs them."""

from __future__ import annotations

import doctest
import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

from mxopt import curves, parameter
from mxopt.experimental.optim import sgd

ROOT = Path(__file__).parent.parent.parent


@pytest.mark.parametrize("name", ["lenet_numpy", pytest.param("lenet_torch", marks=pytest.mark.skipif(
    find_spec("torch") is None, reason="PyTorch is not installed"
))])  # fmt: skip
def test_lenet5_learns_the_digits(name: str) -> None:
    pytest.importorskip("sklearn")
    run = subprocess.run(
        [sys.executable, ROOT / "docs" / "examples" / f"{name}.py"],
        capture_output=True, text=True, check=True, timeout=120, env={"PYTHONPATH": str(ROOT), "PATH": ""},
    )  # fmt: skip
    accuracies = [float(x) for x in re.findall(r"test (\S+)%", run.stdout)]
    assert len(accuracies) == 8
    assert accuracies[-1] >= 97


@pytest.mark.parametrize("page", ["experimental", "schedules"])
def test_the_code_on_the_documentations_pages_runs(page: str) -> None:
    text = (ROOT / "docs" / f"{page}.md").read_text(encoding="utf-8")
    names: dict[str, object] = {}
    for block in re.findall(r"```python\n(.*?)```", text, re.DOTALL):
        exec(compile(block, page, "exec"), names)


def test_the_examples_in_docstrings_are_right() -> None:
    for module in (curves, parameter, sgd):
        assert doctest.testmod(module).failed == 0
