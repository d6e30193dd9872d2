"""PyTorch's own tools around an optimizer: schedules, averages, hooks, compiled models, several
processes."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

from torch.optim import lr_scheduler as schedules, swa_utils  # noqa: E402
from torch.optim.optimizer import register_optimizer_step_pre_hook  # noqa: E402
from torch_models import backward, close, model, same, train, values  # noqa: E402

from mxopt.torch import Optimizer  # noqa: E402

SCHEDULES: dict[str, Callable[[Any], Any]] = {
    "LambdaLR": lambda o: schedules.LambdaLR(o, lambda epoch: 0.9**epoch),
    "MultiplicativeLR": lambda o: schedules.MultiplicativeLR(o, lambda epoch: 0.9),
    "StepLR": lambda o: schedules.StepLR(o, 2),
    "MultiStepLR": lambda o: schedules.MultiStepLR(o, [2, 4]),
    "ConstantLR": lambda o: schedules.ConstantLR(o, total_iters=3),
    "LinearLR": lambda o: schedules.LinearLR(o, total_iters=3),
    "ExponentialLR": lambda o: schedules.ExponentialLR(o, 0.9),
    "PolynomialLR": lambda o: schedules.PolynomialLR(o, 10, 2.0),
    "CosineAnnealingLR": lambda o: schedules.CosineAnnealingLR(o, 6),
    "CosineAnnealingWarmRestarts": lambda o: schedules.CosineAnnealingWarmRestarts(o, 3),
    "ChainedScheduler": lambda o: schedules.ChainedScheduler([schedules.LinearLR(o), schedules.ExponentialLR(o, 0.9)]),
    "SequentialLR": lambda o: schedules.SequentialLR(
        o, [schedules.ConstantLR(o, total_iters=2), schedules.ExponentialLR(o, 0.9)], [3]
    ),
    "CyclicLR": lambda o: schedules.CyclicLR(o, 0.001, 0.1, 3, cycle_momentum=True),
    "OneCycleLR": lambda o: schedules.OneCycleLR(o, 0.1, 10),
    "ReduceLROnPlateau": lambda o: schedules.ReduceLROnPlateau(o, patience=1),
    "SWALR": lambda o: swa_utils.SWALR(o, 0.05, anneal_epochs=4),
}
every = pytest.mark.parametrize("schedule", SCHEDULES)


def steps(net: Any, optimizer: Any, schedule: Any, numbers: range) -> None:
    for number in numbers:
        train(net, optimizer, range(number, number + 1))
        schedule.step(*([1.0] if isinstance(schedule, schedules.ReduceLROnPlateau) else []))


@every
@pytest.mark.parametrize(("kind", "options"), [("SGD", {"momentum": 0.9}), ("AdamW", {})], ids=["SGD", "AdamW"])
def test_every_schedule_of_pytorch_does_what_it_does_there(kind: str, options: dict[str, Any], schedule: str) -> None:
    ours, theirs = model(), model()
    optimizer = Optimizer(ours.parameters(), kind.lower(), lr=0.01, **options)
    reference = getattr(torch.optim, kind)(theirs.parameters(), lr=0.01, **options)
    steps(ours, optimizer, SCHEDULES[schedule](optimizer), range(8))
    steps(theirs, reference, SCHEDULES[schedule](reference), range(8))
    close(ours, theirs)
    assert optimizer.param_groups[0]["lr"] == reference.param_groups[0]["lr"]


@every
@pytest.mark.parametrize(("name", "options"), [("lamb", {}), ("nag", {"momentum": 0.9})], ids=["lamb", "nag"])
def test_a_run_of_any_optimizer_under_a_schedule_resumes_bit_for_bit(
    name: str, options: dict[str, Any], schedule: str
) -> None:
    whole, part = model(), model()
    uninterrupted, first = (Optimizer(net.parameters(), name, lr=0.01, **options) for net in (whole, part))
    steps(whole, uninterrupted, SCHEDULES[schedule](uninterrupted), range(8))
    by = SCHEDULES[schedule](first)
    steps(part, first, by, range(3))
    second = Optimizer(part.parameters(), name, lr=0.01, **options)
    again = SCHEDULES[schedule](second)
    second.load_state_dict(first.state_dict())
    again.load_state_dict(by.state_dict())
    steps(part, second, again, range(3, 8))
    same(part, whole)
    assert second.param_groups[0]["lr"] == uninterrupted.param_groups[0]["lr"]


def test_a_cycle_of_the_momentum_reaches_the_rule() -> None:
    net, still = model(), model()
    for each, cycled in ((net, True), (still, False)):
        optimizer = Optimizer(each.parameters(), "lamb", lr=0.01)
        steps(each, optimizer, schedules.OneCycleLR(optimizer, 0.1, 10, cycle_momentum=cycled), range(4))
        betas = optimizer.param_groups[0]["betas"]
        assert (betas[0] != 0.9, betas[1]) == (cycled, 0.999)
    assert any((a != b).any() for a, b in zip(values(net), values(still), strict=True))


def test_pytorchs_averages_follow_the_weights() -> None:
    found = []
    for make in (lambda p: Optimizer(p, "adamw", lr=0.01), lambda p: torch.optim.AdamW(p, lr=0.01)):
        net = model()
        optimizer = make(net.parameters())
        average = swa_utils.AveragedModel(net, multi_avg_fn=swa_utils.get_ema_multi_avg_fn(0.9))
        for step in range(5):
            train(net, optimizer, range(step, step + 1))
            average.update_parameters(net)
        found.append(average.module)
    close(*found)


def test_hooks_of_all_kinds_are_called() -> None:
    net, seen = model(), []
    optimizer = Optimizer(net.parameters(), "adamw")
    optimizer.register_state_dict_pre_hook(lambda opt: seen.append("before state_dict"))
    optimizer.register_state_dict_post_hook(lambda opt, saved: seen.append("after state_dict"))
    optimizer.register_load_state_dict_pre_hook(lambda opt, saved: seen.append("before load"))
    optimizer.register_load_state_dict_post_hook(lambda opt: seen.append("after load"))
    optimizer.load_state_dict(optimizer.state_dict())
    assert seen == ["before state_dict", "after state_dict", "before load", "after load"]
    seen.clear()
    everybodys = register_optimizer_step_pre_hook(lambda *_: seen.append("before a step"))
    optimizer.step()
    everybodys.remove()
    optimizer.step()
    assert seen == ["before a step"]


@pytest.mark.parametrize("make", [lambda p: Optimizer(p, "adamw"), torch.optim.AdamW], ids=["mxopt", "pytorch"])
def test_what_hooks_do_to_states_counts(make: Any) -> None:
    """They change the dict that they are given, or return another, which may have any form."""
    optimizer = make(model().parameters())
    wrap = optimizer.register_state_dict_post_hook(lambda opt, saved: {"version": 1, "inner": saved})
    unwrap = optimizer.register_load_state_dict_pre_hook(lambda opt, saved: saved["inner"])
    wrapped = optimizer.state_dict()
    assert list(wrapped) == ["version", "inner"]
    optimizer.load_state_dict(wrapped)
    wrap.remove()
    unwrap.remove()

    def halve(opt: Any, saved: Any) -> None:
        saved["param_groups"] = [{**group, "lr": group["lr"] / 2} for group in saved["param_groups"]]

    optimizer.register_load_state_dict_pre_hook(halve)
    saved = optimizer.state_dict()
    optimizer.load_state_dict(saved)
    assert (saved["param_groups"][0]["lr"], optimizer.param_groups[0]["lr"]) == (1e-3, 5e-4)


def test_a_parameter_is_updated_in_the_backward_pass_by_an_optimizer_of_its_own() -> None:
    ours, theirs = model(), model()
    each = {p: Optimizer([p], "adamw", lr=0.01) for p in ours.parameters()}

    def update(parameter: Any) -> None:
        each[parameter].step()
        each[parameter].zero_grad()

    for p in ours.parameters():
        p.register_post_accumulate_grad_hook(update)
    for step in range(3):
        backward(ours, step)
    train(theirs, torch.optim.AdamW(theirs.parameters(), lr=0.01), range(3))
    close(ours, theirs)


def test_a_closure_computes_gradients_where_none_are_asked_for() -> None:
    for name in ("adamw", "lamb"):
        net = model()
        optimizer = Optimizer(net.parameters(), name, lr=0.01)

        def closure(net: Any = net, optimizer: Any = optimizer) -> Any:
            optimizer.zero_grad(set_to_none=False)
            loss = (net(torch.ones(2, 4)) ** 2).sum()
            loss.backward()
            return loss

        with torch.no_grad():
            losses = [optimizer.step(closure).item(), optimizer.step(closure=closure).item()]
        assert losses[0] > losses[1]


def test_gradients_that_are_kept_are_zeroed_in_place() -> None:
    net, other = model(), model()
    optimizer, reference = Optimizer(net.parameters(), "adamw"), torch.optim.AdamW(other.parameters())
    for step in range(3):
        for each, by in ((net, optimizer), (other, reference)):
            by.zero_grad(set_to_none=False)
            backward(each, step)
            by.step()
    close(net, other)
    grads = [p.grad for p in net.parameters()]
    optimizer.zero_grad(set_to_none=False)
    assert all(p.grad is g and not g.any() for p, g in zip(net.parameters(), grads, strict=True))


@pytest.mark.filterwarnings("ignore")  # of the compiler, about itself
def test_a_compiled_model_and_a_compiled_step_train_as_they_are() -> None:
    compiled, plain = model(), model()
    optimizer = Optimizer(compiled.parameters(), "adamw", lr=0.01)
    forward = torch.compile(compiled, backend="eager")
    train(forward, optimizer, range(3))
    torch.compile(optimizer.step, backend="eager")()
    by = Optimizer(plain.parameters(), "adamw", lr=0.01)
    train(plain, by, range(3))
    by.step()
    close(compiled, plain)


@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_compiled_function_makes_whole_steps_from_the_first_on(name: str) -> None:
    def run(compiled: bool) -> Any:
        net = model()
        optimizer = Optimizer(net.parameters(), name, lr=0.01)

        def step(x: Any) -> None:
            optimizer.zero_grad()
            (net(x) ** 2).sum().backward()
            optimizer.step()

        step = torch.compile(step, backend="eager") if compiled else step
        for k in range(3):
            step(torch.full((2, 4), float(k)))
        return net

    close(run(True), run(False))


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_two_processes_of_distributed_data_parallel_keep_the_same_weights(name: str, tmp_path: Path) -> None:
    net = model()
    optimizer = Optimizer(net.parameters(), name, lr=0.01)
    for step in range(3):
        optimizer.zero_grad()
        (net(torch.randn(8, 4, generator=torch.Generator().manual_seed(step))) ** 2).mean().backward()
        optimizer.step()
    program = str(Path(__file__).parent / "distributed.py")
    running = [
        subprocess.Popen([sys.executable, program, str(rank), tmp_path, name], stderr=subprocess.PIPE, text=True)
        for rank in (0, 1)
    ]
    ends = [process.communicate(timeout=120)[1] for process in running]
    assert [process.returncode for process in running] == [0, 0], ends
    first, second = (torch.load(tmp_path / str(rank)) for rank in (0, 1))
    for p, a, b in zip(net.parameters(), first, second, strict=True):
        assert torch.equal(a, b)
        assert torch.allclose(p, a, rtol=2e-5, atol=2e-6)
