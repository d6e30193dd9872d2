"""Compiles LLVM assembly for this machine, in this process.

Assembling and compiling a function takes some 20 ms, so nothing is kept on disk: there is no cache
to invalidate, to bound, to lock or to trust.
"""

from __future__ import annotations

import itertools
import os
import threading
from functools import cache
from typing import TYPE_CHECKING

from mxopt.errors import CompilationError

_lock = threading.Lock()
_numbers = itertools.count()
if hasattr(os, "register_at_fork"):  # a child must not inherit a compiler in the middle of its work
    os.register_at_fork(before=_lock.acquire, after_in_parent=_lock.release, after_in_child=_lock.release)

if TYPE_CHECKING:
    import llvmlite.binding as llvm


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
    """The address of the function `name` of a module. Raises CompilationError where LLVM doesn't
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
