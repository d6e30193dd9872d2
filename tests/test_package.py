"""The package as a whole: what importing it brings in, which way its imports point, that everything
is documented."""

from __future__ import annotations

import ast
import builtins
import doctest
import importlib
import importlib.util
import inspect
import pkgutil
import re
import subprocess
import sys
import textwrap
from collections.abc import Iterator
from itertools import pairwise
from pathlib import Path
from types import ModuleType

import pytest

import mxopt

ROOT = Path(mxopt.__file__).parent
HEAVY = ["numpy.ma", "cupy", "zmq", "llvmlite", "matplotlib", "torch", "numba", "sklearn", "rich", "mxopt_server"]


HAS_TORCH = importlib.util.find_spec("torch") is not None


def modules() -> list[str]:
    """Every module of the package; those for PyTorch where it is installed."""
    found = [m.name for m in pkgutil.iter_modules([str(ROOT)], "mxopt.") if m.name != "mxopt.torch" or HAS_TORCH]
    within = [pkgutil.walk_packages([str(ROOT / name.removeprefix("mxopt."))], f"{name}.") for name in found]
    return ["mxopt", *found, *(m.name for modules in within for m in modules)]


def python(code: str) -> str:
    command = [sys.executable, "-W", "error", "-c", code]
    return subprocess.run(command, check=True, capture_output=True, text=True, cwd=ROOT.parent).stdout


@pytest.mark.parametrize("statement", ["import mxopt", "import mxopt; mxopt.create('adam')", "import mxopt.document"])
def test_importing_brings_in_nothing_heavy(statement: str) -> None:
    loaded = python(f"import sys; {statement}; print([m for m in {HEAVY} if m in sys.modules])")
    assert loaded.strip() == "[]"


def test_an_update_brings_in_only_the_compiler() -> None:
    code = f"""
import sys, numpy as np, mxopt
mxopt.get_updater(mxopt.create('adam'))(0, np.ones(3, np.float32), np.ones(3, np.float32))
print([m for m in {HEAVY} if m in sys.modules])
"""
    assert python(code).strip() == "['llvmlite']"


def test_the_reference_engine_needs_no_compiler() -> None:
    code = """
import sys, numpy as np, mxopt
with mxopt.use_engine('numpy'):
    mxopt.get_updater(mxopt.create('lamb'))(0, np.ones(3, np.float32), np.ones(3, np.float32))
print('llvmlite' in sys.modules)
"""
    assert python(code).strip() == "False"


SOURCES = {"mxopt": ROOT, "mxopt_server": ROOT.parent / "server" / "mxopt_server"}
SOURCES["benchmark"] = ROOT.parent / "scripts" / "benchmark"
SOURCES["reference"] = ROOT.parent / "scripts" / "reference"
PATHS = {
    ".".join((name, *path.relative_to(folder).with_suffix("").parts)).removesuffix(".__init__"): path
    for name, folder in SOURCES.items()
    for path in sorted(folder.rglob("*.py"))
}


def imports(path: Path) -> Iterator[str]:
    """What a file imports, wherever in it: in functions, and for type checkers only, too."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def imported(module: str) -> set[str]:
    """The modules of ours that a module imports; of `from package import module` the latter
    only."""
    beside = module.rpartition(".")[0]  # a script of `reference` imports what lies beside it by its bare name
    found = {f"{beside}.{name}" if f"{beside}.{name}" in PATHS else name for name in imports(PATHS[module])}
    names = {name for name in found if name.partition(".")[0] in SOURCES}
    ours = {name if name in PATHS else name.rpartition(".")[0] for name in names}
    packages = {name.rpartition(".")[0] for name in names & PATHS.keys()}
    return {name for name in ours - {module} if name in PATHS and not (name in packages and not _uses(module, name))}


def _uses(module: str, package: str) -> bool:
    """Whether a module imports a package itself, or more from it than modules in it."""
    tree = ast.parse(PATHS[module].read_text())
    if any(package in {a.name for a in n.names} for n in ast.walk(tree) if isinstance(n, ast.Import)):
        return True
    names = [name for name in imports(PATHS[module]) if name.rpartition(".")[0] == package]
    return not names or any(name not in PATHS for name in names)


# From the bottom: a module imports from its own floor and from those below it only. The longest
# name that fits counts.
FLOORS = [
    ["mxopt.errors", "mxopt.overrides", "mxopt.plain", "mxopt.rules", "mxopt.typing"],
    [
        "mxopt.arguments",
        "mxopt.assembler",
        "mxopt.caller",
        "mxopt.device",
        "mxopt.options",
        "mxopt.registry",
        "mxopt.settings",
    ],
    ["mxopt.role", "mxopt.sparse"],
    ["mxopt.engine"],
    [
        "mxopt.averages",
        "mxopt.clipping",
        "mxopt.document",
        "mxopt.lr_scheduler",
        "mxopt.parameter",
        "mxopt.state_dtype",
    ],
    ["mxopt.optimizer"],
    ["mxopt.experimental", "mxopt.migrate", "mxopt.nn"],
    ["mxopt.curves", "mxopt.kvstore"],
    ["mxopt.owned", "mxopt.torch", "mxopt.trainer"],
    ["mxopt"],
    ["mxopt.cli", "mxopt_server"],
    ["mxopt.__main__", "benchmark", "reference"],
]


def floor(module: str) -> int:
    fitting = [
        (len(name), k) for k, names in enumerate(FLOORS) for name in names if f"{module}.".startswith(f"{name}.")
    ]
    return max(fitting)[1]


def test_a_package_imported_itself_counts_beside_its_modules(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "own.py"
    monkeypatch.setitem(PATHS, "mxopt.sparse.own", path)
    for text, expected in [
        ("from mxopt import errors", {"mxopt.errors"}),
        ("import mxopt\nfrom mxopt import errors", {"mxopt", "mxopt.errors"}),
        ("from mxopt import SGD, errors", {"mxopt", "mxopt.errors"}),
        ("import mxopt.errors\nfrom mxopt.errors import ArrayError", {"mxopt.errors"}),
    ]:
        path.write_text(text)
        assert imported("mxopt.sparse.own") == expected, text


def test_every_module_has_a_floor_of_its_own() -> None:
    """`mxopt` itself is its `__init__`; whatever is new under it must be put somewhere."""
    names = {name for names in FLOORS for name in names} - {"mxopt"}
    assert not [m for m in PATHS if m != "mxopt" and not any(f"{m}.".startswith(f"{name}.") for name in names)]


def test_imports_point_downwards() -> None:
    assert not [f"{m} imports {name}" for m in PATHS for name in imported(m) if floor(name) > floor(m)]


def test_no_imports_go_in_a_circle() -> None:
    left = {module: imported(module) for module in PATHS}
    while free := {module for module, names in left.items() if not names & left.keys()}:
        left = {module: names for module, names in left.items() if module not in free}
    assert not left


@pytest.mark.parametrize("module", PATHS)
def test_no_module_uses_a_private_name_of_another(module: str) -> None:
    nodes = [n for n in ast.walk(ast.parse(PATHS[module].read_text())) if isinstance(n, ast.ImportFrom)]
    names = [alias.name for n in nodes if (n.module or "").partition(".")[0] in SOURCES for alias in n.names]
    assert not [name for name in names if re.match("_(?!_)", name)]


def test_rules_import_nothing_else_of_mxopt() -> None:
    for path in (ROOT / "rules").glob("*.py"):
        foreign = {n for n in imports(path) if n.startswith("mxopt") and not n.startswith("mxopt.rules")}
        assert not foreign, path


def test_the_library_never_imports_the_server() -> None:
    assert not [p for p in ROOT.rglob("*.py") if any(n.startswith("mxopt_server") for n in imports(p))]


def test_what_needs_pytorch_is_tested_where_pytorch_is() -> None:
    """`scripts/test` has none, and skips it."""
    root = ROOT.parent
    listed = (root / "scripts" / "test-torch").read_text().partition("set -- ")[2].partition("\nfi")[0]
    command = ["bash", "-c", f"echo {listed}"]
    given = subprocess.run(command, cwd=root, capture_output=True, text=True, check=True).stdout.split()
    asks = re.compile(r'importorskip\("torch|find_spec\("torch"|^ *import torch$', re.MULTILINE)
    needs = [path.relative_to(root) for path in (root / "tests").rglob("test_*.py") if asks.search(path.read_text())]
    assert needs
    assert [str(path) for path in needs if not {str(path), str(path.parent)} & {*given}] == []


def test_extras_that_are_spoken_of_exist() -> None:
    project = ROOT.parent
    _, _, section = (project / "pyproject.toml").read_text().partition("[project.optional-dependencies]")
    extras = set(re.findall(r"^(\w+) = \[", section.partition("\n[")[0], re.MULTILINE))
    texts = [
        *ROOT.rglob("*.py"),
        *(project / "server").rglob("*.py"),
        *(project / "docs").glob("*.md"),
        project / "README.md",
    ]
    spoken = set()
    for path in texts:
        for names in re.findall(r"(?:mxopt|'\.)\[([a-z0-9,]+)\]", path.read_text()):
            spoken.update(names.split(","))
    assert spoken - extras == set()
    assert {"gpu12", "gpu13", "metrics", "torch", "ray", "examples"} <= spoken
    assert extras - spoken == {"bench", "demo", "dev", "docs"}  # which only the scripts need


@pytest.mark.parametrize(
    ("extra", "statement"),
    [
        ("ray", "import mxopt_server.ray_servers"),
        ("safetensors", "import mxopt.migrate as m; m.read_safetensors('x')"),
        ("safetensors", "import mxopt.migrate as m; m.write_safetensors('x', {})"),
        ("torch", "import mxopt.torch"),
    ],
)
def test_what_needs_an_extra_says_which(extra: str, statement: str) -> None:
    command = [sys.executable, "-c", f"import sys; sys.modules[{extra!r}] = None; {statement}"]
    done = subprocess.run(command, capture_output=True, text=True, cwd=ROOT.parent)
    last = done.stderr.splitlines()[-1]
    assert last.startswith("ImportError: ")
    assert f"needs the package {extra}: pip install 'mxopt[{extra}]'" in last


def test_what_modules_import_at_once_comes_with_the_package() -> None:
    """By what `pip install mxopt` brings, on every Python: what needs an extra is imported where it
    is used."""
    _, _, section = (ROOT.parent / "pyproject.toml").read_text().partition("\ndependencies = [")
    always = set(re.findall(r'"(\w+)>=[0-9.]+"', section.partition("\n]")[0]))
    known = sys.stdlib_module_names | SOURCES.keys() | {"zmq" if name == "pyzmq" else name for name in always}
    for module, path in PATHS.items():
        if module.startswith("mxopt") and not module.startswith(("mxopt.torch", "mxopt_server.ray_launch")):
            statements = [n for n in ast.parse(path.read_text()).body if isinstance(n, ast.Import | ast.ImportFrom)]
            names = {n.module or "" if isinstance(n, ast.ImportFrom) else n.names[0].name for n in statements}
            assert not {name.partition(".")[0] for name in names} - known, module


def test_nothing_is_pickled() -> None:
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    assert not [p for p in ROOT.rglob("*.py") if forbidden & set(imports(p))]


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public functions and classes that a module defines, and the public methods and properties
    of the classes."""
    for name, thing in vars(module).items():
        if name.startswith("_") or getattr(thing, "__module__", None) != module.__name__:
            continue
        if inspect.isclass(thing):
            yield name, thing
            inherited = {n for base in thing.__mro__[1:] for n in vars(base)}
            for method, value in vars(thing).items():
                is_code = inspect.isfunction(value) or isinstance(value, property | staticmethod | classmethod)
                if is_code and not method.startswith("_") and method not in inherited:
                    yield f"{name}.{method}", value
        elif inspect.isfunction(thing):
            yield name, thing


API = ["mxopt", "mxopt.optimizer", "mxopt.lr_scheduler", "mxopt.sparse", "mxopt.errors", "mxopt.parameter"]


@pytest.mark.parametrize("name", API)
def test_every_public_name_is_documented(name: str) -> None:
    module = importlib.import_module(name)
    things = [(n, getattr(module, n)) for n in getattr(module, "__all__", ())]
    homes = {
        importlib.import_module(t.__module__) for _, t in things if getattr(t, "__module__", "").startswith("mxopt")
    }
    undocumented = [n for n, t in things if not inspect.getdoc(t)]
    undocumented += [n for home in homes | {module} for n, t in public(home) if not inspect.getdoc(t)]
    assert not undocumented


@pytest.mark.parametrize("name", modules())
def test_every_module_says_what_it_is(name: str) -> None:
    assert importlib.import_module(name).__doc__


@pytest.mark.parametrize("name", modules())
def test_examples_of_docstrings_run(name: str) -> None:
    assert doctest.testmod(importlib.import_module(name), optionflags=doctest.NORMALIZE_WHITESPACE).failed == 0


@pytest.mark.parametrize("name", ["mxopt", "mxopt.optimizer", "mxopt.engine", "mxopt.lr_scheduler"])
def test_exported_names_exist(name: str) -> None:
    module = importlib.import_module(name)
    assert all(hasattr(module, n) for n in module.__all__)
    assert len(set(module.__all__)) == len(module.__all__)


def outlined(error: type[BaseException], depth: int = 0) -> Iterator[tuple[int, str, list[str]]]:
    """(depth, name, built-in types besides the parent) of an error and those derived from it."""
    built_in = [base.__name__ for base in error.__bases__ if base.__module__ == "builtins" and depth]
    yield depth, error.__name__, built_in
    for each in error.__subclasses__():
        if each.__module__ == "mxopt.errors":
            yield from outlined(each, depth + 1)


def test_the_outline_of_errors_is_that_of_the_classes() -> None:
    from mxopt import errors

    outline = textwrap.dedent(str(errors.__doc__).partition("::\n\n")[2])
    lines = re.findall(r"^( *)(\w+)(?: \((\w+)\)  +\w.*)?$", outline, re.MULTILINE)
    found = [(len(space) // 4, name, [built_in] if built_in else []) for space, name, built_in in lines if name]
    assert found == list(outlined(errors.MXOptError))


# What of the system's own types a user meets by their names alone: no memory, no package, a file
# that can't be written.
SYSTEM = {"MemoryError", "ImportError", "OSError"}
# Modules that raise a built-in error for themselves: it is caught within mxopt, which raises one of
# ours that says what it was about, or goes another way (where memory can't be lent: by the socket).
EXPLAINED = {
    *("mxopt.engine.arrays", "mxopt.kvstore.lending", "mxopt.migrate.flat", "mxopt.migrate.pickles", "mxopt.plain"),
    *("mxopt.optimizer.ruled", "mxopt.optimizer.states"),
}


@pytest.mark.parametrize("module", [name for name in sorted(PATHS) if name.startswith("mxopt")])
def test_what_is_raised_is_an_error_of_ours(module: str) -> None:
    """So that `except MXOptError` is enough."""
    raised = [node.exc for node in ast.walk(ast.parse(PATHS[module].read_text())) if isinstance(node, ast.Raise)]
    calls = [error.func if isinstance(error, ast.Call) else error for error in raised]
    names = {error.id for error in calls if isinstance(error, ast.Name) and hasattr(builtins, error.id)}
    assert not names - SYSTEM or module in EXPLAINED


@pytest.mark.parametrize("module", [name for name in sorted(PATHS) if name.startswith("mxopt")])
def test_a_message_with_a_number_of_things_is_right_for_one(module: str) -> None:
    """By `errors.counted`."""
    texts = [node.values for node in ast.walk(ast.parse(PATHS[module].read_text())) if isinstance(node, ast.JoinedStr)]
    pairs = [(a, b.value) for values in texts for a, b in pairwise(values) if isinstance(b, ast.Constant)]
    followed = [ast.unparse(number) for number, text in pairs if re.match(r" (\w+ )?\w+s\b", text)]  # type: ignore[arg-type]
    assert not [number for number in followed if "{len(" in number]


def test_errors_are_of_the_built_in_types_too() -> None:
    from mxopt import errors

    for error, built_in in {
        errors.ArgumentError: ValueError,
        errors.UnknownArgumentError: TypeError,
        errors.UnknownNameError: ValueError,
        errors.ArrayError: ValueError,
        errors.ArrayTypeError: TypeError,
        errors.StatesError: ValueError,
    }.items():
        assert issubclass(error, errors.MXOptError)
        assert issubclass(error, built_in)


def test_the_package_is_typed() -> None:
    assert (ROOT / "py.typed").exists()
