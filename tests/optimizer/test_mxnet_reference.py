"""Every recorded run of the real MXNet 1.9.1, repeated: weights, states and rates after every
step."""

from __future__ import annotations

import json
import math
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt.engine import Tensor
from mxopt.rules import sgd
from mxopt.rules.rule import Rule
from mxopt.sparse import row_sparse_array

DATA = Path(__file__).parent.parent / "data" / "mxnet"
FILES = sorted(p.stem for p in DATA.glob("*.npz") if p.stem not in ("schedulers", "not_finite"))


def cases() -> list[Any]:
    found = []
    for name in FILES:
        with np.load(DATA / f"{name}.npz") as file:
            for k, case in enumerate(json.loads(str(file["json"]))["cases"]):
                if case["departs"] is None and case["form"] != "operator":
                    dtypes = "+".join(sorted({p["dtype"] for p in case["params"]}))
                    title = f"{case['form']}-{case['title']}-{case['weight_storage']}-{case['grad_storage']}"
                    found.append(pytest.param(name, k, id=f"{name}-{k}-{case['optimizer']}-{dtypes}-{title}"))
    return found


@pytest.fixture(scope="module")
def load() -> Any:
    files = {name: Arrays(np.load(DATA / f"{name}.npz")) for name in FILES}
    documents = {name: json.loads(str(file["json"])) for name, file in files.items()}
    return lambda name: (files[name], documents[name])


class Arrays:
    """The arrays of a file by key; where all of a dtype are packed into one, a key is
    `dtype/first element/shape`."""

    def __init__(self, file: Any) -> None:
        self.file = file
        self.loaded: dict[Any, Any] = {}

    def __getitem__(self, key: str) -> Any:
        if key in self.file:
            return self.file[key]
        dtype, first, shape = key.split("/")
        if dtype not in self.loaded:
            self.loaded[dtype] = self.file[dtype]
        sizes = [int(n) for n in shape.split("x")]
        return self.loaded[dtype][int(first) :][: math.prod(sizes)].reshape(sizes)


def make(case: dict[str, Any]) -> Any:
    kwargs = dict(case["kwargs"])
    if "param_idx2name" in kwargs:
        kwargs["param_idx2name"] = {int(k): v for k, v in kwargs["param_idx2name"].items()}
    names = {p["index"]: p["name"] for p in case["params"] if p["name"] is not None}
    if names:
        kwargs["param_idx2name"] = names
    if case["scheduler"]:
        kwargs["lr_scheduler"] = getattr(mxopt.lr_scheduler, case["scheduler"]["name"])(**case["scheduler"]["kwargs"])
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        optimizer = mxopt.create(case["optimizer"], **kwargs)
        for what, setter in (("lr_mult", optimizer.set_lr_mult), ("wd_mult", optimizer.set_wd_mult)):
            if case[what]:
                setter(dict(map(tuple, case[what])))  # warns of names that no parameter has
    return optimizer


def gradients(file: Any, param: dict[str, Any], steps: int) -> list[Any]:
    stacked = file[param["grad"]]
    if param["grad_rows"] is None:
        return [g.copy() for g in stacked]
    result, at = [], 0
    for rows in param["grad_rows"]:
        data = stacked[at : at + len(rows)]
        result.append(row_sparse_array((data, np.array(rows, np.int64)), shape=param["shape"]))
        at += len(rows)
    assert len(result) == steps
    return result


def flat(state: Any) -> list[np.ndarray]:
    if state is None:
        return []
    if isinstance(state, tuple | list):
        return [x for part in state for x in flat(part)]
    return [state]


def keys(state: Any) -> list[str]:
    if state is None:
        return []
    return [x for part in state for x in keys(part)] if isinstance(state, list) else [state]


@pytest.mark.parametrize("name", [name for name in FILES if name not in ("adamw", "row_sparse", "sgld")])
def test_first_steps_with_defaults_differ_by_rounding_alone(load: Any, name: str) -> None:
    """Complements such as 1 - 0.999, and bias corrections, are taken in the precision in which
    MXNet takes them."""
    file, document = load(name)
    (case,) = (c for c in document["cases"] if c["title"] == "defaults" and c["params"][0]["dtype"] == "float32")
    (param,) = case["params"]
    optimizer, weight = make(case), file[param["weight"]][0].copy()
    state = optimizer.create_state(0, weight)
    for step, grad in enumerate(gradients(file, param, case["steps"]), 1):
        optimizer.update(0, weight, grad, state)
        pairs = [(weight, param["weight"]), *zip(flat(state), keys(param["state"]), strict=True)]
        for ours, key in pairs:
            theirs = file[key][step]
            size = np.abs(theirs).max(initial=1e-30)
            assert np.abs(ours / size - theirs / size).max() < 5e-7, f"step {step}, {key}"


def tolerance(case: dict[str, Any], weight: str, array: str) -> tuple[float, float]:
    """What MXNet's own rounding leaves. `array` is the dtype compared, `weight` its parameter's."""
    if array == "float16" or (weight == "float16" and not case["kwargs"].get("multi_precision")):
        return 2e-2, 1e-2  # MXNet rounds scalars and intermediate values to half
    layerwise = case["optimizer"] in ("lars", "lamb") or case["kwargs"].get("warmup_strategy") == "lars"
    if layerwise and weight == "float16":
        return 1e-3, 5e-5  # MXNet takes the norm of the half-precision weight
    if weight == "float64" and not layerwise and case["title"] != "defaults" and case["optimizer"] != "adam":
        return 2e-7, 1e-8
    if weight == "float64":
        return 3e-5, 1e-6  # MXNet rounds hyper-parameters, norms and rates to float32
    return 3e-5, 2e-6


@pytest.mark.parametrize(("name", "number"), cases())
@pytest.mark.filterwarnings("ignore:float16 weights without")
def test_run_gives_mxnets_numbers(load: Any, name: str, number: int, monkeypatch: pytest.MonkeyPatch) -> None:
    file, document = load(name)
    case = document["cases"][number]
    optimizer = make(case)
    params, steps = case["params"], case["steps"]
    weights = [file[p["weight"]][0].copy() for p in params]
    if case["weight_storage"] == "row_sparse":
        weights = [row_sparse_array(w) for w in weights]
    grads = [gradients(file, p, steps) for p in params]
    indices = [p["index"] for p in params]
    updater = mxopt.get_updater(optimizer)
    if case["form"] == "update":
        states = [optimizer.create_state_multi_precision(i, w) for i, w in zip(indices, weights, strict=True)]
    if case["optimizer"] == "sgld":
        add_recorded_noise(monkeypatch, {p["index"]: file[p["noise"]] for p in params}, optimizer.begin_num_update + 1)
    for step in range(steps):
        now = [g[step] for g in grads]
        if case["form"] == "list":
            updater(indices, now, weights)
        elif case["form"] == "updater":
            for i, g, w in zip(indices, now, weights, strict=True):
                updater(i, g, w)
        else:
            for i, g, w, s in zip(indices, now, weights, states, strict=True):
                optimizer.update_multi_precision(i, w, g, s)
        for k, param in enumerate(params):
            where = f"{case['title']}, step {step + 1}, parameter {k}"
            compare(case, param, weights[k], file[param["weight"]][step + 1], f"{where}, weight")
            ours = flat(states[k] if case["form"] == "update" else updater.states[indices[k]])
            recorded = keys(param["state"])
            if case["optimizer"] == "lbsgd" and optimizer.batch_scale > 1:
                ours.pop()  # the sum of gradients, which MXNet keeps elsewhere
            assert len(ours) == len(recorded), where
            for n, (state, key) in enumerate(zip(ours, recorded, strict=True)):
                compare(case, param, state, file[key][step + 1], f"{where}, state {n}")
        if case["learning_rates"]:
            assert optimizer.learning_rate == pytest.approx(case["learning_rates"][step], rel=1e-12)


def compare(case: Any, param: Any, ours: Any, theirs: np.ndarray, what: str) -> None:
    relative, absolute = tolerance(case, param["dtype"], theirs.dtype.name)
    assert ours.dtype == theirs.dtype or case["optimizer"] == "test", what  # whose state MXNet keeps in float32
    np.testing.assert_allclose(
        np.asarray(ours).astype(np.float64),
        theirs.astype(np.float64),
        rtol=relative,
        atol=absolute,
        equal_nan=True,
        err_msg=what,
    )


def add_recorded_noise(monkeypatch: pytest.MonkeyPatch, noise: dict[int, np.ndarray], first: int) -> None:
    """Lets SGLD draw what MXNet drew from update `first` on, already scaled by the root of the
    rate."""

    arrays: dict[int, np.ndarray] = {}

    def tensors(self: Any, indices: Any, weights: Any, *others: Any) -> list[Tensor]:
        found = mxopt.optimizer.RuleOptimizer._tensors(self, indices, weights, *others)
        for index, tensor in zip(indices, found, strict=True):
            like = tensor.weight if tensor.master is None else tensor.master
            arrays[index] = np.zeros(like.shape, like.dtype)
            tensor.states = (arrays[index],)
        return found

    def scalars(self: Any, index: int, lr: float, t: int) -> tuple[float, ...]:
        for number, array in arrays.items():
            array[...] = noise[number][t - first].reshape(array.shape)
        return lr, 1.0

    rule = Rule("sgld_recorded", ("noise",), sgd.sgld.stages, lazy=False)
    monkeypatch.setattr(mxopt.optimizer.SGLD, "rule", rule)
    monkeypatch.setattr(mxopt.optimizer.SGLD, "_tensors", tensors)
    monkeypatch.setattr(mxopt.optimizer.SGLD, "scalars", scalars)


@pytest.mark.parametrize("name", ["lamb", "lans"])
def test_a_bound_below_0_is_none(name: str) -> None:
    """-1 is the default of MXNet's operators; as a limit it turned the steps round."""
    weights = []
    for bound in (None, 0, -1.0):
        weight = np.ones(3, np.float32)
        updater = mxopt.get_updater(mxopt.create(name, learning_rate=0.1, upper_bound=bound, lower_bound=bound))
        updater(0, np.full(3, 0.5, np.float32), weight)
        weights.append(weight.tolist())
    assert weights[0] == weights[1] == weights[2] != [1, 1, 1]
