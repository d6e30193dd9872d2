"""The package as a whole: what importing it brings in, which way its imports point, that everything is documented."""

from __future__ import annotations

import ast
import doctest
import importlib
import inspect
import pkgutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType

import pytest

import mxopt

ROOT = Path(mxopt.__file__).parent
HEAVY = ["cupy", "zmq", "llvmlite", "matplotlib", "torch", "numba", "sklearn", "rich", "mxopt_server"]


def modules() -> list[str]:
    """Every module of the package."""
    return ["mxopt", *(m.name for m in pkgutil.walk_packages([str(ROOT)], "mxopt."))]


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


def imports(path: Path) -> Iterator[str]:
    """The modules of mxopt that a file imports, wherever in it."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield node.module or ""
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


# From the bottom: a module imports from its own layer and from those below it only.
LAYERS = [
    ["mxopt.rules", "mxopt.errors", "mxopt.overrides", "mxopt.arguments", "mxopt.registry"],
    ["mxopt.settings", "mxopt.device", "mxopt.sparse"],
    ["mxopt.engine"],
    ["mxopt.document"],
    ["mxopt.optimizer", "mxopt.lr_scheduler", "mxopt.parameter"],
]


def layer(module: str) -> int:
    found = [k for k, names in enumerate(LAYERS) for n in names if module == n or module.startswith(n + ".")]
    return found[0] if found else len(LAYERS)


def test_imports_point_downwards() -> None:
    wrong = []
    for path in ROOT.rglob("*.py"):
        module = ".".join(path.relative_to(ROOT.parent).with_suffix("").parts).removesuffix(".__init__")
        for name in imports(path):
            if name.split(".")[0] == "mxopt" and name != "mxopt" and module != "mxopt" and layer(name) > layer(module):
                wrong.append(f"{module} imports {name}")
    assert not wrong


def test_rules_import_nothing_else_of_mxopt() -> None:
    for path in (ROOT / "rules").glob("*.py"):
        foreign = {n for n in imports(path) if n.startswith("mxopt") and not n.startswith("mxopt.rules")}
        assert not foreign, path


def test_the_library_never_imports_the_server() -> None:
    assert not [p for p in ROOT.rglob("*.py") if any(n.startswith("mxopt_server") for n in imports(p))]


def test_nothing_is_pickled() -> None:
    forbidden = {"pickle", "marshal", "shelve", "dill", "cloudpickle"}
    assert not [p for p in ROOT.rglob("*.py") if forbidden & set(imports(p))]


def public(module: ModuleType) -> Iterator[tuple[str, object]]:
    """The public functions and classes that a module defines, and the public methods and properties of the classes."""
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
