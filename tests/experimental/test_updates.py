"""What an optimizer of `experimental.optim` does with its parameters, for one table of all of
them."""

from __future__ import annotations

from typing import Any

import ml_dtypes
import numpy as np
import pytest
from optim_runs import STEPS, arrays_in, bits, every, grads_of, normal
from table import EXPERIMENTAL

import mxopt
from mxopt.engine.choice import EngineName
from mxopt.experimental import optim
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array

BFLOAT16 = ml_dtypes.bfloat16


@every
@pytest.mark.parametrize(
    ("dtype", "multi_precision"),
    [(np.float32, False), (np.float64, False), (np.float16, True), (np.float16, False), (BFLOAT16, True)],
)
def test_both_engines_give_the_same_bits(make: Any, dtype: Any, multi_precision: bool) -> None:
    ends = []
    for engine in ("numpy", "llvm"):
        weights = normal(0, dtype=dtype)
        optimizer = make(weights, multi_precision=multi_precision)
        with mxopt.use_engine(engine):
            for step in range(STEPS):
                optimizer(grads_of(step, dtype))
        ends.append((bits(weights), arrays_in(optimizer.state_dict())))
    assert ends[0] == ends[1]


@every
@pytest.mark.parametrize("dtype", [np.float16, BFLOAT16])
def test_a_master_copy_goes_the_way_of_a_float32_parameter(make: Any, dtype: Any) -> None:
    weights = normal(0, dtype=dtype)
    singles = [w.astype(np.float32) for w in weights]
    mixed, single = make(weights, multi_precision=True), make(singles)
    for step in range(STEPS):
        grads = grads_of(step, dtype)
        mixed(grads)
        single(tuple(g.astype(np.float32) for g in grads))
    assert bits(weights) == bits([w.astype(dtype) for w in singles])
    masters = [mixed.state_dict()["state"][str(k)]["master"] for k in range(len(weights))]
    assert bits(masters) == bits(singles)


@every
def test_a_gradient_of_none_leaves_parameter_and_states_alone(make: Any) -> None:
    weights, alone = normal(0), normal(0)
    optimizer = make(weights)
    single = [make([w]) for w in alone]
    for step in range(STEPS):
        given = [None if (k + step) % 3 == 0 else g for k, g in enumerate(grads_of(step))]
        optimizer(tuple(given))
        for one, g in zip(single, given, strict=True):
            if g is not None:
                one((g,))
    assert bits(weights) == bits(alone)


@every
def test_maximize_climbs_as_minimize_descends(make: Any) -> None:
    up, down = normal(0), normal(0)
    climbing, descending = make(up, maximize=True), make(down)
    for step in range(STEPS):
        grads = grads_of(step)
        climbing(grads)
        descending(tuple(-g for g in grads))
    assert bits(up) == bits(down)


@every
def test_strided_views_and_mixed_dtypes_are_updated_like_any_other(make: Any) -> None:
    contiguous = [*normal(0, [(6, 4)]), *normal(1, [(5,)], np.float64)]
    strided = [np.asfortranarray(contiguous[0]), np.repeat(contiguous[1], 2)[::2]]
    one, other = make([w.copy() for w in contiguous]), make(strided)
    for step in range(STEPS):
        grads = [*normal(step, [(6, 4)]), *normal(step, [(5,)], np.float32)]
        one(grads)
        other([np.asfortranarray(grads[0]), grads[1]])
    for a, b in zip(one.parameters, strided, strict=True):
        np.testing.assert_array_equal(a, b)


@every
def test_multipliers_of_a_parameter_count(make: Any) -> None:
    a, b = normal(0, [(5,), (5,)])
    c, d = a.copy(), b.copy()
    optimizer = make([Parameter(a, "a", lr_mult=0.5, wd_mult=0.0), Parameter(b, "b")])
    groups = make([{"params": c, "lr": optimizer.param_groups[0]["lr"] * 0.5}, {"params": d}])
    if "weight_decay" in groups.param_groups[0]:
        groups.param_groups[0]["weight_decay"] = 0.0
    for step in range(STEPS):
        grads = normal(step, [(5,), (5,)])
        optimizer(grads)
        groups(grads)
    assert optimizer.param_groups[0]["lr"] == pytest.approx(2 * groups.param_groups[0]["lr"])
    if not isinstance(optimizer, optim.Rprop):  # whose first step is the group's rate
        np.testing.assert_array_equal(a, c)
    np.testing.assert_array_equal(b, d)


@every
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_a_row_sparse_gradient_is_a_dense_one_with_zeros(make: Any, engine: EngineName) -> None:
    (table,) = normal(0, [(7, 3)])
    dense = table.copy()
    sparse_optimizer, dense_optimizer = make([table]), make([dense])
    with mxopt.use_engine(engine):
        for step in range(STEPS):
            grad = row_sparse_array((normal(step, [(3, 3)])[0], [5, 1, step % 7]), shape=(7, 3))
            sparse_optimizer((grad,))
            dense_optimizer((grad.todense(),))
    np.testing.assert_array_equal(table, dense)


@pytest.mark.parametrize("make", [row.over for row in EXPERIMENTAL if row.takes_lazy_update])
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_lazy_update_leaves_rows_without_gradient_alone(make: Any, engine: EngineName) -> None:
    (table,) = normal(0, [(7, 3)])
    before, rows = table.copy(), table[[1, 5]].copy()
    lazy, dense = make([table], lazy_update=True), make([rows])
    with mxopt.use_engine(engine):
        for step in range(STEPS):
            (data,) = normal(step, [(2, 3)])
            lazy((row_sparse_array((data, [1, 5]), shape=(7, 3)),))
            dense((data,))
    untouched = [0, 2, 3, 4, 6]
    np.testing.assert_array_equal(table[untouched], before[untouched])
    np.testing.assert_array_equal(table[[1, 5]], rows)


@every
@pytest.mark.parametrize(
    ("bad", "says"),
    [
        (np.zeros((3, 5), np.float32), r"group 1, parameter 'b'.*shape"),
        (np.zeros((3, 4), np.int32), r"group 1, parameter 'b'.*int32"),
        (np.zeros((3, 4), np.float64), r"group 1, parameter 'b'.*float64"),
        (3.0, r"group 1, parameter 'b'.*float"),
        (row_sparse_array((np.zeros((1, 2), np.float32), [0]), shape=(3, 2)), r"group 1, parameter 'b'.*shape"),
    ],
    ids=["shape", "integer", "wider", "number", "sparse shape"],
)
def test_a_bad_gradient_changes_nothing_and_is_named(make: Any, bad: Any, says: str) -> None:
    a, b = normal(0, [(5,), (3, 4)])
    optimizer = make([{"params": [Parameter(a, "a")]}, {"params": [Parameter(b, "b")]}])
    good = normal(1, [(5,), (3, 4)])
    for _ in range(2):
        before, saved = bits([a, b]), arrays_in(optimizer.state_dict())
        with pytest.raises((ValueError, TypeError), match=says):
            optimizer((good[0], bad))
        assert bits([a, b]) == before
        assert arrays_in(optimizer.state_dict()) == saved
        optimizer(good)


def test_a_refused_first_step_leaves_no_master_copy_behind() -> None:
    a, b = normal(0, [(5,), (3,)], np.float16)
    optimizer = optim.SGD([{"params": [a]}, {"params": [b]}], 0.5, multi_precision=True)
    with pytest.raises(ValueError, match="shape"):
        optimizer((np.ones(5, np.float16), np.ones(4, np.float16)))
    a[:] = 2  # a checkpoint is loaded, say
    optimizer((np.ones(5, np.float16), np.ones(3, np.float16)))
    np.testing.assert_array_equal(a, np.float16(1.5))


def test_a_parameter_that_needs_no_gradient_is_left_alone() -> None:
    a, b = normal(0, [(5,), (5,)])
    before = a.copy()
    optimizer = optim.Adam([Parameter(a, "a", requires_grad=False), Parameter(b, "b")])
    optimizer(normal(1, [(5,), (5,)]))
    np.testing.assert_array_equal(a, before)
    assert list(optimizer.state_dict()["state"]) == ["b"]


@pytest.mark.parametrize("count", [0, 1, 3])
def test_one_gradient_for_each_parameter(count: int) -> None:
    optimizer = optim.SGD(normal(0, [(2,), (2,)]), 0.1)
    with pytest.raises(ValueError, match=f"{count} gradients? for 2 parameters"):
        optimizer(normal(1, [(2,)] * count))
    with pytest.raises(TypeError, match="must be a tuple"):
        optimizer(np.zeros((2, 2), np.float32))  # type: ignore[arg-type]


def test_betas_that_single_precision_rounds_to_one_change_nothing() -> None:
    weights, doubles = normal(0), normal(0, dtype=np.float64)
    before = bits(weights)
    with pytest.raises(ValueError, match=r"can't be told from 1 in float32"):
        optim.Adam(weights, betas=(0.9, 1 - 1e-9))(grads_of(0))
    assert bits(weights) == before
    optim.Adam(doubles, betas=(0.9, 1 - 1e-9))(grads_of(0))


def test_a_custom_optimizer_defines_construct() -> None:
    class Signs(optim.Optimizer):
        def __init__(self, params: Any, lr: float) -> None:
            super().__init__(params, {"lr": lr})

        def construct(self, gradients: Any) -> None:
            for group, weight, grad in zip(self.param_groups * 2, self.parameters, gradients, strict=False):
                weight -= group["lr"] * np.sign(grad)

    weights = normal(0, [(3,), (2,)])
    before = [w.copy() for w in weights]
    optimizer = Signs(weights, 0.5)
    optim.lr_scheduler.StepLR(optimizer, 1).step()
    optimizer([np.ones(3), -np.ones(2)])
    np.testing.assert_allclose(weights[0], before[0] - 0.05, rtol=1e-6)
    np.testing.assert_allclose(weights[1], before[1] + 0.05, rtol=1e-6)
    with pytest.raises(NotImplementedError):
        optim.Optimizer(weights, {"lr": 0.1})([np.zeros(3, np.float32)] * 2)


@pytest.mark.filterwarnings("ignore:bfloat16 weights")
def test_tensors_of_pytorch_are_updated_in_place() -> None:
    torch = pytest.importorskip("torch")
    ours = [torch.ones(3, requires_grad=True), torch.ones(2, dtype=torch.bfloat16)]
    theirs = [t.detach().clone().requires_grad_() for t in ours]
    optimizer = optim.SGD(ours, 0.125, momentum=0.5)
    reference = torch.optim.SGD(theirs, 0.125, momentum=0.5)
    assert [id(p) for p in optimizer.parameters] == [id(t) for t in ours]
    for step in range(3):
        grads = [torch.full((3,), step + 1.0), torch.full((2,), 0.5, dtype=torch.bfloat16)]
        for t, g in zip(theirs, grads, strict=True):
            t.grad = g
        reference.step()
        optimizer(tuple(grads))
    for a, b in zip(ours, theirs, strict=True):
        assert torch.equal(a.detach(), b.detach())
