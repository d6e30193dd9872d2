"""Prose is set in 100 columns: docstrings and comments. (Code has 120, which ruff checks.)"""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1] / "mxopt"
WIDER = ("engine", "kvstore", "sparse", "trainer.py")  # whose prose still has 120 columns
FILES = [p for p in sorted(ROOT.rglob("*.py")) if p.relative_to(ROOT).parts[0] not in WIDER]


def fixed(line: str) -> bool:
    """Whether a line can't be broken: a row of a table, an address."""
    return line.startswith("|") or "https://" in line


def prose(path: Path) -> dict[int, str]:
    """The lines of docstrings, and those that are nothing but a comment, by number."""
    text = path.read_text()
    lines = dict(enumerate(text.splitlines(), 1))
    found = {n: line for n, line in lines.items() if line.lstrip().startswith("#")}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            last = node.body[0].end_lineno or 0
            found |= {n: lines[n] for n in range(node.body[0].lineno, last + 1)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda p: str(p.relative_to(ROOT)))
def test_no_line_of_prose_is_wider_than_100_columns(path: Path) -> None:
    assert not [f"{path.name}:{n}" for n, line in prose(path).items() if len(line) > 100 and not fixed(line)]
