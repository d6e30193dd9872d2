"""The base class: learning rates, multipliers, update counts."""

from __future__ import annotations

import copy
import gc
import pickle
import sys
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any, ClassVar

import ml_dtypes
import numpy as np
import pytest
from table import ROWS

import mxopt
from mxopt.lr_scheduler import FactorScheduler
from mxopt.optimizer import Optimizer

NAMES = {0: "fc_weight", 1: "fc_bias", 2: "bn_gamma", 3: "bn_beta", 4: "plain"}


def one(value: float = 1.0) -> np.ndarray:
    return np.full(1, value, np.float32)


def moved(optimizer: Optimizer, index: Any, weight: float = 0.0) -> float:
    """By how much a weight moves against a gradient of 1."""
    w = one(weight)
    mxopt.get_updater(optimizer)(index, one(), w)
    return weight - float(w[0])


# The learning rate.


def test_the_learning_rate_can_be_set() -> None:
    optimizer = mxopt.create("sgd", learning_rate=0.5)
    optimizer.set_learning_rate(0.25)
    assert optimizer.learning_rate == 0.25
    assert moved(optimizer, 0) == 0.25
    with pytest.raises(ValueError, match="learning_rate is NaN"):
        optimizer.set_learning_rate(float("nan"))


def test_set_learning_rate_is_refused_where_a_scheduler_gives_it() -> None:
    optimizer = mxopt.create("sgd", lr_scheduler=FactorScheduler(1, base_lr=0.5))
    with pytest.raises(UserWarning, match="lr_scheduler"):
        optimizer.set_learning_rate(0.25)
    assert optimizer.learning_rate == 0.5


def test_a_learning_rate_overwrites_the_schedulers_with_a_warning() -> None:
    schedule = FactorScheduler(1, base_lr=0.5)
    with pytest.warns(UserWarning, match="base_lr"):
        mxopt.create("sgd", learning_rate=0.25, lr_scheduler=schedule)
    assert schedule.base_lr == 0.25
    mxopt.create("sgd", learning_rate=0.25, lr_scheduler=schedule)


def test_set_lr_scale_raises() -> None:
    with pytest.raises(DeprecationWarning, match="set_lr_mult"):
        mxopt.create("sgd").set_lr_scale({0: 0.5})


def own_rate(name: str) -> mxopt.optimizer.Optimizer:
    """An optimizer whose rates are its own way's, times `rate`."""

    class Own(type(mxopt.create(name))):  # type: ignore[misc]
        rate = 1.0

        def _get_lr(self, index: Any) -> Any:
            return self.rate * super()._get_lr(index)

    return Own()


@pytest.mark.parametrize("name", ["ftml", "ftrl", "sgld"])
def test_a_negative_learning_rate_is_refused_where_it_makes_no_sense(name: str) -> None:
    with pytest.raises(ValueError, match="learning rate can't be negative"):
        mxopt.create(name, learning_rate=-0.1)
    optimizer = mxopt.create(name)
    with pytest.raises(ValueError, match="learning rate can't be negative"):
        optimizer.set_learning_rate(-0.1)
    for change in (
        lambda o: setattr(o, "lr", -0.5),
        lambda o: o.set_lr_mult({0: -1.0}),
        lambda o: setattr(o, "lr_scheduler", lambda n: 1.5 - n),
        lambda o: setattr(o, "rate", -0.5),
    ):
        optimizer = own_rate(name)
        updater, weight = mxopt.get_updater(optimizer), one()
        updater(0, one(), weight)
        change(optimizer)
        before = weight.copy(), updater.get_states()
        for arguments in ((0, one(), weight), ([0, 1], [one(), one()], [weight, one()])):
            with pytest.raises(ValueError, match="learning rate of parameter 0 can't be negative"):
                updater(*arguments)
        assert (weight, updater.get_states()) == before


def test_a_negative_learning_rate_is_ascent_elsewhere() -> None:
    for name in ("sgd", "adam", "nag", "lamb"):
        with pytest.warns(UserWarning, match=r"-0.5 climbs the gradient"):
            optimizer = mxopt.create(name, learning_rate=-0.5)
        assert moved(optimizer, 0) < 0
        with pytest.warns(UserWarning, match="climbs the gradient"):
            optimizer.set_learning_rate(-0.25)


# Multipliers.


def test_lr_mult_by_index_and_by_name() -> None:
    optimizer = mxopt.create("sgd", learning_rate=1.0, param_idx2name=NAMES)
    optimizer.set_lr_mult({"fc_weight": 0.5, 1: 0.25, "fc_bias": 3.0})
    assert [moved(optimizer, i) for i in NAMES] == [0.5, 0.25, 1.0, 1.0, 1.0]
    assert moved(optimizer, "unknown") == 1.0
    optimizer.set_lr_mult({})
    assert moved(optimizer, 0) == 1.0


def test_weight_decay_is_off_for_names_that_do_not_end_in_weight_or_gamma() -> None:
    optimizer = mxopt.create("sgd", learning_rate=1.0, wd=0.5, param_idx2name=NAMES)
    assert [moved(optimizer, i, weight=1.0) - 1 for i in NAMES] == [0.5, 0, 0.5, 0, 0]
    optimizer.set_wd_mult({"fc_bias": 0.5, 0: 2.0, 2: 0.0})
    assert [moved(optimizer, i, weight=1.0) - 1 for i in NAMES] == [1.0, 0.25, 0, 0, 0]
    unnamed = mxopt.create("sgd", learning_rate=1.0, wd=0.5)
    assert moved(unnamed, 1, weight=1.0) == 1.5


def test_multipliers_that_are_not_numbers_are_refused() -> None:
    optimizer = mxopt.create("sgd", param_idx2name=NAMES)
    before = dict(optimizer.lr_mult), dict(optimizer.wd_mult)
    for method, name in ((optimizer.set_lr_mult, "lr_mult"), (optimizer.set_wd_mult, "wd_mult")):
        with pytest.raises(ValueError, match=f"{name} of 'fc_bias'"):
            method({"fc_weight": 0.5, "fc_bias": float("nan")})
    assert (optimizer.lr_mult, optimizer.wd_mult) == before


def test_param_dict_counts_before_all_others() -> None:
    parameter = SimpleNamespace(lr_mult=0.25, wd_mult=4.0)
    optimizer = mxopt.create("sgd", learning_rate=1.0, wd=0.5, param_idx2name=NAMES, param_dict={0: parameter})
    with pytest.warns(UserWarning, match="set_lr_mult: parameter 0 has a multiplier of its own, .* set its lr_mult"):
        optimizer.set_lr_mult({0: 9.0, "fc_weight": 9.0, 1: 0.5})
    with pytest.warns(UserWarning, match="set its wd_mult"):
        optimizer.set_wd_mult({0: 9.0})
    assert moved(optimizer, 0, weight=1.0) == 0.25 * (1 + 4 * 0.5)
    assert moved(optimizer, 1, weight=1.0) == 0.5
    parameter.lr_mult = 1.0
    assert moved(optimizer, 0, weight=1.0) == 3.0


@pytest.mark.parametrize("what", ["lr_mult", "wd_mult"])
def test_a_multiplier_of_a_name_that_no_parameter_has_is_warned_of(what: str) -> None:
    named = [
        mxopt.create("sgd", param_idx2name=NAMES),
        mxopt.Trainer([mxopt.Parameter(np.ones(1), "fc_weight")], "sgd").optimizer,
    ]
    for optimizer in named:
        with pytest.warns(
            UserWarning, match=f"set_{what}: no parameter is called 'fc_wieght': did you mean 'fc_weight'"
        ):
            getattr(optimizer, f"set_{what}")({"fc_wieght": 2.0})
    nameless = mxopt.create("sgd")
    getattr(nameless, f"set_{what}")({"w": 0.5})  # it may be an index
    with pytest.raises(TypeError, match="takes a dict"):
        getattr(nameless, f"set_{what}")([("w", 0.5)])
    assert getattr(nameless, what) == {"w": 0.5}


class Unbound:
    """Says of itself that it is trained, as a parameter of PyTorch's does."""

    requires_grad = True


def test_what_is_called_with_the_wrong_things_says_what_to_write() -> None:
    one = np.ones(2, np.float32)
    optimizer = mxopt.create("sgd")
    updater = mxopt.get_updater(optimizer)
    with pytest.raises(TypeError, match=r"SGD isn't called: mxopt.get_updater"):
        optimizer(0, one, one)
    with pytest.raises(TypeError, match=r"\(index, grad, weight\): the index must be a number or a text, got ndarray"):
        updater(one, one, 0)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="a list of gradients and a list of weights, got list and int"):
        updater([0, 1], [one, one], 2)  # type: ignore[arg-type]
    with pytest.raises(TypeError, match="needs an optimizer, as"):
        mxopt.get_updater("sgd")  # type: ignore[arg-type]
    parameter = mxopt.Parameter(one)
    for call in (
        lambda: updater(0, parameter, one.copy()),
        lambda: updater([0], [parameter], [one.copy()]),
        lambda: optimizer.update(0, one.copy(), parameter, None),
        lambda: updater(0, Unbound(), one.copy()),  # type: ignore[arg-type]
    ):
        with pytest.raises(ValueError, match="the gradient is a parameter, and the weight is none"):
            call()  # type: ignore[no-untyped-call]
    assert (optimizer.num_update, updater.states, one.tolist()) == (0, {}, [1, 1])
    for schedule in (0.1, mxopt.lr_scheduler.FactorScheduler):
        with pytest.raises(TypeError, match="lr_scheduler must be a schedule"):
            mxopt.create("sgd", lr_scheduler=schedule)  # type: ignore[arg-type]


def test_multipliers_are_taken_from_a_symbol() -> None:
    class Symbol:
        """What MXNet's Symbol says of its arguments."""

        def attr_dict(self) -> dict[str, dict[str, str]]:
            return {"fc_weight": {"__lr_mult__": "0.5", "__wd_mult__": "2.0"}, "other": {"__lr_mult__": "9"}}

        def list_arguments(self) -> list[str]:
            return ["fc_weight", "fc_bias"]

    optimizer = mxopt.create("sgd", learning_rate=1.0, wd=0.5, param_idx2name=NAMES, sym=Symbol())
    assert optimizer.lr_mult == {"fc_weight": 0.5}
    assert optimizer.wd_mult["fc_weight"] == 2.0
    assert moved(optimizer, 0, weight=1.0) == 1.0
    optimizer.set_lr_mult({"fc_weight": 0.25})
    assert optimizer.lr_mult == {"fc_weight": 0.25}


def test_lists_have_the_multipliers_of_single_calls() -> None:
    for row in ROWS:
        results = []
        for as_list in (False, True):
            optimizer = row.make(param_idx2name=NAMES)
            optimizer.set_lr_mult({1: 0.5, "bn_gamma": 2.0})
            updater, weights = mxopt.get_updater(optimizer), [np.full(3, 0.5, np.float32) for _ in NAMES]
            for _ in range(2):
                grads = [np.full(3, 0.25, np.float32) for _ in NAMES]
                if as_list:
                    updater(list(NAMES), grads, weights)
                else:
                    for i, g, w in zip(NAMES, grads, weights, strict=True):
                        updater(i, g, w)
            results.append(np.stack(weights))
        assert np.array_equal(*results), row  # type: ignore[arg-type]


# Counts.


def test_updates_are_counted_for_each_index() -> None:
    updater = mxopt.get_updater(mxopt.create("adam", begin_num_update=5))
    optimizer = updater.optimizer
    assert optimizer.num_update == optimizer.begin_num_update == 5
    for index in (0, 0, "b", 0):
        updater(index, one(), one())
    assert optimizer._index_update_count == {0: 8, "b": 6}
    assert optimizer.num_update == 8


def test_contexts_count_apart_and_share_the_number_of_updates() -> None:
    updater = mxopt.get_updater(mxopt.create("sgd"))
    optimizer = updater.optimizer
    for device, times in ((0, 2), (1, 3), (0, 1)):
        optimizer._set_current_context(device)
        for _ in range(times):
            updater(0, one(), one())
    assert optimizer._all_index_update_counts == {0: {0: 3}, 1: {0: 3}}
    assert optimizer.num_update == 3


def test_indices_may_be_bytes_as_mxnets_store_has_them() -> None:
    updater = mxopt.get_updater(mxopt.create("adam"))
    updater(b"w", one(), one())
    updater(["w", b"v"], [one(), one()], [one(), one()])
    assert list(updater.states) == ["w", "v"]


def test_the_aggregation_size(monkeypatch: pytest.MonkeyPatch) -> None:
    calls: list[int] = []

    class Counting(mxopt.optimizer.SGD):
        """Says how long its lists are."""

        def update_multi_precision(self, index: Any, *arguments: Any) -> None:
            calls.append(len(index))
            super().update_multi_precision(index, *arguments)

    for size, lengths in (("", [7]), ("3", [3, 3, 1]), ("1", [1] * 7)):
        monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", size)
        calls.clear()
        mxopt.get_updater(Counting())(list(range(7)), [one() for _ in range(7)], [one() for _ in range(7)])
        assert calls == lengths
    for size in ("0", "-3"):  # as in MXNet: no lists
        monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", size)
        for name in ("sgd", "lamb"):
            updater, weights = mxopt.get_updater(mxopt.create(name)), [np.ones(2, np.float32) for _ in range(3)]
            updater([0, 1, 2], [np.ones(2, np.float32)] * 3, weights)
            assert updater.optimizer.num_update == 1
            assert all((w < 1).all() for w in weights)
    monkeypatch.setenv("MXNET_OPTIMIZER_AGGREGATION_SIZE", "many")
    with pytest.raises(ValueError, match="MXNET_OPTIMIZER_AGGREGATION_SIZE"):
        mxopt.create("sgd")


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_16_bit_weights_without_a_master_warn(dtype: Any) -> None:
    for name in ("adam", "sgd"):
        with pytest.warns(UserWarning, match="multi_precision"):
            mxopt.create(name).create_state_multi_precision(0, np.ones(3, dtype))


def test_states_are_brought_to_their_weights_once() -> None:
    updater = mxopt.get_updater(mxopt.create("adam"))
    weight = one()
    updater(0, one(), weight)
    assert updater.states_synced == {0: True}
    updater.set_states(updater.get_states())
    assert updater.states_synced == {0: False}
    updater(0, one(), weight)
    assert updater.states_synced == {0: True}
    state = (one(), (None, [one()]))
    synced = updater.sync_state_context(state, weight)
    assert synced[0] is state[0]
    assert synced[1][1][0] is state[1][1][0]


@pytest.mark.parametrize("clone", [copy.deepcopy, lambda x: pickle.loads(pickle.dumps(x))], ids=["copy", "pickle"])
def test_a_copy_goes_on_by_itself(clone: Callable[[Any], Any]) -> None:
    for row in ROWS:
        updater, weight = mxopt.get_updater(row.make()), np.full(3, 0.5, np.float32)
        for _ in range(2):
            updater([0], [np.ones(3, np.float32)], [weight])
            updater(0, np.ones(3, np.float32), weight)
        twin, other = clone((updater, weight))
        before = updater.get_states(), weight.copy()
        for _ in range(2):
            twin(0, np.ones(3, np.float32), other)
            twin([0], [np.ones(3, np.float32)], [other])
        assert updater.get_states() == before[0], row
        assert np.array_equal(weight, before[1]), row
        for _ in range(2):
            updater(0, np.ones(3, np.float32), weight)
            updater([0], [np.ones(3, np.float32)], [weight])
        assert updater.get_states() == twin.get_states(), row
        assert np.array_equal(weight, other), row


def test_multipliers_of_many_names_are_looked_up_and_not_searched_for() -> None:
    class Name(str):
        """A text that counts how often it is compared."""

        compared: ClassVar[int] = 0
        __slots__ = ()
        __hash__ = str.__hash__

        def __eq__(self, other: object) -> bool:
            Name.compared += 1
            return str.__eq__(self, other)

    optimizer = mxopt.create("sgd", param_idx2name={k: Name(f"p{k}_weight") for k in range(300)})
    Name.compared = 0
    optimizer.set_lr_mult({Name(f"p{k}_weight"): 0.5 for k in range(300)})
    assert Name.compared < 10 * 300
    assert optimizer.lr_mult["p299_weight"] == 0.5


def test_counts_that_were_taken_stay_what_they_were() -> None:
    """They are what `set_counts` goes back to."""
    optimizer = mxopt.create("lars", momentum=0.9)
    updater, weights = mxopt.get_updater(optimizer), [np.ones(2, np.float32), np.ones(2, np.float32)]
    updater(0, np.ones(2, np.float32), weights[0])
    kept = optimizer.get_counts()
    updater([0, 1], [np.ones(2, np.float32)] * 2, weights)
    optimizer.set_counts(kept)
    assert (optimizer.count(0), optimizer.count(1), optimizer.num_update) == (1, None, 1)
    assert list(optimizer.previous_lr) == [0]


@pytest.mark.skipif(not (3, 11) <= sys.version_info[:2] < (3, 13), reason="how Python keeps attributes differs")
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_optimizer_at_work_has_its_attributes_where_python_finds_them_fast(row: Any) -> None:
    """Not in a dict, as objects have it of which somebody asked `vars`, or with 30 attributes: an
    update of a small tensor took a third longer then."""
    optimizer = row.make()
    updater = mxopt.get_updater(optimizer)
    for _ in range(2):
        updater(0, one(), one())
    assert not any(isinstance(x, dict) and "rescale_grad" in x for x in gc.get_referents(optimizer))
