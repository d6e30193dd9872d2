"""The examples of the documentation, as a user runs them."""

from __future__ import annotations

import re
import subprocess
import sys
from importlib.util import find_spec
from pathlib import Path

import pytest

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
