"""A loop in C that does the rule's own arithmetic, bit for bit, by the best of several schemes: of
dense Adam."""

from __future__ import annotations

from benchmark import touch
from benchmark.cases import Case
from benchmark.systems import schemes
from benchmark.timing import Job

COMPARED, CLIPS = 2, False
version = schemes.version


def ways(case: Case) -> list[str]:
    same = case.kind in ("dense", "resnet50") and case.optimizer in touch.ARITHMETIC
    return [way for way in schemes.ways(case) if same and way != "streaming"]


def build(case: Case, way: str) -> Job:
    return schemes.build(case, way, case.optimizer)
