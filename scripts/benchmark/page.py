"""What a page with tables of `--markdown` says (docs/performance.md is one), read back for the
picture."""

from __future__ import annotations

import re

from benchmark.cases import KINDS
from benchmark.plot import Ratios
from benchmark.tables import COLUMNS

SYSTEMS = {title: system for system, title in COLUMNS.items()}


def about(text: str) -> str:
    """On which machine the runs of a page were made, a line for each, and when."""
    found: dict[str, list[str]] = {}
    for date, commit, where in re.findall(r"^Measured (\S+) at commit (\S+): (.+?)\.\s", text, re.M | re.S):
        found.setdefault(" ".join(where.split()), []).append(f"{date}, commit {commit}")
    return "\n".join("; ".join([where, *runs]) for where, runs in found.items())


def ratios(text: str) -> Ratios:
    """The times of all tables as multiples of the limit; of a row that stands twice, the one with
    more systems. mxopt's is the one of the table; the others' are quotients of what the table
    rounds to three digits."""
    kinds = {f"{kind.title[0].upper()}{kind.title[1:]} ({kind.unit})": name for name, kind in KINDS.items()}
    found: Ratios = {}
    for title, table in re.findall(r"^### (.+)\n\n((?:\|.*\n)+)", text, re.MULTILINE):
        header, _, *rows = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
        if title not in kinds or "limit" not in header:
            continue
        for row in rows:
            mine = _row(dict(zip(header, row, strict=True)))
            rows_of_kind = found.setdefault(kinds[title], {})
            if len(mine) > len(rows_of_kind.get(row[0], {})):
                rows_of_kind[row[0]] = mine
    return found


def _row(cells: dict[str, str]) -> dict[str, float]:
    limit = float(cells["limit"].split()[0])
    times = {SYSTEMS[name]: cell.split()[0] for name, cell in cells.items() if name in SYSTEMS and cell[:1].isdigit()}
    return {system: float(time) / limit for system, time in times.items()} | {"mxopt": float(cells["mxopt / limit"])}
