"""Curves of schedules: what comes, drawn without changing anything."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from schedule_table import every, sgd

import mxopt
from mxopt.curves import curve
from mxopt.experimental.optim import lr_scheduler as schedules
from mxopt.lr_scheduler import CosineScheduler, FactorScheduler, MultiFactorScheduler, PolyScheduler


@every
def test_a_curve_is_what_comes_and_asking_for_it_changes_nothing(make: Any) -> None:
    optimizer = sgd(0.1, 0.3)
    schedule = make(schedules, optimizer)
    schedule.step()
    before = schedule.state_dict()
    foreseen = curve(schedule, 12).rates
    assert schedule.state_dict() == before
    assert foreseen.shape == (12, 2)
    for row in foreseen:
        np.testing.assert_array_equal([g["lr"] for g in optimizer.param_groups], row)
        schedule.step()


def test_curves_of_sequences_and_plateaus() -> None:
    optimizer = mxopt.create("sgd", learning_rate=0.4)
    parts = [schedules.ConstantLR(optimizer, 0.5, 9), schedules.ExponentialLR(optimizer, 0.5)]
    sequence = schedules.SequentialLR(optimizer, parts, [3])
    np.testing.assert_allclose(curve(sequence, 6).rates[:, 0], [0.2, 0.2, 0.2, 0.4, 0.2, 0.1])
    assert optimizer.learning_rate == 0.2
    plateau = schedules.ReduceLROnPlateau(sgd(), patience=0)
    np.testing.assert_allclose(curve(plateau, 4, [1, 1, 0.5]).rates[:, 0], [0.1, 0.1, 0.01, 0.01])
    with pytest.raises(ValueError, match="give 3 of them"):
        curve(plateau, 4)


@pytest.mark.parametrize(
    "schedule",
    [
        FactorScheduler(5, 0.5, base_lr=0.2, warmup_steps=3),
        MultiFactorScheduler([5, 9], 0.1, base_lr=0.2),
        PolyScheduler(30, 0.2),
        CosineScheduler(30, 0.2, warmup_steps=5),
        lambda step: 0.1 * 0.9**step,
    ],
    ids=["factor", "multifactor", "poly", "cosine", "function"],
)
def test_schedules_of_mxnet_and_plain_functions_are_drawn_too(schedule: Any, tmp_path: Path) -> None:
    drawn = curve(schedule, 40)
    np.testing.assert_array_equal(drawn.rates[:, 0], [schedule(step) for step in range(40)])
    lines = drawn.text(width=60, height=10).splitlines()
    assert len(lines) == 12
    assert all(len(line) <= 60 for line in lines)
    assert "█" in lines[-2]
    assert str(drawn)
    pytest.importorskip("matplotlib")
    drawn.save(tmp_path / "curve.png")
    assert (tmp_path / "curve.png").read_bytes().startswith(b"\x89PNG")


def test_what_cannot_be_drawn_is_refused() -> None:
    with pytest.raises(ValueError, match="steps must be a whole number above 0"):
        curve(FactorScheduler(5), 0)
    with pytest.raises(TypeError, match="function of the step"):
        curve(0.1, 5)  # type: ignore[arg-type]
