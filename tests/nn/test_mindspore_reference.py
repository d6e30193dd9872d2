"""Every recorded run of MindSpore's optimizers, repeated: the parameters after every step."""

from __future__ import annotations

import inspect
from typing import Any

import numpy as np
import pytest
from nn_runs import CASES, flat, run
from recorded import arrays, decode, document, exceptions

import mxopt
from mxopt import nn
from mxopt.parameter import Parameter

BAD = [case for case in document("errors")["cases"] if case["where"] == "nn"]
SIGNATURES = document("signatures")["classes"] | {
    name: {"constructor": parameters} for name, parameters in document("signatures")["functions"].items()
}
OURS = {name.rpartition(".")[2]: s for name, s in SIGNATURES.items() if name.startswith("mindspore.nn.")}


@pytest.mark.parametrize("name", CASES)
def test_run_gives_the_expected_parameters_after_every_step(name: str) -> None:
    for step, (_, parameters) in enumerate(run(CASES[name])):
        for source, tolerance in CASES[name]["expected"].items():
            expected = arrays("nn")[f"{name}/{source}"][step]
            np.testing.assert_allclose(flat(parameters), expected, rtol=0, atol=tolerance, err_msg=f"{source}, {step}")


WITH_STATES = [name for name, case in CASES.items() if "states" in case and not case["departure"]]


@pytest.mark.parametrize("name", WITH_STATES)
def test_states_have_mindspores_names_and_values_after_every_step(name: str) -> None:
    tolerance = 2e-3 if "float16" in name else 2e-6
    for step, (optimizer, parameters) in enumerate(run(CASES[name])):
        order = [[id(p) for p in optimizer.parameters].index(id(p)) for p in parameters]
        for state in set(CASES[name]["states"]["mindspore"]) & set(vars(optimizer)):
            ours, theirs = getattr(optimizer, state), arrays("nn")[f"{name}/mindspore/{state}"][step]
            if (optimizer.__class__, state) == (nn.ASGD, "eta"):
                np.testing.assert_allclose([ours[k] for k in order], theirs, rtol=1e-6)
                continue
            sign = -1 if name.startswith("RMSProp-centered") and state == "moment" else 1  # the core's has the other
            bound = tolerance * max(1, np.abs(theirs).max())
            np.testing.assert_allclose(sign * flat([ours[k] for k in order]), theirs, rtol=0, atol=bound, err_msg=state)


@pytest.mark.parametrize("name", CASES)
def test_engines_give_the_same_bits(name: str) -> None:
    compiled = [flat(parameters) for _, parameters in run(CASES[name])]
    with mxopt.use_engine("numpy"):
        reference = [flat(parameters) for _, parameters in run(CASES[name])]
    np.testing.assert_array_equal(compiled, reference)


def test_every_case_of_the_document_is_taken() -> None:
    assert {case["class"] for case in CASES.values()} == set(OURS) & set(vars(nn)) - NOT_OPTIMIZERS


NOT_OPTIMIZERS = {"Optimizer"} | {name for name in OURS if name.endswith(("LR", "_lr"))}


@pytest.mark.parametrize("name", OURS)
def test_signature_is_mindspores(name: str) -> None:
    def described(function: Any) -> list[tuple[Any, ...]]:
        return [
            (p.name, p.kind.name) if p.default is p.empty else (p.name, p.kind.name, p.default)
            for p in inspect.signature(function).parameters.values()
            if p.name not in ("self", "state_dtype", "seed")  # ours, by keyword only
        ]

    def wanted(parameters: list[list[Any]]) -> list[tuple[Any, ...]]:
        return [tuple(p[:2]) if len(p) == 2 else (*p[:2], default(p[2])) for p in parameters]

    def default(value: Any) -> Any:
        if isinstance(value, dict) and "$function" in value:
            return getattr(nn.layerwise, value["$function"])
        return decode(value)

    ours = getattr(nn, name)
    assert described(ours) == wanted(OURS[name]["constructor"])
    for method, parameters in OURS[name].get("methods", {}).items():
        assert described(getattr(ours, method)) == [("self", "POSITIONAL_OR_KEYWORD"), *wanted(parameters)][1:]
    for attribute in OURS[name].get("properties", ()):
        assert isinstance(getattr(ours, attribute), property)


def arguments_of(case: dict[str, Any]) -> tuple[Any, dict[str, Any]]:
    one = Parameter(np.ones(3, np.float32), "p0")
    options = {key: decode(value) for key, value in case["options"].items() if key not in ("parameters", "optimizer")}
    if case["name"] == "LARS":
        return 3 if case["options"].get("optimizer") == "number" else nn.SGD([one], learning_rate=0.1), options
    given: dict[str, Any] = {
        "one": [one],
        "none": None,
        "empty": [],
        "number": 3,
        "numbers": [1, 2],
        "twice": [{"params": [one]}, {"params": [one]}],
        "unknown key": [{"params": [one], "momentums": 0.1}],
        "order and more": [{"params": [one]}, {"order_params": [one], "lr": 0.1}],
    }
    return given[case["options"].get("parameters", "one")], options


@pytest.mark.parametrize("case", BAD, ids=lambda c: f"{c['name']}-{c['options']}")
def test_bad_arguments_raise_what_is_documented(case: dict[str, Any]) -> None:
    first, options = arguments_of(case)
    if not case["expected"]:
        getattr(nn, case["name"])(first, **options)
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the types follow
        getattr(nn, case["name"])(first, **options)
    for kind in exceptions(case["expected"]):
        assert isinstance(caught.value, kind)
