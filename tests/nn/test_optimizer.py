"""What `mindspore.nn.Optimizer`'s document promises of the base class."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from mxopt import nn
from mxopt.errors import ArrayError, ScheduleOverError
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array

F32 = np.float32


class Documented(nn.Optimizer):
    """The custom optimizer of MindSpore's document, with NumPy's operations."""

    def __init__(self, params: Any, learning_rate: Any, momentum: float = 0.9, **options: Any) -> None:
        super().__init__(learning_rate, params, **options)
        self.moments = self.parameters.clone(prefix="moments", init="zeros")
        self.momentum = momentum

    def construct(self, gradients: Any) -> bool:
        lr = self.get_lr()
        gradients = self.decay_weight(gradients)
        gradients = self.gradients_centralization(gradients)
        gradients = self.scale_grad(gradients)
        for param, mom, grad in zip(self.parameters, self.moments, gradients, strict=True):
            mom.value[...] = F32(self.momentum) * mom.value + grad
            param.value[...] -= F32(lr) * mom.value  # type: ignore[arg-type]
        return True


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape, F32)


def test_documented_custom_optimizer_is_momentum(rng: np.random.Generator) -> None:
    start = [rng.standard_normal(s).astype(F32) for s in ((5,), (3, 4))]
    ours, theirs = [w.copy() for w in start], [w.copy() for w in start]
    schedule = nn.ExponentialDecayLR(0.2, 0.5, 3)
    custom = Documented(ours, schedule, weight_decay=0.1, loss_scale=4.0)
    builtin = nn.Momentum(theirs, schedule, 0.9, weight_decay=0.1, loss_scale=4.0)
    for _ in range(5):
        grads = tuple(rng.standard_normal(w.shape).astype(F32) for w in start)
        assert custom(grads)
        assert builtin(grads)
    assert custom.global_step == builtin.global_step == 5
    for a, b in zip(ours, theirs, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


def test_base_class_asks_for_construct() -> None:
    with pytest.raises(NotImplementedError, match="construct"):
        nn.Optimizer(0.1, [ones(2)])((ones(2),))


def test_parameters_are_updated_in_place_whatever_they_are() -> None:
    plain, strided, named = ones(3), np.ones((4, 6), F32)[::2, ::3], Parameter(ones(2), "w")
    nn.SGD([plain, strided, named], learning_rate=0.5)((ones(3), ones(2, 2), ones(2)))
    for array in (plain, strided, named.value, strided.base[::2, ::3]):  # type: ignore[index]
        assert (array == 0.5).all()
    assert strided.base.sum() == 4 * 6 - 4 * 0.5  # type: ignore[union-attr]


def test_torch_tensors_are_updated_in_their_own_memory() -> None:
    torch = pytest.importorskip("torch")
    weight = torch.ones(3, requires_grad=True)
    (2 * weight).sum().backward()
    nn.SGD([weight], learning_rate=0.25)((weight.grad,))
    assert weight.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize(
    "rate",
    [[0.5, 0.25], (0.5, 0.25), np.array([0.5, 0.25], F32), (x for x in (0.5, 0.25))],
    ids=lambda r: type(r).__name__,
)
def test_one_rate_for_each_step_then_an_error_that_says_how_many(rate: Any) -> None:
    weight = ones(1)
    optimizer = nn.SGD([weight], learning_rate=rate)
    assert optimizer.get_lr() == 0.5
    optimizer((ones(1),))
    assert optimizer.get_lr() == 0.25
    optimizer((ones(1),))
    assert weight == 0.25
    with pytest.raises(ScheduleOverError, match="2 values"):
        optimizer((ones(1),))
    assert weight == 0.25
    assert optimizer.global_step == 2


@pytest.mark.parametrize("rate", [1, 1.0, np.float32(1), np.array(1.0)], ids=lambda r: type(r).__name__)
def test_a_single_rate_is_fixed_and_can_be_set(rate: Any) -> None:
    weight = ones(1)
    optimizer = nn.SGD([weight], learning_rate=rate)
    optimizer.learning_rate.set_data(np.array(0.25))
    optimizer((ones(1),))
    assert (weight, optimizer.get_lr(), optimizer.dynamic_lr) == (0.75, 0.25, False)  # type: ignore[comparison-overlap]


def test_rates_may_come_as_tensors() -> None:
    torch = pytest.importorskip("torch")
    half = torch.tensor(0.5, requires_grad=True)
    for rate in (half, half.detach().bfloat16(), torch.tensor([0.5, 0.25])):
        weight = np.ones(2, np.float32)
        nn.SGD([weight], rate)((weight.copy(),))
        assert (weight == 0.5).all()
    for rate, says in ((torch.tensor(1), "must hold floats"), ([0.5, half], "must hold numbers")):
        with pytest.raises(TypeError, match=says):
            nn.SGD([weight], rate)


def test_rates_may_come_as_parameters() -> None:
    rate = Parameter(np.array(0.5))
    optimizer = nn.SGD([ones(1)], learning_rate=rate)
    assert optimizer.learning_rate is rate
    assert nn.SGD([ones(1)], learning_rate=Parameter(np.array([0.5, 0.25]))).get_lr() == 0.5


def test_own_schedule_may_be_a_dataclass() -> None:
    from dataclasses import dataclass

    @dataclass
    class Falling(nn.LearningRateSchedule):
        start: float

        def construct(self, global_step: int) -> float:
            return self.start / (1 + global_step)

    optimizer = nn.SGD([ones(1)], learning_rate=Falling(0.5))
    optimizer((ones(1),))
    assert optimizer.get_lr() == 0.25


def test_groups_have_their_own_rates_and_decays() -> None:
    a, b, c = Parameter(ones(2), "a"), Parameter(ones(2), "b"), ones(2)
    schedule = nn.WarmUpLR(0.4, 4)
    groups = [
        {"params": [a], "lr": schedule, "weight_decay": 0.5},
        {"params": [b, c], "lr": 0.05},
        {"order_params": [c, a, b]},
    ]
    optimizer = nn.SGD(groups, learning_rate=0.1, weight_decay=0.25, loss_scale=8.0)
    assert optimizer.is_group
    assert [p.value is x for p, x in zip(optimizer.parameters, (c, a.value, b.value), strict=True)] == [True] * 3
    optimizer((ones(2), ones(2), ones(2)))
    assert optimizer.get_lr() == (0.05, pytest.approx(0.1), 0.05)  # type: ignore[comparison-overlap]
    assert optimizer.get_weight_decay() == (2.0, 4.0, 2.0)
    assert optimizer.get_lr_parameter(a) is schedule
    assert [float(r.asnumpy()) for r in optimizer.get_lr_parameter([b, c])] == [0.05, 0.05]


def test_groups_of_adafactor_have_their_own_rates_and_decays_where_mindspores_have_not() -> None:
    decayed, plain, grads = ones(2), ones(2), (ones(2) / 2, ones(2) / 2)
    nn.AdaFactor([{"params": [decayed], "weight_decay": 0.5}, {"params": [plain]}])(grads)
    np.testing.assert_allclose([decayed, plain], [[0.994] * 2, [0.999] * 2], rtol=1e-6)
    fast, slow = ones(2), ones(2)
    nn.AdaFactor([{"params": [fast], "lr": 0.5}, {"params": [slow]}], learning_rate=0.1, relative_step=False)(grads)
    np.testing.assert_allclose([fast, slow], [[0.95] * 2, [0.99] * 2], rtol=1e-6)


@pytest.mark.parametrize("wrap", [lambda o: o, lambda o: nn.LARS(o)], ids=["alone", "in LARS"])
def test_the_attributes_that_custom_optimizers_read(wrap: Any) -> None:
    """What MindSpore 2.10 prints for the same optimizers."""

    def named(*names: str) -> list[Parameter]:
        return [Parameter(ones(2, 2), name) for name in names]

    plain = wrap(nn.Momentum(named("conv.weight", "bn.beta", "fc.w"), 0.1, 0.9, weight_decay=0.1, loss_scale=8.0))
    assert plain.weight_decay == 0.8
    assert plain.decay_flags == (True, False, True)
    assert (plain.need_scale, plain.reciprocal_scale, plain.param_length) == (True, 0.125, 3)
    assert [plain.is_group, plain.is_group_lr, plain.is_group_params_ordered, plain.grad_centralization] == [False] * 4
    assert plain.learning_rate.name == "learning_rate"

    a, b, c = named("a", "b", "c")
    groups = [
        {"params": [a, b], "lr": 0.2, "weight_decay": 0.1},
        {"params": [c], "grad_centralization": True},
        {"order_params": [c, a, b]},
    ]
    grouped = wrap(nn.SGD(groups, 0.1))
    assert grouped.weight_decay == (0.0, 0.1, 0.1)
    assert grouped.decay_flags == (False, True, True)
    assert (grouped.need_scale, grouped.reciprocal_scale, grouped.param_length) == (False, 1.0, 3)
    flags = grouped.is_group, grouped.is_group_lr, grouped.is_group_params_ordered, grouped.grad_centralization
    assert flags == (True, True, True, True)
    assert [rate.name for rate in grouped.learning_rate] == ["learning_rate"] + 2 * ["learning_rate_group_0"]

    decay = nn.ExponentialDecayLR(0.1, 0.5, 1)
    dynamic = wrap(nn.Momentum(named("a"), [0.1, 0.2], 0.9, weight_decay=decay, loss_scale=4.0))
    assert (dynamic.dynamic_lr, dynamic.dynamic_weight_decay, dynamic.decay_flags) == (True, True, (True,))
    assert dynamic.weight_decay(1) == 4 * decay(1)
    assert dynamic.learning_rate.name == "learning_rate"


@pytest.mark.parametrize(
    ("rate", "first", "second", "says"),
    [
        (0.1, [0.1, 0.2], [0.1, 0.2, 0.3], "learning_rate_group_0 lists 2 rates and learning_rate_group_1 3"),
        ([0.1, 0.2, 0.3], [0.1, 0.2], [0.1, 0.2], "learning_rate lists 3 rates and learning_rate_group_0 2"),
        ([0.1], 0.1, np.ones(2), "learning_rate lists 1 rate and learning_rate_group_1 2"),
    ],
)
def test_lists_of_rates_are_for_the_same_steps(rate: Any, first: Any, second: Any, says: str) -> None:
    groups = [{"params": [ones(2)], "lr": first}, {"params": [ones(3)], "lr": second}]
    with pytest.raises(ValueError, match=says):
        nn.Momentum(groups, rate, 0.9)


@pytest.mark.parametrize(
    ("make", "kind"),
    [
        (lambda w: nn.SGD(w, 0.1, weight_decay=nn.ExponentialDecayLR(0.1, 0.5, 1)), TypeError),
        (lambda w: nn.SGD([{"params": w, "weight_decay": nn.ExponentialDecayLR(0.1, 0.5, 1)}], 0.1), TypeError),
        (lambda w: nn.LazyAdam(w, 0.1, weight_decay=1), TypeError),
        (lambda w: nn.LazyAdam(w, 0.1, weight_decay=nn.ExponentialDecayLR(0.1, 0.5, 1)), TypeError),  # type: ignore[arg-type]
        (lambda w: nn.FTRL(w, learning_rate=1), TypeError),
        (lambda w: nn.Momentum([{"params": w, "lr": np.array(1)}], 0.1, 0.9), TypeError),
        (lambda w: nn.Momentum(w, np.inf, 0.9), ValueError),
        (lambda w: nn.Momentum(w, 0.1, 0.9, weight_decay=np.inf), ValueError),
        (lambda w: nn.Momentum(w, 0.1, 0.9, loss_scale=np.inf), ValueError),
        (lambda w: nn.Momentum([{"params": w, "weight_decay": np.inf}], 0.1, 0.9), ValueError),
    ],
)
def test_values_that_mindspore_refuses_are_refused(make: Any, kind: type[Exception]) -> None:
    with pytest.raises(kind):
        make([ones(2)])


def test_get_lr_parameter_refuses_strangers() -> None:
    optimizer = nn.SGD([ones(2)], learning_rate=0.1)
    with pytest.raises(TypeError, match="get_lr_parameter"):
        optimizer.get_lr_parameter("w")
    with pytest.raises(ValueError, match="get_lr_parameter"):
        optimizer.get_lr_parameter(Parameter(ones(2)))


def test_weight_decay_comes_before_the_loss_scale_and_counts_as_given() -> None:
    optimizer = nn.SGD([ones(2)], learning_rate=1.0, weight_decay=0.125, loss_scale=8.0)
    assert optimizer.get_weight_decay() == 1.0
    gradients = (np.full(2, 8, F32),)
    (decayed,) = optimizer.decay_weight(gradients)
    (scaled,) = optimizer.scale_grad((decayed,))
    assert (decayed.tolist(), scaled.tolist(), gradients[0].tolist()) == ([9, 9], [1.125, 1.125], [8, 8])


def test_names_with_beta_or_gamma_are_not_decayed_outside_of_groups() -> None:
    parameters = [Parameter(ones(1), name) for name in ("bn.gamma", "bn.beta", "fc.weight")]
    zero = (np.zeros(1, F32),) * 3
    assert [float(g[0]) for g in nn.SGD(parameters, weight_decay=0.5).decay_weight(zero)] == [0, 0, 0.5]
    assert [float(g[0]) for g in nn.SGD([{"params": parameters}], weight_decay=0.5).decay_weight(zero)] == [0.5] * 3
    assert [float(g[0]) for g in nn.FTRL(parameters, weight_decay=0.5).decay_weight(zero)] == [0.5] * 3


def test_weight_decay_can_be_a_schedule() -> None:
    optimizer = nn.Momentum([ones(1)], 0.1, 0.9, weight_decay=nn.WarmUpLR(0.5, 2))
    assert optimizer.dynamic_weight_decay
    assert optimizer.get_weight_decay() == 0
    optimizer((ones(1),))
    assert optimizer.get_weight_decay() == 0.25


def test_centralization_takes_off_the_mean_of_all_axes_but_the_first() -> None:
    kernel, bias = ones(2, 3, 2), ones(3)
    optimizer = nn.SGD([{"params": [kernel, bias], "grad_centralization": True}])
    gradient = np.arange(12, dtype=F32).reshape(2, 3, 2)
    first, second = optimizer.gradients_centralization((gradient, ones(3)))
    np.testing.assert_array_equal(first, gradient - np.array([2.5, 8.5], F32)[:, None, None])
    assert (second == 1).all()


def test_row_sparse_gradients_are_decayed_and_scaled_by_row() -> None:
    optimizer = nn.Adam([ones(4, 2)], weight_decay=0.5, loss_scale=2.0)
    gradient = row_sparse_array((ones(1, 2), [2]), shape=(4, 2))
    (result,) = optimizer.scale_grad(optimizer.decay_weight((gradient,)))
    assert (result.indices.tolist(), result.data.tolist()) == ([2], [[1, 1]])


def test_multipliers_and_requires_grad_are_read_at_every_step() -> None:
    parameters = [Parameter(ones(1), str(k)) for k in range(3)]
    optimizer = nn.SGD(parameters, learning_rate=0.25, weight_decay=1.0)
    parameters[0].lr_mult, parameters[1].wd_mult, parameters[2].requires_grad = 2.0, 0.0, False
    optimizer((ones(1),) * 3)
    assert [float(p.value[0]) for p in parameters] == [0.0, 0.75, 1.0]
    assert optimizer.get_lr() == (0.5, 0.25, 0.25)
    assert optimizer.get_weight_decay() == (1.0, 0.0, 1.0)


def test_parameters_without_a_gradient_are_left_alone() -> None:
    first, second = ones(2), ones(2)
    optimizer = nn.Adam([first, second], learning_rate=0.5)
    optimizer((None, ones(2)))
    assert (first == 1).all()
    assert (second < 1).all()
    assert not optimizer.moment1[0].value.any()  # type: ignore[attr-defined]
    assert optimizer((None, None))


def test_parameters_in_one_buffer_are_flattened() -> None:
    buffer, gradients = np.arange(10, dtype=F32), np.ones(10, F32)
    parameters = [buffer[:4].reshape(2, 2), buffer[4:]]
    optimizer = nn.SGD(parameters, learning_rate=0.1)
    (flat,) = optimizer.flat_parameters
    assert np.shares_memory(flat.value, buffer)
    assert flat.shape == (10,)
    (over,) = optimizer.flatten_gradients((gradients[:4].reshape(2, 2), gradients[4:]))
    assert np.shares_memory(over, gradients)
    (copied,) = optimizer.flatten_gradients((np.full((2, 2), 2, F32), np.full(6, 3, F32)))
    assert copied.tolist() == [2] * 4 + [3] * 6
    with pytest.raises(ArrayError, match="gradient 1"):
        optimizer.flatten_gradients((gradients[:4].reshape(2, 2), gradients[:5]))
    with pytest.raises(TypeError, match="gradient 0"):
        optimizer.flatten_gradients((None, gradients[4:]))


def test_flat_parameters_are_apart_by_dtype() -> None:
    wide, narrow = np.ones(4), np.ones(4, np.float16)
    optimizer = nn.SGD([wide[:2], narrow[:1], wide[2:], narrow[1:]], learning_rate=0.1)
    assert [p.shape for p in optimizer.flat_parameters] == [(4,), (4,)]
    assert [g.dtype for g in optimizer.flatten_gradients((ones(2), ones(1), ones(2), ones(3)))] == [F32, F32]


@pytest.mark.parametrize("apart", ["memory", "rates"])
def test_other_parameters_are_not_flattened(apart: str) -> None:
    buffer = ones(4)
    second = ones(2) if apart == "memory" else buffer[2:]
    groups = [{"params": [buffer[:2]]}, {"params": [second]} | ({"lr": 0.5} if apart == "rates" else {})]
    optimizer = nn.SGD(groups, learning_rate=0.1)
    gradients = (ones(2), ones(2))
    assert optimizer.flat_parameters is optimizer.parameters
    assert all(a is b for a, b in zip(optimizer.flatten_gradients(gradients), gradients, strict=True))


def test_target_is_where_the_arrays_are() -> None:
    optimizer = nn.LazyAdam([ones(1)])
    optimizer.target = "CPU"
    assert optimizer.target == "CPU"
    for wrong in ("GPU", "Ascend", "TPU"):
        with pytest.raises(ValueError, match="target"):
            optimizer.target = wrong
    with pytest.raises(TypeError, match="target"):
        optimizer.target = 1  # type: ignore[assignment]
    with pytest.raises(NotImplementedError):
        Documented([ones(1)], 0.1).target = "CPU"


def test_unique_is_a_bool_and_broadcast_params_answers_with_one() -> None:
    optimizer = nn.SGD([ones(1)])
    assert optimizer.unique
    optimizer.unique = False
    assert not optimizer.unique
    with pytest.raises(TypeError, match="unique"):
        optimizer.unique = 1  # type: ignore[assignment]
    assert optimizer.broadcast_params(optimizer((ones(1),))) is True


def test_clones_are_copies_or_filled() -> None:
    optimizer = nn.SGD([Parameter(np.full(2, 3, np.float16), "w"), np.full(2, 3.0)])
    for init, value in (("same", 3), ("zeros", 0), ("ones", 1), (0.5, 0.5)):
        clones = optimizer.parameters.clone("m", init)
        assert [c.value.tolist() for c in clones] == [[value] * 2] * 2
        assert [c.dtype for c in clones] == [np.float32, np.float64]
    assert clones[0].name == "m.w"
    with pytest.raises(ValueError, match="init"):
        optimizer.parameters.clone("m", "normal")


W = Parameter(ones(2), "w")


@pytest.mark.parametrize(
    ("parameters", "kind", "message"),
    [
        (ones(2), TypeError, "list of parameters, got ndarray"),
        ({"params": [W]}, TypeError, "list of parameters, got dict"),
        ([W, {"params": [W]}], TypeError, "parameter 1"),
        ([{"params": [W]}, W], TypeError, "group 1"),
        ([{"params": []}], ValueError, "group 0: 'params'"),
        ([{"params": W}], TypeError, "group 0: 'params'"),
        ([{"lr": 0.1}], KeyError, "group 0 has no 'params'"),
        ([{"params": [W], "lr": -1.0}], ValueError, "group 0: learning_rate"),
        ([{"params": [W], "weight_decay": "1"}], TypeError, "group 0: weight_decay"),
        ([{"params": [W], "grad_centralization": 1}], TypeError, "group 0: grad_centralization"),
        ([{"params": [W]}, {"order_params": [ones(2)]}], ValueError, "order_params"),
        ([{"params": [W]}, {"order_params": [W, W]}], ValueError, "order_params"),
        ([W, W], RuntimeError, "parameter 1"),
        ([W.value, W.value[:]], RuntimeError, "parameter 1"),
        ([ones(2), np.ones(2, int)], TypeError, "parameter 1"),
        ([np.broadcast_to(ones(1), 3)], ValueError, "parameter 0"),
    ],
)
def test_bad_parameters_are_refused_by_place(parameters: Any, kind: type[Exception], message: str) -> None:
    with pytest.raises(kind, match=message):
        nn.SGD(parameters, learning_rate=0.1)
