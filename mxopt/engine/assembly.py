"""LLVM assembly for vectors of 16 elements: loads, stores, conversions, and the operations of a
tape.

The vectors are written explicitly, so nothing depends on LLVM's vectoriser; LLVM splits a vector of
16 into whatever the machine has.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Sequence

from mxopt.assembler import Lines
from mxopt.engine.operations import operation
from mxopt.engine.trace import Operand, Tape, trace
from mxopt.rules.words import bfloat16_of

LANES = 16
ITEMSIZE = {"float16": 2, "bfloat16": 2, "float32": 4, "float64": 8}
STORED = {"float16": "half", "bfloat16": "i16", "float32": "float", "float64": "double"}


def arithmetic(dtypes: Sequence[str]) -> str:
    """The dtype that a rule computes in: the weight's, float32 at least."""
    return "float64" if "float64" in dtypes else "float32"


class Assembly(Lines):
    """Functions over vectors of LANES elements of type `real`."""

    def __init__(self, real: str) -> None:
        super().__init__()
        self.dtype = real
        self.real: str = STORED[real]
        self.width: int = 8 * ITEMSIZE[real]

    def vec(self, scalar: str) -> str:
        return f"<{LANES} x {scalar}>"

    def splat(self, scalar: str, value: str) -> str:
        one = self.let(f"insertelement {self.vec(scalar)} poison, {scalar} {value}, i64 0")
        return self.let(
            f"shufflevector {self.vec(scalar)} {one}, {self.vec(scalar)} poison, {self.vec('i32')} zeroinitializer"
        )

    # One vector of an array, between memory and registers.

    def load(self, dtype: str, address: str, mask: str | None) -> str:
        return self._widened(dtype, self.load_stored(dtype, address, mask))

    def load_stored(self, dtype: str, address: str, mask: str | None) -> str:
        stored, size = STORED[dtype], ITEMSIZE[dtype]
        vec = self.vec(stored)
        if mask is None:
            return self.let(f"load {vec}, ptr {address}, align {size}")
        name = f"llvm.masked.load.v{LANES}{_mangled(stored)}.p0"
        self.declarations.add(f"declare {vec} @{name}(ptr, {self.vec('i1')}, {vec})")
        return self.let(
            f"call {vec} @{name}(ptr align {size} {address}, {self.vec('i1')} {mask}, {vec} zeroinitializer)"
        )

    def load_one(self, dtype: str, address: str) -> str:
        """A single element, in lane 0. (Not by a constant mask, under which LLVM 22 stores two
        16-bit elements.)"""
        stored = STORED[dtype]
        value = self.let(f"load {stored}, ptr {address}, align {ITEMSIZE[dtype]}")
        value = self.let(f"insertelement {self.vec(stored)} zeroinitializer, {stored} {value}, i64 0")
        return self._widened(dtype, value)

    def store(self, dtype: str, address: str, value: str, mask: str | None) -> None:
        self.store_stored(dtype, address, self._narrowed(dtype, value), mask)

    def store_rounded(self, address: str, value: str, mask: str | None, share: str) -> None:
        """Stores float32 as bfloat16, rounded stochastically by 16 random bits a lane."""
        ints = self.vec("i32")
        bits = self.let(f"bitcast {self.vec('float')} {value} to {ints}")
        nan = self.let(f"fcmp uno {self.vec('float')} {value}, {value}")
        (rounded,) = self.run_words(trace(bfloat16_of, words=True), [bits, share, nan])
        self.store_stored("bfloat16", address, self.let(f"trunc {ints} {rounded} to {self.vec('i16')}"), mask)

    def store_stored(self, dtype: str, address: str, value: str, mask: str | None) -> None:
        stored, size = STORED[dtype], ITEMSIZE[dtype]
        vec = self.vec(stored)
        if mask is None:
            self.put(f"store {vec} {value}, ptr {address}, align {size}")
        else:
            name = f"llvm.masked.store.v{LANES}{_mangled(stored)}.p0"
            self.declarations.add(f"declare void @{name}({vec}, ptr, {self.vec('i1')})")
            self.put(f"call void @{name}({vec} {value}, ptr align {size} {address}, {self.vec('i1')} {mask})")

    def copy(self, dtype: str, source: str, place: str, mask: str) -> None:
        """Copies the lanes in the mask, bit for bit."""
        self.store_stored(dtype, place, self.load_stored(dtype, source, mask), mask)

    def store_one(self, dtype: str, address: str, value: str) -> None:
        """Stores lane 0 as a single element."""
        stored = STORED[dtype]
        value = self.let(f"extractelement {self.vec(stored)} {self._narrowed(dtype, value)}, i64 0")
        self.put(f"store {stored} {value}, ptr {address}, align {ITEMSIZE[dtype]}")

    def _widened(self, dtype: str, value: str) -> str:
        stored = STORED[dtype]
        vec = self.vec(stored)
        if dtype == "bfloat16":
            wide = self.let(f"zext {vec} {value} to {self.vec('i32')}")
            wide = self.let(f"shl {self.vec('i32')} {wide}, splat (i32 16)")
            value, stored = self.let(f"bitcast {self.vec('i32')} {wide} to {self.vec('float')}"), "float"
        if stored == self.real:
            return value
        return self.let(f"fpext {self.vec(stored)} {value} to {self.vec(self.real)}")

    def _narrowed(self, dtype: str, value: str) -> str:
        if dtype == "bfloat16":
            return self._to_bfloat16(value)
        if STORED[dtype] == self.real:
            return value
        return self.let(f"fptrunc {self.vec(self.real)} {value} to {self.vec(STORED[dtype])}")

    def _to_bfloat16(self, value: str) -> str:
        """The upper half of a float32, rounded to nearest, ties to even; a NaN stays a quiet
        NaN."""
        ints = self.vec("i32")
        bits = self.let(f"bitcast {self.vec('float')} {value} to {ints}")
        upper = self.let(f"lshr {ints} {bits}, splat (i32 16)")
        odd = self.let(f"and {ints} {upper}, splat (i32 1)")
        rounding = self.let(f"add {ints} {odd}, splat (i32 32767)")
        rounded = self.let(f"add {ints} {bits}, {rounding}")
        rounded = self.let(f"lshr {ints} {rounded}, splat (i32 16)")
        sign = self.let(f"and {ints} {upper}, splat (i32 32768)")
        quiet = self.let(f"or {ints} {sign}, splat (i32 32704)")
        is_nan = self.let(f"fcmp uno {self.vec('float')} {value}, {value}")
        chosen = self.let(f"select {self.vec('i1')} {is_nan}, {ints} {quiet}, {ints} {rounded}")
        return self.let(f"trunc {ints} {chosen} to {self.vec('i16')}")

    def first(self, count: str) -> str:
        """A mask of the first `count` lanes."""
        lanes = ", ".join(f"i64 {i}" for i in range(LANES))
        return self.let(f"icmp ult {self.vec('i64')} <{lanes}>, {self.splat('i64', count)}")

    def between(self, start: str, stop: str) -> str:
        """A mask of the lanes from `start` to before `stop`; either may be below 0 or beyond the
        last lane."""
        lanes, ints = ", ".join(f"i32 {i}" for i in range(LANES)), self.vec("i32")
        low, high = (self.splat("i32", self.let(f"trunc i64 {x} to i32")) for x in (start, stop))
        from_start = self.let(f"icmp sge {ints} <{lanes}>, {low}")
        to_stop = self.let(f"icmp slt {ints} <{lanes}>, {high}")
        return self.let(f"and {self.vec('i1')} {from_start}, {to_stop}")

    def square(self, value: str, mask: str | None) -> str:
        """The squares in double; 0 outside the mask."""
        double = self.vec("double")
        if self.real != "double":
            value = self.let(f"fpext {self.vec(self.real)} {value} to {double}")
        value = self.let(f"fmul {double} {value}, {value}")
        if mask is None:
            return value
        return self.let(f"select {self.vec('i1')} {mask}, {double} {value}, {double} zeroinitializer")

    def add_square(self, total: str, value: str, mask: str | None) -> str:
        """A total in double, and the squares where the mask is set. That of a float32 is exact in
        double, so it makes no difference whether a processor rounds it before it adds."""
        double = self.vec("double")
        if self.real == "double":
            return self.let(f"fadd {double} {total}, {self.square(value, mask)}")
        wide = self.let(f"fpext {self.vec(self.real)} {value} to {double}")
        if mask is not None:
            wide = self.let(f"select {self.vec('i1')} {mask}, {double} {wide}, {double} zeroinitializer")
        return self.call(double, f"llvm.fmuladd.v{LANES}f64", *(f"{double} {x}" for x in (wide, wide, total)))

    def halves(self, total: str) -> str:
        """The sum of a vector of doubles: adds the upper half to the lower half until one lane is
        left."""
        lanes = LANES
        while lanes > 1:
            lanes //= 2
            wide = f"<{2 * lanes} x double>"
            low = ", ".join(f"i32 {i}" for i in range(lanes))
            high = ", ".join(f"i32 {i}" for i in range(lanes, 2 * lanes))
            a = self.let(f"shufflevector {wide} {total}, {wide} poison, <{lanes} x i32> <{low}>")
            b = self.let(f"shufflevector {wide} {total}, {wide} poison, <{lanes} x i32> <{high}>")
            total = self.let(f"fadd <{lanes} x double> {a}, {b}")
        return self.let(f"extractelement <1 x double> {total}, i64 0")

    def run(self, tape: Tape, arguments: Sequence[str]) -> list[str]:
        """Writes the tape's operations on vectors; returns the names of its outputs."""

        def literal(x: float) -> str:
            return f"splat ({self.real} {_literal(x, self.width)})"

        return self._run(tape, arguments, self.vec(self.real), self.vec("i1"), f"v{LANES}f{self.width}", literal)

    def run_words(self, tape: Tape, arguments: Sequence[str]) -> list[str]:
        """`run` for a tape of words."""
        return self._run(tape, arguments, self.vec("i32"), self.vec("i1"), "", lambda x: f"splat (i32 {int(x)})")

    def run_one(self, tape: Tape, arguments: Sequence[str]) -> list[str]:
        """`run` on single doubles."""
        return self._run(tape, arguments, "double", "i1", "f64", lambda x: _literal(x, 64))

    def _run(
        self,
        tape: Tape,
        arguments: Sequence[str],
        real: str,
        boolean: str,
        suffix: str,
        literal: Callable[[float], str],
    ) -> list[str]:
        values = list(arguments)

        def name(x: Operand) -> str:
            return values[x] if isinstance(x, int) else literal(x)

        for done, operands in tape.operations:
            llvm, x = operation(done, tape.words).llvm, [name(o) for o in operands]
            if llvm.startswith("llvm."):
                values.append(self.call(real, f"{llvm}.{suffix}", f"{real} {x[0]}"))
            else:
                values.append(self.let(llvm.format(*x, real=real, boolean=boolean)))
        return [name(o) for o in tape.outputs]


def _mangled(stored: str) -> str:
    return {"half": "f16", "i16": "i16", "float": "f32", "double": "f64"}[stored]


def _literal(value: float, width: int) -> str:
    """A constant in LLVM's form: the bits of the double that holds the (rounded) value exactly."""
    if width == 32:
        value = struct.unpack("f", struct.pack("f", value))[0]
    return f"0x{struct.unpack('<Q', struct.pack('<d', value))[0]:016X}"
