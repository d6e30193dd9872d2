"""The command `mxopt`: what a report of a bug needs to know of this machine, and what is in a file
of states."""

from __future__ import annotations

import argparse
import io
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from importlib import metadata
from pathlib import Path
from typing import Any

import mxopt
from mxopt import settings
from mxopt.document import ArrayInfo, describe
from mxopt.engine import engine_in_use
from mxopt.errors import ArgumentError, MXOptError, counted, printable

PACKAGES = ("numpy", "llvmlite", "ml_dtypes", "msgpack", "msgspec", "pyzmq")
OPTIONAL = ("cupy", "matplotlib", "prometheus-client", "ray", "rich", "safetensors", "torch")
VARIABLES = ("MXOPT_", "DMLC_", "MXNET_", "OMP_NUM_THREADS")
SHOWN = 16  # bytes of what is no array
Lines = Iterator[tuple[str, str]]


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command; returns its exit code."""
    every = argparse.ArgumentParser(add_help=False)  # what each command has
    every.add_argument("--version", action="version", version=f"mxopt {mxopt.__version__}")
    description = "Tells what a report of a bug needs, and what is in a file."
    parser = argparse.ArgumentParser("mxopt", description=description, parents=[every])
    commands = parser.add_subparsers(dest="command", required=True, metavar="COMMAND")
    about = "versions, engine, threads, processor, GPUs: what a report of a bug needs"
    commands.add_parser("info", help=about, parents=[every])
    about = "what is in a file of saved states, without loading it"
    states = commands.add_parser("states", help=about, parents=[every])
    states.add_argument("file", metavar="FILE", help="what save_states, get_states or dump_document wrote")
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names that the terminal's encoding lacks
    given = parser.parse_args(arguments)
    try:
        rows = list(info() if given.command == "info" else states_of(given.file))
    except ArgumentError as error:  # of a variable
        print(printable(f"mxopt: {error}"), file=sys.stderr)
        return 2
    except (MXOptError, OSError) as error:
        why = error.strerror if isinstance(error, OSError) else error
        print(printable(f"mxopt: {given.file}: {why}"), file=sys.stderr)
        return 1
    try:
        print(aligned(rows), flush=True)
    except BrokenPipeError:  # whoever read this has seen enough
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except OSError as error:
        print(f"mxopt: the output can't be written: {error.strerror}", file=sys.stderr)
        return 1
    return 0


def aligned(rows: Sequence[tuple[str, str]]) -> str:
    """Two columns; whatever is in them, a row is one line."""
    rows = [(printable(name), printable(value)) for name, value in rows]
    width = max(len(name) for name, _ in rows)
    return "\n".join(f"{name:<{width}}  {value}".rstrip() for name, value in rows)


# This machine.


def info() -> Lines:
    """What a report of a bug needs to know."""
    yield "mxopt", f"{mxopt.__version__} in {Path(mxopt.__file__).parent}"
    yield "Python", f"{platform.python_version()} ({platform.python_implementation()}) at {sys.executable}"
    yield "system", platform.platform()
    for name in PACKAGES:
        yield name, metadata.version(name)
    yield from _libraries()
    for name in OPTIONAL:
        yield name, _optional(name)
    yield "GPUs", _gpus()
    yield "engine", engine_in_use()
    yield "threads", f"{mxopt.get_num_threads()} of {settings.usable_cores()} usable cores"
    for name, value in sorted(os.environ.items()):
        if name.startswith(VARIABLES):
            yield name, value


def _libraries() -> Lines:
    import llvmlite.binding as llvm
    import zmq

    features = llvm.get_host_cpu_features()
    vectors = [name for name in ("avx512f", "avx512bf16", "avx2", "f16c", "fma", "sve", "neon") if features.get(name)]
    yield "LLVM", ".".join(map(str, llvm.llvm_version_info))
    yield "processor", f"{llvm.get_host_cpu_name()}, {' '.join(vectors) or 'no vectors known'}"
    able = [name for name in ("curve", "ipc") if zmq.has(name)]
    yield "libzmq", f"{zmq.zmq_version()}, {' '.join(able)}"


def _optional(name: str) -> str:
    known = {d.name.replace("_", "-"): d.version for d in metadata.distributions()}
    found = [other for other in known if other == name or other.startswith(f"{name}-cuda")]
    return ", ".join(known[name] if other == name else f"{other} {known[other]}" for other in found) or "not installed"


def _gpus() -> str:
    try:
        import cupy

        names = [cupy.cuda.runtime.getDeviceProperties(k)["name"] for k in range(cupy.cuda.runtime.getDeviceCount())]
    except ImportError:
        return "none that mxopt could use: CuPy is not installed"
    except Exception as error:  # CuPy's own, where there is no driver
        return f"none: {error}"
    return ", ".join(name.decode() for name in names)


# A file.


def states_of(path: str) -> Lines:
    """What is in a document of states: its arrays, and everything else as it stands."""
    described = describe(path)
    found = list(_leaves(described.content, ""))
    arrays = [value for _, value in found if isinstance(value, ArrayInfo)]
    yield "file", f"{path}, {_size(described.nbytes)}, format version {described.version}, checksum right"
    yield "arrays", f"{len(arrays)}, {_size(sum(array.nbytes for array in arrays))}"
    for name, value in found:
        if isinstance(value, bytes) and len(value) > SHOWN:
            yield name, f"{_size(len(value))} that begin with {value[:SHOWN]!r}"
        else:
            yield name, str(value) if isinstance(value, ArrayInfo) else repr(value)


def _leaves(tree: Any, path: str) -> Iterator[tuple[str, Any]]:
    """The ends of a tree, each with the path that leads to it."""
    items = list(tree.items() if isinstance(tree, dict) else enumerate(tree)) if _branches(tree) else []
    if not items:
        yield path or ".", tree
    for key, value in items:
        yield from _leaves(value, f"{path}/{key}" if path else str(key))


def _branches(tree: object) -> bool:
    """Whether what is in there takes a line each: dicts, and lists of more than plain values."""
    return isinstance(tree, dict) or (isinstance(tree, list | tuple) and any(map(_deep, tree)))


def _deep(value: object) -> bool:
    return isinstance(value, dict | list | tuple | ArrayInfo)


def _size(nbytes: int) -> str:
    size = float(nbytes)
    for unit in ("bytes", "KiB", "MiB", "GiB"):
        if size < 1024 or unit == "GiB":
            break
        size /= 1024
    return counted(nbytes, "byte") if unit == "bytes" else f"{size:.1f} {unit}"
