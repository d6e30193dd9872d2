"""Rows as tables of text, for the terminal and for Markdown."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

from benchmark.cases import KINDS, UNITS
from benchmark.driver import Result, Times
from benchmark.targets import Verdict

COLUMNS = {
    "mxopt": "mxopt",
    "experimental": "its experimental.optim",
    "nn": "its nn",
    "tensors": "its torch",
    "wide": "its float32 states",
    "limit": "limit",
    "loop": "loop in C",
    "one thread": "one thread alone",
    "pytorch": "PyTorch",
    "mxnet": "MXNet",
    "optax": "optax",
    "mindspore": "MindSpore",
}
SILENT = ("call", "list", "tree", "process", "single")  # ways that go without saying


@dataclass
class Table:
    """A kind's rows; the last column is remarks."""

    title: str
    header: list[str]
    rows: list[list[str]]


def table(kind: str, rows: Sequence[Result]) -> Table:
    """A column for each system that some row has, and mxopt's time as a multiple of the limit."""
    there = [name for name in COLUMNS if any(name in row.systems or name in row.failures for row in rows)]
    reference = next((row.reference for row in rows), "limit")
    ratio = ["mxopt", reference] if {"mxopt", reference} <= set(there) else []
    header = ["", *(COLUMNS[name] for name in there), *(" / ".join(ratio),) * bool(ratio), "remarks"]
    body = []
    for row in rows:
        cells = [cell(row, name) for name in there]
        value = row.ratio("mxopt")
        cells += [f"{value:.2f}" if value is not None else ""] * bool(ratio)
        body.append([row.optimizer, *cells, "; ".join(row.remarks)])
    return Table(f"{KINDS[kind].title} ({KINDS[kind].unit})", header, body)


def cell(row: Result, system: str) -> str:
    times = row.systems.get(system)
    if times is None:
        return "fails" if system in row.failures else "–"
    text = number(times.median * UNITS[row.unit])
    return f"{text} {way(times)}".strip()


def way(times: Times) -> str:
    """The way a system was run, in a word, where it isn't the only one."""
    return "" if times.way in SILENT else times.way.partition(",")[0]


def number(value: float) -> str:
    """Three digits, and all of a whole number."""
    return (
        f"{value:.0f}"
        if value >= 100
        else f"{value:.1f}"
        if value >= 10
        else f"{value:.2f}"
        if value >= 0.1
        else f"{value:.3f}"
    )


def verdicts(found: Iterable[Verdict]) -> Table:
    """Each target with its worst row."""
    body = []
    for verdict in found:
        target, sign = verdict.target, "≥" if verdict.target.least else "≤"
        goal = f"{sign} {target.text(target.bound)}"
        if not verdict.values:
            body.append([target.what, goal, "–", "not measured", ""])
            continue
        value, row = verdict.values[0]
        worst = f"{row.optimizer} {target.text(value)}"
        missed = verdict.missed
        outcome = f"missed by {len(missed)} of {len(verdict.values)}" if missed else f"met by all {len(verdict.values)}"
        disturbed = [r.optimizer for _, r in missed if r.remarks]
        body.append([target.what, goal, worst, outcome, f"disturbed: {', '.join(disturbed)}" if disturbed else ""])
    return Table("Targets", ["target", "wanted", "worst row", "outcome", "remarks"], body)


def by_kind(rows: Iterable[Result]) -> list[Table]:
    rows = list(rows)
    return [table(kind, mine) for kind in KINDS if (mine := [row for row in rows if row.kind == kind])]


def markdown(rows: Sequence[Result], machine: dict[str, Any], versions: dict[str, str]) -> str:
    """A table for each kind, and where and when they were measured."""
    parts = [
        f"Measured {machine['date'][:10]} at commit {machine['commit']}: {machine['cpu']}, {machine['threads']} threads"
        f" of {machine['cores']} cores, {machine['memory']}, {machine['system']}. "
        + "; ".join(f"{COLUMNS[name]} {version}" for name, version in versions.items() if name != "limit")
        + ".\n"
    ]
    return "\n".join([*parts, *map(as_markdown, by_kind(rows))])


def as_markdown(one: Table) -> str:
    """A table with its heading."""
    right = ["---", *["---:"] * (len(one.header) - 2), "---"]
    lines = (f"| {' | '.join(line)} |" for line in (one.header, right, *one.rows))
    return f"### {one.title[0].upper()}{one.title[1:]}\n\n" + "\n".join(lines) + "\n"
