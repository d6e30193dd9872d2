"""A truer limit: what only touching a case's arrays costs by the best of several schemes, all in C,
with all threads.

Which is best depends on the machine. mxopt's targets are ratios to the plain limit; this column
says what is left.
"""

from __future__ import annotations

from benchmark import touch
from benchmark.cases import KINDS, Case
from benchmark.systems.limit import THREADS, arrays_of
from benchmark.timing import Job

COMPARED, CLIPS, NARROW = 2, False, True


def version() -> str:
    return touch.compiler() or "no C compiler"


def ways(case: Case) -> list[str]:
    long = KINDS[case.kind].unit == "ms" and not case.rows and not case.fresh
    return list(touch.SCHEMES) if long and touch.compiler() else []


def build(case: Case, way: str, rule: str = "") -> Job:
    arrays = arrays_of(case)
    passes = [touch.Pass(case, *each, arrays, THREADS, touch.SCHEMES[way], rule) for each in case.passes]

    def step() -> None:
        for one in passes:
            one.run()

    return Job(step)
