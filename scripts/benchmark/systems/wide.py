"""mxopt with float32 states, beside its states in bfloat16."""

from __future__ import annotations

from benchmark.cases import KINDS, Case
from benchmark.systems import mxopt
from benchmark.timing import Job

NARROW = True
version = mxopt.version


def ways(case: Case) -> list[str]:
    return mxopt.ways(case) if KINDS[case.kind].narrow else []


def build(case: Case, way: str) -> Job:
    return mxopt.build(case, way, wide=True)
