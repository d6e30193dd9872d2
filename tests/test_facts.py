"""What the pages list, beside the code that it is of: names, options, defaults, variables."""

from __future__ import annotations

import ast
import builtins
import inspect
import re
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from mxopt_server import durability, job_state, launch
from pasted import PAGES
from table import EXPERIMENTAL

import mxopt
from mxopt import document, errors, nn, settings
from mxopt.arguments import arguments_of
from mxopt.experimental import optim
from mxopt.experimental.optim import lr_scheduler
from mxopt.kvstore.kinds import DISTRIBUTED, LOCAL

DOCS = Path(__file__).parents[1] / "docs"


def text(page: str) -> str:
    return (DOCS / f"{page}.md").read_text()


def in_backticks(words: str) -> list[str]:
    return re.findall(r"`([^`]+)`", words)


def table(page: str, head: str) -> list[list[str]]:
    """The rows of the table whose first line begins with `head`."""
    lines = text(page).partition(f"\n{head}")[2].split("\n\n")[0].splitlines()[2:]
    assert lines, f"{page}.md has no table {head}"
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line.strip("|"))] for line in lines]


def test_the_guide_names_every_optimizer_of_mxnet() -> None:
    named = in_backticks(text("guide").partition("Names and arguments are MXNet's: ")[2].partition(". [")[0])
    built_in = {n: k for n, k in mxopt.Optimizer.opt_registry.items() if k.__module__.startswith("mxopt.")}
    assert sorted(named) == sorted(
        n for n, k in built_in.items() if "Not in MXNet" not in " ".join(str(k.__doc__).split())
    )


def test_mxopt_torch_has_the_optimizers_of_pytorch_that_its_page_names() -> None:
    pytest.importorskip("torch")
    from mxopt.torch.of_experimental import STATES

    sentence = re.split(r"\.\s", text("from-pytorch").partition("These names mean PyTorch's")[2])[0]
    named = in_backticks(sentence)
    assert sorted(named) == sorted(map(str.lower, STATES))


def test_the_pages_of_mindspores_families_have_every_class() -> None:
    named = {name.partition("(")[0] for row in table("nn", "| optimizer |") for name in in_backticks(row[0])}
    classes = {n for n in nn.__all__ if inspect.isclass(kind := getattr(nn, n)) and issubclass(kind, nn.Optimizer)}
    assert named == classes - {"Optimizer", "RuleOptimizer"}
    named = {name for row in table("nn", "| schedule |") for cell in row for name in in_backticks(cell)}
    assert named == set(nn.__all__) - classes - {"LearningRateSchedule"}
    named = {name for row in table("experimental", "| class |") for name in in_backticks(row[0])}
    assert named == set(optim.__all__) - {"Optimizer", "lr_scheduler"}


def test_the_states_of_the_experimental_optimizers_are_those_of_their_page() -> None:
    said: set[str] = set()
    for cell, _, states in table("experimental", "| class |"):
        (name,) = in_backticks(cell)
        said = said if states == "the same" else set(in_backticks(states)) - {*arguments_of(getattr(optim, name))}
        rules = [rule for row in EXPERIMENTAL if row.name == f"experimental.{name}" for rule in row.rules]
        assert said == {state for rule in rules for state in rule.states}, name


@pytest.mark.parametrize(
    ("module", "head"), [(mxopt.lr_scheduler, "| class | the rate of"), (lr_scheduler, "| class | the rate at")]
)
def test_the_schedules_have_the_arguments_and_defaults_of_their_page(module: ModuleType, head: str) -> None:
    calls = [in_backticks(row[0])[0] for row in table("schedules", head)]
    for call in calls:
        made = ast.parse(call.replace(", ...", "").replace("1/3", repr(1 / 3)), mode="eval").body
        assert isinstance(made, ast.Call)
        assert isinstance(made.func, ast.Name)
        said = {a.id: inspect.Parameter.empty for a in made.args if isinstance(a, ast.Name)}
        said |= {k.arg: ast.literal_eval(k.value) for k in made.keywords if k.arg}
        known = dict(inspect.signature(getattr(module, made.func.id)).parameters)
        for name in ("optimizer", "last_epoch"):
            known.pop(name, None)
        found = [(name, p.default) for name, p in known.items()]
        assert list(said.items()) == (found[: len(said)] if "..." in call else found), call
    assert {call.partition("(")[0] for call in calls} == set(module.__all__) - {"LRScheduler"}


def test_the_kinds_of_stores_are_those_of_their_page() -> None:
    named = [name for row in table("kvstore", "| name |") for name in in_backticks(row[0])]
    assert set(named) <= {*LOCAL, *DISTRIBUTED}
    assert {"sync", "async", "ssp"} <= {name.rpartition("_")[2] for name in named}


FIELDS = {
    "DMLC_ROLE": "role",
    "MXNET_KVSTORE_BIGARRAY_BOUND": "bound",
    "MXOPT_KVSTORE_TIMEOUT": "timeout",
    "MXOPT_KVSTORE_JOIN_TIMEOUT": "join_timeout",
    "MXOPT_KVSTORE_HEARTBEAT": "heartbeat",
    "MXOPT_KVSTORE_DEAD_AFTER": "dead_after",
    "MXOPT_KVSTORE_STALENESS": "staleness",
}
VARIABLE = r"\b(?:DMLC|MXOPT|MXNET)_[A-Z_]*[A-Z]\b"


def test_the_variables_and_their_defaults_are_those_that_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    lines = [line.strip("|") for line in str(settings.__doc__).splitlines() if line.startswith("| `")]
    rows = [[cell.strip() for cell in line.split("|")] for line in lines]
    named = {name for row in rows for name in re.findall(VARIABLE, row[0])}
    code = Path(str(settings.__file__)).read_text().partition('"""\n\nfrom')[2]
    assert named == set(re.findall(rf'"({VARIABLE})"', code))
    for name in named:
        monkeypatch.delenv(name, raising=False)
    job, defaults = settings.job(), {in_backticks(row[0])[0]: row[2] for row in rows}
    assert {name: str(getattr(job, field)).removesuffix(".0") for name, field in FIELDS.items()} == {
        name: defaults[name].partition(",")[0].strip("`") for name in FIELDS
    }
    assert defaults["DMLC_PS_ROOT_URI"] == f"`{job.host}`, {job.port}"


def test_variables_that_are_spoken_of_are_read() -> None:
    known = set(re.findall(VARIABLE, str(settings.__doc__)))
    for page in PAGES:
        spoken = {name for span in in_backticks(page.read_text()) for name in re.findall(VARIABLE, span)}
        assert spoken <= known, page.name


def test_what_servers_keep_and_how_often_they_come_back_is_as_their_page_says() -> None:
    page = " ".join(text("servers").split())
    kinds = [in_backticks(row[0])[0] for row in table("servers", "| `--durability` |")]
    assert kinds == [*durability.KINDS]
    assert f"every `--snapshot-every` seconds ({durability.EVERY_S:g})" in page
    assert f"is started again ({job_state.RESTARTS}; without durability 0)" in page
    launchers = next(a.choices for a in launch.parser()._actions if a.dest == "launcher")
    assert launchers is not None
    spoken = {name for row in table("cluster", "| you have |") for name in re.findall(r"--launcher (\w+)", row[1])}
    assert spoken | {"local"} == set(launchers)


def test_a_document_of_states_has_the_entries_of_its_page() -> None:
    updater = mxopt.get_updater(mxopt.create("sgd"))
    updater(0, np.ones(2, np.float32), np.ones(2, np.float32))
    entries = [in_backticks(row[0])[0] for row in table("state-format", "| entry |")]
    assert entries == list(document.load_document(updater.get_states()))
    dtypes = in_backticks(text("state-format").partition("A dtype is one of ")[2].partition(";")[0])
    assert sorted(dtypes) == sorted(document.DTYPES)


def test_errors_of_the_pages_are_of_the_types_that_they_say() -> None:
    for _, cell in table("experimental", "| what | raises |"):
        name, *built_in = in_backticks(cell)
        assert all(issubclass(getattr(errors, name), getattr(builtins, other)) for other in built_in), name
    for page in PAGES:
        words = [word for word in in_backticks(page.read_text()) if word != "MXNetError"]  # of another system
        spoken = {word for word in words if re.fullmatch(r"(?:mxopt\.errors\.)?[A-Z]\w+Error", word)}
        ours = {w.rpartition(".")[2] for w in spoken}
        assert not [name for name in ours if not hasattr(errors, name) and not hasattr(builtins, name)], page.name
