"""Finds the memory of the gradients of a list of tensors in one call, by DLPack's interface for C.

A type of tensors may have `__dlpack_c_exchange_api__`, a table of functions of C
(dmlc.github.io/dlpack/latest/c_api.html), of which one describes a tensor: where its memory is, and
how it is laid out. A compiled function asks it here. From Python it takes six calls a tensor to
know as much, and what these need has left the caches whenever an update has walked its arrays.
"""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Callable, Sequence
from functools import cache
from typing import Any

import numpy as np

from mxopt.assembler import Lines, compile_assembly
from mxopt.engine.binding import DATA, TYPE, can_read_arrays

# Words of DLPack's table, and of a description. DEVICE and AXES are half as long: beside the device
# is its number, beside the number of axes the dtype.
VERSION, DESCRIBE = 0, 5
MEMORY, DEVICE, AXES, SHAPE, STRIDES, OFFSET, DESCRIPTION_WORDS = range(7)
MAJOR, CPU = 1, 1  # the version of the table that is read here, and DLPack's number of the CPU

# Words of what is expected of a tensor and of its gradient, and of a job.
PLACE, AXES_AND_DTYPE, ITS_SHAPE, ITS_STRIDES, EXPECTED_WORDS = range(5)
TENSORS, KIND, EXPECTED, NUMBER, JOB_WORDS = range(5)


@cache
def describer(kind: Any) -> int:
    """The address of the function that describes a tensor of this type; 0 if there is none that can
    be called here."""
    table = getattr(kind, "__dlpack_c_exchange_api__", None)
    if table is None or not can_read_arrays():
        return 0
    pointer = ctypes.PYFUNCTYPE(ctypes.c_void_p, ctypes.py_object, ctypes.c_char_p)(
        ("PyCapsule_GetPointer", ctypes.pythonapi)
    )
    words = ctypes.cast(pointer(table, b"dlpack_exchange_api"), ctypes.POINTER(ctypes.c_uint64))
    return int(words[DESCRIBE]) if words[VERSION] & 0xFFFFFFFF == MAJOR else 0


class Finder:
    """Finds the gradients of some tensors on the CPU, which are contiguous. Their gradients are of
    the type `kind`, which has a describer."""

    def __init__(self, tensors: Sequence[Any], kind: type) -> None:
        describe, n = describer(kind), len(tensors)
        call = ctypes.PYFUNCTYPE(ctypes.c_int, ctypes.py_object, ctypes.c_void_p)(describe)
        self._find = _finder(describe)
        self._tensors, self._kind = np.fromiter(tensors, object, n), kind
        self._expected = np.zeros((n, EXPECTED_WORDS), np.int64)
        self._sizes = np.zeros(sum(2 * tensor.ndim for tensor in tensors), np.int64)
        found, at = np.zeros(DESCRIPTION_WORDS, np.int64), 0
        for row, tensor in zip(self._expected, tensors, strict=True):
            call(tensor, found.ctypes.data)
            first = self._sizes.ctypes.data + 8 * at
            row[:] = found[MEMORY] + found[OFFSET], found[AXES], first, first + 8 * tensor.ndim
            its = *tensor.shape, *_contiguous(tensor.shape)
            self._sizes[at : at + len(its)] = its
            at += len(its)
        self._job = array("q", (self._tensors.ctypes.data, id(kind), self._expected.ctypes.data, n))
        self._blank = array("q", bytes(8 * n))

    def places(self, grads: Sequence[Any]) -> array[int] | None:
        """The addresses of the gradients. None unless each tensor is where it was, as it was, and
        each gradient is exactly of the type, contiguous, and of its tensor's dtype and shape."""
        given, places = np.fromiter(grads, object, len(grads)), self._blank[:]
        try:
            found = self._find(self._job.buffer_info()[0], id(given), places.buffer_info()[0])
        except Exception:  # whatever the library raises for a tensor that can't be described, as a sparse one
            return None
        return places if found else None


def _contiguous(shape: Sequence[int]) -> list[int]:
    """The strides of a contiguous tensor."""
    strides = [1]
    for size in reversed(shape[1:]):
        strides.insert(0, strides[0] * max(size, 1))
    return strides[: len(shape)]


def _write(asm: Lines, describe: int) -> None:
    def half(pointer: str, word: int) -> str:
        return asm.let(f"load i32, ptr {asm.at('i64', pointer, word)}")

    def demand_equal(a: str, b: str | int, type: str = "i64") -> None:
        asm.demand(asm.let(f"icmp eq {type} {a}, {b}"), "no")

    with asm.function("internal i64 @place(ptr %tensor, ptr %expected, ptr %found)"):
        failed = asm.let(f"call i32 inttoptr (i64 {describe} to ptr)(ptr %tensor, ptr %found)")
        demand_equal(failed, 0, "i32")
        demand_equal(half("%found", DEVICE), CPU, "i32")
        demand_equal(asm.word("%found", AXES), asm.word("%expected", AXES_AND_DTYPE))
        axes = asm.let(f"zext i32 {half('%found', AXES)} to i64")
        shape, strides = asm.pointer("%found", SHAPE), asm.pointer("%found", STRIDES)
        its_shape, its_strides = asm.pointer("%expected", ITS_SHAPE), asm.pointer("%expected", ITS_STRIDES)
        with asm.loop("axis", ("i64", "0")) as (loop, k):
            loop.until(asm.let(f"icmp eq i64 {k}, {axes}"))
            size = asm.word(shape, k)
            demand_equal(size, asm.word(its_shape, k))
            same = asm.let(f"icmp eq i64 {asm.word(strides, k)}, {asm.word(its_strides, k)}")
            single = asm.let(f"icmp eq i64 {size}, 1")  # along which the stride means nothing
            asm.demand(asm.let(f"or i1 {same}, {single}"), "no")
            loop.again(asm.let(f"add i64 {k}, 1"))
        memory, offset = asm.word("%found", MEMORY), asm.word("%found", OFFSET)
        asm.put(f"ret i64 {asm.let(f'add i64 {memory}, {offset}')}")
        asm.label("no")
        asm.put("ret i64 -1")

    with asm.function("i64 @find(ptr %job, ptr %grads, ptr %places)"):
        found = asm.let(f"alloca [{DESCRIPTION_WORDS} x i64]")
        tensors, kind, expected = (asm.pointer("%job", word) for word in (TENSORS, KIND, EXPECTED))
        given, number = asm.let(f"load ptr, ptr {asm.at('i8', '%grads', DATA)}"), asm.word("%job", NUMBER)
        with asm.loop("tensor", ("i64", "0")) as (loop, t):
            loop.until(asm.let(f"icmp eq i64 {t}, {number}"))
            its = asm.at("i64", expected, asm.let(f"mul i64 {t}, {EXPECTED_WORDS}"))
            tensor, grad = asm.pointer(tensors, t), asm.pointer(given, t)
            demand_equal(asm.let(f"load ptr, ptr {asm.at('i8', grad, TYPE)}"), kind, "ptr")
            place = asm.let(f"call i64 @place(ptr {tensor}, ptr {its}, ptr {found})")
            demand_equal(place, asm.word(its, PLACE))
            place = asm.let(f"call i64 @place(ptr {grad}, ptr {its}, ptr {found})")
            asm.demand(asm.let(f"icmp ne i64 {place}, -1"), "no")
            asm.put(f"store i64 {place}, ptr {asm.at('i64', '%places', t)}")
            loop.again(asm.let(f"add i64 {t}, 1"))
        asm.put("ret i64 1")
        asm.label("no")
        asm.put("ret i64 0")


@cache
def _finder(describe: int) -> Callable[[int, int, int], int]:
    asm = Lines()
    _write(asm, describe)
    function = ctypes.PYFUNCTYPE(ctypes.c_int64, *[ctypes.c_void_p] * 3)
    return function(compile_assembly(asm.module(), "find"))
