"""Gradients that share memory with what another tensor of the call writes: refused, by new plans
and by used ones. Whatever isn't refused has the same bits for any number of threads."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from bitwise import array, assert_same, copied, flat

import mxopt
from mxopt.engine import aliases, native
from mxopt.errors import ArrayError
from mxopt.experimental import optim
from mxopt.sparse import RowSparse, row_sparse_array

N = 40_000
BOTH = r"parameter '?1'?.*gradient shares memory with the .*parameter '?0'?"


def grads_like(weights: list[np.ndarray]) -> list[Any]:
    return [np.full_like(w, 0.5) for w in weights]


def made(name: str, **options: Any) -> tuple[mxopt.optimizer.Updater, list[np.ndarray]]:
    """An updater that has made a step of three weights, whose plan is there."""
    updater = mxopt.get_updater(mxopt.create(name, **options))
    dtype = np.float16 if options.get("multi_precision") else np.float32
    weights = [np.ones(N, dtype) for _ in range(3)]
    for _ in range(2):
        updater([0, 1, 2], grads_like(weights), weights)
    return updater, weights


def assert_refused(updater: Any, weights: list[np.ndarray], grad: Any, new: bool) -> None:
    """As the gradient of parameter 1; nothing has changed then."""
    if new:
        updater.optimizer = mxopt.optimizer.Optimizer.create_optimizer(type(updater.optimizer).__name__)
        updater.optimizer.multi_precision = weights[0].dtype == np.float16
    before, count = copied([*weights, *flat(list(updater.states.values()))]), updater.optimizer.num_update
    grads = grads_like(weights)
    grads[1] = grad
    for _ in range(2):
        with pytest.raises(ArrayError, match=BOTH):
            updater([0, 1, 2], grads, weights)
    assert_same([*weights, *flat(list(updater.states.values()))], before)
    assert updater.optimizer.num_update == count
    updater([0, 1, 2], grads_like(weights), weights)


@pytest.mark.parametrize("new", [False, True], ids=["used again", "new"])
@pytest.mark.parametrize("name", ["adam", "lamb", "nadam"])
def test_a_gradient_in_what_another_tensor_writes(name: str, new: bool) -> None:
    updater, weights = made(name)
    assert_refused(updater, weights, weights[0], new)
    updater, weights = made(name)
    assert_refused(updater, weights, flat(updater.states[0])[-1], new)
    updater, weights = made(name, multi_precision=True)
    assert_refused(updater, weights, weights[0], new)


@pytest.mark.parametrize("new", [False, True], ids=["used again", "new"])
def test_a_gradient_in_a_weight_of_another_group_with_another_rule(new: bool) -> None:
    weights = [np.ones(N, np.float32) for _ in range(2)]
    groups = [{"params": [weights[0]], "momentum": 0.9}, {"params": [weights[1]], "momentum": 0.0}]
    optimizer = optim.SGD(groups, 0.1)
    if not new:
        optimizer(grads_like(weights))
    before = copied(weights)
    with pytest.raises(ArrayError, match=r"gradient shares memory with the weight of .*'0'"):
        optimizer([grads_like(weights)[0], weights[0]])
    assert_same(weights, before)
    optimizer(grads_like(weights))


@pytest.mark.parametrize("new", [False, True], ids=["used again", "new"])
def test_a_gradient_that_overlaps_another_weight_in_part(new: bool) -> None:
    updater = mxopt.get_updater(mxopt.create("sgd"))
    memory = np.ones(3 * N, np.float32)
    weights = [memory[:N], np.ones(N, np.float32), np.ones(N, np.float32)]
    if not new:
        updater([0, 1, 2], grads_like(weights), weights)
    for first in (1, N - 1):
        grads = grads_like(weights)
        grads[1] = memory[first : first + N]
        with pytest.raises(ArrayError, match=BOTH):
            updater([0, 1, 2], grads, weights)
    grads[1] = memory[N : 2 * N]  # right behind it
    updater([0, 1, 2], grads, weights)


@pytest.mark.parametrize("new", [False, True], ids=["used again", "new"])
def test_a_gradient_in_the_tensors_own_state(new: bool) -> None:
    updater, weight = mxopt.get_updater(mxopt.create("adam")), np.ones(30, np.float32)
    updater(0, np.ones(30, np.float32), weight)
    before = copied([weight, *flat(updater.states[0])])
    if new:
        updater.optimizer = mxopt.create("adam")
    for arguments in ((0, updater.states[0][1], weight), ([0], [updater.states[0][0]], [weight])):
        with pytest.raises(ArrayError, match="share memory"):
            updater(*arguments)
    assert_same([weight, *flat(updater.states[0])], before)


@pytest.mark.parametrize("new", [False, True], ids=["used again", "new"])
def test_parts_of_row_sparse_gradients(new: bool) -> None:
    memory = np.zeros(400, np.int64)
    weights = [memory.view(np.float32).reshape(100, 8), np.ones((100, 8), np.float32)]
    indices = np.arange(5)
    plain = row_sparse_array((np.ones((5, 8), np.float32), indices), shape=(100, 8))
    updater = mxopt.get_updater(mxopt.create("adam", lazy_update=True))
    if not new:
        updater([0, 1], [plain, plain], weights)
    memory[:] = 0
    memory[100:105] = indices
    for bad in (
        RowSparse(weights[0][3:8], indices, (100, 8)),
        RowSparse(plain.data, memory[100:105], (100, 8)),
    ):
        with pytest.raises(ArrayError, match=BOTH):
            updater([0, 1], [plain, bad], weights)
    own = RowSparse(plain.data, memory[100:105], (100, 8))
    with pytest.raises(ArrayError, match="share"):
        updater(0, own, weights[0])


@pytest.mark.parametrize("face", ["experimental", "nn"])
def test_in_mindspores_faces(face: str) -> None:
    weights = [np.ones(N, np.float32) for _ in range(3)]
    optimizer: Any = optim.Adam(weights) if face == "experimental" else mxopt.nn.Adam(weights)
    for again in (False, True):
        grads = grads_like(weights)
        grads[1] = weights[0]
        before = copied(weights)
        with pytest.raises(ArrayError, match="shares memory"):
            optimizer(tuple(grads))
        assert_same(weights, before, str(again))
        optimizer(tuple(grads_like(weights)))


def test_lists_of_several_dtypes_and_sizes() -> None:
    """Whatever jobs a list falls into, it is one call."""
    weights = [
        np.ones(N, np.float32),
        np.ones(7, np.float32),
        np.ones(9, np.float64),
        np.ones((8, 6), np.float32)[:, ::2],
    ]
    for name in ("adam", "lamb"):
        updater = mxopt.get_updater(mxopt.create(name))
        for _ in range(3):
            updater(list(range(4)), grads_like(weights), weights)  # type: ignore[arg-type]
            for k, bad in ((1, weights[0][5:12]), (2, weights[0][2:20].view(np.float64)), (0, None)):  # type: ignore[index]
                if bad is not None:
                    grads = grads_like(weights)  # type: ignore[arg-type]
                    grads[k] = bad
                    with pytest.raises(ArrayError, match=f"parameter {k}.*parameter 0"):
                        updater(list(range(4)), grads, weights)


def test_one_gradient_of_two_tensors_is_only_read(monkeypatch: pytest.MonkeyPatch) -> None:
    same_for_any_thread_count(
        monkeypatch, lambda memory: ([memory[:N], memory[N : 2 * N]], [memory[2 * N : 3 * N]] * 2)
    )


def test_weights_that_overlap(monkeypatch: pytest.MonkeyPatch) -> None:
    other = np.full(N, 0.5, np.float32)
    same_for_any_thread_count(
        monkeypatch, lambda memory: ([memory[:N], memory[N // 2 : N // 2 + N]], [other, 2 * other])
    )


def same_for_any_thread_count(
    monkeypatch: pytest.MonkeyPatch, arrays: Callable[[np.ndarray], tuple[list[np.ndarray], list[np.ndarray]]]
) -> None:
    """The memory of weights and gradients after some steps."""
    monkeypatch.setattr(native, "PARALLEL", 0)
    found, before = [], mxopt.get_num_threads()
    for threads in (1, 2, 4):
        mxopt.set_num_threads(threads)
        memory = np.tile(np.linspace(-1, 1, N, dtype=np.float32), 3)
        weights, grads = arrays(memory)
        updater = mxopt.get_updater(mxopt.create("adam"))
        for _ in range(5):
            updater([0, 1], grads, weights)
        found.append(memory)
    mxopt.set_num_threads(before)
    assert_same(found[1:], [found[0]] * 2)


def test_a_thousand_tensors_are_looked_through_in_compiled_code(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    updater, indices = mxopt.get_updater(mxopt.create("adam")), list(range(1000))
    memory = array(rng, (2000, 64), "float32")
    places = rng.permutation(2000)
    weights = [memory[k] for k in places[:1000]]
    updater(indices, grads_like(weights), weights)
    with monkeypatch.context() as m:
        m.setattr(aliases, "check", lambda *_: pytest.fail("looked at in Python"))
        for _ in range(3):  # between the weights, in any order
            updater(indices, [memory[k] for k in rng.permutation(places[1000:])], weights)
    for victim, culprit in rng.choice(1000, (20, 2), replace=False):
        grads = [memory[k] for k in places[1000:]]
        grads[victim] = weights[culprit]
        with pytest.raises(ArrayError, match=f"parameter {victim}: .* parameter {culprit},"):
            updater(indices, grads, weights)
