"""Writes LLVM assembly, and compiles it for this machine, in this process.

Assembling and compiling a function takes some 20 ms, so nothing is kept on disk: there is no cache
to invalidate, to bound, to lock or to trust.
"""

from __future__ import annotations

import itertools
import os
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import cache
from typing import TYPE_CHECKING, Any

from mxopt.errors import CompilationError

_lock = threading.Lock()
_numbers = itertools.count()
if hasattr(os, "register_at_fork"):  # a child must not inherit a compiler in the middle of its work
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

if TYPE_CHECKING:
    import llvmlite.binding as llvm


class Loop:
    """A loop while it is being written; see `Lines.loop`."""

    following: Sequence[str]

    def __init__(self, asm: Lines, name: str) -> None:
        self.asm, self.name = asm, name

    def until(self, condition: str) -> None:
        """Leaves the loop if the condition holds."""
        go_on = self.asm.fresh(f"{self.name}.go.on")
        self.asm.put(f"br i1 {condition}, label %{self.name}.end, label %{go_on}")
        self.asm.label(go_on)

    def again(self, *values: str) -> None:
        """Sets the values of the next turn."""
        self.following = values


class Lines:
    """Functions in LLVM assembly, with names that are fresh and loops that are written once."""

    def __init__(self) -> None:
        self.lines: list[str] = []
        self.declarations: set[str] = set()
        self._names = 0
        self._block = ""  # in which the next line will be

    def put(self, line: str) -> None:
        self.lines.append("  " + line)

    def label(self, name: str) -> None:
        self.lines.append(f"{name}:")
        self._block = name

    def fresh(self, name: str) -> str:
        """A new name."""
        self._names += 1
        return f"{name}{self._names}"

    def let(self, expression: str) -> str:
        name = self.fresh("%v")
        self.put(f"{name} = {expression}")
        return name

    def demand(self, condition: str, otherwise: str) -> None:
        """Jumps to the block `otherwise` unless the condition holds."""
        go_on = self.fresh("go.on")
        self.put(f"br i1 {condition}, label %{go_on}, label %{otherwise}")
        self.label(go_on)

    @contextmanager
    def function(self, head: str) -> Iterator[None]:
        """Makes a function of what is written inside the `with` block."""
        self.lines.append(f"define {head} {{")
        self.label("entry")
        yield
        self.lines.append("}")

    def module(self) -> str:
        """All functions, as text."""
        return "\n".join([*sorted(self.declarations), *self.lines, ""])

    @contextmanager
    def loop(self, name: str, *first: tuple[str, str]) -> Iterator[tuple[Any, ...]]:
        """Makes a loop of what is written inside the `with` block. It has values, which begin as
        `first`, pairs of type and value. Gives the loop, which must be told when to end (`until`)
        and the values of the next turn (`again`), and the names of the values, which stay valid
        after it."""
        before, loop = self._block, Loop(self, self.fresh(name))
        self.put(f"br label %{loop.name}")
        self.label(loop.name)
        at, names = len(self.lines), [self.fresh("%v") for _ in first]
        yield (loop, *names)
        self.put(f"br label %{loop.name}")
        self.lines[at:at] = [
            f"  {name} = phi {type} [ {value}, %{before} ], [ {following}, %{self._block} ]"
            for name, (type, value), following in zip(names, first, loop.following, strict=True)
        ]
        self.label(f"{loop.name}.end")

    def when(
        self,
        condition: str,
        write: Callable[[], Sequence[str] | None],
        type: str = "",
        otherwise: Sequence[str] = (),
        instead: Callable[[], None] | None = None,
    ) -> list[str]:
        """Runs what `write` writes only if the condition holds, else what `instead` writes. The
        results, all of one type, are what `write` returns, or else `otherwise`."""
        before, then = self._block, self.fresh("when")
        self.put(f"br i1 {condition}, label %{then}, label %{then}.{'else' if instead else 'end'}")
        self.label(then)
        made, after = write() or (), self._block
        self.put(f"br label %{then}.end")
        if instead:
            self.label(f"{then}.else")
            instead()
            self.put(f"br label %{then}.end")
        self.label(f"{then}.end")
        pairs = zip(made, otherwise, strict=True)
        return [self.let(f"phi {type} [ {x}, %{after} ], [ {y}, %{before} ]") for x, y in pairs]

    def call(self, result: str, name: str, *arguments: str) -> str:
        types = ", ".join(a.rpartition(" ")[0].replace(" align 1", "") for a in arguments)
        self.declarations.add(f"declare {result} @{name}({types})")
        return self.let(f"call {result} @{name}({', '.join(arguments)})")

    def at(self, scalar: str, pointer: str, index: str | int) -> str:
        """The address of element `index` of an array of `scalar`."""
        return self.let(f"getelementptr {scalar}, ptr {pointer}, i64 {index}")

    def word(self, pointer: str, index: str | int) -> str:
        return self.let(f"load i64, ptr {self.at('i64', pointer, index)}")

    def pointer(self, base: str, index: str | int) -> str:
        return self.let(f"load ptr, ptr {self.at('i64', base, index)}")

    def smaller(self, a: str, b: str) -> str:
        return self.call("i64", "llvm.umin.i64", f"i64 {a}", f"i64 {b}")

    def larger(self, a: str, b: str) -> str:
        return self.call("i64", "llvm.umax.i64", f"i64 {a}", f"i64 {b}")

    def fetch(self, address: str, to_write: bool = True) -> None:
        """Asks for a cache line that will be needed soon. Any address will do."""
        self.declarations.add("declare void @llvm.prefetch.p0(ptr, i32, i32, i32)")
        self.put(f"call void @llvm.prefetch.p0(ptr {address}, i32 {int(to_write)}, i32 3, i32 1)")


@cache
def target() -> tuple[llvm.TargetMachine, llvm.ExecutionEngine]:
    """This machine, and what runs code on it."""
    import llvmlite.binding as llvm  # not before the first update: it takes longer than all else that mxopt imports

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    return machine, llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def compile_assembly(assembly: str, name: str) -> int:
    """The address of the function `name` of a module. Raises CompilationError if LLVM doesn't
    accept the module."""
    import llvmlite
    import llvmlite.binding as llvm

    with _lock:
        machine, engine = target()
        try:
            module = llvm.parse_assembly(assembly)
            module.verify()  # what code generation stumbles over ends the process
        except RuntimeError as error:
            raise CompilationError(
                f"llvmlite {llvmlite.__version__} doesn't accept {name}: {str(error).strip():.500}; mxopt needs"
                " 0.48 or newer; without any, MXOPT_ENGINE=numpy works, slowly"
            ) from error
        # All modules share one space of names, and rules of different people may bear the same.
        unique = module.get_function(name).name = f"{name}.{next(_numbers)}"
        module.triple = machine.triple
        module.data_layout = str(machine.target_data)
        engine.add_module(module)
        engine.finalize_object()
        return int(engine.get_function_address(unique))
