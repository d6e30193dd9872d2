"""The docs site: `scripts/docs` builds it. The API pages are made from the docstrings."""

from __future__ import annotations

import ast
import importlib
import importlib.util
import inspect
import os
import re
import subprocess
import sys
from typing import Any

from docutils.nodes import Element, Node, document, literal_block
from docutils.parsers.rst import Directive
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment
from sphinx.util import logging

import mxopt

project = "mxopt"
version = release = mxopt.__version__
extensions = ["myst_parser", "sphinx.ext.autodoc", "sphinx.ext.napoleon"]
exclude_patterns = ["examples"]

html_theme = "furo"
html_title = f"mxopt {release}"
html_copy_source = False
html_show_copyright = False
html_show_sphinx = False

myst_enable_extensions = ["colon_fence"]
myst_heading_anchors = 4

default_role = "py:obj"  # what stands in backticks in a docstring is a link where it names something public
add_module_names = False
python_use_unqualified_type_names = True
autodoc_default_options = {"members": True, "show-inheritance": True}
autodoc_inherit_docstrings = False  # a method without words of its own stands with the class that explains it
autodoc_member_order = "bysource"
autodoc_preserve_defaults = True
autodoc_type_aliases = {"DTypeLike": "numpy.typing.DTypeLike"}  # of which signatures would have all eight lines
autodoc_mock_imports = [name for name in ("ray", "torch") if importlib.util.find_spec(name) is None]
napoleon_google_docstring = False
napoleon_use_ivar = True
napoleon_use_rtype = False

# The modules of docs/api. A thing with several public names stands under the first.
PUBLIC = [
    "mxopt.experimental.optim.lr_scheduler", "mxopt.experimental.optim", "mxopt.nn", "mxopt.optimizer",
    "mxopt.optimizer.contrib", "mxopt.lr_scheduler", "mxopt.kvstore", "mxopt.kvstore.dist", "mxopt.sparse",
    "mxopt.migrate", "mxopt.torch", "mxopt.rules.rule", "mxopt.rules.common", "mxopt.options",
    "mxopt.optimizer.options", "mxopt.document", "mxopt.errors", "mxopt.settings", "mxopt.typing", "mxopt",
    "mxopt_server.ray_servers",
]  # fmt: skip
NEEDS = {"mxopt.torch": "torch", "mxopt_server.ray_servers": "ray"}
PROGRAMS = {"mxopt": "mxopt", "mxopt-launch": "mxopt_server.launch", "mxopt-server": "mxopt_server"}


def public_names() -> dict[str, str]:
    """Where a thing stands in these pages, by the names it has for Python."""
    names: dict[str, str] = {}
    for place in PUBLIC:
        if NEEDS.get(place) in autodoc_mock_imports:
            continue
        module = importlib.import_module(place)
        own = [name for name, x in vars(module).items() if name[0] != "_" and getattr(x, "__module__", "") == place]
        for name in getattr(module, "__all__", own):
            thing = getattr(module, name)
            if not inspect.ismodule(thing):
                home = names.setdefault(_name(thing), f"{place}.{name}")
                names[f"{place}.{name}"] = home
    return names


def _name(thing: Any) -> str:
    return f"{thing.__module__}.{getattr(thing, '__qualname__', thing)}"


logger = logging.getLogger(__name__)
NAMES = public_names()


def exact(app: Sphinx, doctree: document) -> None:
    """A name without a module means the one of its own module, not any that ends so."""
    for node in doctree.findall(pending_xref):
        node.attributes.pop("refspecific", None)


def link(app: Sphinx, env: BuildEnvironment, node: pending_xref, content: Element) -> Element | None:
    """Types in signatures are known by the module that defines them: leads to where they stand."""
    target = NAMES.get(node.get("reftarget", ""))
    if node.get("refdomain") != "py" or target is None:
        return None
    return env.domains["py"].resolve_xref(env, node["refdoc"], app.builder, "obj", target, node, content)


def skip_known(app: Sphinx, what: str, name: str, thing: Any, skip: bool, options: Any) -> bool | None:
    """Leaves out of a module's page what stands on another."""
    place = app.env.temp_data.get("autodoc:module") or app.env.ref_context.get("py:module")
    home = NAMES.get(f"{place}.{name}")
    return True if what == "module" and home and home != f"{place}.{name}" else None


def readable(app: Sphinx, what: str, name: str, thing: Any, options: Any, signature: str, returns: str) -> Any:
    """A signature without what `Annotated` says besides, and with a default that is a function by
    its name: neither is Python, so that Sphinx couldn't read it."""
    if not signature:
        return None
    signature = re.sub(r"~typing\.Annotated\[([^,]+), .*?\(.*?ascending=\w+\)\]", r"\1", signature)
    signature = re.sub(r"<function (\w+)>", r"\1", signature)
    try:
        ast.parse(f"def f{signature.replace('~', '')}: ...")
    except SyntaxError:
        logger.warning("the signature of %s isn't Python: %s", name, signature)
    return signature, returns


def examples(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Gives an example that stands behind a section, as that of the parameters, a section of its
    own: it would be taken for a part of that one."""
    first = next((k for k, line in enumerate(lines) if line.startswith(">>> ")), 0)
    if any(re.fullmatch("-{3,}", line) for line in lines[:first]):
        lines[first:first] = ["Examples", "--------"]


def tables(app: Sphinx, what: str, name: str, thing: Any, options: Any, lines: list[str]) -> None:
    """Docstrings write tables as Markdown does."""
    made: list[str] = []
    for line in lines:
        if line.startswith("|--"):
            continue
        if line.startswith("| "):
            if not (made and made[-1].startswith("     - ")):
                made += [".. list-table::", "   :header-rows: 1", ""]
            for k, cell in enumerate(line.strip("| ").split(" | ")):
                made.append(f"   {' ' if k else '*'} - {cell}")
        else:
            made.append(line)
    lines[:] = made
    for line in lines:
        if re.match(r":(param|type) .*(>>>|Raises)", line):
            logger.warning("%s: this is taken for a parameter: %s", name, line)
        elif line.startswith(":type: "):
            logger.warning("%s: what stands before its colon is taken for a type: %s", name, line)


def all_public(app: Sphinx, env: BuildEnvironment) -> None:
    """A public name without a place in these pages, for want of a docstring, is a warning."""
    for home in sorted(set(NAMES.values()) - env.domains["py"].objects.keys()):
        logger.warning("%s is public and stands on no page", home)


def skip_private_bases(app: Sphinx, name: str, thing: type, options: Any, bases: list[Any]) -> None:
    """What a class is said to be based on: in place of a base of mxopt's that stands on no page,
    those behind it."""
    found: dict[Any, None] = {}
    for base in bases:
        known = [c for c in getattr(base, "__mro__", [base]) if not _name(c).startswith("mxopt.") or _name(c) in NAMES]
        found.update(dict.fromkeys(known[:1]))
    bases[:] = [base for base in found if base is not object] or [object]


class Help(Directive):
    """What a command says of itself."""

    required_arguments = 1
    final_argument_whitespace = True

    def run(self) -> list[Node]:
        program, *more = self.arguments[0].split()
        command = [sys.executable, "-m", PROGRAMS[program], *more, "--help"]
        environment = {**os.environ, "COLUMNS": "90"}
        shown = subprocess.run(command, check=True, capture_output=True, text=True, env=environment).stdout
        return [literal_block(shown, shown, language="text")]


def setup(app: Sphinx) -> None:
    app.add_directive("help", Help)
    app.connect("doctree-read", exact)
    app.connect("env-check-consistency", all_public)
    app.connect("missing-reference", link)
    app.connect("autodoc-skip-member", skip_known)
    app.connect("autodoc-process-signature", readable)
    app.connect("autodoc-process-docstring", examples, priority=400)  # before sections are read
    app.connect("autodoc-process-docstring", tables)
    app.connect("autodoc-process-bases", skip_private_bases)
