"""The page of promises names tests that are there."""

from __future__ import annotations

import ast
import re
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "promises.md").read_text()


def test_every_promise_names_tests_and_all_of_them_exist() -> None:
    parts = re.split(r"^\*\*(P\d+)\. ", PAGE.partition("## What is not promised")[0], flags=re.MULTILINE)
    promises = dict(zip(parts[1::2], parts[2::2], strict=True))
    assert list(promises) == [f"P{k}" for k in range(1, 13)]
    for promise, text in promises.items():
        named = re.findall(r"(tests/\S+\.py)::(\w+)", text)
        assert named, promise
        for file, test in named:
            assert test in _tests_of(ROOT / file), f"{promise}: {file} has no {test}"


def test_every_mended_bug_has_a_replay() -> None:
    table = PAGE.partition("**P12.")[2].partition("\n## ")[0]
    rows = [line for line in table.splitlines() if line.startswith("| ")][1:]
    assert len(rows) > 15
    assert all(re.search(r"\| tests/\S+\.py::\w+ \|$", row) for row in rows)


def _tests_of(file: Path) -> set[str]:
    tree = ast.parse(file.read_text())
    return {node.name for node in ast.walk(tree) if isinstance(node, ast.FunctionDef)}
