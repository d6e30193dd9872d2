"""The registry: names, arguments, and that nothing registered is missing from the table or
undocumented."""

from __future__ import annotations

import ast
import importlib
import pkgutil
import re
import warnings
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table import ROWS

import mxopt
import mxopt.rules
from mxopt.arguments import arguments_of
from mxopt.errors import ArgumentTypeError, UnknownArgumentError, UnknownNameError
from mxopt.optimizer import Optimizer
from mxopt.rules.rule import Rule

OURS = {name: c for name, c in Optimizer.opt_registry.items() if c.__module__.startswith("mxopt.optimizer.")}
ROOT = Path(__file__).parents[2]
SOURCE = re.compile(r"arXiv:\d|https://|An old name of|For tests")


@pytest.fixture
def registry() -> Iterator[dict[str, Any]]:
    """The registry, put back as it was after the test."""
    before = dict(Optimizer.opt_registry)
    yield Optimizer.opt_registry
    Optimizer.opt_registry.clear()
    Optimizer.opt_registry.update(before)


def rules() -> dict[str, Rule]:
    modules = [importlib.import_module(f"mxopt.rules.{m.name}") for m in pkgutil.iter_modules(mxopt.rules.__path__)]
    return {f"{m.__name__}.{k}": v for m in modules for k, v in vars(m).items() if isinstance(v, Rule)}


def test_names_that_mxnet_has_too() -> None:
    assert mxopt.kv is mxopt.kvstore
    assert mxopt.optimizer.contrib.GroupAdaGrad is mxopt.optimizer.GroupAdaGrad
    assert "contrib" in mxopt.optimizer.__all__


def test_mxnets_optimizers_are_all_there() -> None:
    assert set(OURS) >= {
        "adabelief", "adadelta", "adagrad", "adam", "adamax", "adamw", "ccsgd", "dcasgd", "ftml", "ftrl",
        "groupadagrad", "lamb", "lans", "lars", "lbsgd", "nadam", "nag", "rmsprop", "sgd", "sgld", "signum", "test",
    }  # fmt: skip


def test_every_optimizer_is_exported() -> None:
    others = {"NDabs", "Optimizer", "Updater", "create", "get_updater", "register"}
    assert {c.__name__ for c in OURS.values()} | others <= set(mxopt.optimizer.__all__)


def test_an_optimizer_is_at_most_45_lines_in_4_files() -> None:
    """Lion's rule, its class, its public names and its rows of the table: what somebody writes. The
    options that type checkers know are written by `scripts/overloads`, from the class."""
    found: dict[str, set[int]] = {}
    written = [path for path in ROOT.glob("mxopt/**/*.py") if "Written by\n`scripts/" not in path.read_text()]
    for path in [*written, ROOT / "tests/table.py"]:
        text = path.read_text()
        lines = {n for n, line in enumerate(text.splitlines(), 1) if re.search(r"\blion\b", line, re.IGNORECASE)}
        for node in ast.parse(text).body if lines else ():
            if isinstance(node, ast.ClassDef | ast.FunctionDef) and node.name.lower() == "lion":
                lines |= {*range(node.decorator_list[0].lineno, (node.end_lineno or 0) + 1)}
        if lines:
            found[path.relative_to(ROOT).as_posix()] = lines
    assert set(found) == {
        "mxopt/rules/sgd.py",
        "mxopt/optimizer/sgd.py",
        "mxopt/optimizer/__init__.py",
        "tests/table.py",
    }
    assert sum(map(len, found.values())) <= 45


def test_every_rule_of_these_optimizers_is_in_the_table() -> None:
    used = {id(rule) for row in ROWS for rule in row.rules}
    files = ("adam", "adaptive", "layerwise", "sgd")
    missing = [name for name, rule in rules().items() if id(rule) not in used and name.split(".")[2] in files]
    assert not missing


@pytest.mark.parametrize("klass", OURS.values(), ids=lambda c: c.__name__)
def test_every_optimizer_is_documented(klass: type) -> None:
    text = klass.__doc__ or ""
    assert SOURCE.search(text), "says no source"
    own = [a for a in arguments_of(klass) if a not in arguments_of(Optimizer)]
    described = text.partition("Parameters\n")[2]
    missing = [a for a in own if not re.search(rf"^\s*[\w, ]*\b{a}\b[\w, ]*( :.*)?$", described, re.MULTILINE)]
    assert not missing or klass.__name__ == "ccSGD", "parameters it doesn't describe"


@pytest.mark.parametrize(("name", "rule"), rules().items(), ids=lambda x: x if isinstance(x, str) else "")
def test_every_rule_says_its_hyper_parameters_and_states(name: str, rule: Rule) -> None:
    assert rule.hypers[:4] == ("lr", "wd", "rescale", "bound")
    assert len(set(rule.hypers)) == len(rule.hypers)
    assert set(rule.states) >= {w for stage in rule.stages for w in stage.writes} - {"weight"}


@pytest.mark.parametrize("name", ["adam", "Adam", "ADAM", "aDaM"])
def test_names_are_case_insensitive(name: str) -> None:
    assert type(mxopt.create(name)) is mxopt.optimizer.Adam
    assert type(Optimizer.create_optimizer(name)) is mxopt.optimizer.Adam


@pytest.mark.parametrize(
    ("name", "hint"), [("adma", "'adam'"), ("SDG", "'sgd'"), ("rms_prop", "'rmsprop'"), ("xyz", "adadelta, .*signum")]
)
def test_an_unknown_name_suggests_the_nearest(name: str, hint: str) -> None:
    with pytest.raises(UnknownNameError, match=f"{name}.*{hint}") as caught:
        mxopt.create(name)
    assert isinstance(caught.value, ValueError)


@pytest.mark.parametrize("name", [None, 3, b"sgd", ["sgd"]])
def test_a_name_that_is_no_text(name: Any) -> None:
    with pytest.raises(UnknownNameError):
        mxopt.create(name)


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_an_unknown_argument_suggests_the_nearest(row: Any) -> None:
    with pytest.raises(UnknownArgumentError, match=r"learningrate.*'learning_rate'") as caught:
        row.make(learningrate=0.1)
    assert isinstance(caught.value, TypeError)


def test_registering_and_overriding(registry: dict[str, Any]) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")

        @mxopt.register
        class Mine(Optimizer):
            """One's own."""

    assert registry["mine"] is Mine
    assert type(mxopt.create("MINE")) is Mine

    class Other(Optimizer):
        """Another one of the same name."""

    Other.__name__ = "Mine"
    with pytest.warns(UserWarning, match="overriding .*Mine"):
        assert Optimizer.register(Other) is Other
    assert type(mxopt.create("mine")) is Other


def test_a_learning_rate_of_none_counts_as_not_given() -> None:
    for row in ROWS:
        assert mxopt.create(row.name, learning_rate=None).learning_rate == 0.01


def test_numbers_that_are_not_numbers() -> None:
    for row in ROWS:
        for value in (float("nan"), np.float32("nan"), np.float64("nan")):
            for name in ("learning_rate", "wd", "rescale_grad", "clip_gradient"):
                with pytest.raises(ValueError, match=f"{name} is NaN"):
                    row.make(**{name: value})


def test_things_that_are_no_numbers() -> None:
    for row in ROWS:
        value: Any
        for value in ("0.1", [0.1], {}, 1j):
            for name in ("learning_rate", "wd", "rescale_grad", "clip_gradient"):
                with pytest.raises(ValueError, match=f"{name} must be a number"):
                    row.make(**{name: value})
        assert row.make(rescale_grad=np.float32(0.5), clip_gradient=np.int64(1)).clip_gradient == 1


@pytest.mark.parametrize("name", ["adam", "adamw", "adabelief", "adamax", "nadam", "ftml", "lamb", "lans"])
@pytest.mark.parametrize("value", [-0.1, 1.0, 1.5])
def test_betas_that_make_no_sense_are_refused(name: str, value: float) -> None:
    for beta in ("beta1", "beta2"):
        with pytest.raises(ValueError, match=beta):
            mxopt.create(name, **{beta: value})


def test_arguments_of_the_wrong_type_or_kind() -> None:
    for wrong in ({"param_idx2name": ["a"]}, {"param_idx2name": {0: 1}}, {"param_dict": ["a"]}):
        with pytest.raises(ArgumentTypeError, match=next(iter(wrong))):
            mxopt.create("sgd", **wrong)
    with pytest.raises(ValueError, match="wd"):
        mxopt.create("groupadagrad", wd=0.1)
    with pytest.raises(ValueError, match="batch_scale"):
        mxopt.create("lbsgd", batch_scale=0)


def test_optimizers_say_what_they_are() -> None:
    assert repr(mxopt.create("adam", learning_rate=0.5)) == "<Adam learning_rate=0.5 num_update=0>"
