"""Writes the kernels of rows: row-wise ones, and those for row-sparse gradients of dense
updates."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from typing import Any

from mxopt.assembler import Loop
from mxopt.engine.assembly import ITEMSIZE, LANES, STORED
from mxopt.engine.kernel import GRAD_ROWS, LINE, PIECE, ROW_COUNT, ROW_LENGTH, ROWS_AHEAD, Writer
from mxopt.engine.trace import trace
from mxopt.rules.rule import Function
from mxopt.typing import Array

SHORT = 256  # elements of a row, so that all arrays of two rows stay in a core's cache


def _value(function: Function, k: int) -> Function:
    """`function`, but only the value k of what it returns."""

    @wraps(function)
    def one(*values: Array) -> Any:
        return function(*values)[k]

    return one


class RowWriter(Writer):
    """Writes the row-wise form, in which a piece is some rows, and the scattered one, in which it
    is elements of a tensor whose gradient is row-sparse."""

    row_length: str
    row_count: str
    ahead: str
    last: str
    all_rows: str
    listed: str

    def begin(self) -> None:
        if self.kernel.scattered:
            self.asm.put(f"%scratch = alloca {STORED[self.kernel.dtypes[1]]}, i64 {PIECE}, align {LINE}")

    def body(self) -> None:
        self.row_length, self.row_count, self.ahead = (
            self.asm.word(self.about, x) for x in (ROW_LENGTH, ROW_COUNT, ROWS_AHEAD)
        )
        if self.kernel.scattered:
            weight, _, *others = self.addresses()
            self._scatter()
            self.flat([weight, "%scratch", *others])
        elif self.stages[0].norms:
            self._norms()
        else:
            self._rows()

    def _scatter(self) -> None:
        """Builds the gradient of the piece in `%scratch`."""
        asm, dtype = self.asm, self.kernel.dtypes[1]
        stored = STORED[dtype]
        with asm.loop("zero", ("i64", "0")) as (loop, i):
            loop.until(asm.let(f"icmp uge i64 {i}, {self.count}"))
            place = asm.at(stored, "%scratch", i)
            asm.put(f"store {asm.vec(stored)} zeroinitializer, ptr {place}, align {ITEMSIZE[dtype]}")
            loop.again(asm.let(f"add i64 {i}, {LANES}"))
        with asm.loop("row", ("i64", self._search())) as (loop, k):
            start, stop, moved = self._reaching(loop, k)
            with asm.loop("vector", ("i64", start)) as (vectors, i):
                vectors.until(asm.let(f"icmp uge i64 {i}, {stop}"))
                mask = asm.first(asm.let(f"sub i64 {stop}, {i}"))
                source = asm.at(stored, self.base[1], asm.let(f"add i64 {moved}, {i}"))
                place = asm.at(stored, "%scratch", asm.let(f"sub i64 {i}, {self.first}"))
                asm.copy(dtype, source, place, mask)
                vectors.again(asm.let(f"add i64 {i}, {LANES}"))
            loop.again(asm.let(f"add i64 {k}, 1"))

    def _search(self) -> str:
        """The gradient's first row that reaches into the piece."""
        asm = self.asm
        with asm.loop("search", ("i64", "0"), ("i64", self.row_count)) as (loop, low, left):
            loop.until(asm.let(f"icmp eq i64 {left}, 0"))
            half = asm.let(f"lshr i64 {left}, 1")
            middle = asm.let(f"add i64 {low}, {half}")
            above = asm.let(f"add i64 {middle}, 1")
            row_end = asm.let(f"mul i64 {asm.let(f'add i64 {asm.word(self.indices, middle)}, 1')}, {self.row_length}")
            below = asm.let(f"icmp ule i64 {row_end}, {self.first}")
            rest = asm.let(f"sub i64 {left}, {asm.let(f'add i64 {half}, 1')}")
            loop.again(
                asm.let(f"select i1 {below}, i64 {above}, i64 {low}"),
                asm.let(f"select i1 {below}, i64 {rest}, i64 {half}"),
            )
        return str(low)

    def _reaching(self, loop: Loop, k: str) -> tuple[str, str, str]:
        """The elements of the tensor that the gradient's row k has in the piece: the first, the one
        after the last, and the offset to their places in the gradient. Leaves the loop over rows if
        there are none."""
        asm = self.asm
        loop.until(asm.let(f"icmp uge i64 {k}, {self.row_count}"))
        at, end = asm.let(f"mul i64 {asm.word(self.indices, k)}, {self.row_length}"), self._end()
        loop.until(asm.let(f"icmp uge i64 {at}, {end}"))
        start, stop = asm.larger(at, self.first), asm.smaller(asm.let(f"add i64 {at}, {self.row_length}"), end)
        return start, stop, asm.let(f"sub i64 {asm.let(f'mul i64 {k}, {self.row_length}')}, {at}")

    def _end(self) -> str:
        return self.asm.let(f"add i64 {self.first}, {self.count}")

    def _norms(self) -> None:
        """Sums the squares of the stage's first value, computed from the weight, and of its second,
        computed from the row-sparse gradient, in the lanes and in the order of a dense
        gradient."""
        asm, (stage,) = self.asm, self.stages
        doubles, dtype = asm.vec("double"), self.kernel.dtypes[1]
        none = {"grad": asm.splat(asm.real, "0.0")}
        by_weight = _value(stage.function, 0)
        (of_weight,) = self.span(self.addresses(), self.count, by_weight, (), ["zeroinitializer"], none)
        by_grad = trace(_value(stage.function, 1))
        with asm.loop("row", ("i64", self._search()), (doubles, "zeroinitializer")) as (loop, k, total):
            start, stop, moved = self._reaching(loop, k)
            aligned = asm.let(f"and i64 {start}, {-LANES}")
            with asm.loop("vector", ("i64", aligned), (doubles, total)) as (vectors, i, sums):
                vectors.until(asm.let(f"icmp uge i64 {i}, {stop}"))
                mask = asm.between(asm.let(f"sub i64 {start}, {i}"), asm.let(f"sub i64 {stop}, {i}"))
                place = asm.at(STORED[dtype], self.base[1], asm.let(f"add i64 {moved}, {i}"))
                values = self.hypers | {"weight": none["grad"], "grad": asm.load(dtype, place, mask)}
                (x,) = asm.run(by_grad, [values[name] for name in by_grad.arguments])
                vectors.again(asm.let(f"add i64 {i}, {LANES}"), asm.add_square(sums, x, mask))
            loop.again(asm.let(f"add i64 {k}, 1"), sums)
        self.keep([asm.halves(of_weight), asm.halves(total)])

    def _rows(self) -> None:
        """A span for each row. Row k of the gradient belongs to row `indices[k]` of the other
        arrays; without indices, to row k."""
        asm = self.asm
        end = asm.smaller(self._end(), self.row_count)
        some = asm.let(f"icmp ult i64 {self.first}, {end}")
        self.last = asm.let(f"sub i64 {self.row_count}, 1")
        self.all_rows = asm.let(f"icmp eq ptr {self.indices}, null")
        self.listed = asm.let(f"select i1 {self.all_rows}, ptr %job, ptr {self.indices}")
        if self.rule.by_row:
            short = asm.let(f"icmp ule i64 {self.row_length}, {SHORT}")
            long = asm.let(f"icmp ugt i64 {self.row_length}, {SHORT}")
            asm.when(asm.let(f"select i1 {short}, i1 {some}, i1 false"), lambda: self._short_rows(end))
            asm.when(long, lambda: self._each(end, lambda k: self._step(k, self._squares(k))))
        else:
            self._each(end, self._step)

    def _each(self, end: str, do: Callable[[str], object]) -> None:
        """Writes a loop over the rows of the piece, with what `do` writes for a row of the
        gradient."""
        with self.asm.loop("row", ("i64", self.first)) as (loop, k):
            loop.until(self.asm.let(f"icmp uge i64 {k}, {end}"))
            do(k)
            loop.again(self.asm.let(f"add i64 {k}, 1"))

    def _short_rows(self, end: str) -> None:
        """The loop for short rows, of which there is at least one. Sums the squares of a row while
        the row before takes its step: a processor overlaps them, but looks only so far ahead. (Long
        rows gain nothing, and compete for the caches.)"""
        asm, last = self.asm, self.asm.let(f"sub i64 {end}, 1")
        assert self.rule.by_row is not None
        with asm.loop("row", ("i64", self.first), (asm.vec("double"), self._squares(self.first))) as (loop, k, squares):
            loop.until(asm.let(f"icmp uge i64 {k}, {last}"))
            following = asm.let(f"add i64 {k}, 1")
            loop.again(following, *self._step(k, squares, (self.rule.by_row.value, self._grads(following))))
        self._step(last, squares)

    def _squares(self, k: str) -> str:
        """The sum of squares of the gradient's row k, in each lane."""
        assert self.rule.by_row is not None
        alone = [self._grads(k)] * len(self.base)  # only the gradient's is read
        (total,) = self.span(alone, self.row_length, self.rule.by_row.value, (), ["zeroinitializer"], {})
        return total

    def _grads(self, k: str) -> str:
        """The address of the gradient's row k."""
        if self.kernel.apart:
            return self.asm.pointer(self.asm.pointer("%job", GRAD_ROWS), k)
        return self.asm.at(STORED[self.kernel.dtypes[1]], self.base[1], self.asm.let(f"mul i64 {k}, {self.row_length}"))

    def _which(self, k: str) -> str:
        """The row of the others to which row k of the gradient belongs."""
        asm = self.asm
        listed = asm.word(self.listed, asm.let(f"select i1 {self.all_rows}, i64 0, i64 {k}"))
        return asm.let(f"select i1 {self.all_rows}, i64 {k}, i64 {listed}")

    def _step(self, k: str, squares: str = "", beside: tuple[Function, str] | None = None) -> list[str]:
        """Updates what belongs to row k of the gradient, whose sums of squares are `squares`, where
        rows have states. Returns those of `beside`."""
        asm, (stage,) = self.asm, self.stages
        which, later = self._which(k), self._which(asm.smaller(asm.let(f"add i64 {k}, {self.ahead}"), self.last))
        own, next_own = (asm.let(f"mul i64 {x}, {self.row_length}") for x in (which, later))
        row_state = self.arrays.index(self.rule.by_row.row_state) if self.rule.by_row else None
        offset = [own] * len(self.base)
        next_offset = [next_own] * len(offset)
        if row_state is not None:
            offset[row_state], next_offset[row_state] = which, later
        address, then = (
            [asm.at(STORED[d], p, at) for d, p, at in zip(self.kernel.dtypes, self.base, places, strict=True)]
            for places in (offset, next_offset)
        )
        address[1] = self._grads(k)
        if self.kernel.random:
            self.number_from(self._numbered(which))
        fixed = {}
        if row_state is not None:
            asm.fetch(then[row_state])
            fixed[self.arrays[row_state]] = self._row_state(squares, address[row_state], row_state)
        fetch = {x: place for x, place in enumerate(then) if x not in (1, row_state)}  # gradients follow each other
        none = ["zeroinitializer"] * bool(beside)
        return self.span(address, self.row_length, stage.function, stage.writes, none, fixed, fetch, beside=beside)

    def _numbered(self, k: str) -> str:
        """The number in the tensor of the first element of row k. If only some rows are stored,
        NUMBERS has theirs."""
        asm = self.asm
        all_rows = asm.let(f"icmp eq ptr {self.numbers}, null")
        numbers = asm.let(f"select i1 {all_rows}, ptr %job, ptr {self.numbers}")
        number = asm.word(numbers, asm.let(f"select i1 {all_rows}, i64 0, i64 {k}"))
        return asm.let(f"mul i64 {asm.let(f'select i1 {all_rows}, i64 {k}, i64 {number}')}, {self.row_length}")

    def _row_state(self, squares: str, address: str, k: int) -> str:
        """Renews a row's state from the sums of the row's squares; returns it in every lane."""
        asm, reduction, dtype = self.asm, self.rule.by_row, self.kernel.dtypes[k]
        assert reduction is not None
        length = asm.let(f"uitofp i64 {self.row_length} to double")
        mean = self.everywhere(asm.let(f"fdiv double {asm.halves(squares)}, {length}"))
        new = self.renew(reduction.row, dtype, address, mean)
        scalar = asm.let(f"extractelement {asm.vec(asm.real)} {new}, i64 0")
        return asm.splat(asm.real, scalar)
