"""`mxopt.torch.Optimizer` beside `torch.optim`: numbers, states, and what PyTorch's users do with an optimizer."""

from __future__ import annotations

import copy
import io
import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

import mxopt  # noqa: E402
from mxopt.migrate import read_npz, read_safetensors, write_npz, write_safetensors  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402

# name, options: the same in torch.optim, whose class has the name in its own spelling.
PAIRS: list[tuple[str, dict[str, Any]]] = [
    ("SGD", {}), ("SGD", {"lr": 0.1, "momentum": 0.9, "dampening": 0.1, "weight_decay": 0.01}),
    ("SGD", {"lr": 0.01, "momentum": 0.9, "nesterov": True}), ("Adam", {}), ("Adam", {"amsgrad": True, "lr": 0.1}),
    ("Adam", {"weight_decay": 0.1, "betas": (0.8, 0.99), "eps": 1e-6}), ("AdamW", {"lr": 0.01}), ("Adamax", {}),
    ("NAdam", {"lr": 0.01}), ("RAdam", {"lr": 0.01}), ("Adadelta", {}), ("Adagrad", {"lr": 0.1, "lr_decay": 0.01}),
    ("ASGD", {"lr": 0.01, "t0": 3.0}), ("RMSprop", {}), ("RMSprop", {"centered": True, "momentum": 0.9}), ("Rprop", {}),
    ("Adam", {"maximize": True}),
]  # fmt: skip
IDS = [f"{name}-{'-'.join(options)}" for name, options in PAIRS]
pairs = pytest.mark.parametrize(("name", "options"), PAIRS, ids=IDS)
NAMES = ["adam", "sgd", "lamb", "lars", "lans", "ftrl", "adabelief", "nag", "groupadagrad", "lbsgd", "sgld"]


def model(seed: int = 0, dtype: Any = None) -> Any:
    torch.manual_seed(seed)
    made = torch.nn.Sequential(torch.nn.Linear(4, 5), torch.nn.Tanh(), torch.nn.Linear(5, 2))
    return made if dtype is None else made.to(dtype)


def backward(net: Any, seed: int) -> None:
    generator = torch.Generator().manual_seed(seed)
    first = next(net.parameters())
    inputs = torch.randn(8, 4, generator=generator).to(first.dtype)
    (net(inputs) ** 2).sum().backward()


def train(net: Any, optimizer: Any, steps: range) -> None:
    for step in steps:
        optimizer.zero_grad()
        backward(net, step)
        optimizer.step()


def values(net: Any) -> list[np.ndarray]:
    return [p.detach().float().numpy().copy() for p in net.parameters()]


def close(a: Any, b: Any) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_allclose(x, y, rtol=2e-5, atol=2e-6)


def same(a: Any, b: Any) -> None:
    for x, y in zip(values(a), values(b), strict=True):
        np.testing.assert_array_equal(x, y)


@pairs
def test_pytorchs_numbers_options_and_defaults(name: str, options: dict[str, Any]) -> None:
    ours, theirs = model(), model()
    train(ours, Optimizer(ours.parameters(), name.lower(), **options), range(12))
    train(theirs, getattr(torch.optim, name)(theirs.parameters(), **options), range(12))
    close(ours, theirs)


@pairs
def test_states_of_torch_optim_go_in_and_the_next_ten_steps_are_the_same(name: str, options: dict[str, Any]) -> None:
    theirs = model()
    reference = getattr(torch.optim, name)(theirs.parameters(), **options)
    train(theirs, reference, range(4))
    ours = copy.deepcopy(theirs)
    optimizer = Optimizer(ours.parameters(), name.lower())
    optimizer.load_state_dict(copy.deepcopy(reference.state_dict()))
    train(theirs, reference, range(4, 14))
    train(ours, optimizer, range(4, 14))
    close(ours, theirs)


@pairs
def test_states_go_out_to_torch_optim_and_the_next_ten_steps_are_the_same(name: str, options: dict[str, Any]) -> None:
    ours = model()
    optimizer = Optimizer(ours.parameters(), name.lower(), **options)
    train(ours, optimizer, range(4))
    theirs = copy.deepcopy(ours)
    reference = getattr(torch.optim, name)(theirs.parameters())
    reference.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    train(theirs, reference, range(4, 14))
    train(ours, optimizer, range(4, 14))
    close(ours, theirs)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("way", ["torch.save", "deepcopy", "pickle"])
def test_a_resumed_run_has_the_same_bits(name: str, way: str) -> None:
    options: dict[str, Any] = {"seed": 5} if name == "sgld" else {}
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01, **options)
    train(net, optimizer, range(3))
    if way == "torch.save":
        file, twin = io.BytesIO(), copy.deepcopy(net)
        torch.save(optimizer.state_dict(), file)
        file.seek(0)
        other = Optimizer(twin.parameters(), name, lr=0.5, **options)
        other.load_state_dict(torch.load(file, weights_only=True))
    elif way == "deepcopy":
        twin, other = copy.deepcopy((net, optimizer))
    else:
        twin, other = pickle.loads(pickle.dumps((net, optimizer)))
    assert other.param_groups[0]["lr"] == 0.01
    train(net, optimizer, range(3, 8))
    before = values(net)
    train(twin, other, range(3, 8))
    same(twin, net)
    for x, y in zip(before, values(net), strict=True):
        np.testing.assert_array_equal(x, y)


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb"])
@pytest.mark.parametrize(
    ("write", "read"), [(write_safetensors, read_safetensors), (write_npz, read_npz)], ids=["safetensors", "npz"]
)
def test_states_go_through_files_that_other_programs_read(name: str, write: Any, read: Any, tmp_path: Path) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(3))
    twin = copy.deepcopy(net)
    write(tmp_path / "states", optimizer.state_dict())
    other = Optimizer(twin.parameters(), name, lr=0.5)
    other.load_state_dict(read(tmp_path / "states"))
    train(net, optimizer, range(3, 8))
    train(twin, other, range(3, 8))
    same(twin, net)


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
    assert (first["lr"], first["weight_decay"], first["beta1"], first["epsilon"]) == (0.1, 0.2, 0.8, 1e-3)


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
        same(net, _of(before))
        backward(net, 0)
        net[0].weight.grad = None
        optimizer.step()
        assert (values(net)[0] == before[0]).all()
        assert (values(net)[1] != before[1]).any()
        assert net[0].weight not in optimizer.state


class _of:  # noqa: N801
    """Arrays as a model's parameters."""

    def __init__(self, arrays: list[np.ndarray]) -> None:
        self.arrays = arrays

    def parameters(self) -> list[Any]:
        return [torch.from_numpy(a) for a in self.arrays]


@pytest.mark.parametrize(("name", "lazy"), [("sgd", False), ("adam", True), ("adagrad", False), ("lamb", False)])
def test_sparse_gradients(name: str, lazy: bool) -> None:
    def run(sparse: bool) -> Any:
        torch.manual_seed(1)
        table = torch.nn.Embedding(6, 3, sparse=sparse)
        options = {"lazy_update": lazy and sparse} if name == "adam" else {}
        optimizer = Optimizer(table.parameters(), name, lr=0.1, **options)
        for step in range(3):
            optimizer.zero_grad()
            (table(torch.tensor([step, 2, 2])) ** 2).sum().backward()
            optimizer.step()
        return table

    sparse, dense = values(run(True))[0], values(run(False))[0]
    if lazy:
        torch.manual_seed(1)
        fresh = torch.nn.Embedding(6, 3).weight.detach().numpy()
        np.testing.assert_array_equal(sparse[3:], fresh[3:])
        assert (sparse[2] != fresh[2]).any()
    else:
        np.testing.assert_allclose(sparse, dense, rtol=1e-6)


def test_autograd_is_told_of_every_write() -> None:
    for name in ("sgd", "lamb"):
        net = model()
        optimizer = Optimizer(net.parameters(), name, lr=0.1)
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


def test_a_parameter_whose_memory_is_exchanged_goes_on() -> None:
    for name in ("adam", "lamb"):
        one, other = model(), model()
        first, second = (Optimizer(net.parameters(), name, lr=0.01) for net in (one, other))
        train(one, first, range(3))
        train(other, second, range(3))
        for p in other.parameters():
            p.data = p.data.clone()
        train(one, first, range(3, 6))
        train(other, second, range(3, 6))
        same(one, other)


def test_what_does_not_fit_is_refused_and_changes_nothing() -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), "adam")
    train(net, optimizer, range(2))
    before = copy.deepcopy(optimizer.state_dict())
    for other in (
        torch.optim.SGD(model().parameters(), 0.1, momentum=0.9),
        Optimizer(model().parameters(), "lamb", lr=0.1),
        torch.optim.Adam(torch.nn.Linear(4, 5).parameters()),
        torch.optim.Adam(torch.nn.Sequential(torch.nn.Linear(4, 6), torch.nn.Linear(6, 2)).parameters()),
    ):
        if len(other.param_groups[0]["params"]) == 4:
            for p in other.param_groups[0]["params"]:
                p.grad = torch.ones_like(p)
            other.step()
        with pytest.raises(ValueError, match="states"):
            optimizer.load_state_dict(other.state_dict())
        after = optimizer.state_dict()
        assert str(after) == str(before)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda p: Optimizer(p, "adamm"), "there is no optimizer 'adamm': did you mean"),
        (lambda p: Optimizer(p, "adam", learning_rat=0.1), "Adam has no argument 'learning_rat'"),
        (lambda p: Optimizer(p, "lamb", momentum=0.1), "lamb has no option 'momentum'"),
        (lambda p: Optimizer(p, "adam", lr=-1.0), "lr must not be negative"),
        (lambda p: Optimizer([], "adam"), "empty parameter list"),
        (lambda p: Optimizer([torch.ones(2, dtype=torch.int32)], "adam"), "int32"),
    ],
)
def test_mistakes_are_named(make: Any, says: str) -> None:
    with pytest.raises((ValueError, TypeError), match=says):
        make(model().parameters())


@pytest.mark.parametrize(
    ("name", "options"), [("adam", {}), ("sgd", {"momentum": 0.9}), ("lamb", {}), ("adabelief", {})]
)
def test_states_in_bfloat16_resume_and_are_converted(name: str, options: dict[str, Any]) -> None:
    def model() -> torch.nn.Module:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 3))

    def train(of: torch.nn.Module, by: Any, steps: range) -> None:
        for step in steps:
            by.zero_grad()
            x = torch.randn(16, 20, generator=torch.Generator().manual_seed(step))
            of(x).square().sum().backward()
            by.step()

    def dtypes(of: Any) -> set[torch.dtype]:
        return {v.dtype for kept in of.state.values() for v in kept.values() if v.ndim}

    whole, part = model(), model()
    narrow = {**options, "state_dtype": "bfloat16"}
    uninterrupted = Optimizer(whole.parameters(), name, **narrow, seed=9)
    train(whole, uninterrupted, range(6))
    assert dtypes(uninterrupted) == {torch.bfloat16}
    first = Optimizer(part.parameters(), name, **narrow, seed=9)
    train(part, first, range(3))
    file = io.BytesIO()
    torch.save(first.state_dict(), file)
    file.seek(0)
    second = Optimizer(part.parameters(), name, **narrow)
    second.load_state_dict(torch.load(file, weights_only=True))
    train(part, second, range(3, 6))
    for a, b in zip(whole.parameters(), part.parameters(), strict=True):
        assert torch.equal(a, b)
    wide = Optimizer(part.parameters(), name, **options)
    wide.load_state_dict(second.state_dict())
    assert dtypes(wide) == {torch.float32}
    again = Optimizer(part.parameters(), name, **narrow)
    again.load_state_dict(wide.state_dict())
    assert dtypes(again) == {torch.bfloat16}
    train(part, again, range(6, 7))


@pytest.mark.parametrize(
    ("kind", "name"), [("AdamW", "adam"), ("Adam", "adamw"), ("NAdam", "nadam"), ("RAdam", "radam")]
)
def test_states_of_another_weight_decay_are_refused(kind: str, name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    decoupled = {"decoupled_weight_decay": True} if kind.lower() == name and kind != "Adam" else {}
    saved = getattr(torch.optim, kind)([weight], weight_decay=0.1, **decoupled).state_dict()
    optimizer = Optimizer([weight], name, weight_decay=0.2)
    with pytest.raises(ValueError, match="weight decay"):
        optimizer.load_state_dict(saved)
    assert optimizer.param_groups[0]["weight_decay"] == 0.2
