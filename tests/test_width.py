"""The prose of pages and scripts is set in 100 columns, the code of scripts in 120. (ruff checks
that of all other files.)"""

from __future__ import annotations

import ast
import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "scripts/**/*.md", "tests/**/*.md")
SCRIPTS = [path for path in sorted((ROOT / "scripts").glob("*")) if path.is_file() and not path.suffix]
PAGES = [page for pattern in PATTERNS for page in sorted(ROOT.glob(pattern))]


def fixed(line: str) -> bool:
    """Whether a line can't be broken: a row of a table, an address, a single word."""
    return line.lstrip().startswith("|") or "https://" in line or bool(re.match(r"[-\s]*\S+$", line))


def prose(text: str) -> dict[int, str]:
    """The lines of a page that are in no block of code, by number."""
    found, code = {}, False
    for n, line in enumerate(text.splitlines(), 1):
        fence = line.lstrip().startswith("```")
        code ^= fence
        if not code and not fence:
            found[n] = line
    return found


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_no_line_of_prose_is_wider_than_100_columns(page: Path) -> None:
    lines = prose(page.read_text()).items()
    assert not [f"{page.name}:{n}" for n, line in lines if len(line) > 100 and not fixed(line)]


@pytest.mark.parametrize("script", SCRIPTS, ids=lambda script: script.name)
def test_scripts_have_the_width_of_the_rest(script: Path) -> None:
    text = script.read_text()
    docstring = ast.get_docstring(ast.parse(text)) or "" if "python" in text.partition("\n")[0] else ""
    lines = text.splitlines()
    comments = [line for line in lines if line.lstrip().startswith("#")]
    assert not [line for line in lines if len(line) > 120]
    assert not [line for line in (*comments, *docstring.splitlines()) if len(line) > 100 and not fixed(line)]
