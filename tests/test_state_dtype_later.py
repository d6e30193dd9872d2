"""`state_dtype` and `seed` that are set after construction: heard, or refused in words with nothing
changed."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

from functools import partial
from typing import Any

import numpy as np
import pytest

from mxopt import create, get_updater, nn, use_engine
from mxopt.errors import ArgumentError, ArrayTypeError
from mxopt.experimental import optim


def ones(size: int) -> np.ndarray:
    return np.ones(size, np.float32)


def stepping(family: str, **options: Any) -> tuple[Any, np.ndarray, Any]:
    """An optimizer, its weight, and a function that makes a step."""
    weight = ones(500)
    if family == "create":
        updater = get_updater(create("adam", **options))
        return updater.optimizer, weight, partial(updater, 0, ones(500), weight)
    if family == "lists":
        updater, weights = get_updater(create("adam", **options)), [weight, ones(3)]
        return updater.optimizer, weight, lambda: updater([0, 1], [ones(500), ones(3)], weights)
    optimizer = (optim if family == "experimental" else nn).Adam([weight], **options)
    return optimizer, weight, partial(optimizer, (ones(500),))


families = pytest.mark.parametrize("family", ["create", "lists", "experimental", "nn"])


@families
@pytest.mark.parametrize(
    ("first", "later", "says"), [(None, "bfloat16", "mean is of float32"), ("bfloat16", None, "can't have mean of bf")]
)
def test_a_state_dtype_that_is_set_later_does_not_go_unheard(family: str, first: Any, later: Any, says: str) -> None:
    """What was prepared went on with the dtype before, in silence."""
    optimizer, weight, step = stepping(family, state_dtype=first)
    step()
    before = weight.copy()
    with pytest.raises(ArgumentError, match="Adam: state_dtype must be"):
        optimizer.state_dtype = "float16"
    optimizer.state_dtype = later
    with pytest.raises(ArrayTypeError, match=says):
        step()
    assert (weight == before).all()
    optimizer.state_dtype = first
    step()
    _, straight, again = stepping(family, state_dtype=first)
    again()
    again()
    assert (weight == straight).all()


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize("wrong", [-1, 2**63, 1.5, "1"], ids=repr)
@families
def test_so_is_a_seed_that_no_document_could_keep(family: str, wrong: Any, engine: Any) -> None:
    with use_engine(engine):
        optimizer, weight, step = stepping(family, state_dtype="bfloat16", seed=3)
        step()
        before, optimizer.seed = weight.copy(), wrong
        with pytest.raises(ArgumentError, match="Adam: seed must be "):
            step()
        assert (weight == before).all()
        _, straight, again = stepping(family, state_dtype="bfloat16", seed=3)
        again()
        optimizer.seed = np.int64(3)  # NumPy's are as good
        step()
        again()
        assert (weight == straight).all()
