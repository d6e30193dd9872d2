"""Compiles kernels for this machine, in this process.

Assembling and compiling a kernel takes some 20 ms, so nothing is kept on disk: there is no cache to
invalidate, to bound, to lock or to trust.
"""

from __future__ import annotations

import ctypes
import itertools
import os
import threading
from collections.abc import Callable
from functools import cache
from typing import TYPE_CHECKING, Any

from mxopt.engine import passes
from mxopt.engine.kernel import Kernel, Writer
from mxopt.engine.row_kernel import RowWriter
from mxopt.errors import CompilationError

# `release` lets other Python threads run meanwhile, which costs some 60 ns: for work that takes longer than that.
Compiled = tuple[Callable[[int], Any], Callable[[int], Any]]
_lock = threading.Lock()
_numbers = itertools.count()
if hasattr(os, "register_at_fork"):  # a child must not inherit a compiler in the middle of its work
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

if TYPE_CHECKING:
    import llvmlite.binding as llvm


def assemble(kernel: Kernel) -> str:
    """The assembly of a module with the function `void kernel.name(job)`."""
    return (RowWriter if kernel.rows or kernel.scattered else Writer)(kernel).module()


@cache
def _machine() -> tuple[llvm.TargetMachine, llvm.ExecutionEngine]:
    import llvmlite.binding as llvm  # not before the first update: it takes longer than all else that mxopt imports

    llvm.initialize_native_target()
    llvm.initialize_native_asmprinter()
    machine = llvm.Target.from_default_triple().create_target_machine(
        cpu=llvm.get_host_cpu_name(), features=llvm.get_host_cpu_features().flatten(), opt=2, jit=True
    )
    return machine, llvm.create_mcjit_compiler(llvm.parse_assembly(""), machine)


def compile_assembly(assembly: str, name: str) -> int:
    """The address of the function `name` of a module. Raises CompilationError where LLVM doesn't accept the module."""
    import llvmlite
    import llvmlite.binding as llvm

    with _lock:
        machine, engine = _machine()
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


@cache
def compiled(kernel: Kernel) -> Compiled:
    """`kernel` as two callables of a job's address: one that keeps the GIL, one that releases it."""
    return _callables(_address(kernel))


@cache
def compiled_passes(kernels: tuple[Kernel, ...], derivations: int) -> Compiled:
    """The same for kernels of one rule one after the other, with scalars derived after the first `derivations`."""
    rule = kernels[0].rule
    return _callables(compile_assembly(passes.assemble(rule, [*map(_address, kernels)], derivations), "passes"))


@cache
def _address(kernel: Kernel) -> int:
    return compile_assembly(assemble(kernel), kernel.name)


def _callables(address: int) -> Compiled:
    return ctypes.PYFUNCTYPE(None, ctypes.c_void_p)(address), ctypes.CFUNCTYPE(None, ctypes.c_void_p)(address)
