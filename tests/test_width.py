"""The prose of pages is set in 100 columns. (That of docstrings and comments too, and code in 120,
which ruff checks.)"""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PATTERNS = ("*.md", "docs/**/*.md", "scripts/**/*.md", "tests/**/*.md")
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
