"""The shell lines of README and docs: blocks that start jobs run as they stand, and no command or
option is spoken of that isn't there."""

from __future__ import annotations

import os
import re
import shlex
import subprocess
import sys
from pathlib import Path

import pytest
from mxopt_server import cli, launch
from mxopt_server.keygen import main as keygen
from pasted import PAGES, ROOT, blocks

BIN = Path(sys.executable).parent
SHOWN = [pytest.param(text, id=f"{p.name}-{n}") for p in PAGES for n, (_, text) in enumerate(blocks(p, "sh"), 1)]
INLINE = [span for page in PAGES for span in re.findall(r"`([^`\n]+)`", page.read_text())]
# What is left to test_options_that_are_spoken_of_exist, and why.
NOT_RUN = {
    "scripts/": "this repository's own checks and measurements",
    "--launcher": "other machines: dry runs below",
    "--metrics-port": "ports that may be taken",
    "HOST:PORT": "the reader's own job",
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with what the lines name: README's program as train.py, a hostfile, keys."""
    program = next(text for _, text in blocks(ROOT / "README.md", "python") if "kvstore" in text)
    (tmp_path / "train.py").write_text(program)
    (tmp_path / "hosts").write_text("127.0.0.1\nlocalhost\n")
    assert keygen([str(tmp_path / "job.key")]) == 0
    return tmp_path


def run(line: str, folder: Path) -> subprocess.CompletedProcess[str]:
    environment = {**os.environ, "PATH": f"{BIN}:{os.environ['PATH']}", "HOME": str(folder)}
    command = ["bash", "-e", "-o", "pipefail", "-c", line]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True, timeout=120)


@pytest.mark.parametrize("block", [p for p in SHOWN if not any(reason in p.values[0] for reason in NOT_RUN)])  # type: ignore[operator]
def test_a_block_of_shell_lines_runs_as_pasted(block: str, folder: Path) -> None:
    (folder / "job.key").unlink()
    own = block.replace("/run/user/1000", str(folder)).replace("runs/20260101-120000-1a2b3c4d", "runs/*")
    done = run(f"{own}\nwait", folder)
    assert done.returncode == 0, done.stdout + done.stderr


LAUNCHES = [line for p in SHOWN for line in p.values[0].splitlines() if line.startswith("mxopt-launch ")]  # type: ignore[union-attr]
LAUNCHES += [span for span in INLINE if re.match(r"mxopt-launch .*\bpython ", span)]


@pytest.mark.parametrize("line", [line for line in dict.fromkeys(LAUNCHES) if "--resume" not in line])
def test_a_line_that_launches_a_job_is_taken(line: str, folder: Path) -> None:
    done = run(line.replace("mxopt-launch", "mxopt-launch --dry-run"), folder)
    assert done.returncode == 0, done.stderr
    assert "DMLC_ROLE=worker" in done.stdout


def test_options_that_are_spoken_of_exist() -> None:
    sources = [path.read_text() for path in (ROOT / "scripts").rglob("*") if path.is_file() and path.suffix != ".pyc"]
    everywhere = "".join(path.read_text() for path in (ROOT / "server").rglob("*.py"))
    helps = {"mxopt-launch": launch.parser().format_help(), "mxopt-server": everywhere, "scripts": "".join(sources)}
    lines = [line for p in SHOWN for line in p.values[0].splitlines()]  # type: ignore[union-attr]
    for text in [*INLINE, *lines]:
        of_a_job = text.partition("#")[0].partition(" python ")[0]
        name = re.match(r"(?:\./)?(mxopt-launch|mxopt-server|scripts)\b", text)
        known = helps[name[1]] + cli.parser().format_help() if name else everywhere + helps["scripts"]
        for option in re.findall(r"(?<![\w-])--[a-z][a-z-]+", of_a_job):
            assert option in known, text


def test_scripts_and_examples_that_are_spoken_of_exist() -> None:
    lines = [line for p in SHOWN for line in p.values[0].splitlines()]  # type: ignore[union-attr]
    for text in [*INLINE, *lines]:
        for path in re.findall(r"(?<![\w/])(?:scripts|docs/examples|tests)/[\w./-]+", text):
            assert (ROOT / path.partition("::")[0]).exists(), text
    for line in lines:
        if line.startswith(("./scripts/", "scripts/")):
            assert os.access(ROOT / shlex.split(line, comments=True)[0], os.X_OK), line
