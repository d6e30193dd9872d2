"""`state_dtype`: which states may be kept in bfloat16, and what is said of the others."""

from __future__ import annotations

import ml_dtypes
import numpy as np
import pytest
from table import ROWS, Row

import mxopt
from mxopt.errors import ArgumentError, ArrayTypeError

BFLOAT16 = np.dtype(ml_dtypes.bfloat16)

WHY = {
    "rmsprop": r"RMSProp: its states \(mean_square, mean, velocity\) can't .* their difference",
    "ftrl": r"Ftrl: its states \(z, n\) can't be kept in bfloat16: the weight is made of them",
    "ftml": "FTML: .* the weight is made of them",
    "dcasgd": "DCASGD: .* a copy of the weight",
    "test": "Test: .* a copy of the weight",
    "groupadagrad": "GroupAdaGrad: .* next to no memory",
    "adafactor": "Adafactor: .* one number for each row and column",
}


@pytest.mark.parametrize("row", [row for row in ROWS if row.narrow], ids=str)
def test_states_that_may_be_narrow(row: Row) -> None:
    updater = mxopt.get_updater(row.make(state_dtype="bfloat16"))
    weight = np.ones((3, 4), np.float32)
    for _ in range(2):  # of which LBSGD takes both for one step
        updater(0, np.ones((3, 4), np.float32), weight)
    states = updater.optimizer.state_arrays(updater.states[0])  # type: ignore[attr-defined]
    assert {x.dtype for x in states[: len(row.rules[0].states)]} == ({BFLOAT16} if row.rules[0].states else set())
    assert np.isfinite(weight).all()
    assert (weight != 1).all()


@pytest.mark.parametrize("row", [row for row in ROWS if not row.narrow], ids=str)
def test_states_that_may_not(row: Row) -> None:
    with pytest.raises(ArgumentError, match=WHY[row.name]):
        row.make(state_dtype="bfloat16")
    row.make(state_dtype="float32")


def test_an_option_that_is_changed_later_is_looked_at_too() -> None:
    optimizer = mxopt.create("rmsprop", state_dtype="bfloat16")
    optimizer.centered = True
    with pytest.raises(ArgumentError, match="can't be kept in bfloat16"):
        optimizer.create_state(0, np.ones(3, np.float32))


def test_float64_weights_have_states_of_their_own() -> None:
    updater = mxopt.get_updater(mxopt.create("adam", state_dtype="bfloat16"))
    weight = np.ones(3)
    with pytest.raises(ArrayTypeError, match="parameter 0: a float64 weight can't have states of bfloat16"):
        updater(0, np.ones(3), weight)
    assert (weight == 1).all()
    assert not updater.states
    assert updater.optimizer.count(0) is None
    plain = mxopt.get_updater(mxopt.create("sgd", state_dtype="bfloat16"))  # without states
    with pytest.raises(ArrayTypeError, match="a float64 weight"):
        plain(0, np.ones(3), weight)


@pytest.mark.parametrize("wrong", ["float16", "bf16", 16, np.float32])
def test_other_dtypes_are_refused(wrong: object) -> None:
    with pytest.raises(ArgumentError, match="Adam: state_dtype must be 'bfloat16' or 'float32' or None, got"):
        mxopt.create("adam", state_dtype=wrong)  # type: ignore[call-overload]


def test_it_is_for_rules() -> None:
    class Own(mxopt.Optimizer):
        """Without a rule."""

    Own()
    with pytest.raises(ArgumentError, match="Own: state_dtype is for optimizers that are a rule"):
        Own(state_dtype="bfloat16")


def test_a_bfloat16_weight_without_master_warns_of_nearest_only() -> None:
    weight = np.ones(3, BFLOAT16)
    with pytest.warns(UserWarning, match="to nearest: state_dtype='bfloat16' rounds stochastically"):
        mxopt.create("sgd").create_state_multi_precision(0, weight)
    mxopt.create("sgd", state_dtype="bfloat16").create_state_multi_precision(0, weight)
    with pytest.warns(UserWarning, match="float16 weights without multi_precision"):
        mxopt.create("sgd", state_dtype="bfloat16").create_state_multi_precision(0, weight.astype(np.float16))


def test_runs_repeat_and_another_seed_rounds_otherwise() -> None:
    def trained(**options: int) -> np.ndarray:
        updater = mxopt.get_updater(mxopt.create("adam", state_dtype="bfloat16", **options))
        weight = np.linspace(-1, 1, 1000, dtype=np.float32)
        for _ in range(3):
            updater(0, weight * weight, weight)
        return weight

    assert (trained() == trained(seed=0)).all()
    assert (trained(seed=3) == trained(seed=3)).all()
    assert (trained() != trained(seed=3)).any()


def test_a_sum_of_bfloat16_gradients_keeps_what_is_added() -> None:
    """LBSGD averages over calls: 1 + 255 / 512, one 512th at a time, would stay 1 in bfloat16."""
    optimizer = mxopt.create("lbsgd", learning_rate=1.0, batch_scale=256, warmup_epochs=0, state_dtype="bfloat16")
    updater = mxopt.get_updater(optimizer)
    weight = np.zeros(8, BFLOAT16)
    for call in range(256):
        updater(0, np.full(8, 1 if call == 0 else 2**-9, BFLOAT16), weight)
    # the growth of the rate without a warm-up is batch_scale, which the mean is divided by
    assert (weight == np.array(-(1 + 255 / 512)).astype(BFLOAT16)).all()


@pytest.mark.parametrize("seed", [-1, 1.5, True, 2**63, "1"])
def test_a_seed_is_a_whole_number_that_can_be_saved(seed: object) -> None:
    weight = np.ones(2, np.float32)
    for make in (
        lambda: mxopt.create("adam", state_dtype="bfloat16", seed=seed),  # type: ignore[call-overload]
        lambda: mxopt.create("sgld", seed=seed),  # type: ignore[call-overload]
        lambda: mxopt.experimental.optim.Adam([weight], seed=seed),  # type: ignore[arg-type]
        lambda: mxopt.nn.Adam([weight], seed=seed),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="seed must be"):
            make()
