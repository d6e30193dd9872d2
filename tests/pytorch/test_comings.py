"""Parameters that come and go with their states, and what others keep in an optimizer's `state`."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_models import NAMES, close, model, train  # noqa: E402

from mxopt.torch import Optimizer  # noqa: E402
from mxopt.torch.backends import is_kept  # noqa: E402

Loop = Callable[[Any, Any], Any]
KINDS = [("SGD", {"lr": 0.05, "momentum": 0.9}), ("AdamW", {"lr": 0.01}), ("Adagrad", {"lr": 0.05})]


def groups_of(net: Any) -> list[Any]:
    return [{"params": list(net[0].parameters())}, {"params": list(net[2].parameters()), "lr": 0.02}]


def put_back(net: Any, optimizer: Any) -> None:
    """A group is left out for a while."""
    train(net, optimizer, range(3))
    group = optimizer.param_groups.pop(0)
    train(net, optimizer, range(3, 6))
    assert net[0].weight in optimizer.state
    optimizer.param_groups.append(group)
    train(net, optimizer, range(6, 9))


def added_again(net: Any, optimizer: Any) -> None:
    train(net, optimizer, range(3))
    group = optimizer.param_groups.pop(0)
    train(net, optimizer, range(3, 6))
    optimizer.add_param_group({"params": group["params"], "lr": 0.03})
    train(net, optimizer, range(6, 9))


def all_anew(net: Any, optimizer: Any) -> None:
    """Other groups of the same parameters."""
    train(net, optimizer, range(3))
    optimizer.param_groups.clear()
    optimizer.step()
    optimizer.add_param_group({"params": list(net[2].parameters())})
    train(net, optimizer, range(3, 5))
    optimizer.add_param_group({"params": list(net[0].parameters()), "lr": 0.03})
    train(net, optimizer, range(5, 8))


def begun_anew(net: Any, optimizer: Any) -> None:
    """The state of one that is away is deleted."""
    train(net, optimizer, range(3))
    away = optimizer.param_groups[0]["params"].pop(0)
    train(net, optimizer, range(3, 5))
    del optimizer.state[away]
    optimizer.param_groups[0]["params"].insert(0, away)
    train(net, optimizer, range(5, 7))


def lookahead(net: Any, optimizer: Any) -> list[Any]:
    """Slow weights, which live in the state."""
    for step in range(6):
        train(net, optimizer, range(step, step + 1))
        for p in net.parameters():
            state = optimizer.state[p]
            if "slow" not in state:
                state["slow"] = p.detach().clone()
            state["slow"].add_(p.detach() - state["slow"], alpha=0.5)
            p.data.copy_(state["slow"])
    return [optimizer.state[p]["slow"] for p in net.parameters()]


def changed_each_step(net: Any, optimizer: Any) -> list[Any]:
    for step in range(5):
        train(net, optimizer, range(step, step + 1))
        for p in net.parameters():
            optimizer.state[p]["mean"[:3]] = optimizer.state[p].get("mea", 0.0) + p.detach()
    return [optimizer.state[p]["mea"] for p in net.parameters()]


def memory_of_a_state(net: Any, optimizer: Any) -> None:
    """The parameter gets the very tensor that was put in, as in sharpness-aware minimization."""
    train(net, optimizer, range(1))
    for step in range(1, 4):
        for p in net.parameters():
            optimizer.state[p]["old"] = p.detach().clone()
        with torch.no_grad():
            for p in net.parameters():
                p.add_(0.1)
        optimizer.zero_grad()
        (net(torch.ones(2, 4) * step) ** 2).sum().backward()
        for p in net.parameters():
            p.data = optimizer.state[p]["old"]
        optimizer.step()


def under_another_key(net: Any, optimizer: Any) -> list[Any]:
    optimizer.state["seen"] = [0]
    for step in range(3):
        train(net, optimizer, range(step, step + 1))
        optimizer.state["seen"][0] += 1
    return [torch.tensor(optimizer.state["seen"])]


LOOPS: list[Loop] = [
    put_back, added_again, all_anew, begun_anew, lookahead, changed_each_step, memory_of_a_state, under_another_key,
]  # fmt: skip


@pytest.mark.parametrize(("kind", "options"), KINDS, ids=[kind for kind, _ in KINDS])
@pytest.mark.parametrize("loop", LOOPS)
def test_it_goes_as_with_pytorchs_optimizer(loop: Loop, kind: str, options: dict[str, Any]) -> None:
    ours, theirs = model(), model()
    optimizer = Optimizer(groups_of(ours), kind.lower(), **options)
    reference = getattr(torch.optim, kind)(groups_of(theirs), **options)
    found, expected = loop(ours, optimizer), loop(theirs, reference)
    close(ours, theirs)
    for x, y in zip(found or (), expected or (), strict=True):
        assert torch.allclose(x, y, rtol=2e-5, atol=2e-6)
    assert sorted(map(str, optimizer.state)) == sorted(map(str, reference.state)) or len(optimizer.state) == 5


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_what_others_keep_is_saved_and_loaded_as_a_copy(name: str) -> None:
    net, other = model(), model()
    optimizer, second = (Optimizer(n.parameters(), name, lr=0.01) for n in (net, other))
    train(net, optimizer, range(2))
    optimizer.state[net[0].bias]["slow"] = torch.ones(5)
    optimizer.state["run"] = {"epoch": 3}
    train(net, optimizer, range(2, 4))
    saved = optimizer.state_dict()
    second.load_state_dict(saved)
    other.load_state_dict(net.state_dict())
    optimizer.state[net[0].bias]["slow"].zero_()
    saved["state"]["run"]["epoch"] = 4
    assert second.state[other[0].bias]["slow"].tolist() == [1.0] * 5
    assert second.state["run"] == {"epoch": 3}
    for n, by in ((net, optimizer), (other, second), copy.deepcopy((other, second))):
        train(n, by, range(4, 6))
        assert "slow" in by.state[n[0].bias]
    close(net, other)


def test_states_of_parameters_that_are_away_are_not_saved() -> None:
    net = model()
    optimizer = Optimizer(groups_of(net), "adamw", lr=0.01)
    train(net, optimizer, range(2))
    del optimizer.param_groups[0]
    assert sorted(optimizer.state_dict()["state"]) == [0, 1]
    train(net, optimizer, range(2, 4))
    assert sorted(optimizer.state_dict()["state"]) == [0, 1]
    assert len(optimizer.state) == 4


def test_a_parameter_that_has_changed_while_it_was_away_is_refused() -> None:
    net = model()
    optimizer = Optimizer(groups_of(net), "adamw", lr=0.01)
    train(net, optimizer, range(2))
    group = optimizer.param_groups.pop(0)
    train(net, optimizer, range(2, 3))
    net[0].weight.grad, net[0].weight.data = None, torch.ones(2, 2)
    with pytest.raises(ValueError, match="the states don't fit"):
        optimizer.add_param_group({"params": group["params"]})
    assert len(optimizer.param_groups) == 1
    before = net[2].bias.detach().clone()
    net[2].bias.grad = torch.ones(2)
    optimizer.step()
    assert not torch.equal(before, net[2].bias)


@pytest.mark.parametrize("name", NAMES)
def test_what_an_optimizer_keeps_has_names_that_are_nobody_elses(name: str) -> None:
    net = model(dtype=torch.bfloat16)
    optimizer = Optimizer(net.parameters(), name, multi_precision=True)
    train(net, optimizer, range(2))
    for kept in optimizer.state.values():
        assert kept
        assert all(map(is_kept, kept))


def test_adagrads_states_are_there_from_the_start_as_in_pytorch() -> None:
    """So that PyTorch takes them at any time."""
    ours, theirs = model(), model()
    optimizer = Optimizer(ours.parameters(), "adagrad", lr=0.05, initial_accumulator_value=0.5)
    reference = torch.optim.Adagrad(theirs.parameters(), lr=0.1)
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    assert all(float(state["step"]) == 0 and (state["sum"] == 0.5).all() for state in optimizer.state.values())
    for net, by in ((ours, optimizer), (theirs, reference)):
        by.state[net[0].bias]["sum"].fill_(2.0)
        train(net, by, range(3))
    close(ours, theirs)


def test_options_that_saved_groups_lack_go_but_its_own_stay() -> None:
    net = model()
    saved = copy.deepcopy(torch.optim.AdamW([{"params": list(net.parameters()), "tag": 1}]).state_dict())
    optimizer = Optimizer([{"params": list(net.parameters()), "mine": 2}], "adamw", lr=0.5)
    (group,) = optimizer.param_groups
    optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0] is group
    assert (group["tag"], group["lr"], "mine" in group, "lazy_update" in group) == (1, 1e-3, False, True)
