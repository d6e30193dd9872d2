"""The schedules of `mxopt.nn` against those of the real MindSpore."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorded import arrays, decode, document, exceptions

from mxopt import Parameter, nn

CASES = document("schedules")["cases"]
BAD = [case for case in document("errors")["cases"] if case["where"] == "nn.schedules"]


@pytest.mark.parametrize("case", [c for c in CASES if "class" in c], ids=lambda c: c["name"])
def test_schedule_gives_mindspores_value_at_every_step(case: dict[str, Any]) -> None:
    schedule = getattr(nn, case["class"])(**case["options"])
    values = [schedule(step) for step in range(case["steps"])]
    assert all(type(value) is float for value in values)
    np.testing.assert_allclose(values, arrays("schedules")[case["name"]], rtol=1e-6, atol=3e-8)  # they are float32


@pytest.mark.parametrize("case", [c for c in CASES if "function" in c], ids=lambda c: c["name"])
def test_function_gives_mindspores_list(case: dict[str, Any]) -> None:
    values = getattr(nn, case["function"])(**case["options"])
    np.testing.assert_allclose(values, arrays("schedules")[case["name"]], rtol=1e-15)


@pytest.mark.parametrize("case", BAD, ids=lambda c: f"{c['name']}-{c['options']}")
def test_bad_arguments_raise_what_is_documented_and_name_the_argument(case: dict[str, Any]) -> None:
    make, options = getattr(nn, case["name"]), decode(case["options"])
    if not case["expected"]:
        make(**options)
        return
    with pytest.raises(Exception, match="|".join(options)) as caught:
        make(**options)
    for kind in exceptions(case["expected"]):
        assert isinstance(caught.value, kind)


def test_own_schedule_defines_construct() -> None:
    class Halved(nn.LearningRateSchedule):
        def construct(self, global_step: int) -> float:
            return 0.5**global_step

    assert Halved()(3) == 0.125
    with pytest.raises(NotImplementedError, match="construct"):
        nn.LearningRateSchedule()(0)


@pytest.mark.parametrize(
    ("rate", "kind"),
    [
        (object(), TypeError),
        (lambda step: 0.1, TypeError),
        (["0.1", "x"], TypeError),
        ([], ValueError),
        ([0.1, -0.1], ValueError),
        (float("nan"), ValueError),
    ],
)
def test_bad_rates_are_refused(rate: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind, match="learning_rate"):
        nn.SGD([np.ones(1, np.float32)], learning_rate=rate)


def test_a_schedule_that_no_group_uses_makes_an_optimizer_dynamic_all_the_same() -> None:
    """As MindSpore's flags say."""
    schedule, weight = nn.ExponentialDecayLR(0.1, 0.5, 1), np.ones(2, np.float32)
    optimizer = nn.Adam([{"params": [weight], "lr": 0.1, "weight_decay": 0.1}], schedule, weight_decay=schedule)
    assert (optimizer.dynamic_lr, optimizer.dynamic_weight_decay) == (True, True)
    alone = nn.Adam([Parameter(weight, "bn.gamma")], weight_decay=schedule)
    assert (alone.dynamic_lr, alone.dynamic_weight_decay, alone.get_weight_decay()) == (False, True, 0.1)
    with pytest.raises(TypeError, match="weight_decay"):
        nn.SGD([{"params": [weight], "weight_decay": 0.1}], 0.1, weight_decay=schedule)
