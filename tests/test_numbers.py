"""Numbers wherever one goes: NumPy's, fractions and arrays without axes count as the number they
are; what is none is an error that names it, and nothing has changed then."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import warnings
from collections.abc import Callable
from decimal import Decimal
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from table import ROWS, Row

import mxopt
from mxopt import Parameter, Trainer, create, get_updater, lr_scheduler, nn, sparse
from mxopt.errors import ArgumentError, ArgumentTypeError, MXOptError
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules

NUMBERS: dict[str, Callable[[float], Any]] = {
    "float32": np.float32,
    "float16": np.float16,
    "fraction": Fraction,
    "no axes": lambda x: np.array(x, np.float32),
}
every_kind = pytest.mark.parametrize("kind", NUMBERS.values(), ids=NUMBERS)
FAMILIES: dict[str, Callable[[list[Parameter]], Any]] = {
    "mxopt.optimizer": lambda params: create("sgd", learning_rate=0.5),
    "mxopt.experimental": lambda params: optim.SGD(params, 0.5),
    "mxopt.nn": lambda params: nn.SGD(params, 0.5),
}
every_family = pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)


def ones(*shape: int) -> np.ndarray:
    return np.ones(shape or 3, np.float32)


def trained(optimizer: Any) -> bytes:
    updater, weight = get_updater(optimizer), ones(4, 3)
    for k in range(4):
        updater("w_weight", np.linspace(-1, k, 12, dtype=np.float32).reshape(4, 3), weight)
    return weight.tobytes()


def narrowed(row: Row, kind: Callable[[float], Any]) -> dict[str, Any]:
    return {name: kind(x) if isinstance(x, float) else x for name, x in {**row.options, "learning_rate": 0.01}.items()}


@every_kind
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_optimizer_made_with_other_numbers_steps_as_with_pythons(row: Row, kind: Callable[[float], Any]) -> None:
    """In float32, `1 - 0.999` would be 1.3e-5 off."""
    given = narrowed(row, kind)
    plain = {name: float(x) if type(x) is type(kind(0.5)) else x for name, x in given.items()}
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        assert trained(create(row.name, **given)) == trained(create(row.name, **plain))


@every_kind
def test_a_rate_that_is_set_later_counts_as_the_number_that_it_is(kind: Callable[[float], Any]) -> None:
    found = []
    for number in (kind, lambda x: float(kind(x))):
        optimizer = create("adam")
        optimizer.set_learning_rate(number(0.1))
        first = trained(optimizer)
        optimizer.lr = number(0.2)
        found.append((first, trained(optimizer)))
    assert found[0] == found[1]


def test_an_array_that_was_given_for_a_number_is_not_kept() -> None:
    rate = np.array(0.5)
    optimizer = create("sgd", learning_rate=rate)  # type: ignore[call-overload]
    rate[...] = 9
    assert optimizer.learning_rate == 0.5


SCHEDULES: dict[str, Callable[[Any], lr_scheduler.LRScheduler]] = {
    "factor": lambda of: lr_scheduler.FactorScheduler(2, of(0.9), base_lr=of(0.1), warmup_steps=1),
    "several": lambda of: lr_scheduler.MultiFactorScheduler([2, 4], of(0.9), base_lr=of(0.1)),
    "cosine": lambda of: lr_scheduler.CosineScheduler(9, base_lr=of(0.1), final_lr=of(0.01)),
    "power": lambda of: lr_scheduler.PolyScheduler(9, base_lr=of(0.1), pwr=of(1.5)),
}


@every_kind
@pytest.mark.parametrize("make", SCHEDULES.values(), ids=SCHEDULES)
def test_schedules_made_with_other_numbers_give_the_same_rates(make: Any, kind: Callable[[float], Any]) -> None:
    ours, plain = make(kind), make(lambda x: float(kind(x)))
    rates = [ours(n) for n in range(12)]
    assert rates == [plain(n) for n in range(12)]
    assert set(map(type, rates)) <= {float, int}


@pytest.mark.parametrize("wrong", [None, "0.1", [0.1], ones()], ids=repr)
@pytest.mark.parametrize("name", ["sgd", "adam", "lamb", "lars", "lbsgd", "nadam"])
def test_a_schedule_that_gives_no_number_is_named_and_changes_nothing(name: str, wrong: Any) -> None:
    updater, weights = get_updater(create(name, lr_scheduler=lambda n: wrong)), [ones(), ones()]
    for call in (lambda: updater(0, ones(), weights[0]), lambda: updater([0, 1], [ones(), ones()], weights)):
        with pytest.raises(ArgumentError, match=r"learning rate that lr_scheduler gives for update [01] must be"):
            call()  # type: ignore[no-untyped-call]
    assert np.array(weights).tolist() == [[1, 1, 1]] * 2
    assert (updater.optimizer.num_update, updater.optimizer.has_updated(0)) == (0, False)


@pytest.mark.parametrize("name", ["sgd", "adam", "lamb", "lars", "lbsgd", "nadam", "ftml"])
def test_after_a_schedule_has_raised_the_run_goes_on_as_if_nothing_had_been(name: str) -> None:
    """LBSGD's sums of gradients too."""
    asked = [0]

    def failing(n: int) -> float:
        asked[0] += 1
        if asked[0] % 3 == 0:
            raise OSError("the file of rates is gone")
        return 0.1

    more = {"batch_scale": 2, "warmup_strategy": "none"} if name == "lbsgd" else {}
    results = []
    for schedule in (failing, lambda n: 0.1):
        updater, weight = get_updater(create(name, lr_scheduler=schedule, **more)), ones()
        for k in range(8):
            for _ in range(3):
                try:
                    updater(0, ones() * (k + 1), weight)
                except OSError:
                    continue
                break
        results.append(weight.tolist())
    assert results[0] == results[1]


@pytest.mark.parametrize("engine", ["llvm", "numpy"])
@pytest.mark.parametrize(("option", "wrong"), [("lr", "0.1"), ("lr", None), ("wd", "x"), ("rescale_grad", None)])
def test_an_option_that_was_set_to_no_number_is_named(option: str, wrong: Any, engine: str) -> None:
    with mxopt.use_engine(engine):
        updater, weights = get_updater(create("sgd", learning_rate=0.1)), [ones(), ones()]
        updater(0, ones(), weights[0])
        before = [w.tolist() for w in weights]
        setattr(updater.optimizer, option, wrong)
        for call in (lambda: updater(0, ones(), weights[0]), lambda: updater([0, 1], [ones(), ones()], weights)):
            with pytest.raises(ArgumentTypeError, match=f"SGD: .* must be a number, got {wrong!r}"):
                call()  # type: ignore[no-untyped-call]
    assert [w.tolist() for w in weights] == before
    assert (updater.optimizer.count(0), updater.optimizer.has_updated(1)) == (1, False)


@pytest.mark.parametrize("scalars", [(0.1,), (0.1, 0.2, 0.3)])
def test_scalars_of_a_subclass_that_are_too_few_or_too_many_are_named(scalars: tuple[float, ...]) -> None:
    class Own(mxopt.optimizer.SGD):
        def scalars(self, index: Any, lr: float, t: int) -> tuple[float, ...]:
            return scalars

    weight = ones()
    with pytest.raises(ArgumentError, match=rf"Own.scalars must return 2 numbers \(lr, momentum\), got {len(scalars)}"):
        get_updater(Own(momentum=0.9))(0, ones(), weight)
    assert weight.tolist() == [1, 1, 1]


@every_family
@pytest.mark.parametrize("which", ["lr_mult", "wd_mult"])
@pytest.mark.parametrize("wrong", ["fast", None, float("nan"), ones(2)], ids=repr)
def test_a_multiplier_that_is_no_number_is_named(make: Any, which: str, wrong: Any) -> None:
    with pytest.raises(ArgumentError, match=f"parameter 'w': its {which}"):
        Parameter(ones(), "w", **{which: wrong})
    param = Parameter(ones(), "w")
    trainer = Trainer([param], make([param]))
    param.grad = ones()
    setattr(param, which, wrong)
    with pytest.raises(ArgumentError, match=which):
        trainer.step(1)
    assert param.value.tolist() == [1, 1, 1]
    setattr(param, which, np.float32(1))
    trainer.step(1)
    assert param.value.tolist() == [0.5, 0.5, 0.5]


@pytest.mark.parametrize("index", [None, 1.5, frozenset([1]), 1 << 64])
def test_an_index_that_no_state_could_be_saved_under_is_refused_at_its_first_update(index: Any) -> None:
    updater, weight = get_updater(create("adam")), ones()
    for call in (lambda: updater(index, ones(), weight), lambda: updater([index], [ones()], [weight])):
        with pytest.raises(ArgumentTypeError, match="index"):
            call()  # type: ignore[no-untyped-call]
    assert (weight.tolist(), updater.states) == ([1, 1, 1], {})


@pytest.mark.parametrize("count", [-1, 1.5, "3", float("nan"), True])
def test_updates_begin_at_a_whole_number(count: Any) -> None:
    with pytest.raises(ArgumentError, match="Adam: begin_num_update"):
        create("adam", begin_num_update=count)
    assert create("adam", begin_num_update=np.int64(3)).num_update == 3  # type: ignore[call-overload]


def test_numpys_whole_numbers_go_where_whole_numbers_go() -> None:
    two = np.int64(2)
    mxopt.Updater(create("lbsgd", batch_scale=two, begin_num_update=two), accumulate=two)  # type: ignore[call-overload]
    threads = mxopt.get_num_threads()
    mxopt.set_num_threads(np.int64(threads))
    assert mxopt.curve(lr_scheduler.FactorScheduler(two), two).rates.shape == (2, 1)
    with pytest.raises(ArgumentError, match="steps must be a whole number"):
        mxopt.curve(lr_scheduler.FactorScheduler(2), 2.5)


@pytest.mark.parametrize("number", [Fraction(1, 2), Decimal("0.5"), np.float64(0.5), np.float32(0.5), 0.5], ids=repr)
def test_a_row_sparse_array_keeps_its_dtype_with_any_number(number: Any) -> None:
    x = sparse.row_sparse_array((ones(2, 2), [0, 3]), shape=(5, 2))
    half = x * number
    x *= number
    for found in (half, x):
        assert (found.dtype, found.data.tolist()) == (np.float32, [[0.5, 0.5]] * 2)
    assert (x + number).dtype == np.float32
    assert (x == number)[:, 0].tolist() == [True, False, False, True, False]


def test_an_average_takes_its_decay_as_the_number_that_it_is() -> None:
    found = []
    for decay in (np.float32(0.999), float(np.float32(0.999))):
        weight = ones()
        average = mxopt.ExponentialMovingAverage({"w": weight}, decay)
        weight[...] = 3
        average.update()
        found.append(average.averages["w"].tobytes())
    assert found[0] == found[1]


class Given(nn.LearningRateSchedule):
    """0.5, then what it was made with."""

    def __init__(self, value: Any) -> None:
        self.value = value

    def construct(self, global_step: Any) -> Any:
        return self.value if global_step else 0.5


@pytest.mark.parametrize("wrong", [None, "x", float("nan"), ones(2)], ids=repr)
@pytest.mark.parametrize(
    ("what", "make"),
    [
        ("learning rate", lambda w, given: nn.SGD([w], given)),
        ("weight decay", lambda w, given: nn.Momentum([w], 0.5, 0.9, weight_decay=given)),
    ],
)
def test_a_schedule_of_mindspores_that_gives_no_number_is_named(what: str, make: Any, wrong: Any) -> None:
    weight = ones()
    optimizer = make(weight, Given(wrong))
    optimizer((ones(),))
    before = weight.tolist()
    with pytest.raises(ArgumentError, match=f"the {what} that .* gives for step 1"):
        optimizer((ones(),))
    assert (weight.tolist(), optimizer.global_step) == (before, 1)


def test_a_schedule_of_mindspores_may_give_an_array_of_one_number() -> None:
    weight = ones()
    optimizer = nn.SGD([weight], Given(np.array([0.25], np.float32)))
    optimizer((ones(),))
    optimizer((ones(),))
    assert weight.tolist() == [0.25] * 3


@pytest.mark.parametrize(("entry", "wrong"), [("learning_rates", [[x] for x in (float("nan"), -1.0, "x", None)])])
def test_a_state_dict_with_rates_that_no_step_could_use_is_refused(entry: str, wrong: list[Any]) -> None:
    optimizer = nn.Adam([ones()], 0.1)
    optimizer((ones(),))
    for value in wrong:
        with pytest.raises(mxopt.errors.StatesError):
            optimizer.load_state_dict({**optimizer.state_dict(), entry: value})
    for step in (-1, 1.5, "3", None):
        with pytest.raises(mxopt.errors.StatesError):
            optimizer.load_state_dict({**optimizer.state_dict(), "global_step": step})
    assert (float(optimizer.learning_rate.value), optimizer.global_step) == (0.1, 1)


FUNCTIONS: dict[str, Callable[..., Any]] = {
    "LambdaLR": schedules.LambdaLR,
    "MultiplicativeLR": schedules.MultiplicativeLR,
    "CyclicLR": lambda optimizer, f: schedules.CyclicLR(optimizer, 0.1, 0.2, 1, scale_fn=f, scale_mode="iterations"),
}


@pytest.mark.parametrize("wrong", [None, "x", float("nan")], ids=repr)
@pytest.mark.parametrize("make", FUNCTIONS.values(), ids=FUNCTIONS)
def test_a_function_that_gives_no_number_is_named_and_changes_nothing(make: Any, wrong: Any) -> None:
    optimizer = optim.SGD([ones()], 0.1)
    schedule = make(optimizer, lambda step: 1.0 if step < 2 else wrong)
    schedule.step()
    before = schedule.last_epoch, optimizer.param_groups[0]["lr"]
    with pytest.raises(MXOptError, match=r"(lr_lambda gives for group 0 at step 2|scale_fn gives for 2)"):
        schedule.step()
    assert (schedule.last_epoch, optimizer.param_groups[0]["lr"]) == before
