"""What a prompt and a notebook show of things: enough to know what they are and how far they have
come."""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import Parameter, Trainer, create, curve, get_updater, kvstore, lr_scheduler, nn
from mxopt.experimental import optim


def parameter(name: str = "w") -> Parameter:
    return Parameter(np.zeros(2, np.float32), name)


def used_updater() -> mxopt.Updater:
    updater = get_updater(create("sgd", learning_rate=0.5))
    updater([3, "b"], [np.ones(2, np.float32)] * 2, [np.zeros(2, np.float32) for _ in range(2)])
    return updater


def resumed_schedule() -> lr_scheduler.LRScheduler:
    schedule = lr_scheduler.FactorScheduler(10, 0.5, base_lr=0.8)
    schedule(25)
    schedule.base_lr = 0.3
    return schedule


def used_store() -> Any:
    store = kvstore.create("device")
    store.init(["a", "b"], [np.zeros(2, np.float32)] * 2)
    store.set_optimizer(create("sgd", learning_rate=0.5))
    return store


def grouped() -> nn.Optimizer:
    groups = [
        {"params": [parameter("a"), parameter("b")], "lr": nn.CosineDecayLR(0.0, 0.1, 50)},
        {"params": [parameter("c")], "lr": [0.1, 0.2], "weight_decay": 0.01},
    ]
    optimizer = nn.Momentum(groups, 0.1, 0.9)
    optimizer([np.ones(2, np.float32)] * 3)
    return optimizer


class Mine(lr_scheduler.LRScheduler):
    """Keeps nothing, and doesn't even call its base."""

    def __init__(self, power: float = 2) -> None:
        pass


Make = Callable[[], object]
SHOWN: list[tuple[Make, str]] = [
    (used_updater, "<Updater with states of 2 parameters: <SGD learning_rate=0.5 num_update=1>>"),
    (lambda: create("sgd", lr_scheduler=lr_scheduler.FactorScheduler(10, base_lr=0.1 * 3)),
     "<SGD learning_rate=0.3 by FactorScheduler num_update=0>"),
    (lambda: optim.lr_scheduler.StepLR(create("sgd", learning_rate=0.1 * 3), 5), "<StepLR step 0, rates [0.3]>"),
    (lambda: lr_scheduler.CosineScheduler(100, base_lr=0.1, warmup_steps=5),
     "CosineScheduler(max_update=100, base_lr=0.1, warmup_steps=5)"),
    (lambda: lr_scheduler.PolyScheduler(100, pwr=3), "PolyScheduler(max_update=100, pwr=3)"),
    (lambda: lr_scheduler.MultiFactorScheduler([5, 8], 0.1), "MultiFactorScheduler(step=[5, 8], factor=0.1)"),
    (resumed_schedule, "<FactorScheduler(step=10, factor=0.5, base_lr=0.8), base_lr set to 0.3 at update 25>"),
    (Mine, "Mine()"),
    (lambda: nn.ExponentialDecayLR(0.1, 0.9, 4),
     "ExponentialDecayLR(learning_rate=0.1, decay_rate=0.9, decay_steps=4)"),
    (lambda: nn.Adam([parameter()]), "Adam, step 0\n  1 parameter: learning_rate=0.001, weight_decay=0.0"),
    (grouped,
     "Momentum, step 1\n"
     "  2 parameters: learning_rate=CosineDecayLR(min_lr=0.0, max_lr=0.1, decay_steps=50), weight_decay=0.0\n"
     "  1 parameter: learning_rate=a list of 2, weight_decay=0.01"),
    (lambda: Trainer([parameter("a"), parameter("b")], "sgd"),
     "<Trainer of 2 parameters, kvstore 'device': <SGD learning_rate=0.01 num_update=0>>"),
    (lambda: Trainer([p := parameter()], optim.Adam([p]), kvstore=None),
     "<Trainer of 1 parameter, kvstore None: Adam\n"),
    (lambda: kvstore.create("local"), "<KVStore 'local': 0 keys>"),
    (used_store,
     "<KVStore 'device': 2 keys, <Updater with states of 0 parameters: <SGD learning_rate=0.5 num_update=0>>>"),
    (lambda: kvstore.create("teststore"), "<TestStore>"),
]  # fmt: skip


@pytest.mark.parametrize(("make", "text"), SHOWN, ids=[text.partition("\n")[0] for _, text in SHOWN])
def test_a_prompt_shows_what_a_thing_is(make: Make, text: str) -> None:
    assert repr(make()).startswith(text)


def test_every_public_class_says_more_than_its_address() -> None:
    modules = [mxopt, mxopt.optimizer, lr_scheduler, nn, kvstore, mxopt.sparse, optim, optim.lr_scheduler]
    classes = {getattr(module, name) for module in modules for name in module.__all__}
    assert [c for c in classes if isinstance(c, type) and c.__repr__ is object.__repr__] == []  # type: ignore[comparison-overlap]


COSINE = curve(lr_scheduler.CosineScheduler(30, base_lr=0.4), 40)


def test_a_curve_is_drawn_in_ascii_where_the_output_has_no_blocks(monkeypatch: pytest.MonkeyPatch) -> None:
    blocks = COSINE.text(40, 4)
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(io.BytesIO(), encoding="ascii"))
    letters = COSINE.text(40, 4)
    print(COSINE)
    assert letters.isascii()
    assert not blocks.isascii()
    assert [len(line) for line in letters.splitlines()] == [len(line) for line in blocks.splitlines()]
    assert letters.count("#") >= blocks.count("█") > 30
    monkeypatch.undo()
    assert COSINE.text(40, 4) == blocks


def test_a_notebook_shows_a_picture_of_a_curve() -> None:
    pytest.importorskip("matplotlib")
    shown = COSINE._repr_mimebundle_()
    assert shown["image/png"].startswith(b"\x89PNG")
    assert shown["text/plain"] == str(COSINE)


def test_a_notebook_without_matplotlib_shows_the_drawing(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "matplotlib.figure", None)
    shown = COSINE._repr_mimebundle_()
    assert "image/png" not in shown
    assert shown["text/html"].startswith("<pre>CosineScheduler\n")
    assert "█" in shown["text/html"]
