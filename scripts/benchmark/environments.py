"""The Pythons of the systems: given on the command line, or made by `scripts/bench --setup` in a
cache folder."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from functools import partial
from pathlib import Path

from benchmark.protocol import LIMITS

OWN = ("mxopt", "experimental", "nn", *LIMITS)
PEERS = {
    "pytorch": ["torch==2.13.0", "numpy"],
    "mxnet": ["mxnet==1.9.1", "numpy==1.23.5"],
    "optax": ["jax", "jaxlib", "optax"],
    "mindspore": ["mindspore==2.10.0", "numpy<2"],
}
NAMES = {"torch": "pytorch", "jax": "optax", "ms": "mindspore", "mx": "mxnet"}  # also understood
# mxopt's own where it needs a peer beside it.
WITH_PEERS = {"tensors": [*PEERS["pytorch"], "llvmlite", "ml_dtypes", "msgspec", "pyzmq"]}
MADE = PEERS | WITH_PEERS
SYSTEMS = ("mxopt", "experimental", "nn", *WITH_PEERS, *PEERS, *LIMITS)


def system(name: str) -> str:
    """The system a name means. Raises ValueError."""
    found = NAMES.get(name, name)
    if found not in SYSTEMS:
        raise ValueError(f"there is no system {name!r}; there are {', '.join(SYSTEMS)}")
    return found


def folder() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mxopt-bench"


def pythons(given: dict[str, str]) -> dict[str, str]:
    """The Python of each system there is, in the order in which they take turns."""
    found = {}
    for name in SYSTEMS:
        made = folder() / name / "bin" / "python"
        if name in given:
            found[name] = given[name]
        elif name in OWN:
            found[name] = sys.executable
        elif made.exists():
            found[name] = str(made)
    return found


def set_up(names: list[str]) -> None:
    """Makes the peers' environments. One that fails is reported and left out."""
    for name in names:
        target, packages = folder() / name, MADE[name]
        print(f"{name}: {' '.join(packages)} in {target}", flush=True)
        try:
            _install(target, packages)
        except subprocess.CalledProcessError as error:
            shutil.rmtree(target, ignore_errors=True)
            print(f"{name}: not installed, its column will be missing ({error})", file=sys.stderr, flush=True)


def _install(target: Path, packages: list[str]) -> None:
    python = str(target / "bin" / "python")
    run = partial(subprocess.run, env={k: v for k, v in os.environ.items() if k != "PYTHONPATH"})
    if shutil.which("uv"):
        run(["uv", "venv", "--quiet", "--python", sys.executable, str(target)], check=True)
        install = ["uv", "pip", "install", "--quiet", "--python", python]
    else:
        run([sys.executable, "-m", "venv", str(target)], check=True)
        install = [python, "-m", "pip", "install", "--quiet"]
    run([*install, *packages], check=True)
