"""Clipping by the norm of all gradients, and steps left out where they are not finite."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import copy
import math
import warnings
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from bitwise import array, assert_same, laid_out
from jobs import Job
from table import ROWS

import mxopt
from mxopt import Parameter, Trainer, clip_global_norm, kvstore
from mxopt.engine import native
from mxopt.experimental import optim
from mxopt.kvstore import trained
from mxopt.sparse import RowSparse, row_sparse_array

DTYPES = ["float16", "bfloat16", "float32", "float64"]


def halves(dtype: str = "float32") -> list[np.ndarray]:
    """Two arrays, whose norm together is 13."""
    return [np.array([3, 4], dtype), np.array([[0], [12]], dtype)]


def test_arrays_of_a_larger_norm_are_rescaled_in_place() -> None:
    """As in MXNet, which prints these numbers."""
    grads = halves()
    assert clip_global_norm(grads, 1.0) == 13.0
    assert grads[0].tolist() == [0.23076924681663513, 0.3076923191547394]
    assert grads[1].tolist() == [[0.0], [0.9230769872665405]]


@pytest.mark.parametrize("max_norm", [13.0 + 2e-8, 14, math.inf])
def test_arrays_of_a_smaller_norm_stay_as_they_are(max_norm: float) -> None:
    grads = halves()
    assert clip_global_norm(grads, max_norm) == 13.0
    assert_same(grads, halves())


def test_what_is_returned() -> None:
    assert type(clip_global_norm(halves(), 1.0)) is float
    unchecked = clip_global_norm(halves(), 1.0, check_isfinite=False)
    assert (unchecked.shape, unchecked.tolist()) == ((1,), [13.0])  # type: ignore[union-attr]
    grads = halves()
    assert clip_global_norm(grads, 0) == 13.0
    assert not any(map(np.any, grads))


@pytest.mark.parametrize("dtype", DTYPES)
def test_every_dtype_is_rescaled_in_its_own_precision_and_rounded_once(dtype: str) -> None:
    rng = np.random.default_rng(0)
    before = [array(rng, shape, dtype) for shape in ((50_000,), (7, 3), (), (0, 4))]
    after = [x.copy() for x in before]
    norm = clip_global_norm(after, 2.5)
    assert norm == pytest.approx(math.sqrt(math.fsum(float(v) ** 2 for x in before for v in x.reshape(-1))), rel=1e-14)
    scale = 2.5 / (norm + 1e-8)
    wide = np.float64 if dtype == "float64" else np.float32
    assert_same(after, [np.asarray((x.astype(wide) * wide(scale)).astype(dtype)) for x in before])  # type: ignore[operator]


def test_sixteen_bit_arrays_do_not_overflow() -> None:
    grads = [np.full(4, 40_000, np.float16)]
    assert clip_global_norm(grads, 2.0) == 80_000
    assert grads[0].tolist() == [1.0] * 4


def many() -> list[Any]:
    """Arrays of all dtypes, layouts and sizes, and a row-sparse one."""
    rng = np.random.default_rng(1)
    found: list[Any] = [array(rng, (n,), dtype) for n in (1, 17, 16384, 16385, 70_001) for dtype in DTYPES]
    found += [laid_out(array(rng, (300, 33), dtype), how) for how in ("F", "strided", "unaligned") for dtype in DTYPES]
    found.append(array(rng, (40, 40), "float32").astype(">f4"))
    return [*found, row_sparse_array((array(rng, (3, 5), "float32"), [0, 7, 9]), shape=(10, 5))]


def parts(found: list[Any]) -> list[np.ndarray]:
    return [x.data if isinstance(x, RowSparse) else x for x in found]


def test_the_same_bits_on_every_engine_with_any_number_of_threads_and_in_any_order(
    monkeypatch: pytest.MonkeyPatch, restore_threads: None
) -> None:
    monkeypatch.setattr(native, "PARALLEL", 0)
    expected = many()
    with mxopt.use_engine("numpy"):
        norm = clip_global_norm(expected, 0.5)
    for threads in (1, 2, 5):
        mxopt.set_num_threads(threads)
        given = many()
        assert clip_global_norm(given, 0.5) == norm
        assert_same(parts(given), parts(expected))
    assert clip_global_norm(many()[::-1], math.inf) == norm


def test_the_rows_of_a_row_sparse_array_are_rescaled() -> None:
    grad = row_sparse_array((np.array([[3, 4]], np.float32), [6]), shape=(9, 2))
    assert clip_global_norm([grad], 2.5) == 5.0
    assert (grad.indices.tolist(), grad.data.tolist()) == ([6], [[1.5, 2.0]])
    assert clip_global_norm([mxopt.sparse.zeros("row_sparse", (9, 2))], 1.0) == 0.0


@pytest.mark.parametrize(("bad", "left"), [(math.nan, [math.nan] * 2), (math.inf, [math.nan, 0.0])])
def test_what_is_not_finite_is_warned_of_and_never_becomes_a_number(bad: float, left: list[float]) -> None:
    """What is left is MXNet's."""
    grads = [np.array([bad, 4], np.float32)]
    with pytest.warns(UserWarning, match=f"norm of the gradients is {bad}") as caught:
        norm = clip_global_norm(grads, 1.0)
    assert caught[0].filename == __file__
    assert str(norm) == str(bad)
    assert np.array_equal(grads[0], left, equal_nan=True)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        clip_global_norm([np.array([bad, 4], np.float32)], 1.0, check_isfinite=False)


READ_ONLY = np.array([12], np.float32)
READ_ONLY.flags.writeable = False
REFUSED = {
    "no arrays": (AssertionError, lambda g: clip_global_norm([], 1.0), "an array at least"),
    "an array": (TypeError, lambda g: clip_global_norm(g, 1.0), r"give \[array\]"),
    "NaN": (ValueError, lambda g: clip_global_norm([g], math.nan), "0 or more"),
    "less than 0": (ValueError, lambda g: clip_global_norm([g], -1), "0 or more"),
    "text": (ValueError, lambda g: clip_global_norm([g], "1"), "0 or more"),
    "two": (ValueError, lambda g: clip_global_norm([g], np.ones(2)), "0 or more"),
    "of one axis": (ValueError, lambda g: clip_global_norm([g], np.ones(1)), "0 or more"),
    "a parameter": (ValueError, lambda g: clip_global_norm([g, Parameter(g)], 1.0), "array 1 is a parameter.*give its"),
    "whole numbers": (TypeError, lambda g: clip_global_norm([g, np.arange(3)], 1.0), "array 1: it must be of float16"),
    "numbers": (TypeError, lambda g: clip_global_norm([g, 3.0], 1.0), "array 1: needs an array"),
    "read-only": (ValueError, lambda g: clip_global_norm([g, READ_ONLY], 1.0), "array 1: it is read-only"),
    "masked": (TypeError, lambda g: clip_global_norm([g, np.ma.array([1.0])], 1.0), "array 1: a .*MaskedArray"),
}


@pytest.mark.parametrize("name", REFUSED)
def test_what_is_refused_changes_nothing(name: str) -> None:
    error, call, match = REFUSED[name]
    grad = np.array([3, 4], np.float32)
    with pytest.raises(error, match=match):
        call(grad)  # type: ignore[no-untyped-call]
    assert grad.tolist() == [3, 4]


# In a Trainer.


def trainer_of(optimizer: str = "sgd", **options: Any) -> tuple[list[Parameter], Trainer]:
    """Two parameters, whose gradients have the norm 13."""
    params = [Parameter(np.ones(g.shape, np.float32), name) for g, name in zip(halves(), "ab", strict=True)]
    for param, grad in zip(params, halves(), strict=True):
        param.grad = grad
    seed = {"seed": 1} if optimizer == "sgld" else {}
    return params, Trainer(params, optimizer, {"learning_rate": 1.0, **seed}, **options)


def values(params: list[Parameter]) -> list[np.ndarray]:
    return [p.value for p in params]


NAMES = sorted({row.name for row in ROWS})


@pytest.mark.parametrize(("optimizer", "store"), [*((name, None) for name in NAMES), ("adam", "local")])
@pytest.mark.parametrize("apart", [False, True])
def test_a_trainer_clips_as_the_function_does_between_sum_and_update(optimizer: str, apart: bool, store: Any) -> None:
    made = [{"kvstore": store and kvstore.create(store), "update_on_kvstore": False} for _ in range(2)]
    params, trainer = trainer_of(optimizer, clip_global_norm=6.5, **made[0])
    others, other = trainer_of(optimizer, **made[1])
    for _ in range(3):
        for param, theirs in zip(params, others, strict=True):
            theirs.grad = param.grad.copy()
        if apart:
            trainer.allreduce_grads()
            trainer.update(2)
        else:
            trainer.step(2)
        other.allreduce_grads()
        clip_global_norm([p.grad for p in others], 6.5)
        other.update(2)
    for ours, theirs in zip(values(params), values(others), strict=True):  # type: ignore[assignment]
        np.testing.assert_allclose(ours, theirs, rtol=2e-6, atol=1e-7)
    assert_same([p.grad for p in params], halves())  # nothing is written into the gradients
    assert trainer.optimizer.rescale_grad == 0.5


@pytest.mark.parametrize("options", [{"batch_scale": 2}, {"warmup_strategy": "lars"}], ids=str)
def test_lbsgd_sees_clipped_gradients(options: dict[str, Any]) -> None:
    """It averages raw gradients, or takes their norms."""
    runs = []
    for clip in ({"clip_global_norm": 6.5}, {}):
        params = [Parameter(np.ones(2, np.float32))]
        trainer = Trainer(params, mxopt.create("lbsgd", learning_rate=1.0, **options), **clip)
        for grad in ([3, 12], [1, 1]):
            params[0].grad = np.array(grad, np.float32)
            if not clip:
                clip_global_norm([params[0].grad], 6.5)
            trainer.step(1)
        runs.append(values(params))
    assert_same(*runs)


def test_a_trainer_clips_the_same_bits_on_every_engine() -> None:
    found = []
    for engine in ("numpy", "llvm"):
        with mxopt.use_engine(engine):
            params, trainer = trainer_of("adam", clip_global_norm=1.0)
            trainer.step(3)
            found.append(values(params))
    assert_same(*found)


def test_a_trainer_of_an_experimental_optimizer_clips() -> None:
    params, _ = trainer_of()
    trainer = Trainer(params, optim.SGD(params, 1.0), clip_global_norm=6.5, skip_nonfinite=True)
    trainer.step(1)
    np.testing.assert_allclose(params[0].value, [1 - 1.5, 1 - 2])
    params[1].grad[0] = math.nan
    before = copy.deepcopy(values(params))
    trainer.step(1)
    assert_same(values(params), before)
    assert trainer.skipped == 1


def test_a_trainer_warns_where_the_norm_is_not_finite() -> None:
    params, trainer = trainer_of(clip_global_norm=1.0)
    params[0].grad[0] = math.nan
    with pytest.warns(UserWarning, match="norm of the gradients is nan") as caught:
        trainer.step(1)
    assert caught[0].filename == __file__
    assert np.isnan(params[1].value).all()


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.parametrize("apart", [False, True])
@pytest.mark.parametrize("first", [False, True])
def test_a_trainer_skips_a_step_with_gradients_that_are_not_finite(bad: float, apart: bool, first: bool) -> None:
    params, trainer = trainer_of("adam", skip_nonfinite=True, clip_global_norm=1.0)
    if not first:
        trainer.step(2)
    before, saved = copy.deepcopy(values(params)), trainer._updater.get_states(dump_optimizer=True)
    good, params[1].grad = params[1].grad, np.array([[1], [bad]], np.float32)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        if apart:
            trainer.update(17)
        else:
            trainer.step(17)
    assert trainer.skipped == 1
    assert_same(values(params), before)
    assert trainer._updater.get_states(dump_optimizer=True) == saved
    params[1].grad = good
    trainer.step(2)
    assert trainer.skipped == 1
    assert trainer.optimizer.num_update == (1 if first else 2)  # type: ignore[union-attr]


def test_steps_whose_gradients_are_finite_are_those_without_the_guard() -> None:
    found = []
    for options in ({}, {"skip_nonfinite": True}):
        params, trainer = trainer_of("adam", **options)
        trainer.step(2)
        found.append(values(params))
    assert_same(*found)


@pytest.mark.parametrize("option", [{"clip_global_norm": 1.0}, {"skip_nonfinite": True}], ids=str)
def test_a_store_that_updates_refuses_both(option: dict[str, Any]) -> None:
    params, trainer = trainer_of(kvstore=kvstore.create("local"), **option)
    with pytest.raises(ValueError, match=f"{next(iter(option))} needs .* update_on_kvstore=False"):
        trainer.step(1)
    assert_same(values(params), [np.ones_like(v) for v in values(params)])


@pytest.mark.parametrize("asked", ["store", "trainer"])
def test_compressed_gradients_hide_what_is_not_finite_and_so_are_refused(asked: str) -> None:
    store, compression = kvstore.create("device"), {"type": "2bit"}
    if asked == "store":
        store.set_gradient_compression(compression)
    options: dict[str, Any] = {"kvstore": store, "update_on_kvstore": False, "skip_nonfinite": True}
    params, trainer = trainer_of(**options, compression_params=compression if asked == "trainer" else None)
    with pytest.raises(ValueError, match="compression sends a step or nothing where a gradient is NaN"):
        trainer.step(1)
    assert_same(values(params), [np.ones_like(v) for v in values(params)])


@pytest.mark.parametrize("bad", [-1, math.nan, "1"])
def test_a_trainer_refuses_a_norm_that_makes_no_sense(bad: Any) -> None:
    with pytest.raises(ValueError, match="0 or more"):
        trainer_of(clip_global_norm=bad)


def test_workers_clip_and_skip_by_the_sum_of_their_gradients() -> None:
    """One of two brings a NaN in the second of three steps: both leave it out, and go on together.
    An optimizer on the servers is refused before."""
    with Job(2, 1) as job:
        job.run("training.guarded")


@pytest.mark.parametrize("servers", [True, False])
def test_workers_with_row_sparse_gradients_are_told_two_ways_to_clip_and_both_can_be_gone(servers: bool) -> None:
    """Each clips its own where the servers update; or dense gradients go to a Trainer that updates
    by itself, which clips their sum."""
    with Job(2, 1) as job:
        job.run("training.guarded_rows", servers)


@pytest.mark.parametrize("guarded", ["skip_nonfinite", ""])
def test_what_is_said_of_row_sparse_gradients_names_no_way_that_is_refused_too(guarded: str) -> None:
    """Servers that update can't leave a step out."""
    param = Parameter(np.zeros((4, 1), np.float32), "w")
    param.grad = row_sparse_array((np.ones((1, 1), np.float32), [0]), shape=param.shape)
    store: Any = SimpleNamespace(type="dist_sync")
    with pytest.raises(ValueError, match="can't sum row-sparse gradients") as error:
        trained.check_sparse(store, [param], updates=False, guarded=guarded)
    assert ("update_on_kvstore=True" in str(error.value)) == (not guarded)
    assert ("grad.todense()" in str(error.value)) == bool(guarded)


# In an updater.


@pytest.mark.parametrize("as_list", [False, True])
def test_an_updater_skips_calls_with_gradients_that_are_not_finite(as_list: bool) -> None:
    updater = mxopt.Updater(mxopt.create("adam"), skip_nonfinite=True)
    weight, bad, good = np.ones(3, np.float32), np.array([1, math.nan, 1], np.float32), np.ones(3, np.float32)

    def call(grad: Any) -> None:
        if as_list:
            updater([0, "b"], [good, grad], [weight, np.ones(3, np.float32)])
        else:
            updater(0, grad, weight)

    for first in (True, False):
        before, saved = weight.copy(), updater.get_states(dump_optimizer=True)
        call(bad)
        call(row_sparse_array((bad[1:2], [1]), shape=(3,)))
        assert_same([weight], [before])
        assert updater.get_states(dump_optimizer=True) == saved
        assert updater.skipped == (2 if first else 4)
        call(good)
        assert not np.array_equal(weight, before)
    assert updater.optimizer.num_update == 2
    assert mxopt.get_updater(mxopt.create("sgd")).skipped == 0
