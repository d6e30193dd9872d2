"""`mxopt.torch.Optimizer` beside `torch.optim`: numbers, states, and what PyTorch's users do with
an optimizer."""

from __future__ import annotations

import copy
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_models import PAIRS, backward, close, model, of, pairs, same, train, values  # noqa: E402

import mxopt  # noqa: E402
from mxopt.experimental import optim  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402


@pairs
def test_pytorchs_numbers_options_and_defaults(name: str, options: dict[str, Any]) -> None:
    ours, theirs = model(), model()
    train(ours, Optimizer(ours.parameters(), name.lower(), **options), range(12))
    train(theirs, getattr(torch.optim, name)(theirs.parameters(), **options), range(12))
    close(ours, theirs)


@pytest.mark.parametrize("name", ["lamb", "lans", "adabelief", "ftrl", "nag"])
def test_the_optimizers_of_create_are_themselves(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.02, weight_decay=0.01)
    weights, updater = values(net), mxopt.get_updater(mxopt.create(name, learning_rate=0.02, wd=0.01))
    for step in range(5):
        optimizer.zero_grad()
        backward(net, step)
        grads = [p.grad.numpy().copy() for p in net.parameters()]
        optimizer.step()
        updater(list(range(4)), grads, weights)
        for p, w in zip(net.parameters(), weights, strict=True):
            np.testing.assert_array_equal(p.detach().numpy(), w)


def test_words_of_pytorch_and_of_mxnet_mean_the_same() -> None:
    one = Optimizer(model().parameters(), "lamb", lr=0.1, betas=(0.8, 0.9), eps=1e-3, weight_decay=0.2)
    other = Optimizer(model().parameters(), "lamb", learning_rate=0.1, beta1=0.8, beta2=0.9, epsilon=1e-3, wd=0.2)
    first, second = ({k: v for k, v in o.param_groups[0].items() if k != "params"} for o in (one, other))
    assert first == second
    assert (first["lr"], first["weight_decay"], first["betas"], first["eps"]) == (0.1, 0.2, (0.8, 0.9), 1e-3)
    alone = Optimizer(model().parameters(), "lamb", beta1=0.5).param_groups[0]
    assert alone["betas"] == (0.5, 0.999)
    weights = [torch.nn.Parameter(torch.ones(2)) for _ in range(2)]
    groups = [{"params": weights[:1], "learning_rate": 0.3, "wd": 0.4, "beta2": 0.7}, {"params": weights[1:]}]
    optimizer = Optimizer(groups, "lamb", lr=0.1)
    found = [(g["lr"], g["weight_decay"], g["betas"]) for g in optimizer.param_groups]
    assert found == [(0.3, 0.4, (0.9, 0.7)), (0.1, 0.0, (0.9, 0.999))]


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_groups_schedules_and_options_changed_later(name: str) -> None:
    def run(kind: Callable[[Any], Any]) -> Any:
        net = model()
        optimizer = kind([{"params": net[0].parameters(), "lr": 0.05}, {"params": net[2].parameters()}])
        schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
        for step in range(6):
            train(net, optimizer, range(step, step + 1))
            schedule.step()
            if step == 3:
                optimizer.param_groups[1]["weight_decay"] = 0.3
        assert [group["lr"] for group in optimizer.param_groups] == [0.05 / 8, 0.01 / 8]
        return net

    ours = run(lambda groups: Optimizer(groups, name, lr=0.01, weight_decay=0.1))
    if name == "adamw":
        close(ours, run(lambda groups: torch.optim.AdamW(groups, lr=0.01, weight_decay=0.1)))


def test_a_rate_may_be_a_tensor() -> None:
    ours, theirs = model(), model()
    train(ours, Optimizer(ours.parameters(), "adam", lr=torch.tensor(0.03)), range(3))
    train(theirs, torch.optim.Adam(theirs.parameters(), lr=0.03), range(3))
    close(ours, theirs)
    for name in ("adam", "lamb"):
        net, rate = model(), torch.tensor(0.03)
        optimizer = Optimizer(net.parameters(), name, lr=rate)
        train(net, optimizer, range(2))
        before = values(net)
        rate.zero_()
        train(net, optimizer, range(2, 4))
        same(net, of(before))


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)], ids=str)
@pytest.mark.parametrize("name", ["sgd", "adam", "lamb"])
def test_it_may_have_any_shape_of_one_element_as_in_pytorch(name: str, shape: tuple[int, ...]) -> None:
    ours, theirs = model(), model()
    rate = torch.full(shape, 0.03)
    by, alike = Optimizer(ours.parameters(), name, lr=rate), Optimizer(theirs.parameters(), name, lr=rate.item())
    train(ours, by, range(2))
    train(theirs, alike, range(2))
    same(ours, theirs)
    by.param_groups[0]["lr"], alike.param_groups[0]["lr"] = torch.full(shape, 0.5), 0.5
    train(ours, by, range(2, 4))
    train(theirs, alike, range(2, 4))
    same(ours, theirs)


def test_a_rate_of_two_numbers_is_refused() -> None:
    net, two = model(), torch.tensor([0.1, 0.2])
    with pytest.raises(ValueError, match="lr must be a single number"):
        Optimizer(net.parameters(), "sgd", lr=two)
    optimizer = Optimizer(net.parameters(), "sgd", lr=0.1)
    train(net, optimizer, range(2))
    before = values(net)
    optimizer.param_groups[0]["lr"] = two
    with pytest.raises(ValueError, match="lr must be a single number"):
        optimizer.step()
    same(net, of(before))


def test_asgd_takes_whole_numbers_as_pytorch_does_and_mindspore_does_not() -> None:
    def run(kind: Callable[[Any], Any]) -> Any:
        net = model()
        groups = [{"params": net[0].parameters(), "t0": 2}, {"params": net[2].parameters()}]
        optimizer = kind(groups)
        train(net, optimizer, range(4))
        optimizer.param_groups[1]["lambd"] = torch.tensor(1)
        train(net, optimizer, range(4, 8))
        return net

    ours = run(lambda groups: Optimizer(groups, "asgd", t0=3, lambd=0))
    close(ours, run(lambda groups: torch.optim.ASGD(groups, t0=3, lambd=0)))
    with pytest.raises(TypeError, match="t0 must be a float, got 3"):
        optim.ASGD([mxopt.Parameter(np.ones(2, np.float32))], t0=3)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_parameters_of_two_models_may_have_the_same_names(name: str) -> None:
    one, other = model(), model(1)
    groups = [{"params": net.named_parameters()} for net in (one, other)]
    optimizer = Optimizer(groups, name, lr=0.1)
    before = values(other)
    for net in (one, other):
        backward(net, 0)
    optimizer.step()
    assert all((a != b).any() for a, b in zip(before, values(other), strict=True))
    assert [group["param_names"] for group in optimizer.param_groups] == [[n for n, _ in one.named_parameters()]] * 2
    copy.deepcopy(optimizer)


def test_groups_are_added_and_bad_ones_change_nothing() -> None:
    net = model()
    optimizer = Optimizer(net[0].parameters(), "adam")
    train(net, optimizer, range(2))
    with pytest.raises(TypeError, match="optimize Tensors"):
        optimizer.add_param_group({"params": [1]})
    with pytest.raises(ValueError, match="lr must not be negative"):
        optimizer.add_param_group({"params": net[2].parameters(), "lr": -1.0})
    assert len(optimizer.param_groups) == 1
    before = values(net[2])
    optimizer.add_param_group({"params": net[2].parameters(), "lr": 0.5})
    train(net, optimizer, range(2, 4))
    assert all((x != y).any() for x, y in zip(before, values(net[2]), strict=True))


def test_closures_hooks_and_named_parameters() -> None:
    net, seen = model(), []
    optimizer = Optimizer(net.named_parameters(), "lamb", lr=0.01)
    optimizer.register_step_pre_hook(lambda *_: seen.append("before"))
    optimizer.register_step_post_hook(lambda *_: seen.append("after"))

    def closure() -> Any:
        optimizer.zero_grad()
        loss = (net(torch.ones(2, 4)) ** 2).sum()
        loss.backward()
        seen.append("closure")
        return loss

    assert optimizer.step(closure) > optimizer.step(closure)
    assert seen == ["before", "closure", "after"] * 2
    assert optimizer.param_groups[0]["param_names"] == [name for name, _ in net.named_parameters()]


def test_parameters_without_a_gradient_stay() -> None:
    for name in ("adam", "lamb"):
        net = model()
        optimizer = Optimizer(net.parameters(), name, lr=0.1)
        before = values(net)
        optimizer.step()
        same(net, of(before))
        backward(net, 0)
        net[0].weight.grad = None
        optimizer.step()
        assert (values(net)[0] == before[0]).all()
        assert (values(net)[1] != before[1]).any()
        assert net[0].weight not in optimizer.state


def table(sparse: bool, name: str, **options: Any) -> Any:
    """An embedding after three steps of a few rows each."""
    torch.manual_seed(1)
    made = torch.nn.Embedding(6, 3, sparse=sparse)
    optimizer = Optimizer(made.parameters(), name, lr=0.1, **({"seed": 1} if name == "sgld" else {}), **options)
    for step in range(3):
        optimizer.zero_grad()
        (made(torch.tensor([step, 2, 2])) ** 2).sum().backward()
        optimizer.step()
    return made


EVERY = sorted({*mxopt.optimizer.Optimizer.registry, *(name.lower() for name, _ in PAIRS)})


@pytest.mark.parametrize("name", EVERY)
def test_a_sparse_gradient_means_the_dense_one(name: str) -> None:
    sparse, dense = (values(table(sparse, name))[0] for sparse in (True, False))
    np.testing.assert_allclose(sparse, dense, rtol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "sgd", "adagrad", "lamb"])
def test_sparse_and_dense_gradients_go_in_one_step(name: str) -> None:
    found = []
    for sparse in (True, False):
        torch.manual_seed(1)
        rows, linear = torch.nn.Embedding(6, 3, sparse=sparse), torch.nn.Linear(3, 1)
        optimizer = Optimizer([*rows.parameters(), *linear.parameters()], name, lr=0.1)
        for step in range(3):
            optimizer.zero_grad()
            (linear(rows(torch.tensor([step, 2, 2]))) ** 2).sum().backward()
            optimizer.step()
        found.append([*values(rows), *values(linear)])
    for a, b in zip(*found, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-6)


@pytest.mark.parametrize("name", ["adam", "sgd", "ftrl", "adabelief"])
def test_a_lazy_update_leaves_the_rows_alone_that_a_sparse_gradient_has_not(name: str) -> None:
    options = {"momentum": 0.9, "weight_decay": 0.1} if name == "sgd" else {}
    lazy = values(table(True, name, lazy_update=True, **options))[0]
    torch.manual_seed(1)
    fresh = torch.nn.Embedding(6, 3).weight.detach().numpy()
    np.testing.assert_array_equal(lazy[3:], fresh[3:])
    assert (lazy[:3] != fresh[:3]).any(axis=1).all()


@pytest.mark.parametrize("before", [0, 1, 3])
def test_autograd_is_told_of_every_write(before: int) -> None:
    for name in ("sgd", "lamb"):
        net = model()
        optimizer = Optimizer(net.parameters(), name, lr=0.1)
        train(net, optimizer, range(before))
        loss = (net(torch.ones(2, 4)) ** 2).sum()
        loss.backward(retain_graph=True)
        optimizer.step()
        with pytest.raises(RuntimeError, match="modified by an inplace operation"):
            loss.backward()


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("name", ["adam", "sgd", "lamb"])
def test_16_bit_parameters_with_masters_follow_float32(name: str, dtype: str) -> None:
    half = model(dtype=getattr(torch, dtype))
    full = copy.deepcopy(half).float()
    train_on = {"lr": 0.01}
    optimizer = Optimizer(half.parameters(), name, multi_precision=True, **train_on)
    other = Optimizer(full.parameters(), name, **train_on)
    for step in range(6):
        optimizer.zero_grad()
        backward(half, step)
        for p, q in zip(half.parameters(), full.parameters(), strict=True):
            q.grad = p.grad.float()
        optimizer.step()
        other.step()
    for p, q in zip(half.parameters(), full.parameters(), strict=True):
        assert torch.equal(p, q.to(p.dtype))
    saved = optimizer.state_dict()
    assert saved["state"][0]["master"].dtype is torch.float32
    fresh = Optimizer(half.parameters(), name, multi_precision=True)
    fresh.load_state_dict(saved)
    assert torch.equal(fresh.state_dict()["state"][0]["master"], saved["state"][0]["master"])


def test_a_grad_scaler_and_clip_grad_norm_take_it() -> None:
    ours, theirs = model(), model()
    runs = (
        (ours, Optimizer(ours.parameters(), "adam", lr=0.01)),
        (theirs, torch.optim.Adam(theirs.parameters(), lr=0.01)),
    )
    for net, optimizer in runs:
        scaler = torch.amp.GradScaler("cpu", init_scale=2.0**6)
        for step in range(4):
            optimizer.zero_grad()
            loss = (net(torch.full((2, 4), float(step + 1))) ** 2).sum()
            if step == 2:
                loss = loss * float("inf")
            scaler.scale(loss).backward()
            scaler.unscale_(optimizer)
            torch.nn.utils.clip_grad_norm_(net.parameters(), 0.5)
            scaler.step(optimizer)
            scaler.update()
        assert scaler.get_scale() == 2.0**5
    close(ours, theirs)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: Optimizer(p, "adamm"), "there is no optimizer 'adamm': did you mean"),
        (lambda p: Optimizer("adam", p), "second argument is an optimizer's name, behind the parameters; got a gen"),
        (lambda p: Optimizer(p, "adam", learning_rat=0.1), "Adam has no argument 'learning_rat'"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "lamb", momentum=0.1), "lamb has no option 'momentum'"),
        (lambda p: Optimizer(p, "adam", lr=-1.0), "lr must not be negative"),
        (lambda p: Optimizer([], "adam"), "empty parameter list"),
        (lambda p: Optimizer([{"params": p, "wieght_decay": 0.1}], "adamw"), "adamw, group 0 has no option 'wieght_de"),
        (
            lambda p: Optimizer([{"params": p, "wieght_decay": 0.1}], "lamb"),
            "lamb, group 0 has no option 'wieght_decay",
        ),
        (lambda p: Optimizer([{"params": p, "beta1": 0.1}], "adamw"), "'beta1': did you mean 'betas'"),
        (lambda p: Optimizer(p, "lamb", lr_scheduler=None), "lamb has no option 'lr_scheduler'"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "lamb", rescale_grad=0.5), "lamb has no option 'rescale_grad'"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "adam", fused=True), "adam has no option 'fused': leave it out; there is one way"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "lamb", foreach=None), "lamb has no option 'foreach': leave it out; there is one way"),  # type: ignore[call-overload]
        (lambda p: Optimizer([{"params": p, "fused": True}], "adam"), "adam, group 0 has no option 'fused'"),
        (lambda p: Optimizer(p, "adam", capturable=False), "'capturable': leave it out; it is for CUDA graphs"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "adam", differentiable=True), "'differentiable': leave it out; autograd doesn't"),  # type: ignore[call-overload]
        (lambda p: Optimizer(p, "nadam", decoupled_weight_decay=True), "'adamw' decays so, and no other does"),  # type: ignore[call-overload]
    ],
)
def test_mistakes_are_named(make: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError, KeyError), match=says):
        make(model().parameters())


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_it_says_which_optimizer_it_is(name: str) -> None:
    shown = repr(Optimizer(model().parameters(), name, lr=0.25))
    assert shown.startswith(f"Optimizer {name!r} (\nParameter Group 0\n")
    assert "lr: 0.25" in shown


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_bad_option_in_a_group_is_refused_by_the_step_and_changes_nothing(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.1)
    train(net, optimizer, range(1))
    before, step = values(net), int(optimizer.state[net[0].weight]["step"])
    optimizer.param_groups[0]["betas"] = (0.9, 2.0)
    with pytest.raises(ValueError, match="beta"):
        optimizer.step()
    same(net, of(before))
    optimizer.param_groups[0]["betas"] = (0.9, 0.999)
    optimizer.step()
    assert optimizer.state[net[0].weight]["step"] == step + 1
