"""Steps that are like the one before: gradients are taken by their addresses, and nothing is that
mustn't be."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook  # noqa: E402
from torch_models import PAIRS, model, same, train  # noqa: E402

import mxopt  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402
from mxopt.torch.held import Held  # noqa: E402

NAMES = sorted({name.lower() for name, _ in PAIRS})


@pytest.fixture
def made(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """How many gradients steps have made arrays of."""
    counted: list[int] = []
    arrays_of = Held.arrays_of

    def counting(self: Held, grads: Any) -> list[Any]:
        counted.append(len(grads))
        return arrays_of(self, grads)

    monkeypatch.setattr(Held, "arrays_of", counting)
    return counted


@pytest.mark.parametrize("name", NAMES)
def test_a_step_like_the_one_before_makes_no_arrays_and_has_the_same_bits(name: str, made: list[int]) -> None:
    net = model()
    first = Optimizer(net.parameters(), name, lr=0.01)
    train(net, first, range(6))
    assert made == [4]
    other, always = model(), Held.places_of
    second = Optimizer(other.parameters(), name, lr=0.01)
    try:
        Held.places_of = lambda self, grads: None  # type: ignore[method-assign]
        train(other, second, range(6))
    finally:
        Held.places_of = always  # type: ignore[method-assign]
    assert made == [4] * 7
    same(net, other)
    assert str(first.state_dict()) == str(second.state_dict())


def test_what_changes_between_steps_counts(made: list[int]) -> None:
    """Options, groups, gradients that are left out, loaded states."""
    ours, theirs = model(), model()
    pair = [
        (net, kind([{"params": net[0].parameters(), "lr": 0.05}, {"params": net[2].parameters()}]))
        for net, kind in (
            (ours, lambda groups: Optimizer(groups, "adamw", lr=0.01)),
            (theirs, lambda groups: torch.optim.AdamW(groups, lr=0.01)),
        )
    ]
    saved = [copy.deepcopy(by.state_dict()) for _, by in pair]
    more = [torch.nn.Parameter(torch.ones(3)) for _ in pair]
    for step in range(12):
        for (net, by), extra, before in zip(pair, more, saved, strict=True):
            if step == 3:
                by.param_groups[1]["lr"] = 0.2
            if step == 5:
                by.add_param_group({"params": [extra]})
            if step == 8:
                by.load_state_dict({**by.state_dict(), "state": before["state"]})
            net.requires_grad_(step != 4)
            net[0].bias.requires_grad_(True)
            extra.grad = torch.full((3,), float(step)) if step > 5 else None
            if step > 5 and step % 3 == 0:
                extra.grad = None
            kept = extra.grad
            net.zero_grad()
            (net(torch.ones(2, 4) * step) ** 2).sum().backward()
            extra.grad = kept
            by.step()
    for p, q in zip([*ours.parameters(), more[0]], [*theirs.parameters(), more[1]], strict=True):
        assert torch.allclose(p, q, rtol=2e-5, atol=2e-6)
    assert len(made) < 12


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
def test_a_gradient_in_the_memory_of_a_parameter_is_refused_at_any_step(name: str) -> None:
    memory = torch.ones(9)
    weights = [torch.nn.Parameter(memory[:3]), torch.nn.Parameter(memory[4:7])]
    optimizer = Optimizer(weights, name, lr=0.1)
    for step in range(3):
        for bad in (memory[1:4], memory[2:5], memory[6:9], weights[1].detach()):
            weights[0].grad, weights[1].grad = bad, torch.ones(3)
            before = memory.clone()
            with pytest.raises(ValueError, match="shares memory"):
                optimizer.step()
            assert torch.equal(memory, before), step
        for weight in weights:
            weight.grad = torch.ones(3)
        optimizer.step()


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_gradients_that_are_changed_by_their_data_fit_or_are_refused(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(4, 4))
    optimizer = Optimizer([weight], name, lr=0.1)
    for _ in range(2):
        weight.grad = torch.ones(4, 4)
        optimizer.step()
        before = weight.detach().clone()
        for bad in (torch.ones(2, 2), torch.ones(4, 4).double(), torch.ones(0)):
            weight.grad = torch.ones(4, 4)
            weight.grad.data = bad
            with pytest.raises((ValueError, TypeError), match="gradient"):
                optimizer.step()
            assert torch.equal(weight, before)


@pytest.mark.parametrize("how", ["transposed", "another view", "transposed, as it was", "fewer rows"])
def test_a_parameter_that_lies_otherwise_in_the_same_memory_is_updated_as_it_lies(how: str) -> None:
    ours, theirs = (torch.nn.Parameter(torch.arange(16.0).view(4, 4) / 16) for _ in range(2))
    optimizer, reference = Optimizer([ours], "sgd", lr=0.1), torch.optim.SGD([theirs], lr=0.1)
    generator = torch.Generator().manual_seed(0)
    for step in range(6):
        if step == 3:
            for weight in (ours, theirs):
                weight.grad = None
                if how == "fewer rows":
                    weight.data = weight.data[:2]
                elif how == "another view":
                    weight.data = weight.data.view(2, 8)
                else:
                    weight.data = weight.data.t()
        if step == 5 and how == "transposed, as it was":
            for weight in (ours, theirs):
                weight.grad = None
                weight.data = weight.data.t()
        grad = torch.randn(ours.shape, generator=generator)
        ours.grad, theirs.grad = grad, grad.clone()
        optimizer.step()
        reference.step()
        assert torch.allclose(ours, theirs), step


def test_an_engine_that_is_chosen_later_is_used(made: list[int]) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), "adamw", lr=0.01)
    train(net, optimizer, range(2))
    with mxopt.use_engine("numpy"):
        train(net, optimizer, range(2, 4))
    train(net, optimizer, range(4, 6))
    assert len(made) in (3, 4)


GRADS: dict[str, Any] = {
    "none": lambda: None,
    "an array": lambda: np.ones(5, np.float32),
    "a parameter": lambda: torch.nn.Parameter(torch.ones(5)),
    "of another shape": lambda: torch.ones(6),
    "with an axis more": lambda: torch.ones(1, 5),
    "of another dtype": lambda: torch.ones(5).double(),
    "of as many bytes": lambda: torch.ones(5, dtype=torch.int32),
    "sparse": lambda: torch.ones(5).to_sparse(),
    "strided": lambda: torch.ones(10)[::2],
    "broadcast": lambda: torch.ones(1).expand(5),
    "elsewhere": lambda: torch.ones(5, device="meta"),
    "negated": lambda: torch._neg_view(torch.ones(5)),
}


@pytest.mark.parametrize("kind", GRADS)
def test_only_gradients_of_the_common_kind_are_taken_by_their_addresses(kind: str) -> None:
    shapes = (3, 4), (5,), (), (0, 3), (2, 1, 3)
    weights = [torch.nn.Parameter(torch.ones(shape)) for shape in shapes]
    held = Held.of(weights, list("abcde"))
    grads = [torch.ones(shape) for shape in shapes]
    for _ in range(2):
        found = held.places_of(grads)
        assert found is not None
        assert list(found) == [grad.data_ptr() for grad in grads]
        assert held.places_of([grads[0], GRADS[kind](), *grads[2:]]) is None


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64, torch.complex64], ids=str)
def test_gradients_of_every_dtype_are(dtype: Any) -> None:
    weight, grad = (torch.ones(3, 2, dtype=dtype) for _ in range(2))
    held = Held.of([weight], ["a"])
    found = held.places_of([grad])
    assert found is not None
    assert list(found) == [grad.data_ptr()]
    if dtype is torch.complex64:
        assert held.places_of([grad.conj()]) is None


def test_a_parameter_of_another_dtype_in_the_same_memory_is_refused() -> None:
    weight = torch.ones(4)
    optimizer = Optimizer([weight], "sgd", lr=0.1)
    for _ in range(3):
        weight.grad = torch.ones(4)
        optimizer.step()
    weight.grad = None
    weight.data = weight.data.view(torch.int32)
    before = weight.detach().clone()
    weight.grad = torch.ones(4, dtype=torch.int32)
    with pytest.raises((ValueError, TypeError), match="int32"):
        optimizer.step()
    assert torch.equal(weight, before)


def test_hooks_and_profiles_that_begin_later_see_every_step_once() -> None:
    net, seen = model(), list[str]()
    optimizer = Optimizer(net.parameters(), "adamw")

    def names() -> list[tuple[str, int]]:
        with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
            optimizer.step()
        return [(e.key, e.count) for e in profile.key_averages() if e.key.startswith("Optimizer.step")]

    train(net, optimizer, range(2))
    for register, whose in (
        (optimizer.register_step_pre_hook, "before"),
        (optimizer.register_step_post_hook, "after"),
        (register_optimizer_step_pre_hook, "before all"),
        (register_optimizer_step_post_hook, "after all"),
    ):
        hook = register(lambda *_, whose=whose: seen.append(whose))
        optimizer.step()
        hook.remove()
        optimizer.step()
    assert seen == ["before", "after", "before all", "after all"]
    assert names() == names() == [("Optimizer.step#Optimizer.step", 1)]
    optimizer.register_step_pre_hook(lambda *_: 3)
    with pytest.raises(RuntimeError, match="must return None or a tuple"):
        optimizer.step()
