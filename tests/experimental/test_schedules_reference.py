"""Every recorded schedule of MindSpore and PyTorch, repeated: the rates after every step."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorded import arrays, decode, document

import mxopt
from mxopt.document import dump_document, load_document
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler
from mxopt.experimental.optim.lr_scheduler.base import groups_of

CASES = document("lr_scheduler")["cases"]


def make(case: dict[str, Any], optimizer: Any) -> Any:
    options = decode(case["options"])
    if "last_epoch" in options:
        for group in groups_of(optimizer):
            group["initial_lr"] = group["lr"]
    if case["children"]:
        options["schedulers"] = [
            getattr(lr_scheduler, name)(optimizer, **decode(child)) for name, child in case["children"]
        ]
    return getattr(lr_scheduler, case["class"])(optimizer, **options)


def sgd(base_lrs: list[float]) -> optim.SGD:
    return optim.SGD([{"params": [np.zeros(1, np.float32)], "lr": lr} for lr in base_lrs], lr=0.1)


def step(scheduler: lr_scheduler.LRScheduler, case: dict[str, Any], number: int) -> None:
    arguments = case["epochs"] or case["metrics"]
    scheduler.step(*([arguments[number]] if arguments else []))


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
def test_rates_are_the_recorded_ones_after_every_step(case: dict[str, Any]) -> None:
    optimizer = sgd(case["base_lrs"])
    scheduler = make(case, optimizer)
    rates = [[group["lr"] for group in optimizer.param_groups]]
    for number in range(case["steps"]):
        step(scheduler, case, number)
        rates.append([group["lr"] for group in optimizer.param_groups])
        assert scheduler.get_last_lr() == rates[-1]
    for source, tolerance in case["expected"].items():
        recorded = arrays("lr_scheduler")[f"{case['name']}/{source}"]
        np.testing.assert_allclose(rates, recorded, rtol=0, atol=tolerance, err_msg=source)


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("middle", [0, 1, 13])
def test_a_restored_schedule_goes_on_to_the_last_bit(case: dict[str, Any], middle: int) -> None:
    whole_optimizer, first_optimizer, second_optimizer = (sgd(case["base_lrs"]) for _ in range(3))
    whole, first, second = (make(case, o) for o in (whole_optimizer, first_optimizer, second_optimizer))
    for number in range(middle):
        step(first, case, number)
    document = load_document(dump_document(first.state_dict()))
    second.load_state_dict(document)
    for number in range(case["steps"]):
        step(whole, case, number)
        if number >= middle:
            step(second, case, number)
            assert second.get_last_lr() == whole.get_last_lr(), number
            assert [g["lr"] for g in second_optimizer.param_groups] == whole.get_last_lr(), number


@pytest.mark.parametrize("case", [c for c in CASES if len(c["base_lrs"]) == 1], ids=lambda case: case["name"])
def test_an_optimizer_of_create_is_driven_alike(case: dict[str, Any]) -> None:
    (lr,) = case["base_lrs"]
    optimizer = mxopt.create("sgd", learning_rate=lr)
    scheduler, reference = make(case, optimizer), make(case, sgd([lr]))
    assert optimizer.learning_rate == reference.get_last_lr()[0]
    for number in range(case["steps"]):
        step(scheduler, case, number)
        step(reference, case, number)
        assert optimizer.learning_rate == reference.get_last_lr()[0]
