"""What is changed between steps is followed: the numbers of states, and weights that have master
copies."""

from __future__ import annotations

import copy
import gc
from collections import defaultdict
from collections.abc import Callable
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_models import backward, close, model, same, train, values  # noqa: E402

from mxopt.torch import Optimizer  # noqa: E402

COUNTED = ["Adam", "AdamW", "NAdam", "ASGD", "RAdam", "Adafactor"]


def pair(kind: str, **options: Any) -> list[tuple[Any, Any]]:
    ours, theirs = model(), model()
    mine = Optimizer(ours.parameters(), kind.lower(), lr=0.01, **options)
    return [(ours, mine), (theirs, getattr(torch.optim, kind)(theirs.parameters(), lr=0.01, **options))]


@pytest.mark.parametrize("kind", COUNTED)
@pytest.mark.parametrize("to", [0.0, 5.0, 1000.0])
def test_a_step_that_is_written_into_the_state_counts_as_in_pytorch(kind: str, to: float) -> None:
    for net, optimizer in (both := pair(kind)):
        train(net, optimizer, range(3))
        for p in net.parameters():
            optimizer.state[p]["step"].fill_(to)
        assert [float(optimizer.state[p]["step"]) for p in net.parameters()] == [to] * 4
        train(net, optimizer, range(3, 6))
        assert [float(optimizer.state[p]["step"]) for p in net.parameters()] == [to + 3] * 4
    close(*(net for net, _ in both))


@pytest.mark.parametrize(("kind", "name"), [("NAdam", "mu_product"), ("ASGD", "eta")])
def test_other_numbers_of_a_state_may_be_written_too(kind: str, name: str) -> None:
    for net, optimizer in (both := pair(kind)):
        train(net, optimizer, range(3))
        for p in net.parameters():
            optimizer.state[p][name].mul_(0.5)
        train(net, optimizer, range(3, 6))
    close(*(net for net, _ in both))


@pytest.mark.parametrize("name", ["adamw", "lamb", "lars"])
def test_a_step_that_was_set_back_is_saved(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(3))
    optimizer.state[net[0].weight]["step"].zero_()
    twin, other = copy.deepcopy((net, optimizer))
    assert [int(other.state[p]["step"]) for p in twin.parameters()] == [0, 3, 3, 3]
    train(net, optimizer, range(3, 6))
    train(twin, other, range(3, 6))
    same(net, twin)
    assert int(other.state[twin[0].weight]["step"]) == 3


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_number_that_somebody_holds_follows_the_steps(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(2))
    held, saved = optimizer.state[net[0].weight]["step"], optimizer.state_dict()
    assert optimizer.state[net[0].weight]["step"].data_ptr() == held.data_ptr()
    train(net, optimizer, range(2, 5))
    assert held == saved["state"][0]["step"] == saved["state"][3]["step"] == 5
    kept = copy.deepcopy(saved)
    optimizer.load_state_dict(kept)
    train(net, optimizer, range(5, 6))
    assert held == 5  # loaded states are others
    assert kept["state"][0]["step"] == 5
    del held, saved
    gc.collect()
    train(net, optimizer, range(6, 7))
    assert optimizer.state[net[0].weight]["step"] == 7


@pytest.mark.parametrize("name", ["adamw", "lamb"])
@pytest.mark.parametrize("bad", [-1.0, 1.5, float("nan"), float("inf")])
def test_a_step_that_cannot_be_is_refused_until_it_is_mended(name: str, bad: float) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(2))
    step, before = optimizer.state[net[0].bias]["step"], values(net)
    step.fill_(bad)
    for _ in range(2):
        with pytest.raises(ValueError, match="parameter '1': its step must be a whole number, 0 or more"):
            optimizer.step()
        for old, new in zip(before, values(net), strict=True):
            assert (old == new).all()
    step.fill_(2.0)
    optimizer.step()
    assert step == 3


def test_a_number_that_follows_from_another_is_refused() -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), "asgd", lr=0.01)
    train(net, optimizer, range(2))
    optimizer.state[net[0].bias]["mu"].fill_(3.0)
    with pytest.raises(ValueError, match=r"parameter '1': mu can't be set to 3\.0: it follows from step"):
        optimizer.step()


# The dicts of `state`.


def whole(of: Any) -> None:
    of.state = defaultdict(dict)


def put_one(of: Any) -> None:
    first = of.param_groups[0]["params"][0]
    of.state[first]["exp_avg"] = torch.full_like(first, 0.5)
    of.state[first]["step"] = torch.tensor(7.0)


def put_a_dict(of: Any) -> None:
    first = of.param_groups[0]["params"][0]
    kept = of.state.pop(first)
    of.state[first] = {**kept, "exp_avg_sq": torch.ones_like(first)}


def delete(of: Any) -> None:
    del of.state[of.param_groups[0]["params"][0]]


def in_a_loop(of: Any) -> None:
    for state in of.state.values():
        for name, value in state.items():
            state[name] = value * 0.5 if value.ndim else value + 1


CHANGES: dict[str, Callable[[Any], Any]] = {
    "all anew": whole, "cleared": lambda of: of.state.clear(), "one value": put_one, "a dict": put_a_dict,
    "one parameter's": delete, "emptied": lambda of: of.state[of.param_groups[0]["params"][1]].clear(),
    "every value": in_a_loop, "nothing": lambda of: of.state.update(dict(of.state)),
}  # fmt: skip


@pytest.mark.parametrize("change", CHANGES)
def test_states_are_put_in_and_taken_out_as_in_pytorch(change: str) -> None:
    both = pair("AdamW")
    for net, optimizer in both:
        train(net, optimizer, range(3))
        CHANGES[change](optimizer)
        train(net, optimizer, range(3, 6))
    close(*(net for net, _ in both))
    counts = [[int(by.state[p]["step"]) for p in net.parameters()] for net, by in both]
    assert counts[0] == counts[1]


def test_a_parameter_is_exchanged_with_its_state_as_pytorchs_users_do_it() -> None:
    """With more rows, as those grow that are trained with their model."""
    ends = []
    for net, optimizer in pair("Adam"):
        train(net, optimizer, range(3))
        group, old = optimizer.param_groups[0], net[0].weight
        stored = optimizer.state.get(old)
        rows = torch.zeros(2, 4)
        stored["exp_avg"] = torch.cat([stored["exp_avg"], rows])
        stored["exp_avg_sq"] = torch.cat([stored["exp_avg_sq"], rows])
        del optimizer.state[old]
        group["params"][0] = torch.nn.Parameter(torch.cat([old.detach(), rows]))
        optimizer.state[group["params"][0]] = stored
        for step in range(3):
            for p in group["params"]:
                p.grad = torch.full_like(p, 0.1 * step)
            optimizer.step()
        assert int(optimizer.state[group["params"][0]]["step"]) == 6
        ends.append([p.detach() for p in group["params"]])
    for ours, theirs in zip(*ends, strict=True):
        assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_states_that_do_not_fit_are_refused_by_the_step_until_they_do(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(2))
    weight, before, good = net[0].weight, values(net), {p: dict(kept) for p, kept in optimizer.state.items()}
    mean = "exp_avg" if name == "adamw" else "mean"
    optimizer.state[weight][mean] = torch.ones(2)
    for _ in range(2):
        with pytest.raises(ValueError, match="don't fit"):
            optimizer.step()
        for old, new in zip(before, values(net), strict=True):
            assert (old == new).all()
    with pytest.raises(ValueError, match="don't fit"):
        optimizer.state = {weight: {"step": 1, mean: torch.ones(2)}}
    optimizer.state = good
    optimizer.step()
    assert optimizer.state[weight]["step"] == 3
    with pytest.raises(ValueError, match="the state of a parameter is a dict, not 5"):
        optimizer.state[weight] = 5


def test_states_that_somebody_holds_are_those_of_now() -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), "adamw", lr=0.01)
    held = optimizer.state
    assert len(held) == 0
    train(net, optimizer, range(2))
    assert held is optimizer.state
    assert list(held) == list(net.parameters())
    assert held[net[0].weight]["step"] == 2
    del held[net[0].bias]
    train(net, optimizer, range(2, 3))
    assert [int(held[p]["step"]) for p in net.parameters()] == [3, 1, 3, 3]
    one = held[net[0].weight]
    del held
    train(net, optimizer, range(3, 4))
    assert one["step"] == 4
    with pytest.raises(AssertionError, match="looked at before the last step"):
        one["exp_avg"] = torch.zeros_like(net[0].weight)


# Master copies.

NARROW = pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16], ids=str)
BY = pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])


def narrow(dtype: Any, name: str) -> tuple[Any, Any]:
    net = model(dtype=dtype)
    return net, Optimizer(net.parameters(), name, lr=0.01, multi_precision=True)


def still(net: Any, optimizer: Any) -> None:
    """A step that changes nothing by itself."""
    rates = [group["lr"] for group in optimizer.param_groups]
    for group in optimizer.param_groups:
        group["lr"] = 0.0
    for p in net.parameters():
        p.grad = torch.ones_like(p)
    optimizer.step()
    for group, rate in zip(optimizer.param_groups, rates, strict=True):
        group["lr"] = rate


def load(net: Any, others: Any) -> None:
    net.load_state_dict(others.state_dict())


def copy_in(net: Any, others: Any) -> None:
    with torch.no_grad():
        for p, q in zip(net.parameters(), others.parameters(), strict=True):
            p.copy_(q)


def exchange(net: Any, others: Any) -> None:
    for p, q in zip(net.parameters(), others.parameters(), strict=True):
        p.data = q.detach().clone()


@BY
@NARROW
@pytest.mark.parametrize("write", [load, copy_in, exchange])
@pytest.mark.parametrize("before", [1, 3])
def test_weights_that_are_loaded_in_mid_run_are_those_that_are_trained(
    write: Callable[[Any, Any], None], name: str, dtype: Any, before: int
) -> None:
    net, optimizer = narrow(dtype, name)
    others = model(1, dtype=dtype)
    train(net, optimizer, range(before))
    write(net, others)
    still(net, optimizer)
    same(net, others)
    for p, q in zip(net.parameters(), others.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["master"], q.float())
    train(net, optimizer, range(3, 5))
    assert any((a != b).any() for a, b in zip(values(net), values(others), strict=True))


@BY
@NARROW
def test_only_what_is_written_loses_its_bits(name: str, dtype: Any) -> None:
    net, optimizer = narrow(dtype, name)
    train(net, optimizer, range(3))
    weight = net[0].weight
    master = optimizer.state[weight]["master"].clone()
    assert (master != weight.float()).any()
    with torch.no_grad():
        weight[1, 2] = 0.5
    still(net, optimizer)
    master[1, 2] = 0.5
    assert torch.equal(optimizer.state[weight]["master"], master)


@BY
@NARROW
def test_weights_count_where_loaded_master_copies_are_of_others(name: str, dtype: Any) -> None:
    net, optimizer = narrow(dtype, name)
    train(net, optimizer, range(3))
    saved = copy.deepcopy(optimizer.state_dict())
    fresh, again = narrow(dtype, name)
    again.load_state_dict(saved)
    kept = copy.deepcopy(fresh)
    still(fresh, again)
    same(fresh, kept)
    twin, resumed = narrow(dtype, name)
    twin.load_state_dict(net.state_dict())
    resumed.load_state_dict(saved)
    for each, by in ((net, optimizer), (twin, resumed)):
        train(each, by, range(3, 6))
    same(net, twin)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["master"], resumed.state[q]["master"])


@BY
def test_master_copies_stay_where_nobody_else_writes(name: str) -> None:
    net, optimizer = narrow(torch.bfloat16, name)
    twin, other = narrow(torch.bfloat16, name)
    for step in range(6):
        for each, by in ((net, optimizer), (twin, other)):
            by.zero_grad()
            backward(each, step)
            by.step()
        with torch.no_grad():
            for p in twin.parameters():
                p.add_(0)  # which is a write
    same(net, twin)
    for p, q in zip(net.parameters(), twin.parameters(), strict=True):
        assert torch.equal(optimizer.state[p]["master"], other.state[q]["master"])
