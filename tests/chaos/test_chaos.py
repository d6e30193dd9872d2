"""Some seconds of disturbed jobs; `scripts/chaos` runs more."""

from __future__ import annotations

from pathlib import Path

import pytest

pytest.importorskip("psutil")
from chaos.job import Job
from chaos.plan import Fault, Plan, drawn
from chaos.relay import Weather

PLANS = [
    Plan(1, "adam", 2, 2, faults=[Fault(0.2, "server 0"), Fault(0.5, "server 1"), Fault(0.7, "server 0")]),
    Plan(2, "counts", 2, 2, faults=[Fault(0.3, "server 1"), Fault(0.6, "server 0")]),
    Plan(3, "momentum", 2, 1, faults=[Fault(0.4, "worker 1")]),
    Plan(4, "momentum", 2, 1, steps=10, weather=Weather(delay=0.002, cut_after=3.0, twice=0.05)),
]


@pytest.mark.parametrize("plan", PLANS, ids=str)
def test_a_disturbed_job_ends_with_the_same_bits(plan: Plan, tmp_path: Path) -> None:
    job = Job(plan, tmp_path / "job")
    assert job.faults() == [], "\n".join(job.history)
    assert not [line for line in job.history if "isn't there" in line]


def test_a_seed_always_draws_the_same_plan() -> None:
    assert drawn(7) == drawn(7)
    assert len({str(drawn(seed)) for seed in range(50)}) > 45
