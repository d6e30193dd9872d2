"""NaN and infinities in every input come out as in the real MXNet 1.9.1; what hides a NaN stands in
a list."""

from __future__ import annotations

import json
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from bitwise import array, flat
from table import CROSSED, Row, crossed_id

import mxopt
from mxopt.engine.choice import EngineName
from mxopt.sparse import row_sparse_array

FILE = np.load(Path(__file__).parent.parent / "data" / "mxnet" / "not_finite.npz", allow_pickle=False)
ABOUT = json.loads(str(FILE["json"]))
FOUND = FILE["found"]
CASES, POISONS, AT = ABOUT["cases"], ABOUT["poisons"], tuple(ABOUT["at"])
WEIGHT, GRADS = np.array(ABOUT["weight"]), list(map(np.array, ABOUT["grads"]))
SHAPE = WEIGHT.shape


def poison(array: np.ndarray, value: float) -> None:
    array[tuple(min(k, n - 1) for k, n in zip(AT, array.shape, strict=False))] = value


def run(case: dict[str, Any], target: int, value: float) -> list[np.ndarray]:
    """One clean update, then one with `value` in weight (0), gradient (1) or a state (2, ...):
    weight and states."""
    options = dict(case["kwargs"])
    if case["optimizer"] == "ftrl" and case["storage"] == "row_sparse":
        options["lazy_update"] = True
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = mxopt.create(case["optimizer"], **options)
        updater = mxopt.get_updater(optimizer)
        weight = WEIGHT.astype(case["dtype"])
        grads = [g.astype(case["dtype"]) for g in GRADS]
        whole = [g if case["storage"] == "default" else row_sparse_array((g, np.arange(3)), SHAPE) for g in grads]
        updater(0, whole[0], weight)
    inner, master = updater.states[0], None
    if optimizer.uses_master(weight):
        inner, master = optimizer.split(inner)
    arrays = [weight, *flat(inner)]
    if target == 0:
        for each in (weight, *flat(master)):
            poison(each, value)
    else:
        poison(grads[1] if target == 1 else arrays[target - 1], value)
    updater(0, whole[1], weight)
    return arrays


def kind(x: np.ndarray) -> np.ndarray:
    return np.where(np.isnan(x), "nan", np.where(np.isinf(x), np.where(x > 0, "+inf", "-inf"), "finite"))


def recorded() -> Iterator[Any]:
    at = 0
    for case in CASES:
        ends = np.cumsum(case["sizes"])
        for target in range(1 + len(ends)):
            for value in POISONS:
                parts = np.split(FOUND[at : at + ends[-1]], ends[:-1])
                at += ends[-1]
                yield case, target, value, parts


def departs(case: dict[str, Any], target: int, value: float) -> str | None:
    """Why mxopt gives something else here on purpose."""
    name, sparse = case["optimizer"], case["storage"] == "row_sparse"
    plain = name in ("sgd", "nag") and not case["kwargs"].get("momentum")
    if name == "nag" and sparse:
        return "MXNet works on a dense copy of a row-sparse weight, so the velocity sees the old weight"
    if np.isinf(value) and target == 0 and (plain or (name == "adagrad" and sparse)):
        return "some of MXNet's kernels take wd * weight, some (1 - lr * wd) * weight: NaN or infinity where wd is 0"
    if name == "adadelta" and target == 2 and value < 0:
        return "a mean square of minus infinity: MXNet takes two roots, mxopt the root of a quotient, in less time"
    return None


RECORDED: dict[int, list[Any]] = {k: [] for k in range(len(CASES))}
for _case, *_rest in recorded():
    RECORDED[CASES.index(_case)].append(_rest)


def titled(k: int) -> str:
    case = CASES[k]
    return f"{k}-{case['optimizer']}-{case['dtype']}-{case['storage']}"


@pytest.mark.parametrize("engine", ["numpy", "llvm"])
@pytest.mark.parametrize("number", RECORDED, ids=titled)
def test_not_a_number_and_infinities_come_out_as_in_mxnet(number: int, engine: EngineName) -> None:
    case = CASES[number]
    for target, value, parts in RECORDED[number]:
        with mxopt.use_engine(engine):
            ours = run(case, target, value)
        same = all(np.array_equal(kind(o.ravel()), kind(t)) for o, t in zip(ours, parts, strict=True))
        if departs(case, target, value) is None:
            assert same, f"{value} in input {target}: {ours} and {parts}"


def test_what_departs_does_so() -> None:
    """No reason stays in the list once it is none."""
    reasons = set()
    for k, runs in RECORDED.items():
        for target, value, parts in runs:
            reason = departs(CASES[k], target, value)
            if reason is not None:
                ours = run(CASES[k], target, value)
                if any((kind(o.ravel()) != kind(t)).any() for o, t in zip(ours, parts, strict=True)):
                    reasons.add(reason)
    assert len(reasons) == 3


def test_an_epsilon_keeps_adamax_from_zero_by_zero() -> None:
    for epsilon in (0.0, 1e-8):
        weight = np.ones(2, np.float32)
        updater = mxopt.get_updater(mxopt.create("adamax", epsilon=epsilon))
        updater(0, np.array([0.0, 1.0], np.float32), weight)
        assert np.isnan(weight[0]) == (epsilon == 0)  # as in MXNet, which has no epsilon
        assert weight[1] == pytest.approx(0.998)


# What hides a NaN: rule, input. Everywhere else one in any input reaches the weight.
HIDES = {
    ("signsgd", "grad"), ("signum", "grad"), ("signum", "velocity"),  # the sign of NaN is 0, as in MXNet
    ("test", "copy"),  # which nothing reads
}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
@pytest.mark.filterwarnings("ignore:.*without multi_precision")
def test_no_rule_hides_a_nan(row: Row, dtype: str, master: bool, sparse: bool) -> None:
    rule = row.make().rule
    for engine in ("numpy", "llvm"):
        for k, name in enumerate(["weight", "grad", *rule.states]):
            rng = np.random.default_rng(k)
            optimizer = row.make(multi_precision=master)
            updater, weight = mxopt.get_updater(optimizer), array(rng, SHAPE, dtype)
            grads = [array(rng, SHAPE, dtype) for _ in range(4)]
            given = [row_sparse_array((g, np.arange(3)), SHAPE) for g in grads] if sparse else grads
            with mxopt.use_engine(engine):
                updater(0, given[0], weight)
                inner, copies = updater.states[0], []
                if optimizer.uses_master(weight):
                    inner, copy = optimizer.split(inner)
                    copies = [copy]
                if name == "weight":
                    targets = [weight, *copies]
                else:
                    targets = [grads[1]] if name == "grad" else optimizer.state_arrays(inner)[k - 2 : k - 1]
                for each in targets:
                    poison(each, np.nan)
                for g in given[1:]:  # several: LBSGD moves the weight at some updates only
                    updater(0, g, weight)
            assert np.isnan(weight[AT]) == ((rule.name, name) not in HIDES), f"{engine}: NaN in {name}"
