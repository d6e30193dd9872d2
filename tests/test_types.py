"""Type checkers on a user's program: they find the commonest mistakes, and know what calls
return."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from mxopt import Optimizer
from mxopt.kvstore.kinds import DISTRIBUTED, LOCAL

ROOT = Path(__file__).parents[1]

PROGRAM = """
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import assert_type

import mxopt
from mxopt import kvstore, nn
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules
from mxopt.kvstore import KVStore
from mxopt.kvstore.dist import DistKVStore
from mxopt.lr_scheduler import CosineScheduler
from mxopt.optimizer import LAMB, LBSGD, SGD, Adam, Ftrl

w = mxopt.Parameter(np.zeros(2), "w")
name: str = input()

# What calls return.
assert_type(SGD(momentum=0.9), SGD)
assert_type(SGD(momentum=0.9).momentum, float)
assert_type(SGD(learning_rate=0.1, wd=1e-4, clip_gradient=None).lazy_update, bool)
assert_type(mxopt.create("adam", learning_rate=0.1), Adam)
assert_type(mxopt.create("adam").beta1, float)
assert_type(mxopt.create("lamb"), LAMB)
assert_type(LBSGD(multi_precision=True, wd=0.1, batch_scale=2).batch_scale, int)
assert_type(Ftrl(0.1, 0.5, rescale_grad=0.1).lamda1, float)
assert_type(nn.LazyAdam([w], beta1=0.8).beta1, float)
assert_type(CosineScheduler(10, final_lr=0.1).final_lr, float)
assert_type(mxopt.create(name), mxopt.Optimizer)
assert_type(kvstore.create(), KVStore)
assert_type(kvstore.create("device"), KVStore)
assert_type(kvstore.create("dist_sync"), DistKVStore)
assert_type(kvstore.create(name), Any)
assert_type(nn.Adam([w], use_lazy=True), nn.Adam)
assert_type(optim.Adam([w], lr=0.1), optim.Adam)
assert_type(mxopt.get_updater(mxopt.create("sgd")), mxopt.Updater)


class Mine(SGD):
    def __init__(self, power: float = 1.0, **kwargs: Any) -> None:
        super().__init__(**kwargs)
        self.power = power


assert_type(Mine(power=2.0, learning_rate=0.1).power, float)

# What calls take: whatever works.
parts = [schedules.StepLR(optim.SGD([w], 0.1), 2)]
schedules.SequentialLR(parts[0].optimizer, parts, [])
trainer = mxopt.Trainer({0: w}, "sgd")
trainer.save_states(Path("trainer.states"))
kvstore.create().load_optimizer_states(Path("store.states"))
for optimizer in (mxopt.create("adam"), nn.Adam([w]), optim.Adam([w])):
    kvstore.create().set_optimizer(optimizer)

# Mistakes.
SGD(momentun=0.9)  # wrong
SGD(lr=0.1)  # wrong
SGD(learning_rate="0.1")  # wrong
Adam(weight_decay=0.1)  # wrong
LAMB(betas=(0.9, 0.999))  # wrong
nn.Adam([w], lr=0.1)  # wrong
nn.SGD([w], lr=0.1)  # wrong
optim.Adam([w], learning_rate=0.1)  # wrong
LBSGD(warmup_epoch=3)  # wrong
Ftrl(lamda1="0.1")  # wrong
nn.LazyAdam([w], use_amsgrad=True)  # wrong
optim.SGD([w], 0.1, lazy_updates=True)  # wrong
CosineScheduler(10, warmup_mode="quadratic")  # wrong
mxopt.create("sgd").momentun  # wrong
mxopt.create("sgd")(0, np.ones(2), np.ones(2)).momentum  # wrong
mxopt.get_updater("sgd")  # wrong
mxopt.get_updater(mxopt.create("sgd")).set_states("x.states")  # wrong
mxopt.get_updater(mxopt.create("sgd"))(w, w)  # wrong
mxopt.Trainer([w], "sgd").step()  # wrong
mxopt.Trainer([w], "sgd", learning_rate=0.1)  # wrong
kvstore.create("local").set_optimizer("adam")  # wrong
kvstore.create("dist_sync").set_optimizer("adam")  # wrong
kvstore.create("local").pushh("w", np.ones(2))  # wrong
kvstore.create("dist_sync").num_worker  # wrong
"""
WRONG = [n for n, line in enumerate(PROGRAM.splitlines(), 1) if line.endswith("# wrong")]


@pytest.fixture
def program(tmp_path: Path) -> Path:
    path = tmp_path / "train.py"
    path.write_text(PROGRAM)
    return path


def checked(*command: str) -> str:
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT)}
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300).stdout


def test_mypy_finds_the_commonest_mistakes_and_nothing_else(program: Path) -> None:
    pytest.importorskip("mypy")
    said = checked("mypy", "--show-column-numbers", str(program))
    assert sorted({int(n) for n in re.findall(r"train\.py:(\d+):\d+: error", said)}) == WRONG, said


def test_pyright_finds_the_commonest_mistakes_and_nothing_else(program: Path) -> None:
    pytest.importorskip("pyright")
    options = {"include": ["train.py"], "extraPaths": [str(ROOT)], "pythonVersion": "3.11"}
    (program.parent / "pyrightconfig.json").write_text(json.dumps(options))
    said = checked("pyright", "--outputjson", "--project", str(program.parent), "--pythonpath", sys.executable)
    if not said.startswith("{"):
        pytest.skip(f"pyright doesn't run here: {said[:200]}")
    errors = [d for d in json.loads(said)["generalDiagnostics"] if d["severity"] == "error"]
    assert sorted({d["range"]["start"]["line"] + 1 for d in errors}) == WRONG, errors


def test_every_built_in_optimizer_and_store_is_known_by_name() -> None:
    text = (ROOT / "mxopt/optimizer/__init__.py").read_text()
    typed = dict(re.findall(r'def create\(name: Literal\["(\w+)"\].*\) -> (\w+): ', text))
    built_in = {n: k.__name__ for n, k in Optimizer.opt_registry.items() if k.__module__.startswith("mxopt.")}
    assert typed == built_in
    text = (ROOT / "mxopt/kvstore/kinds.py").read_text()
    names = {name for listed in re.findall(r"Literal\[([^]]*)\]", text) for name in re.findall(r'"(\w+)"', listed)}
    assert names == {*LOCAL, *DISTRIBUTED, "teststore"}


def test_the_types_of_what_is_public_are_known() -> None:
    """To pyright without a guess, as it judges packages that say that they are typed."""
    pytest.importorskip("pyright")
    said = checked("pyright", "--verifytypes", "mxopt", "--ignoreexternal", "--outputjson")
    if not said.startswith("{"):
        pytest.skip(f"pyright doesn't run here: {said[:200]}")
    found = json.loads(said)["typeCompleteness"]
    assert found["packageName"] == "mxopt"
    assert found["completenessScore"] >= 0.95
