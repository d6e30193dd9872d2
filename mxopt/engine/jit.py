"""Compiles kernels."""

from __future__ import annotations

from functools import cache

from mxopt.assembler import compile_assembly
from mxopt.engine.kernel import Kernel, Writer
from mxopt.engine.matrix_kernel import MatrixWriter
from mxopt.engine.row_kernel import RowWriter


def assemble(kernel: Kernel) -> str:
    """The assembly of a module with the function `void kernel.name(job, batch)`."""
    if kernel.rule.by_matrix is not None:
        return MatrixWriter(kernel).module()
    return (RowWriter if kernel.rowwise or kernel.scattered else Writer)(kernel).module()


@cache
def compiled(kernel: Kernel) -> int:
    """The address of a kernel's function."""
    return compile_assembly(assemble(kernel), kernel.name)
