"""States of `mxopt.torch.Optimizer`: to and from `torch.optim`, in files and copies, and what is
refused."""

from __future__ import annotations

import copy
import io
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest

torch = pytest.importorskip("torch")

from torch_models import NAMES, backward, close, model, pairs, same, train, values  # noqa: E402

from mxopt.migrate import read_npz, read_safetensors, write_npz, write_safetensors  # noqa: E402
from mxopt.torch import Optimizer  # noqa: E402


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
    ("name", "options"), [("adam", {}), ("sgd", {"momentum": 0.9}), ("lamb", {}), ("adabelief", {})]
)
def test_states_in_bfloat16_resume_and_are_converted(name: str, options: dict[str, Any]) -> None:
    def model() -> Any:
        torch.manual_seed(0)
        return torch.nn.Sequential(torch.nn.Linear(20, 30), torch.nn.Tanh(), torch.nn.Linear(30, 3))

    def train(of: Any, by: Any, steps: range) -> None:
        for step in steps:
            by.zero_grad()
            x = torch.randn(16, 20, generator=torch.Generator().manual_seed(step))
            of(x).square().sum().backward()
            by.step()

    def dtypes(of: Any) -> set[Any]:
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


def test_groups_of_one_rounding_share_its_seed() -> None:
    """The seed of the last group counted for all, whatever the groups showed."""

    def parameter() -> Any:
        made = torch.ones(500, requires_grad=True)
        made.grad = torch.full((500,), 0.1)
        return made

    with pytest.raises(ValueError, match="adam, group 1: all groups share one seed, 0, got 5 for this one"):
        Optimizer([{"params": [parameter()]}, {"params": [parameter()], "seed": 5}], "adam", state_dtype="bfloat16")
    optimizer = Optimizer([parameter()], "adam", state_dtype="bfloat16", seed=5)
    loaded = Optimizer([parameter()], "adam", state_dtype="bfloat16")
    loaded.load_state_dict(optimizer.state_dict())
    loaded.add_param_group({"params": [parameter()]})
    assert [group["seed"] for group in loaded.param_groups] == [5, 5]
    loaded.step()
    before = loaded.param_groups[0]["params"][0].clone()
    loaded.param_groups[0]["seed"] = 6
    with pytest.raises(ValueError, match="Adam: all groups share one seed, got 6, 5"):
        loaded.step()
    assert torch.equal(loaded.param_groups[0]["params"][0], before)
    loaded.param_groups[1]["seed"] = 6
    loaded.step()


@pytest.mark.parametrize("name", ["adam", "lamb"])
def test_a_state_dtype_is_no_option_of_a_group(name: str) -> None:
    with pytest.raises(KeyError, match=f"{name}, group 0 can't have a state_dtype of its own"):
        Optimizer([{"params": [torch.ones(3, requires_grad=True)], "state_dtype": "bfloat16"}], name)


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


@pytest.mark.parametrize("name", ["adamw", "sgd", "lamb", "lars"])
def test_the_whole_optimizer_is_saved_and_loaded_with_its_model(name: str) -> None:
    net, file = model(), io.BytesIO()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    train(net, optimizer, range(3))
    optimizer.param_groups[0]["lr"] = 0.02
    train(net, optimizer, range(3, 4))
    torch.save((net, optimizer), file)
    file.seek(0)
    twin, other = torch.load(file, weights_only=False)
    train(net, optimizer, range(4, 8))
    train(twin, other, range(4, 8))
    same(twin, net)
    assert repr(other) == repr(optimizer)


class OfOneModel(Optimizer):
    """An optimizer of one's own, with other arguments."""

    def __init__(self, net: Any) -> None:
        super().__init__(net.parameters(), "lamb", lr=0.01)


@pytest.mark.parametrize("way", ["deepcopy", "pickle"])
def test_an_optimizer_derived_from_it_is_copied(way: str) -> None:
    net = model()
    optimizer = OfOneModel(net)
    train(net, optimizer, range(3))
    both = (net, optimizer)
    twin, other = copy.deepcopy(both) if way == "deepcopy" else pickle.loads(pickle.dumps(both))
    assert type(other) is OfOneModel
    train(net, optimizer, range(3, 6))
    train(twin, other, range(3, 6))
    same(twin, net)


@pytest.mark.parametrize("kind", ["Adam", "AdamW", "SGD", "RMSprop", "Adagrad", "NAdam"])
@pytest.mark.parametrize("shape", [(), (0, 3)])
@pytest.mark.parametrize("dtype", [torch.float32, torch.complex64], ids=str)
def test_states_of_a_parameter_without_axes_or_elements_go_in_and_out(
    kind: str, shape: tuple[int, ...], dtype: Any
) -> None:
    def run(optimizer: Any, weight: Any, steps: range) -> None:
        for k in steps:
            weight.grad = torch.full(shape, k + 1, dtype=dtype)
            optimizer.step()

    options = {"momentum": 0.9} if kind == "SGD" else {}
    theirs = torch.nn.Parameter(torch.ones(shape, dtype=dtype))
    reference = getattr(torch.optim, kind)([theirs], lr=0.1, **options)
    run(reference, theirs, range(3))
    ours = torch.nn.Parameter(theirs.detach().clone())
    optimizer = Optimizer([ours], kind.lower(), lr=0.1, **options)
    optimizer.load_state_dict(reference.state_dict())
    run(reference, theirs, range(3, 5))
    run(optimizer, ours, range(3, 5))
    back = torch.nn.Parameter(ours.detach().clone())
    again = getattr(torch.optim, kind)([back], lr=0.1, **options)
    again.load_state_dict(optimizer.state_dict())
    run(reference, theirs, range(5, 8))
    run(again, back, range(5, 8))
    assert torch.allclose(back, theirs, rtol=1e-5)


@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
def test_states_of_16_bit_parameters_of_pytorch_go_on_with_master_copies(dtype: str) -> None:
    theirs = model(dtype=getattr(torch, dtype))
    reference = torch.optim.AdamW(theirs.parameters(), lr=0.01)
    train(theirs, reference, range(3))
    ours, full = copy.deepcopy(theirs), copy.deepcopy(theirs).float()
    optimizer = Optimizer(ours.parameters(), "adamw", multi_precision=True)
    optimizer.load_state_dict(reference.state_dict())
    other = torch.optim.AdamW(full.parameters())
    other.load_state_dict(reference.state_dict())
    for step in range(3, 6):
        optimizer.zero_grad()
        backward(ours, step)
        for p, q in zip(ours.parameters(), full.parameters(), strict=True):
            q.grad = p.grad.float()
        optimizer.step()
        other.step()
    for p, q in zip(ours.parameters(), full.parameters(), strict=True):
        master = optimizer.state[p]["master"]
        assert torch.allclose(master, q, rtol=2e-5, atol=2e-6)
        assert torch.equal(master.to(p.dtype), p)


def test_what_pytorchs_groups_have_besides_is_left_there() -> None:
    theirs = model()
    reference = torch.optim.AdamW(theirs.parameters(), fused=True, foreach=False)
    optimizer = Optimizer(theirs.parameters(), "adamw")
    optimizer.load_state_dict(reference.state_dict())
    assert not {"fused", "foreach", "capturable", "differentiable"} & optimizer.param_groups[0].keys()
    copy.deepcopy(optimizer)  # is made by the constructor, which takes no such options


ODD: tuple[Any, ...] = (
    None,
    "x",
    {},
    [[1]],
    float("nan"),
    torch.ones(2),
    torch.eye(3).to_sparse(),
    np.ones(3),
    b"x",
    10**30,
    object(),
)


def paths(tree: Any, at: tuple[Any, ...] = ()) -> list[tuple[Any, ...]]:
    """The places in a tree of dicts, lists and tuples."""
    inner = tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list | tuple) else ()
    return [at, *(path for key, value in inner for path in paths(value, (*at, key)))]


def exchanged(tree: Any, at: tuple[Any, ...], new: Any) -> Any:
    """The tree with something else in one place."""
    if not at:
        return new
    if isinstance(tree, dict):
        return {key: exchanged(value, at[1:], new) if key == at[0] else value for key, value in tree.items()}
    return type(tree)(exchanged(value, at[1:], new) if k == at[0] else value for k, value in enumerate(tree))


@pytest.mark.parametrize("name", ["adam", "nadam", "asgd", "adafactor", "lamb", "lars"])
def test_whatever_stands_in_broken_states_they_are_taken_or_a_value_error_and_nothing_changes(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.1)
    train(net, optimizer, range(2))
    saved = copy.deepcopy(optimizer.state_dict())
    for path in paths(saved):
        for odd in ODD:
            before = str(optimizer.state_dict())
            try:
                optimizer.load_state_dict(exchanged(saved, path, odd))
            except (ValueError, TypeError) as error:
                assert type(error).__module__ == "mxopt.errors", (path, odd, error)  # noqa: PT017
                assert str(optimizer.state_dict()) == before, (path, odd)
            else:
                optimizer.load_state_dict(saved)


@pytest.mark.parametrize("bad", [{}, {"state": {}}, [], model().state_dict()], ids=["empty", "states", "list", "model"])
def test_what_is_no_state_dict_of_an_optimizer_is_refused(bad: Any) -> None:
    with pytest.raises(ValueError, match="takes what the state_dict"):
        Optimizer(model().parameters(), "adamw").load_state_dict(bad)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_state_is_read_and_what_is_in_it_may_be_changed(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    assert len(optimizer.state) == 0
    assert optimizer.state[net[0].weight] == {}
    train(net, optimizer, range(2))
    mean = "exp_avg" if name == "adamw" else "mean"
    kept = optimizer.state[net[0].weight]
    assert kept["step"] == 2
    assert kept[mean].shape == net[0].weight.shape
    kept[mean].zero_()
    assert not optimizer.state_dict()["state"][0][mean].any()
    for p, v in optimizer.state.items():  # as Lightning does
        optimizer.state[p] = {key: x.to("cpu") for key, x in v.items()}
        for key, x in v.items():  # and others
            v[key] = x.to("cpu")
    copied = copy.deepcopy(optimizer.state)
    assert copied.keys() != optimizer.state.keys()  # of other parameters


def test_states_of_an_older_pytorch_without_maximize_are_taken() -> None:
    net, twin = model(), model()
    theirs, ours = torch.optim.AdamW(net.parameters()), Optimizer(twin.parameters(), "adamw", maximize=True)
    train(net, theirs, range(2))
    saved = theirs.state_dict()
    for group in saved["param_groups"]:
        del group["maximize"]
    ours.load_state_dict(saved)
    assert ours.param_groups[0]["maximize"] is False  # as theirs
    assert ours.state[twin[0].weight]["step"] == 2
