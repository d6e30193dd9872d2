"""Others' training loops take `mxopt.torch.Optimizer` as they take `torch.optim`'s: Lightning and
accelerate."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import pytest

torch = pytest.importorskip("torch")

import mxopt.torch  # noqa: E402

Make = Callable[[Iterable[Any]], Any]
MAKERS: list[Make] = [
    lambda params: mxopt.torch.Optimizer(params, "adamw", lr=0.1),
    lambda params: torch.optim.AdamW(params, lr=0.1),
]


def batches() -> Any:
    torch.manual_seed(1)
    x = torch.randn(64, 4)
    return torch.utils.data.DataLoader(torch.utils.data.TensorDataset(x, x.sum(1, keepdim=True)), 16)


def lightning_model(lightning: Any, make: Make) -> Any:
    class Model(lightning.LightningModule):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            torch.manual_seed(2)
            self.net = torch.nn.Linear(4, 1)

        def training_step(self, batch: Any, number: int) -> Any:
            x, y = batch
            return ((self.net(x) - y) ** 2).mean()

        def configure_optimizers(self) -> Any:
            optimizer = make(self.net.parameters())
            return [optimizer], [torch.optim.lr_scheduler.StepLR(optimizer, 1, 0.5)]

    return Model()


def lightning_trainer(lightning: Any, epochs: int) -> Any:
    silent = {"logger": False, "enable_checkpointing": False, "enable_progress_bar": False}
    return lightning.Trainer(
        max_epochs=epochs, accelerator="cpu", gradient_clip_val=1.0, accumulate_grad_batches=2, **silent
    )


def with_lightning(make: Make) -> Any:
    lightning = pytest.importorskip("lightning")
    model = lightning_model(lightning, make)
    lightning_trainer(lightning, 3).fit(model, batches())
    return model.net.weight.detach()


def with_accelerate(make: Make) -> Any:
    accelerate = pytest.importorskip("accelerate")
    accelerator = accelerate.Accelerator(cpu=True, gradient_accumulation_steps=2)
    torch.manual_seed(2)
    net = torch.nn.Linear(4, 1)
    optimizer = make(net.parameters())
    schedule = torch.optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    net, optimizer, loader, schedule = accelerator.prepare(net, optimizer, batches(), schedule)
    for _ in range(3):
        for x, y in loader:
            with accelerator.accumulate(net):
                accelerator.backward(((net(x) - y) ** 2).mean())
                if accelerator.sync_gradients:
                    accelerator.clip_grad_norm_(net.parameters(), 1.0)
                optimizer.step()
                schedule.step()
                optimizer.zero_grad()
    return accelerator.unwrap_model(net).weight.detach()


@pytest.mark.parametrize("train", [with_lightning, with_accelerate])
def test_a_model_trains_to_the_weights_that_it_has_with_pytorchs_optimizer(train: Callable[[Make], Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # theirs, about the machine
        ours, theirs = (train(make) for make in MAKERS)
    assert torch.allclose(ours, theirs, rtol=0, atol=1e-6)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_run_of_lightning_resumes_from_its_checkpoint_bit_for_bit(name: str, tmp_path: Path) -> None:
    lightning = pytest.importorskip("lightning")

    def make(params: Iterable[Any]) -> Any:
        return mxopt.torch.Optimizer(params, name, lr=0.1)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        whole, part, resumed = (lightning_model(lightning, make) for _ in range(3))
        lightning_trainer(lightning, 4).fit(whole, batches())
        trainer = lightning_trainer(lightning, 2)
        trainer.fit(part, batches())
        trainer.save_checkpoint(tmp_path / "run.ckpt")
        lightning_trainer(lightning, 4).fit(resumed, batches(), ckpt_path=tmp_path / "run.ckpt")
    assert torch.equal(resumed.net.weight, whole.net.weight)
    assert not torch.equal(part.net.weight, whole.net.weight)


@pytest.mark.parametrize("name", ["adamw", "lamb"])
def test_a_run_of_accelerate_resumes_from_its_checkpoint_bit_for_bit(name: str, tmp_path: Path) -> None:
    accelerate = pytest.importorskip("accelerate")

    def start() -> tuple[Any, Any, Any]:
        accelerator = accelerate.Accelerator(cpu=True)
        torch.manual_seed(2)
        net = torch.nn.Linear(4, 1)
        return accelerator, *accelerator.prepare(net, mxopt.torch.Optimizer(net.parameters(), name, lr=0.1))

    def steps(net: Any, optimizer: Any, numbers: range) -> None:
        for number in numbers:
            optimizer.zero_grad()
            (net(torch.full((3, 4), float(number))) ** 2).mean().backward()
            optimizer.step()

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        accelerator, net, optimizer = start()
        steps(net, optimizer, range(3))
        accelerator.save_state(tmp_path)
        steps(net, optimizer, range(3, 6))
        other, resumed, by = start()
        other.load_state(tmp_path)
        steps(resumed, by, range(3, 6))
    assert torch.equal(resumed.weight, net.weight)
