"""The parameters that `mxopt.torch.Optimizer` takes: any memory, and changes of it between steps;
and refuses."""

from __future__ import annotations

import copy
from collections.abc import Callable
from threading import Thread
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch_models import close, model, of, same, train, values  # noqa: E402

from mxopt.torch import Optimizer  # noqa: E402

BOTH = pytest.mark.parametrize("name", ["adamw", "lamb"])
LAYOUTS: dict[str, Callable[[], Any]] = {
    "transposed": lambda: torch.randn(4, 6).t(),
    "channels last": lambda: torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
    "strided": lambda: torch.randn(6, 8)[:, ::2],
    "empty": lambda: torch.zeros(0, 3),
    "no axes": lambda: torch.tensor(1.5),
    "float64": lambda: torch.randn(3).double(),
}


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("kind", ["AdamW", "SGD"])
def test_any_layout_in_memory_is_updated_where_it_is(kind: str, layout: str) -> None:
    torch.manual_seed(1)
    ours = torch.nn.Parameter(LAYOUTS[layout]())
    theirs = torch.nn.Parameter(ours.detach().clone())
    stride, place = ours.stride(), ours.data_ptr()
    optimizer, reference = Optimizer([ours], kind.lower(), lr=0.1), getattr(torch.optim, kind)([theirs], lr=0.1)
    for _ in range(3):
        factor = torch.randn(ours.shape)
        for weight, by in ((ours, optimizer), (theirs, reference)):
            by.zero_grad()
            (weight**2 * factor).sum().backward()
            by.step()
    assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)
    assert (ours.stride(), ours.data_ptr()) == (stride, place)
    type(reference)([theirs], lr=0.1).load_state_dict(optimizer.state_dict())


def test_gradients_of_any_layout_are_taken() -> None:
    ours, theirs = (torch.nn.Parameter(torch.ones(3, 4)) for _ in range(2))
    optimizer, reference = Optimizer([ours], "adamw", lr=0.1), torch.optim.AdamW([theirs], lr=0.1)
    for grad in (torch.ones(1).expand(3, 4), torch.randn(4, 3).t(), torch.randn(6, 8)[::2, ::2], torch.randn(3, 4)):
        ours.grad, theirs.grad = grad, grad.clone()
        optimizer.step()
        reference.step()
        assert torch.allclose(ours, theirs, rtol=1e-5, atol=1e-6)


COMPLEX = ("SGD", "Adam", "AdamW", "Adamax", "NAdam", "RAdam", "Adagrad", "Adadelta", "RMSprop", "Rprop", "ASGD")


@pytest.mark.parametrize("kind", COMPLEX)
@pytest.mark.parametrize("dtype", [torch.complex64, torch.complex128], ids=str)
def test_complex_parameters_have_pytorchs_numbers_and_states(kind: str, dtype: Any) -> None:
    torch.manual_seed(2)
    start = torch.randn(3, 4, dtype=dtype)
    ours, theirs = torch.nn.Parameter(start.clone()), torch.nn.Parameter(start.clone())
    options: dict[str, Any] = {"momentum": 0.9} if kind in ("SGD", "RMSprop") else {}
    optimizer = Optimizer([ours], kind.lower(), lr=0.1, **options)
    reference = getattr(torch.optim, kind)([theirs], lr=0.1, **options)

    def steps(numbers: range, *pairs: tuple[Any, Any]) -> None:
        for step in numbers:
            grad = torch.randn(3, 4, dtype=dtype, generator=torch.Generator().manual_seed(step))
            for weight, by in pairs:
                conjugated = step % 3 == 2 and type(by) is Optimizer  # not all of PyTorch's take such a view
                weight.grad = grad.conj().resolve_conj().conj() if conjugated else grad.clone()
                by.step()

    steps(range(4), (ours, optimizer), (theirs, reference))
    assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6)
    mine, other = optimizer.state[ours], reference.state[theirs]
    assert {name: x.dtype for name, x in mine.items() if x.ndim} == {n: x.dtype for n, x in other.items() if x.ndim}
    inward, outward = Optimizer([theirs], kind.lower()), getattr(torch.optim, kind)([ours])
    inward.load_state_dict(copy.deepcopy(reference.state_dict()))
    outward.load_state_dict(copy.deepcopy(optimizer.state_dict()))
    steps(range(4, 14), (theirs, inward), (ours, outward))
    assert torch.allclose(ours, theirs, rtol=2e-5, atol=2e-6)


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


def test_what_a_script_does_to_parameters_between_steps_counts() -> None:
    ours, theirs = model(), model()
    pair = (
        (ours, Optimizer(ours.parameters(), "adamw", lr=0.01)),
        (theirs, torch.optim.AdamW(theirs.parameters(), lr=0.01)),
    )
    for step in range(6):
        for net, by in pair:
            train(net, by, range(step, step + 1))
            with torch.no_grad():
                net[0].weight.mul_(0.9)
                net[0].bias.clamp_(-0.1, 0.1)
                if step == 2:
                    net[2].weight.data = net[2].weight.data.t().contiguous().t()
                if step == 3:
                    net[2].weight.set_(torch.ones(2, 5))
    close(ours, theirs)


@BOTH
def test_parameters_exchanged_or_added_in_a_group_are_those_that_are_trained(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.1)
    train(net, optimizer, range(2))
    old, new, more = net[0].weight, torch.nn.Parameter(torch.ones(5, 4)), torch.nn.Parameter(torch.ones(3))
    net[0].weight = new
    optimizer.param_groups[0]["params"][0] = new
    optimizer.param_groups[0]["params"].append(more)
    before = old.detach().clone()
    more.grad = torch.ones(3)
    train(net, optimizer, range(2, 3))
    assert torch.equal(old, before)
    assert (new != 1).any()
    more.grad = torch.ones(3)
    optimizer.step()
    assert (more != 1).all()
    assert old in optimizer.state  # as in PyTorch, where it may come back
    assert [int(optimizer.state[p]["step"]) for p in (new, net[0].bias, more)] == [2, 4, 1]
    del optimizer.param_groups[0]["params"][1:]
    optimizer.step()
    assert next(iter(optimizer.state)) is new
    assert list(optimizer.state_dict()["state"]) == [0]


@BOTH
@pytest.mark.parametrize("change", ["dtype", "narrower", "shape"])
def test_a_parameter_that_is_another_than_its_states_is_refused_until_it_fits_again(name: str, change: str) -> None:
    net, twin = model(), model()
    optimizer, other = (Optimizer(m.parameters(), name, lr=0.01) for m in (net, twin))
    train(net, optimizer, range(2))
    train(twin, other, range(2))
    kept = net[0].weight.data
    for _ in range(2):
        optimizer.zero_grad()
        net[0].weight.data = {
            "dtype": kept.double(), "narrower": kept.bfloat16(), "shape": torch.ones(3, 3),
        }[change]  # fmt: skip
        before = values(net)
        for p in net.parameters():
            p.grad = torch.ones_like(p)
        with pytest.raises(ValueError, match=r"parameter '0' was float32 \(5, 4\) when its states were made, and is"):
            optimizer.step()
        same(net, of(before))
    optimizer.zero_grad()
    net[0].weight.data = kept
    train(net, optimizer, range(2, 4))
    train(twin, other, range(2, 4))
    same(net, twin)


@BOTH
def test_a_model_converted_before_the_first_step_has_states_of_its_dtype(name: str) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    net.double()
    train(net, optimizer, range(2))
    assert {x.dtype for kept in optimizer.state.values() for x in kept.values() if x.ndim} == {torch.float64}


SHARED = torch.ones(3, 1)
REFUSED: dict[str, tuple[Callable[[], Any], str]] = {
    "on no device": (lambda: torch.ones(3, device="meta"), "is on meta: only those on the CPU can be updated here"),
    "conjugated": (lambda: torch.ones(3, dtype=torch.complex64).conj(), "isn't pairs of numbers in memory"),
    "whole numbers": (lambda: torch.ones(3, dtype=torch.int32), "must be of float16, float32, .* got int32"),
    "8 bits": (lambda: torch.ones(3, dtype=torch.float8_e4m3fn), "Float8_e4m3fn"),
    "broadcast": (lambda: SHARED.expand(3, 4), "a view whose elements share memory"),
    "sparse": (lambda: torch.eye(3).to_sparse(), "can't convert Sparse layout"),
    "a negative view": (lambda: torch.zeros(2, dtype=torch.complex64).conj().imag, "negative of its memory"),
    "a subclass": (lambda: torch.ones(3).as_subclass(type("Own", (torch.Tensor,), {})), "as_subclass"),
}


@BOTH
@pytest.mark.parametrize("what", REFUSED)
def test_what_cannot_be_updated_is_refused_by_name(name: str, what: str) -> None:
    make, says = REFUSED[what]
    good = torch.nn.Parameter(torch.ones(2))
    with pytest.raises((ValueError, TypeError), match=f"parameter '?1'?.*{says}"):
        Optimizer([good, make().detach()], name)
    optimizer = Optimizer([good], name)
    with pytest.raises((ValueError, TypeError), match=says):
        optimizer.add_param_group({"params": [make().detach()]})
    good.grad = torch.ones(2)
    optimizer.step()
    assert len(optimizer.param_groups) == len(optimizer.state) == 1


@BOTH
@pytest.mark.filterwarnings("ignore:optimizer contains a parameter group with duplicate parameters")
def test_a_parameter_that_stands_twice_is_refused_and_one_that_two_layers_share_is_one(name: str) -> None:
    weight = torch.nn.Parameter(torch.ones(3))
    with pytest.raises(ValueError, match="parameter '1' stands twice in its group"):
        Optimizer([weight, weight], name)
    with pytest.raises(ValueError, match="more than one parameter group"):
        Optimizer([{"params": [weight]}, {"params": [weight]}], name)
    net = torch.nn.Sequential(torch.nn.Linear(4, 4, bias=False), torch.nn.Linear(4, 4, bias=False))
    net[1].weight = net[0].weight
    alike = copy.deepcopy(net)
    assert alike[1].weight is alike[0].weight
    train(net, Optimizer(net.parameters(), "adamw", lr=0.01), range(3))
    train(alike, torch.optim.AdamW(alike.parameters(), lr=0.01), range(3))
    close(net, alike)
    assert net[1].weight is net[0].weight


@BOTH
def test_a_frozen_parameter_stays(name: str) -> None:
    net = model()
    net[0].weight.requires_grad_(False)
    before = net[0].weight.clone()
    optimizer = Optimizer(net.parameters(), name, lr=0.1)
    train(net, optimizer, range(2))
    assert torch.equal(net[0].weight, before)
    net[0].weight.requires_grad_(True)
    train(net, optimizer, range(2, 4))
    assert not torch.equal(net[0].weight, before)


@BOTH
def test_models_are_trained_in_several_threads(name: str) -> None:
    def work(net: Any) -> None:
        train(net, Optimizer(net.parameters(), name, lr=0.01), range(30))

    together, alone = ([model(seed) for seed in range(4)] for _ in range(2))
    threads = [Thread(target=work, args=(net,)) for net in together]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for net, other in zip(together, alone, strict=True):
        work(other)
        same(net, other)
