"""The moving average of weights: its numbers, the same bits on every engine, what it leaves alone,
saved and loaded."""

from __future__ import annotations

import math
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import array, assert_same, laid_out

import mxopt
from mxopt import ExponentialMovingAverage, Parameter
from mxopt.engine import native
from mxopt.engine.choice import EngineName
from mxopt.sparse import zeros

SHAPES = [(5,), (70_001,), (3, 7), (), (0, 2)]


def parameters(dtype: str, seed: int = 0) -> list[Parameter]:
    rng = np.random.default_rng(seed)
    return [Parameter(array(rng, shape, dtype), f"p{k}") for k, shape in enumerate(SHAPES)]


def move(params: list[Parameter], rng: np.random.Generator) -> None:
    """What a step does to weights."""
    for param in params:
        param.value[...] = array(rng, param.shape, str(param.dtype))


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_it_moves_by_a_share_of_the_way(dtype: str) -> None:
    params, rng = parameters(dtype), np.random.default_rng(1)
    average = ExponentialMovingAverage(params, decay=0.99)
    wide = np.float64 if dtype == "float64" else np.float32
    expected = [p.value.astype(wide) for p in params]
    assert_same(average.averages.values(), expected)
    for _ in range(3):
        move(params, rng)
        average.update()
        expected = [
            np.asarray(e + wide(1 - 0.99) * (p.value.astype(wide) - e)) for e, p in zip(expected, params, strict=True)
        ]
        assert_same(average.averages.values(), expected)


def test_a_weight_that_stays_is_its_own_average() -> None:
    params = parameters("float32")
    average = ExponentialMovingAverage(params, decay=0.9999)
    for _ in range(5):
        average.update()
    assert_same(average.averages.values(), [p.value for p in params])


def test_the_same_bits_on_every_engine_and_with_any_number_of_threads(
    monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    found = []
    engine: EngineName
    for engine, threads in (("numpy", 1), ("llvm", 1), ("llvm", 3)):
        mxopt.set_num_threads(threads)
        params = [*parameters("float32"), Parameter(array(np.random.default_rng(2), (9,), "bfloat16"), "narrow")]
        start = array(np.random.default_rng(3), (30, 4), "float32")
        params += [Parameter(laid_out(start, how), how) for how in ("F", "strided")]
        average, rng = ExponentialMovingAverage(params, decay=0.9), np.random.default_rng(4)
        with mxopt.use_engine(engine):
            for _ in range(3):
                move(params, rng)
                average.update()
        found.append(list(average.averages.values()))
    for other in found[1:]:
        assert_same(other, found[0])


def test_applied_gives_back_what_was_there() -> None:
    params, rng = [*parameters("float32"), *parameters("float16")[:1]], np.random.default_rng(5)
    params[-1].name = "narrow"
    average = ExponentialMovingAverage(params, decay=0.5)
    move(params, rng)
    average.update()
    before, kept = [p.value.copy() for p in params], [a.copy() for a in average.averages.values()]

    def evaluate() -> None:
        with average.applied():
            assert_same([p.value for p in params[:-1]], kept[:-1])
            assert params[-1].value.tolist() == kept[-1].astype(np.float16).tolist()
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        evaluate()
    assert_same([p.value for p in params], before)
    assert_same(average.averages.values(), kept)


def test_a_run_is_saved_and_resumed_bit_for_bit() -> None:
    params, rng = parameters("bfloat16"), np.random.default_rng(6)
    average = ExponentialMovingAverage(params, decay=0.9)
    move(params, rng)
    average.update()
    resumed = ExponentialMovingAverage(params, decay=0.9)
    resumed.update()  # so that its arrays are bound already
    resumed.set_states(average.get_states())
    move(params, rng)
    for one in (average, resumed):
        one.update()
    assert_same(resumed.averages.values(), average.averages.values())


def states(**arrays: np.ndarray) -> bytes:
    return ExponentialMovingAverage(dict(arrays)).get_states()


@pytest.mark.parametrize(
    ("saved", "match"),
    [
        (b"", "no mxopt states"),
        (mxopt.get_updater(mxopt.create("sgd")).get_states(), "no document of averages"),
        (states(w=np.ones(3, np.float32)), r"'w': .*\(3,\).*here .*\(2,\)"),
        (states(w=np.ones(2)), "float64"),
        (states(v=np.ones(2, np.float32)), "'v'"),
        (states(), "'none'"),
    ],
)
def test_states_that_do_not_fit_change_nothing(saved: bytes, match: str) -> None:
    average = ExponentialMovingAverage({"w": np.ones(2, np.float32)})
    with pytest.raises(mxopt.errors.StatesError, match=match):
        average.set_states(saved)
    assert average.averages["w"].tolist() == [1, 1]


REFUSED: dict[str, tuple[Any, str]] = {
    "a decay of 1": (lambda: ExponentialMovingAverage([], 1), "below 1"),
    "a negative decay": (lambda: ExponentialMovingAverage([], -0.1), "below 1"),
    "a NaN": (lambda: ExponentialMovingAverage([], math.nan), "below 1"),
    "a text": (lambda: ExponentialMovingAverage([], "0.9"), "below 1"),  # type: ignore[arg-type]
    "no list": (lambda: ExponentialMovingAverage(3), "list or dict"),  # type: ignore[arg-type]
    "whole numbers": (lambda: ExponentialMovingAverage([np.arange(3)]), "'0': the value must be of float16"),
    "rows": (lambda: ExponentialMovingAverage([zeros("row_sparse", (4, 2))]), "row-sparse"),
    "a name twice": (
        lambda: ExponentialMovingAverage([Parameter(np.ones(1), "a"), Parameter(np.ones(1), "a")]),
        "two parameters are called 'a'",
    ),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_cannot_be_is_refused(name: str) -> None:
    call, match = REFUSED[name]
    with pytest.raises(ValueError, match=match):
        call()


def test_it_follows_a_trainer() -> None:
    weight = Parameter(np.zeros(1, ml_dtypes.bfloat16))
    trainer = mxopt.Trainer([weight], "sgd", {"learning_rate": 1.0, "multi_precision": True})
    average = ExponentialMovingAverage([weight], decay=0.75)
    for _ in range(2):
        weight.grad = np.full(1, -4, ml_dtypes.bfloat16)
        trainer.step(1)
        average.update()
    assert average.averages["0"].tolist() == [0.75 * 1 + 0.25 * 8]  # after 4, then 8
