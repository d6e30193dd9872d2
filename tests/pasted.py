"""Programs of the documentation, run as a reader would run them: each in a fresh file, alone or as
a job."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parent.parent
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "SECURITY")),
    *sorted((ROOT / "docs").glob("*.md")),
]


def blocks(page: Path, kind: str) -> list[tuple[str, str]]:
    """(kind, text) of the fenced blocks of a page whose kind `kind`, a regular expression,
    matches."""
    return re.findall(rf"^```({kind})\n(.*?)^```$", page.read_text(), re.MULTILINE | re.DOTALL)


def alone(program: Path) -> str:
    """What a program prints."""
    done = subprocess.run(
        [sys.executable, program], cwd=program.parent, capture_output=True, text=True, timeout=120
    )  # fmt: skip
    assert (done.returncode, done.stderr) == (0, "")
    return done.stdout


def of_a_job(program: Path) -> str:
    """What two workers print that run a program with two servers, in the order of the lines."""
    launch = [str(Path(sys.executable).parent / "mxopt-launch"), "-n", "2", "-s", "2", sys.executable, str(program)]
    done = subprocess.run(launch, cwd=program.parent, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stdout + done.stderr
    return "".join(sorted(f"{line}\n" for line in re.findall(r"^\[worker-\d+\] (.*)$", done.stdout, re.MULTILINE)))
