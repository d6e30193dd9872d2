"""Classes that share a name are told apart where they are saved and loaded; lists hold what is
public."""

from __future__ import annotations

import importlib
import importlib.util
import pkgutil
import subprocess
import sys
import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.lr_scheduler import CosineScheduler, LRScheduler
from mxopt.optimizer import Optimizer
from mxopt.optimizer.config import make_optimizer, optimizer_config
from mxopt.optimizer.keyed import following
from mxopt.registry import Registry


def a_class(name: str, module: str, qualname: str | None = None) -> type:
    return type(name, (), {"__module__": module, "__qualname__": qualname or name})


def known(*classes: type) -> Registry:
    registry = Registry("optimizer", "register it")
    for klass in classes:
        registry.add(klass.__name__.lower(), klass)
    return registry


OURS = a_class("SGD", "mxopt.optimizer.sgd")
THEIRS = a_class("SGD", "train")
SCRIPTS = a_class("SGD", "__main__")
MOVED = a_class("SGD", "mxopt.optimizer.descent")


@pytest.mark.parametrize("klass", [OURS, THEIRS, SCRIPTS])
def test_a_class_is_found_among_those_of_its_name(klass: type) -> None:
    registry = known(OURS, THEIRS, SCRIPTS)
    assert registry.find(registry.describe(klass)) is klass


@pytest.mark.parametrize(
    ("saved", "here", "found"),
    [
        (SCRIPTS, [OURS, THEIRS], THEIRS),  # the script is imported as a module where it is read
        (THEIRS, [OURS, SCRIPTS], SCRIPTS),
        (OURS, [MOVED, THEIRS], MOVED),  # all of mxopt is one module
        (THEIRS, [a_class("SGD", "renamed")], None),  # the name comes first
        (THEIRS, [OURS], StatesError),  # but another class of this name isn't it
        (SCRIPTS, [OURS], StatesError),
        (OURS, [THEIRS], StatesError),
        (OURS, [SCRIPTS], StatesError),
        (THEIRS, [OURS, a_class("SGD", "renamed")], StatesError),
        (SCRIPTS, [THEIRS, a_class("SGD", "other")], StatesError),  # it may be either
        (SCRIPTS, [THEIRS, a_class("SGD", "other", "make.<locals>.SGD")], THEIRS),
    ],
)
def test_where_it_is_read_another_class_may_stand_for_it(saved: type, here: list[type], found: Any) -> None:
    registry, described = known(*here), known(saved).describe(saved)
    if found is StatesError:
        with pytest.raises(StatesError, match=r"'sgd' is .*SGD; registered here under this name is "):
            registry.find(described)
    else:
        assert registry.find(described) is (found or here[0])


def test_a_class_defined_again_takes_the_place_of_the_one_before() -> None:
    again = a_class("SGD", "__main__")
    registry = known(SCRIPTS, again)
    assert registry.find(registry.describe(SCRIPTS)) is again


def test_a_name_that_nobody_knows_suggests_public_ones_only() -> None:
    registry = known(OURS, a_class("_SGDBase", "mxopt.optimizer.sgd"))
    with pytest.raises(StatesError, match="'sgdbase', which isn't registered here: did you mean 'sgd'") as caught:
        registry.find({"name": "sgdbase", "module": "m", "qualname": "q"})
    assert "_sgdbase" not in str(caught.value)
    assert list(registry) == ["sgd"]


def resumed(optimizer: Optimizer) -> Optimizer:
    return make_optimizer(optimizer_config(optimizer))


def cell() -> type[LRScheduler]:
    class Mine(LRScheduler):
        """Constant."""

        def after_warmup(self, num_update: int) -> float:
            return self.base_lr

    return Mine


def test_schedules_of_one_name_come_back_as_what_they_are() -> None:
    first, second = cell(), cell()
    builtin = CosineScheduler(max_update=10, base_lr=0.5)

    class Own(CosineScheduler):
        """One's own, of a built-in's name."""

    Own.__name__ = "CosineScheduler"
    LRScheduler.registry.add("CosineScheduler", Own)
    for schedule, klass in ((first(0.5), second), (builtin, CosineScheduler), (Own(10), Own)):
        assert type(resumed(mxopt.create("sgd", lr_scheduler=schedule)).lr_scheduler) is klass


def test_optimizers_of_one_name_come_back_as_what_they_are() -> None:
    builtin = mxopt.create("adam")
    before = Optimizer.opt_registry["adam"]
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")

            @mxopt.register
            class Adam(mxopt.optimizer.Adam):
                """One's own."""

        assert type(mxopt.create("adam")) is Adam
        assert type(resumed(Adam())) is Adam
        assert type(resumed(builtin)) is before
    finally:
        Optimizer.opt_registry["adam"] = before


def test_experimental_optimizers_of_one_name_reach_servers_as_what_they_are() -> None:
    class Adam(optim.Adam):
        """One's own."""

    for klass in (Adam, optim.Adam):
        keyed = following(klass([mxopt.Parameter(np.ones(2, np.float32), name="w")]))
        made: Any = resumed(keyed)
        assert type(made.model) is klass
        assert made.is_like(keyed)


def test_a_scripts_classes_are_found_where_the_script_is_a_module(tmp_path: Path) -> None:
    (tmp_path / "train.py").write_text("""
import sys, numpy as np, mxopt
@mxopt.register
class SGD(mxopt.optimizer.SGD):
    def update(self, index, weight, grad, state): weight[:] = 7
class CosineScheduler(mxopt.lr_scheduler.CosineScheduler):
    def after_warmup(self, n): return 0.5
if __name__ == "__main__":
    updater = mxopt.get_updater(SGD(lr_scheduler=CosineScheduler(10)))
    updater(0, np.ones(1, np.float32), np.ones(1, np.float32))
    sys.stdout.buffer.write(updater.get_states(dump_optimizer=True))
""")
    (tmp_path / "resume.py").write_text("""
import sys, numpy as np, mxopt, train
updater = mxopt.get_updater(mxopt.create("adam"))
updater.set_states(sys.stdin.buffer.read())
assert type(updater.optimizer) is train.SGD
assert type(updater.optimizer.lr_scheduler) is train.CosineScheduler
""")

    def run(script: str, given: bytes) -> bytes:
        command = [sys.executable, "-W", "ignore", script]
        return subprocess.run(command, check=True, cwd=tmp_path, input=given, stdout=subprocess.PIPE).stdout

    run("resume.py", run("train.py", b""))


# What lists show.

MODULES = [
    m
    for m in pkgutil.walk_packages(mxopt.__path__, "mxopt.", onerror=lambda _: None)
    if not m.name.startswith("mxopt.torch") or importlib.util.find_spec("torch") is not None
]
MXNETS = ["mxopt.lr_scheduler", "mxopt.optimizer.contrib"]  # modules that MXNet has too
PACKAGES = ["mxopt", *MXNETS, *(m.name for m in MODULES if m.ispkg)]


@pytest.mark.parametrize("name", [p for p in PACKAGES if p != "mxopt.rules"])
def test_dir_of_a_package_shows_what_is_public(name: str) -> None:
    for module in MODULES:
        importlib.import_module(module.name)  # which puts it into its package
    package = importlib.import_module(name)
    assert dir(package) == sorted(package.__all__)


def test_internal_classes_are_in_no_list() -> None:
    for registry in (Optimizer.registry, LRScheduler.registry, optim.Optimizer.registry, Optimizer.opt_registry):
        assert not [n for n in registry if n.startswith("_") or "keyed" in n]
    with pytest.raises(ValueError, match="'keyedoptimizer'") as caught:
        mxopt.create("keyedoptimizer")
    assert "did you mean" not in str(caught.value)
