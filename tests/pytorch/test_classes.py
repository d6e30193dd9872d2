"""Every optimizer that PyTorch has: its states go in and out, or an error says what to do; and none
takes another's for its own."""

from __future__ import annotations

import copy
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_models import PAIRS, close  # noqa: E402

import mxopt  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402

BASE = torch.optim.Optimizer
CLASSES = sorted(
    name for name, k in vars(torch.optim).items() if isinstance(k, type) and issubclass(k, BASE) and k != BASE
)
LEFT_OUT = {"LBFGS", "Muon"}
TAKEN = {*(name for name, _ in PAIRS), "SparseAdam"}


def test_every_optimizer_of_pytorch_is_here_or_refused_with_what_to_do() -> None:
    assert set(CLASSES) == TAKEN | LEFT_OUT
    for name in LEFT_OUT:
        with pytest.raises(ValueError, match=f"no optimizer {name.lower()!r} here: .* use torch.optim.{name}"):
            Optimizer([torch.ones(2, 2)], name.lower())


def stepped(kind: str) -> Any:
    """An optimizer of PyTorch after two steps of a matrix."""
    weight = torch.nn.Parameter(torch.ones(3, 4))
    optimizer = getattr(torch.optim, kind)([weight], lr=0.1, **({"momentum": 0.9} if kind == "SGD" else {}))

    def closure() -> Any:
        weight.grad = torch.full((3, 4), 0.5)
        weight.grad = weight.grad.to_sparse(1) if kind == "SparseAdam" else weight.grad
        return weight.detach().sum()

    for _ in range(2):
        closure()
        optimizer.step(*([closure] if kind == "LBFGS" else []))
    return optimizer


ALL = sorted({*(name.lower() for name in TAKEN), *mxopt.optimizer.Optimizer.registry})
WITHOUT_DECAY_THE_SAME = {("Adam", "adamw")}


@pytest.mark.parametrize("kind", CLASSES)
@pytest.mark.filterwarnings("ignore")
def test_states_of_another_optimizer_of_pytorch_are_refused_and_nothing_changes(kind: str) -> None:
    saved = stepped(kind).state_dict()
    for name in ALL:
        if name == kind.lower() or (kind, name) in WITHOUT_DECAY_THE_SAME:
            continue
        optimizer = Optimizer([torch.nn.Parameter(torch.ones(3, 4))], name)
        before = str(optimizer.state_dict())
        with pytest.raises(ValueError, match="the states"):
            optimizer.load_state_dict(copy.deepcopy(saved))
        assert str(optimizer.state_dict()) == before


# SparseAdam.


def table(seed: int = 0) -> Any:
    torch.manual_seed(seed)
    return torch.nn.Embedding(7, 3, sparse=True)


def train(net: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        rows = torch.tensor([step % 7, 2, 2, 5] if step % 4 else [], dtype=torch.long)
        (net(rows) ** 2 * (1 + step)).sum().backward()
        optimizer.step()


@pytest.mark.parametrize(
    "options", [{}, {"lr": 0.1, "betas": (0.8, 0.9), "eps": 1e-3}, {"maximize": True}], ids=["", "options", "maximize"]
)
def test_sparse_adam_has_pytorchs_numbers_and_its_states_go_in_and_out(options: dict[str, Any]) -> None:
    ours, theirs = table(), table()
    optimizer = Optimizer(ours.parameters(), "sparseadam", **options)
    reference = torch.optim.SparseAdam(theirs.parameters(), **options)
    train(ours, optimizer, range(4))
    train(theirs, reference, range(4))
    close(ours, theirs)
    inward, outward = Optimizer(theirs.parameters(), "sparseadam"), torch.optim.SparseAdam(ours.parameters())
    inward.load_state_dict(copy.deepcopy(reference.state_dict()))
    outward.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    for by, net in ((inward, theirs), (outward, ours)):
        train(net, by, range(4, 14))
    close(ours, theirs)
    assert int(inward.state[theirs.weight]["step"]) == int(outward.state[ours.weight]["step"]) == 14


def test_sparse_adam_leaves_rows_without_a_gradient_as_they_are_and_refuses_dense_ones() -> None:
    net = table()
    optimizer = Optimizer(net.parameters(), "sparseadam", lr=0.1)
    train(net, optimizer, range(1, 3))
    before = net.weight.detach().clone()
    optimizer.zero_grad()
    net(torch.tensor([3])).sum().backward()
    optimizer.step()
    assert torch.equal(before[[0, 1, 2, 4, 5, 6]], net.weight[[0, 1, 2, 4, 5, 6]])
    assert not torch.equal(before[3], net.weight[3])
    kept = copy.deepcopy(optimizer.state_dict())
    for _ in range(2):
        before = net.weight.detach().clone()
        net.weight.grad = torch.ones(7, 3)
        with pytest.raises(ValueError, match="parameter '0' has a dense gradient, and SparseAdam takes sparse ones"):
            optimizer.step()
        assert torch.equal(net.weight, before)
        assert str(optimizer.state_dict()) == str(kept)


# Adafactor.


@pytest.mark.parametrize("shape", [(), (1,), (5,), (1, 1), (3, 4), (2, 3, 4), (2, 1, 3, 5), (70, 300), (0, 3)], ids=str)
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_adafactor_has_pytorchs_numbers_for_any_shape(shape: tuple[int, ...], dtype: str) -> None:
    generator = torch.Generator().manual_seed(3)
    start = torch.randn(shape, generator=generator).to(getattr(torch, dtype))
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    optimizer = Optimizer([ours], "adafactor", weight_decay=0.1)
    reference = torch.optim.Adafactor([theirs], weight_decay=0.1)
    for step in range(5):
        ours.grad = torch.randn(shape, generator=generator).to(start.dtype) * 10.0 ** (-3 * step)
        theirs.grad = ours.grad.clone()
        optimizer.step()
        if start.numel():  # else it divides by 0
            reference.step()
    assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    if start.numel():
        mine, other = optimizer.state[ours], reference.state[theirs]
        assert mine.keys() == other.keys()
        for name, value in other.items():
            assert mine[name].shape == value.shape
            np.testing.assert_allclose(mine[name].numpy(), value.numpy(), rtol=2e-5)


def test_adafactors_master_copies_follow_float32_and_its_options_are_checked() -> None:
    half = torch.nn.Parameter(torch.linspace(-1, 1, 24).view(4, 6).bfloat16())
    full = torch.nn.Parameter(half.detach().float())
    optimizer, reference = Optimizer([half], "adafactor", multi_precision=True), torch.optim.Adafactor([full])
    for _ in range(4):
        half.grad = torch.linspace(1, 2, 24).view(4, 6).bfloat16()
        full.grad = half.grad.float()
        optimizer.step()
        reference.step()
    assert torch.allclose(optimizer.state[half]["master"], full, rtol=2e-5, atol=2e-6)
    for bad in (
        {"eps": (-1.0, 1e-3)},
        {"eps": (None, None)},
        {"eps": 1e-3},
        {"d": 0.5},
        {"beta2_decay": 0.1},
        {"lr": -1.0},
    ):
        (option,) = bad
        with pytest.raises((ValueError, TypeError), match=option):
            Optimizer([torch.ones(2)], "adafactor", **bad)
