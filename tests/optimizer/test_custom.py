"""Optimizers of one's own, as people wrote them for MXNet."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import ml_dtypes
import numpy as np
import pytest

import mxopt
from mxopt.errors import StatesError
from mxopt.optimizer import Optimizer


def one() -> np.ndarray:
    return np.ones(1, np.float32)


class Halves(Optimizer):
    """Keeps half of the gradients."""

    def __init__(self, share: float = 0.5, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.share = share

    def create_state(self, index: Any, weight: np.ndarray) -> np.ndarray:
        return np.zeros(weight.shape, weight.dtype)

    def update(self, index: Any, weight: np.ndarray, grad: np.ndarray, state: np.ndarray) -> None:
        assert isinstance(weight, np.ndarray)
        self._update_count(index)
        lr, wd, t = self._get_lr(index), self._get_wd(index), self._index_update_count[index]
        state[:] += self.share * grad / t
        weight[:] -= lr * (state + wd * weight)


@pytest.fixture
def halves() -> Iterator[type[Halves]]:
    yield Optimizer.register(Halves)
    del Optimizer.opt_registry["halves"]


def test_a_custom_optimizer_works_through_the_updater(halves: type) -> None:
    updater = mxopt.get_updater(mxopt.create("halves", learning_rate=1.0, wd=0.5))
    updater.optimizer.set_lr_mult({1: 0.5})
    weights = [one(), one()]
    updater([0, 1], [one(), one()], weights)
    assert [float(w[0]) for w in weights] == [0.0, 0.5]
    updater(0, one(), weights[0])
    assert float(weights[0][0]) == -0.75
    assert updater.optimizer.num_update == 2
    again = mxopt.get_updater(mxopt.create("sgd"))
    again.set_states(updater.get_states(dump_optimizer=True))
    assert type(again.optimizer) is halves
    assert again.optimizer.wd == 0.5
    assert again.optimizer._index_update_count == {0: 2, 1: 1}


@pytest.mark.parametrize("dtype", [np.float16, ml_dtypes.bfloat16])
def test_a_custom_optimizer_gets_masters_from_the_base_class(halves: type, dtype: Any) -> None:
    updater = mxopt.get_updater(mxopt.create("halves", multi_precision=True, learning_rate=0.001))
    twin = mxopt.get_updater(mxopt.create("halves", learning_rate=0.001))
    weight, full = np.ones(3, dtype), np.ones(3, np.float32)
    for _ in range(3):
        updater(0, np.ones(3, dtype), weight)
        twin(0, np.ones(3, np.float32), full)
    master, state = updater.states[0]
    assert np.array_equal(master, full)
    assert np.array_equal(state, twin.states[0])
    assert np.array_equal(weight, full.astype(dtype))


def test_an_optimizer_without_an_update_says_so() -> None:
    updater = mxopt.get_updater(Optimizer())
    with pytest.raises(NotImplementedError, match="update"):
        updater(0, one(), one())
    assert not updater.states


@pytest.fixture
def popping() -> Iterator[type[Optimizer]]:
    @mxopt.register
    class Popping(Optimizer):
        """Takes its options out of **kwargs, as many did for MXNet."""

        def __init__(self, **kwargs: Any) -> None:
            self.rate = kwargs.pop("rate", 0.5)
            super().__init__(**kwargs)

        def update(self, index: Any, weight: np.ndarray, grad: Any, state: Any) -> None:
            weight[:] = weight * self.rate

    yield Popping
    del Optimizer.opt_registry["popping"]


def test_options_may_be_taken_out_of_the_keywords(popping: type) -> None:
    optimizer = Optimizer.create_optimizer("popping", rate=0.25, learning_rate=0.125)
    assert (optimizer.rate, optimizer.lr) == (0.25, 0.125)  # type: ignore[attr-defined]
    again = mxopt.get_updater(mxopt.create("sgd"))
    again.set_states(mxopt.get_updater(optimizer).get_states(dump_optimizer=True))
    assert (type(again.optimizer), again.optimizer.rate) == (popping, 0.25)  # type: ignore[attr-defined]
    with pytest.raises(TypeError, match="ratte"):
        Optimizer.create_optimizer("popping", ratte=0.25)
    with pytest.raises(ValueError, match="wd is NaN"):
        Optimizer.create_optimizer("popping", rate=float("nan"), wd=float("nan"))


def test_keywords_may_be_handed_on_to_an_optimizer_inside() -> None:
    class Wrapping(Optimizer):
        """As MXNet's contrib wrappers: unknown keywords are another's."""

        def __init__(self, inner: str, **kwargs: Any) -> None:
            super().__init__(**{name: kwargs[name] for name in kwargs if name in ("learning_rate", "wd")})
            self.inner = mxopt.create(inner, **kwargs)

        def create_state(self, index: Any, weight: Any) -> Any:
            return self.inner.create_state(index, weight)

        def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
            self.inner.update(index, weight, grad, state)

    weight = one()
    mxopt.get_updater(Wrapping("sgd", momentum=0.5, learning_rate=0.25))(0, one(), weight)
    assert weight.tolist() == [0.75]
    with pytest.raises(TypeError, match=r"'momentun'.*'momentum'"):
        Wrapping("sgd", momentun=0.5)


def test_an_option_that_is_taken_and_not_kept_cannot_be_saved() -> None:
    class Forgetting(mxopt.optimizer.SGD):
        """Takes an option and keeps nothing of it."""

        def __init__(self, **kwargs: Any) -> None:
            kwargs.pop("rate")
            super().__init__(**kwargs)

    mxopt.register(Forgetting)
    try:
        with pytest.raises(StatesError, match="'rate'"):
            mxopt.get_updater(Forgetting(rate=1)).get_states(dump_optimizer=True)
    finally:
        del Optimizer.opt_registry["forgetting"]
