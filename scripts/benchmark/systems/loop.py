"""A loop in C that does the rule's own arithmetic, bit for bit, by the best of several schemes: of
dense Adam."""

from __future__ import annotations

from benchmark import touch
from benchmark.cases import Case
from benchmark.systems import limit
from benchmark.timing import Job

COMPARED = 3


def version() -> str:
    return touch.compiler() or "no C compiler"


def ways(case: Case) -> list[str]:
    same = case.kind in ("dense", "resnet50") and case.optimizer in touch.ARITHMETIC
    return [way for way in touch.SCHEMES if same and touch.compiler() and way != "streaming"]


def build(case: Case, way: str) -> Job:
    _, step = limit.in_c(case, limit.arrays_of(case), limit.THREADS, touch.SCHEMES[way], case.optimizer)
    return Job(step)
