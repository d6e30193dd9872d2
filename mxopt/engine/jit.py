"""Compiles kernels."""

from __future__ import annotations

import ctypes
from collections.abc import Callable
from functools import cache
from typing import Any

from mxopt.assembler import compile_assembly
from mxopt.engine import passes
from mxopt.engine.kernel import Kernel, Writer
from mxopt.engine.row_kernel import RowWriter

# `release` lets other Python threads run meanwhile, which costs some 60 ns: for work that takes longer than that.
Compiled = tuple[Callable[[int], Any], Callable[[int], Any]]


def assemble(kernel: Kernel) -> str:
    """The assembly of a module with the function `void kernel.name(job)`."""
    return (RowWriter if kernel.rows or kernel.scattered else Writer)(kernel).module()


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
