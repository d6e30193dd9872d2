"""PyTorch's tensors in the hands of updaters, experimental, nn, Trainer and stores: autograd hears
of every write."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mxopt  # noqa: E402
from mxopt import nn  # noqa: E402
from mxopt.engine.plan import Plan  # noqa: E402
from mxopt.experimental import optim  # noqa: E402


def updater_of(name: str, **options: Any) -> Callable[[list[Any], list[Any]], None]:
    updater = mxopt.get_updater(mxopt.create(name, learning_rate=0.1, **options))

    def step(weights: list[Any], grads: list[Any]) -> None:
        updater(list(range(len(weights))), grads, weights)

    return step


def one_by_one(updater: Any, weights: list[Any], grads: list[Any]) -> None:
    for k, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        updater(k, grad, weight)


def by_hand(weights: list[Any], grads: list[Any], several: bool) -> None:
    optimizer = mxopt.create("sgd", learning_rate=0.1)
    known = [(k, w, g, None) for k, (w, g) in enumerate(zip(weights, grads, strict=True)) if g is not None]
    for each in [list(map(list, zip(*known, strict=True)))] if several else known:
        optimizer.update(*each)


def trainer_step(weights: list[Any], grads: list[Any], store: str | None = None) -> None:
    parameters = [mxopt.Parameter(w, f"p{k}") for k, w in enumerate(weights)]
    kvstore = store and mxopt.kvstore.create(store)
    trainer = mxopt.Trainer(parameters, "sgd", {"learning_rate": 0.1}, kvstore=kvstore)
    for parameter, grad in zip(parameters, grads, strict=True):
        parameter.grad = grad
    trainer.step(1, ignore_stale_grad=True)


def store_step(weights: list[Any], grads: list[Any]) -> None:
    store = mxopt.kvstore.create("local")
    store.set_optimizer(mxopt.create("sgd", learning_rate=0.1))
    for k, (weight, grad) in enumerate(zip(weights, grads, strict=True)):
        store.init(k, weight)
        if grad is not None:
            store.push(k, grad)
            store.pull(k, out=weight)


WAYS: dict[str, Callable[[], Callable[[list[Any], list[Any]], None]]] = {
    "updater, list": lambda: updater_of("sgd"),
    "updater, one by one": lambda: partial(one_by_one, mxopt.get_updater(mxopt.create("sgd", learning_rate=0.1))),
    "experimental": lambda: lambda w, g: optim.SGD(w, 0.1)(tuple(g)),
    "nn": lambda: lambda w, g: nn.SGD(w, 0.1)(tuple(g)),
    "optimizer": lambda: partial(by_hand, several=False),
    "optimizer, list": lambda: partial(by_hand, several=True),
    "Trainer": lambda: trainer_step,
    "Trainer with a store": lambda: partial(trainer_step, store="local"),
    "store": lambda: store_step,
}
every_way = pytest.mark.parametrize("way", WAYS)


def tensors() -> tuple[list[Any], Any]:
    """Two weights, and a loss whose second backward pass needs the first one's old value."""
    first = torch.nn.Parameter(torch.ones(3))
    second = torch.nn.Parameter(torch.ones(3))
    return [first, second], (first * first).sum() + second.sum()


@every_way
def test_a_second_backward_through_a_changed_weight_is_an_error(way: str) -> None:
    weights, loss = tensors()
    loss.backward(retain_graph=True)
    WAYS[way]()(weights, [w.grad for w in weights])
    np.testing.assert_allclose(weights[0].detach().numpy(), 0.8, rtol=1e-6)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@every_way
def test_weights_without_a_gradient_stay_and_autograd_hears_nothing_of_them(way: str) -> None:
    weights, loss = tensors()
    loss.backward(retain_graph=True)
    WAYS[way]()(weights, [None, weights[1].grad])
    assert weights[0].tolist() == [1.0] * 3
    np.testing.assert_allclose(weights[1].detach().numpy(), 0.9, rtol=1e-6)
    loss.backward()


@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "float16"])
def test_an_updater_gives_tensors_and_arrays_the_same_bits(name: str, dtype: str) -> None:
    generator = torch.Generator().manual_seed(1)
    weights = [torch.randn(s, generator=generator).to(getattr(torch, dtype)) for s in ((3, 2), (5,))]
    copies = [mxopt.Parameter(w.clone()).value for w in weights]
    by_tensor = updater_of(name, multi_precision=True)
    updater = mxopt.get_updater(mxopt.create(name, learning_rate=0.1, multi_precision=True))

    def by_array(indices: list[int], grads: list[Any], weights: list[Any]) -> None:
        updater(indices, grads, weights)

    for step in range(4):
        grads = [torch.randn(w.shape, generator=generator).to(w.dtype) for w in weights]
        left_out = step == 2
        by_tensor(weights, [None if left_out else grads[0], grads[1]])
        arrays = [mxopt.Parameter(g).value for g in grads]
        by_array([1] if left_out else [0, 1], arrays[left_out:], copies[left_out:])
        for w, c in zip(weights, copies, strict=True):
            assert mxopt.Parameter(w).value.tobytes() == c.tobytes()


@every_way
def test_sparse_gradients_work(way: str) -> None:
    table = torch.nn.Embedding(5, 2, sparse=True)
    before = table.weight.detach().clone()
    table(torch.tensor([1, 3, 3])).sum().backward()
    assert table.weight.grad.is_sparse
    WAYS[way]()([table.weight], [table.weight.grad])
    moved = (before - table.weight.detach()).numpy()
    np.testing.assert_allclose(moved, np.outer([0, 0.1, 0, 0.2, 0], [1, 1]), atol=1e-6)


def test_a_parameter_has_the_name_that_named_parameters_gives_it() -> None:
    model = torch.nn.Linear(2, 1)
    model(torch.ones(1, 2)).sum().backward()
    for make in (lambda p: optim.SGD(p, 0.1), lambda p: nn.SGD(p, 0.1)):
        before = model.weight.detach().clone()
        optimizer = make(list(model.named_parameters()))
        optimizer(tuple(p.grad for p in model.parameters()))
        assert not torch.equal(before, model.weight)
    assert [p.name for p in optimizer.parameters] == ["weight", "bias"]


def test_clipping_tells_autograd() -> None:
    weights, loss = tensors()
    loss.backward(retain_graph=True)
    mxopt.clip_global_norm([weights[0].detach()], 10.0)
    loss.backward(retain_graph=True)
    mxopt.clip_global_norm([weights[0].detach()], 0.1)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_parameters_in_the_place_of_their_gradients_are_not_clipped() -> None:
    """As `clip_grad_norm_` takes them, which looks for their gradients itself."""
    weight = torch.nn.Parameter(torch.ones(3))
    weight.grad = torch.ones(3)
    with pytest.raises(ValueError, match=r"array 0 is a parameter.* give its \.grad"):
        mxopt.clip_global_norm([weight], 0.5)
    assert weight.tolist() == weight.grad.tolist() == [1.0] * 3
    mxopt.clip_global_norm([weight.grad, weight.data], 0.5)
    assert weight[0] < 1


def test_set_data_tells_autograd() -> None:
    weights, loss = tensors()
    loss.backward(retain_graph=True)
    mxopt.Parameter(weights[0]).set_data(np.zeros(3, np.float32))
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


def test_a_trainer_of_a_models_parameters_takes_the_tensors_own_gradients() -> None:
    torch.manual_seed(3)
    model, alike = torch.nn.Linear(4, 2), torch.nn.Linear(4, 2)
    alike.load_state_dict(model.state_dict())
    trainer = mxopt.Trainer(dict(model.named_parameters()), "sgd", {"learning_rate": 0.1, "wd": 0.0})
    theirs = torch.optim.SGD(alike.parameters(), lr=0.1)
    for _ in range(3):
        x = torch.randn(5, 4)
        for each in (model, alike):
            each.zero_grad()
            (each(x) ** 2).sum().backward()
        trainer.step(1)
        theirs.step()
    for mine, other in zip(model.parameters(), alike.parameters(), strict=True):
        assert torch.allclose(mine, other, rtol=0, atol=1e-6)
    model.zero_grad()
    with pytest.raises(mxopt.errors.MXOptError, match="has no gradient"):
        trainer.step(1)


def test_a_parameter_over_a_tensor_has_the_tensors_gradient_until_it_is_given_another() -> None:
    tensor = torch.nn.Parameter(torch.zeros(3))
    parameter = mxopt.Parameter(tensor, "w")
    assert parameter.grad is None
    tensor.grad = torch.ones(3)
    assert parameter.grad is tensor.grad
    parameter.zero_grad()
    assert tensor.grad.sum() == 0  # type: ignore[attr-defined]
    parameter.grad = np.full(3, 2.0, np.float32)
    assert parameter.grad[0] == 2
    parameter.grad = None
    assert parameter.grad is None
    assert tensor.grad is None


def test_clipping_rescales_tensors_in_place_sparse_ones_too_and_tells_autograd() -> None:
    weights, loss = tensors()
    loss.backward(retain_graph=True)
    table = torch.nn.Embedding(5, 2, sparse=True)
    table(torch.tensor([1, 3, 3])).sum().backward()
    grads = [weights[0].grad, table.weight.grad, torch.ones(2, dtype=torch.bfloat16)]
    norm = mxopt.clip_global_norm(grads, 1.0)
    np.testing.assert_allclose(norm, np.sqrt(3 * 4 + 2 * (1 + 4) + 2))
    np.testing.assert_allclose(weights[0].grad.numpy(), 2 / norm, rtol=1e-6)
    np.testing.assert_allclose(table.weight.grad.to_dense()[3].numpy(), 2 / norm, rtol=1e-6)
    np.testing.assert_allclose(grads[2].float().numpy(), 1 / norm, rtol=4e-3)
    mxopt.clip_global_norm([weights[0].detach()], 0.5)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.parametrize("optimizer", ["sgd", "lbsgd"])
def test_a_trainer_clips_and_guards_by_the_gradients_of_tensors(optimizer: str) -> None:
    table, linear = torch.nn.Embedding(5, 2, sparse=True), torch.nn.Linear(2, 1)
    named = {**dict(linear.named_parameters()), "table": table.weight}
    summed = {"batch_scale": 2, "warmup_epochs": 0} if optimizer == "lbsgd" else {}
    trainer = mxopt.Trainer(
        named, optimizer, {"learning_rate": 0.1, **summed}, kvstore=None, clip_global_norm=0.5, skip_nonfinite=True
    )
    before = table.weight.detach().clone()
    for factor in (1.0, float("nan"), 1.0):
        table.zero_grad()
        linear.zero_grad()
        (linear(table(torch.tensor([1, 3, 3]))) * factor).sum().backward()
        trainer.step(1)
    assert trainer.skipped == 1
    assert torch.equal(table.weight[[0, 2, 4]], before[[0, 2, 4]])
    moved = (before - table.weight.detach()).norm() / 0.1
    assert 0 < moved <= 2 * 0.5 * (1 + 1e-5)


@pytest.mark.parametrize("dtype", ["float32", "bfloat16"])
@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
@pytest.mark.parametrize("way", ["updater, list", "updater, one by one", "experimental", "nn"])
@pytest.mark.filterwarnings("ignore:bfloat16 weights without a master copy")
def test_what_a_step_on_tensors_needs_is_prepared_once(
    way: str, name: str, dtype: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    made: list[Any] = []
    prepare = Plan.__init__

    def counting(self: Plan, *arguments: Any) -> None:
        made.append(arguments)
        prepare(self, *arguments)

    monkeypatch.setattr(Plan, "__init__", counting)
    weights = [torch.nn.Parameter(torch.ones(s, dtype=getattr(torch, dtype))) for s in ((4, 3), (5,))]
    updater = mxopt.get_updater(mxopt.create(name, learning_rate=0.1, multi_precision=True))
    step = {
        "updater, list": lambda grads: updater([0, 1], grads, weights),
        "updater, one by one": lambda grads: one_by_one(updater, weights, grads),
        "experimental": optim.Adam(weights, multi_precision=True),
        "nn": nn.Momentum(weights, 0.1, 0.9),
    }[way]
    for k in range(5):
        step([torch.full_like(w, float(k + 1)).detach() for w in weights])  # type: ignore[operator]
        assert len(made) <= 2
    with torch.no_grad():
        weights[0].data = weights[0].data.clone()  # elsewhere in memory
    if way.startswith("updater"):
        before = weights[0].detach().clone()
        step([torch.ones_like(w).detach() for w in weights])  # type: ignore[operator]
        assert not torch.equal(weights[0], before)


def test_an_updater_finds_a_tensor_that_has_become_another() -> None:
    updater = mxopt.get_updater(mxopt.create("adam"))
    for _ in range(2):
        updater("w", torch.ones(3), torch.ones(3))
    saved = updater.get_states()
    for other in (torch.ones(4), torch.ones(3).double(), torch.ones(3, 1)):
        with pytest.raises(ValueError, match="'w'"):
            updater("w", torch.ones_like(other), other)
    assert updater.get_states() == saved
    weight, array = torch.ones(3), np.ones(3, np.float32)
    updater("w", torch.ones(3), weight)
    updater.set_states(saved)
    updater("w", np.ones(3, np.float32), array)
    assert weight.numpy().tobytes() == array.tobytes()
