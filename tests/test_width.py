"""Prose is set in 100 columns: docstrings and comments. (Code has 120, which ruff
checks.)"""

from __future__ import annotations

import ast
import io
import re
import tokenize
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = [path for folder in ("mxopt", "server", "tests", "scripts") for path in sorted((ROOT / folder).rglob("*.py"))]


def fixed(line: str) -> bool:
    """Whether a line can't be broken: a row of a table, an address, a single word."""
    return line.lstrip().startswith("|") or "https://" in line or bool(re.search(r"\S {2,}\S|^[-\s]*\S+$", line))


def prose(text: str) -> dict[int, str]:
    """The lines of docstrings, and those that are nothing but a comment, by number."""
    lines = dict(enumerate(text.splitlines(), 1))
    tokens = tokenize.generate_tokens(io.StringIO(text).readline)
    comments = [token.start for token in tokens if token.type == tokenize.COMMENT]
    found = {n: lines[n] for n, column in comments if not lines[n][:column].strip()}
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            last = node.body[0].end_lineno or 0
            found |= {n: lines[n] for n in range(node.body[0].lineno, last + 1)}
    return found


@pytest.mark.parametrize("path", FILES, ids=lambda path: str(path.relative_to(ROOT)))
def test_no_line_of_prose_is_wider_than_100_columns(path: Path) -> None:
    lines = prose(path.read_text()).items()
    assert not [f"{path.name}:{n}" for n, line in lines if len(line) > 100 and not fixed(line)]
