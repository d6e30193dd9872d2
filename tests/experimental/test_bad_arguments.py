"""Every recorded bad argument of `experimental.optim` and its schedules; and the signatures."""

from __future__ import annotations

import builtins
import inspect
import json
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from recorded import decode, document

from mxopt.experimental import optim

PACKAGE = "mindspore.experimental.optim."
CASES = [case for case in document("errors")["cases"] if case["where"].startswith("experimental")]
SIGNATURES = {
    name.removeprefix(PACKAGE): signature
    for name, signature in document("signatures")["classes"].items()
    if name.startswith(PACKAGE)
}


def weight() -> np.ndarray:
    return np.zeros(3, np.float32)


def parameters(kind: str | None) -> Any:
    w = weight()
    return {
        None: [w],
        "none": None,
        "empty": [],
        "number": 3,
        "numbers": [1, 2],
        "set": [{"params": {1, 2}}],
        "twice": [{"params": [w]}, {"params": [w]}],
    }[kind]


def call(case: dict[str, Any]) -> Callable[[], Any]:
    options = decode(case["options"])
    if case["where"] == "experimental.optim":
        params = parameters(options.pop("parameters", None))
        return lambda: getattr(optim, case["name"])(params, **options)
    optimizer = 3 if options.pop("optimizer", None) == "number" else optim.SGD([weight()], lr=0.1)
    return lambda: getattr(optim.lr_scheduler, case["name"])(optimizer, **options)


@pytest.mark.parametrize("case", CASES, ids=lambda case: f"{case['name']}-{json.dumps(case['options'])}")
def test_a_bad_argument_raises_the_documented_types_and_a_good_one_nothing(case: dict[str, Any]) -> None:
    make = call(case)
    if not case["expected"]:
        make()
        return
    with pytest.raises(Exception) as caught:  # noqa: PT011 - the types are looked at below
        make()
    for name in case["expected"]:
        assert isinstance(caught.value, getattr(builtins, name)), repr(caught.value)
    assert str(caught.value)


@pytest.mark.parametrize("name", SIGNATURES)
def test_arguments_have_the_documented_names_order_and_defaults(name: str) -> None:
    found: Any = optim
    for part in name.split("."):
        found = getattr(found, part)
    compare(found.__init__, SIGNATURES[name]["constructor"])
    for method, recorded in SIGNATURES[name]["methods"].items():
        compare(getattr(found, method), recorded)


def compare(function: Callable[..., Any], recorded: list[list[Any]]) -> None:
    """The recorded arguments are the first; what mxopt has besides is by keyword only."""
    ours = list(inspect.signature(function).parameters.values())[1:]
    known = {p.name for p in ours}
    assert [p.name for p in ours if p.kind is not p.KEYWORD_ONLY] == [
        name for name, kind, *_ in recorded if kind != "KEYWORD_ONLY"
    ]
    for name, kind, *default in recorded:
        assert name in known
        parameter = next(p for p in ours if p.name == name)
        assert parameter.kind.name == kind
        if default:
            assert parameter.default == decode(default[0])
        elif kind != "VAR_POSITIONAL":
            assert parameter.default is parameter.empty


@pytest.mark.parametrize("option", [{"lr": True}, {"eps": True}, {"weight_decay": np.True_}, {"betas": (0.5, False)}])
def test_true_and_false_are_no_numbers(option: dict[str, Any]) -> None:
    for make in (lambda: optim.Adam([weight()], **option), lambda: optim.Adam([{"params": [weight()], **option}])):
        with pytest.raises(TypeError, match="must be a number, got"):
            make()  # type: ignore[no-untyped-call]


def test_things_in_the_place_of_lists_and_states_are_told_apart() -> None:
    adam: Any = optim.Adam([np.zeros(2)])
    with pytest.raises(TypeError, match=r"SequentialLR: schedulers must be a list, got Adam"):
        optim.lr_scheduler.SequentialLR(adam, adam, [1])
    with pytest.raises(TypeError, match=r"SequentialLR: milestones must be a list, got 1"):
        optim.lr_scheduler.SequentialLR(adam, [], 1)  # type: ignore[arg-type]
    with pytest.raises(ValueError, match=r"got 'adam\.states': of a file it is mxopt\.document\.load_document\("):
        adam.load_state_dict("adam.states")
