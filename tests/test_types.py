"""Type checkers on a user's program: they find the commonest mistakes, and know what calls
return."""

from __future__ import annotations

import importlib.util
import json
import os
import re
import runpy
import subprocess
import sys
from pathlib import Path

import pytest
from pasted import PAGES, ROOT, blocks

from mxopt.kvstore.kinds import DISTRIBUTED, LOCAL

PROGRAM = """
from pathlib import Path
from typing import Any

import numpy as np
from typing_extensions import assert_type

import mxopt
from mxopt import kvstore, nn, sparse
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
assert_type(mxopt.create("sgd", learning_rate=0.1, momentum=0.9).momentum, float)
assert_type(mxopt.create("SGD", momentum=0.9), SGD)
assert_type(mxopt.create(name), mxopt.Optimizer)
assert_type(mxopt.create(name, learning_rate=0.1, momentum=0.9), mxopt.Optimizer)
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
assert_type(mxopt.register(Mine)(power=2.0).power, float)
assert_type(mxopt.create("mine", learning_rate=0.1), mxopt.Optimizer)
options = {"learning_rate": 0.1, "momentum": 0.9}
assert_type(mxopt.create("sgd", **options), SGD)
assert_type(mxopt.create(name, **options), mxopt.Optimizer)
mxopt.get_updater(mxopt.create("mine", **{"power": 2.0}))
mxopt.get_updater(mxopt.Optimizer.create_optimizer("mine", power=2.0))
mxopt.create("sgd", lr_scheduler=lambda update: 0.1 / (1 + update))
for each in ("sgd", "nag"):
    mxopt.get_updater(mxopt.create(each, momentum=0.9))

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
mxopt.create("sgd", momentun=0.9)  # wrong
mxopt.create("SGD", momentum="0.9")  # wrong
mxopt.create("adam", lr=0.1)  # wrong
mxopt.create("adam", weight_decay=0.1)  # wrong
mxopt.create("lamb", betas=(0.9, 0.999))  # wrong
mxopt.create("adam", 0.1)  # wrong
mxopt.get_updater(mxopt.create("sgd", beta1=0.5))  # wrong
mxopt.create("adam", momentum=0.9).momentum  # wrong
mxopt.create(name, momentun=0.9)  # wrong
mxopt.create("mine", powr=2.0)  # wrong
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

# Arrays, and what isn't one, in the order in which they are to come.
g = np.ones(2, np.float32)
store = kvstore.create()
updater = mxopt.get_updater(mxopt.create("adam"))
adam = optim.Adam([g])
updater("a", 3, 4)  # wrong
updater(0, g, None)  # wrong
updater(g, w, 0)  # wrong
updater(0, [1.0, 2.0], 0.5)  # wrong
updater([0, 1], [g, g], 2)  # wrong
optim.Adam(g)  # wrong
optim.Adam(w)  # wrong
optim.SGD({"w": g}, 0.1)  # wrong
optim.SGD(0.1, [g])  # wrong
adam(g)  # wrong
adam()  # wrong
adam.load_state_dict("adam.states")  # wrong
nn.Adam(w)  # wrong
nn.Momentum(g, 0.1, 0.9)  # wrong
nn.Adam(0.1, [g])  # wrong
nn.Adam([g], "0.1")  # wrong
nn.Adam([g])(g)  # wrong
nn.LARS([g])  # wrong
schedules.StepLR(0.1, 10)  # wrong
schedules.StepLR(10, adam)  # wrong
schedules.CosineAnnealingLR([g], 10)  # wrong
schedules.LambdaLR(adam, 0.9)  # wrong
schedules.ReduceLROnPlateau(adam).step()  # wrong
schedules.SequentialLR(adam, schedules.StepLR(adam, 2), 5)  # wrong
mxopt.lr_scheduler.FactorScheduler("10")  # wrong
mxopt.lr_scheduler.MultiFactorScheduler(10)  # wrong
nn.ExponentialDecayLR("0.1", 0.9, 4)  # wrong
sparse.row_sparse_array(g, [0], (2, 2))  # wrong
sparse.zeros((2, 2), "row_sparse")  # wrong
mxopt.set_num_threads("2")  # wrong
mxopt.Parameter([1.0, 2.0])  # wrong
mxopt.Parameter("w", g)  # wrong
w.set_data(0.0)  # wrong
mxopt.Trainer(g, "sgd")  # wrong
mxopt.Trainer("sgd", [w])  # wrong
mxopt.Trainer([w], optim.Adam)  # wrong
trainer.step("2")  # wrong
trainer.load_states(3)  # wrong
mxopt.clip_global_norm(g, 1.0)  # wrong
mxopt.clip_global_norm(1.0, [g])  # wrong
mxopt.ExponentialMovingAverage(g)  # wrong
mxopt.create(3)  # wrong
kvstore.create(3)  # wrong
store.init(g, "w")  # wrong
store.init("w", 0.0)  # wrong
store.push(g, "w")  # wrong
store.push("w", 1.0)  # wrong
store.pull(g, "w")  # wrong
store.pull("w", 2)  # wrong
store.pushpull(g, "w", g)  # wrong
kvstore.create("dist_sync").push(g, 0)  # wrong
store.row_sparse_pull(g, "w")  # wrong
store.save_optimizer_states(3)  # wrong
mxopt.curve(0.1, 10)  # wrong
"""
RIGHT = """
import array
from collections.abc import Iterator
from typing import Any

import numpy as np

import mxopt
from mxopt import kvstore, nn, sparse
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler as schedules


class Lender:
    def __init__(self, of: np.ndarray[Any, Any]) -> None:
        self.of = of

    def __dlpack__(self, **options: Any) -> Any:
        return self.of.__dlpack__(**options)


class Schedule(nn.LearningRateSchedule):
    def construct(self, global_step: int) -> float:
        return 0.1 / (1 + global_step)


class Layer:
    def __init__(self) -> None:
        self.weights = {"w": np.zeros((2, 2), np.float32), "b": np.zeros(2, np.float32)}

    def parameters(self) -> Iterator[np.ndarray[Any, Any]]:
        yield from self.weights.values()


layer = Layer()
w: np.ndarray[Any, Any] = layer.weights["w"]
rows = sparse.row_sparse_array(([[1.0, 2.0]], [0]), (2, 2), np.float32)
things = [w, mxopt.Parameter(np.zeros(2), "b"), Lender(np.zeros(2))]

for value in (w, rows, Lender(w), mxopt.Parameter(w, "w"), memoryview(bytearray(8)), array.array("f", [1.0, 2.0])):
    mxopt.Parameter(value)
    kvstore.create().init("w", value)

updater = mxopt.get_updater(mxopt.create("sgd"))
updater(0, np.ones((2, 2), np.float32), w)
updater("rows", rows, mxopt.Parameter(w, "rows"))
updater([1, 2], [w, rows], [w, Lender(w)])
updater(weight=w, grad=rows, index=b"bytes")

for params in (things, tuple(things), layer.parameters(), layer.weights.values(), layer.weights.items()):
    optim.Adam(params)
    nn.Adam(params)
groups = [{"params": [w]}, {"params": [things[1]], "lr": 0.1}]
adam = optim.AdamW(groups, 0.1)
adam([w, None])
adam((rows, w))
nn.Adam([*groups, {"order_params": [w, things[1]]}], Schedule(), weight_decay=Schedule())
nn.SGD([w], np.linspace(1, 0, 10))
nn.SGD([w], [0.1, 0.2])([w])
nn.Lamb([w], np.float32(0.1))

for optimizer in (adam, mxopt.create("adam"), mxopt.Trainer([w], "sgd")):
    schedules.StepLR(optimizer, 2)
schedules.LambdaLR(adam, [lambda step: 0.9**step, lambda step: 1.0])
schedules.CyclicLR(adam, [0.1, 0.2], 0.3)
schedules.ReduceLROnPlateau(adam).step(np.float32(0.5))

store = kvstore.create()
store.init(["w", "rows"], [w, sparse.table((10, 2))])
store.push(["w", "rows"], [[w, w], rows])
store.push("w", [w, w])
store.pushpull("w", w)
store.pull("w", out=[w, w])
store.row_sparse_pull("rows", out=rows, row_ids=[1, 2])
store.row_sparse_pull("rows", out=rows, row_ids=np.array([1, 2]))
sparse.row_sparse_array([[1, 2], [0, 0]], dtype="float32")
sparse.zeros("row_sparse", (2, 2), np.dtype("float64"))
mxopt.clip_global_norm([w, rows], 1)
mxopt.Trainer(layer.weights, "adam", {"learning_rate": 0.1}).step(2)
mxopt.Trainer(things, "adam", {"learning_rate": 0.1}, store)
mxopt.ExponentialMovingAverage(layer.weights)
for engine in ("llvm", "numpy"):
    with mxopt.use_engine(engine):
        pass
with mxopt.use_engine("numpy"):
    pass
"""
MODEL = """
from typing import Any

import torch

import mxopt.torch

model = torch.nn.Linear(2, 1)
name: str = input()
options = {"lr": 0.1, "momentum": 0.9}
anything: dict[str, Any] = {"power": 2.0}
mxopt.torch.Optimizer(model.parameters(), "lamb", lr=torch.tensor(0.1), betas=(0.9, 0.99), eps=1e-6).step()
mxopt.torch.Optimizer(model.named_parameters(), "lamb", learning_rate=0.1, wd=0.1, multi_precision=True)
mxopt.torch.Optimizer([{"params": model.parameters(), "lr": 0.1}], "sgd", momentum=0.9, nesterov=True)
mxopt.torch.Optimizer(model.parameters(), name, weight_decay=0.1, state_dtype="bfloat16", seed=1)
mxopt.torch.Optimizer(model.parameters(), "sgd", **options)
mxopt.torch.Optimizer(model.parameters(), "mine", **anything)
mxopt.torch.Optimizer(model.parameters(), "lamb", learning_rat=0.1)  # wrong
mxopt.torch.Optimizer(model.parameters(), "sgd", momentun=0.9)  # wrong
mxopt.torch.Optimizer(model.parameters(), "adam", fused=True)  # wrong
mxopt.torch.Optimizer(model.parameters(), "adam", eps="1e-8")  # wrong
mxopt.torch.Optimizer(model.parameters(), name, weight_deca=0.1)  # wrong
mxopt.torch.Optimizer(model.parameters())  # wrong
"""
UNTYPED = r"import (ray|mxnet|mindspore|sklearn)|from (sklearn|digits)"  # not here, or without types
HAS_TORCH = importlib.util.find_spec("torch") is not None
if not HAS_TORCH:
    UNTYPED += r"|import torch|from torch|mxopt\.torch"
MYPY = """
[mypy]
check_untyped_defs = True
allow_redefinition = True
[mypy-torch.*]
follow_imports = skip
"""
PYRIGHT = {
    "include": ["*.py"],
    "extraPaths": [str(ROOT)],
    "pythonVersion": "3.11",
    "reportPossiblyUnboundVariable": False,  # of what a loop has left
}
PROGRAMS = {"train": PROGRAM, "right": RIGHT} | ({"model": MODEL} if HAS_TORCH else {})
WRONG = {
    (f"{name}.py", n)
    for name, text in PROGRAMS.items()
    for n, line in enumerate(text.splitlines(), 1)
    if line.endswith("# wrong")
}


@pytest.fixture(scope="module")
def programs(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Those that try what there is, and those of the docs, which are right."""
    folder = tmp_path_factory.mktemp("programs")
    for name, text in PROGRAMS.items():
        (folder / f"{name}.py").write_text(text)
    found = {f"example_{example.stem}": example.read_text() for example in (ROOT / "docs/examples").glob("*.py")}
    for page in PAGES:
        pasted = enumerate(blocks(page, "python"), 1)
        found |= {f"{page.stem.replace('-', '_')}_{number}": block for number, (_, block) in pasted}
    for name, text in found.items():
        if not re.search(UNTYPED, text):
            (folder / f"{name}.py").write_text(text)
    (folder / "mypy.ini").write_text(MYPY)
    (folder / "pyrightconfig.json").write_text(json.dumps(PYRIGHT))
    return folder


def checked(*command: str) -> str:
    path = os.pathsep.join([str(Path(sys.executable).parent), os.environ.get("PATH", "")])  # pyright asks its Python
    environment = {**os.environ, "MYPYPATH": str(ROOT), "PYTHONPATH": str(ROOT), "PATH": path}
    command = (sys.executable, "-m", *command)
    return subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=300).stdout


def test_mypy_finds_the_commonest_mistakes_and_nothing_else(programs: Path) -> None:
    pytest.importorskip("mypy")
    files = map(str, sorted(programs.glob("*.py")))
    said = checked("mypy", "--config-file", str(programs / "mypy.ini"), "--show-column-numbers", *files)
    assert {(name, int(n)) for name, n in re.findall(r"(\w+\.py):(\d+):\d+: error", said)} == WRONG, said


def test_pyright_finds_the_commonest_mistakes_and_nothing_else(programs: Path) -> None:
    pytest.importorskip("pyright")
    said = checked("pyright", "--outputjson", "--project", str(programs), "--pythonpath", sys.executable)
    if not said.startswith("{"):
        pytest.skip(f"pyright doesn't run here: {said[:200]}")
    errors = [d for d in json.loads(said)["generalDiagnostics"] if d["severity"] == "error"]
    assert {(Path(d["file"]).name, d["range"]["start"]["line"] + 1) for d in errors} == WRONG, errors


def test_every_built_in_optimizer_and_store_is_known_by_name() -> None:
    script = runpy.run_path(str(ROOT / "scripts" / "overloads"))
    assert (ROOT / "mxopt/optimizer/named.py").read_text() == script["create"](), "run scripts/overloads"
    if HAS_TORCH:
        assert (ROOT / "mxopt/torch/named.py").read_text() == script["torch"](), "run scripts/overloads"
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
