"""Writes the kernels of weights whose rows and columns have states; `matrices.py` says in which
order sums are taken.

    the rows:     each row's sum of squares, from it the row's state, and both into the record
    the columns:  for matrices that begin in the piece: records added, from them states and factors
    a stage:      a span for each row, with its factor and the columns'
"""

from __future__ import annotations

from mxopt.engine.assembly import LANES, STORED
from mxopt.engine.kernel import MATRICES, MATRIX_WORDS, Writer
from mxopt.engine.trace import trace
from mxopt.rules.rule import Function


class MatrixWriter(Writer):
    """A piece is some rows."""

    def body(self) -> None:
        asm, reduction = self.asm, self.rule.by_matrix
        assert reduction is not None
        about = asm.at("i64", asm.pointer("%job", MATRICES), asm.let(f"mul i64 {self.tensor}, {MATRIX_WORDS}"))
        self.width, self.height, self.most, self.each = (asm.word(about, k) for k in range(4))
        self.records, self.factors = asm.pointer(about, 4), asm.pointer(about, 5)
        self.end: str = asm.let(f"add i64 {self.first}, {self.count}")
        self.reduction = reduction
        self.row_state: int = self.arrays.index(reduction.row_state)
        self.column_state: int = self.arrays.index(reduction.column_state)
        {"rows": self._rows, "columns": self._columns, "": self._stage}[self.kernel.reduces]()

    def _of(self, array: int, index: str) -> str:
        return self.asm.at(STORED[self.kernel.dtypes[array]], self.base[array], index)

    def _record(self, matrix: str, number: str) -> str:
        """The address of a matrix' record."""
        asm = self.asm
        place = asm.let(f"add i64 {asm.let(f'mul i64 {matrix}, {self.each}')}, {number}")
        return asm.at("double", self.records, asm.let(f"mul i64 {place}, {asm.let(f'add i64 {self.width}, 1')}"))

    def _made(self, function: Function | None, values: dict[str, str]) -> str:
        """Writes a function of the rule, applied to these values."""
        assert function is not None
        tape = trace(function)
        return self.asm.run(tape, [(self.hypers | values)[name] for name in tape.arguments])[0]

    def _rows(self) -> None:
        asm, doubles = self.asm, self.asm.vec("double")
        tape, dtype = trace(self.reduction.value), self.kernel.dtypes[self.row_state]
        with asm.loop("row", ("i64", self.first)) as (loop, k):
            loop.until(asm.let(f"icmp uge i64 {k}, {self.end}"))
            matrix = asm.let(f"udiv i64 {k}, {self.height}")
            row = asm.let(f"sub i64 {k}, {asm.let(f'mul i64 {matrix}, {self.height}')}")
            number = asm.let(f"udiv i64 {row}, {self.most}")
            begins = asm.let(f"icmp eq i64 {asm.let(f'mul i64 {number}, {self.most}')}, {row}")
            record, grad = self._record(matrix, number), self._of(1, asm.let(f"mul i64 {k}, {self.width}"))

            def squares(i: str, total: str, mask: str | None, record: str = record, grad: str = grad) -> str:
                given = asm.load(self.kernel.dtypes[1], asm.at(STORED[self.kernel.dtypes[1]], grad, i), mask)
                (x,) = asm.run(tape, [(self.hypers | {"grad": given})[name] for name in tape.arguments])
                square, at = asm.square(x, mask), asm.at("double", record, i)
                before = asm.load_stored("float64", at, mask)
                before = asm.let(f"select i1 {begins}, {doubles} zeroinitializer, {doubles} {before}")
                asm.store_stored("float64", at, asm.let(f"fadd {doubles} {before}, {square}"), mask)
                return asm.let(f"fadd {doubles} {total}, {square}")

            with asm.loop("span", ("i64", "0"), (doubles, "zeroinitializer")) as (span, i, total):
                following = asm.let(f"add i64 {i}, {LANES}")
                span.until(asm.let(f"icmp ugt i64 {following}, {self.width}"))
                span.again(following, squares(i, total, None))
            rest = asm.let(f"sub i64 {self.width}, {i}")
            some = asm.let(f"icmp ne i64 {rest}, 0")
            (total,) = asm.when(some, lambda: [squares(i, total, asm.first(rest))], doubles, [total])
            length, at = asm.let(f"uitofp i64 {self.width} to double"), self._of(self.row_state, k)
            mean = self.everywhere(asm.let(f"fdiv double {asm.halves(total)}, {length}"))
            self.renew(self.reduction.row, dtype, at, mean)
            state = asm.let(f"extractelement {asm.vec(asm.real)} {asm.load_one(dtype, at)}, i64 0")
            if asm.real != "double":
                state = asm.let(f"fpext {asm.real} {state} to double")
            place = asm.at("double", record, self.width)
            before = asm.let(f"select i1 {begins}, double 0.0, double {asm.let(f'load double, ptr {place}')}")
            asm.put(f"store double {asm.let(f'fadd double {before}, {state}')}, ptr {place}")
            loop.again(asm.let(f"add i64 {k}, 1"))

    def _columns(self) -> None:
        asm, doubles, real = self.asm, self.asm.vec("double"), self.asm.vec(self.asm.real)
        dtype, name = self.kernel.dtypes[self.column_state], self.reduction.column_state
        length = asm.let(f"uitofp i64 {self.height} to double")
        before = asm.let(f"sub i64 {asm.let(f'add i64 {self.first}, {self.height}')}, 1")
        with asm.loop("matrix", ("i64", asm.let(f"udiv i64 {before}, {self.height}"))) as (loop, matrix):
            loop.until(asm.let(f"icmp uge i64 {asm.let(f'mul i64 {matrix}, {self.height}')}, {self.end}"))
            with asm.loop("record", ("i64", "0"), ("double", "0.0")) as (records, number, total):
                records.until(asm.let(f"icmp eq i64 {number}, {self.each}"))
                state = asm.let(f"load double, ptr {asm.at('double', self._record(matrix, number), self.width)}")
                records.again(asm.let(f"add i64 {number}, 1"), asm.let(f"fadd double {total}, {state}"))
            mean_row = self.everywhere(asm.let(f"fdiv double {total}, {length}"))
            own = asm.let(f"mul i64 {matrix}, {self.width}")
            with asm.loop("column", ("i64", "0")) as (vectors, i):
                vectors.until(asm.let(f"icmp uge i64 {i}, {self.width}"))
                mask = asm.first(asm.let(f"sub i64 {self.width}, {i}"))
                with asm.loop("sum", ("i64", "0"), (doubles, "zeroinitializer")) as (records, number, sums):
                    records.until(asm.let(f"icmp eq i64 {number}, {self.each}"))
                    squares = asm.load_stored("float64", asm.at("double", self._record(matrix, number), i), mask)
                    records.again(asm.let(f"add i64 {number}, 1"), asm.let(f"fadd {doubles} {sums}, {squares}"))
                means = asm.let(f"fdiv {doubles} {sums}, {asm.splat('double', length)}")
                if asm.real != "double":
                    means = asm.let(f"fptrunc {doubles} {means} to {real}")
                place = asm.let(f"add i64 {own}, {i}")
                at = self._of(self.column_state, place)
                values = {name: asm.load(dtype, at, mask), "mean_square": means}
                asm.store(dtype, at, self._made(self.reduction.column, values), mask)
                values = {name: asm.load(dtype, at, mask), "mean_row": mean_row}
                factor = self._made(self.reduction.column_factor, values)
                asm.store(asm.dtype, asm.at(asm.real, self.factors, place), factor, mask)
                vectors.again(asm.let(f"add i64 {i}, {LANES}"))
            loop.again(asm.let(f"add i64 {matrix}, 1"))

    def _stage(self) -> None:
        asm, (stage,) = self.asm, self.stages
        start = (asm.vec("double"), "zeroinitializer")
        with asm.loop("row", ("i64", self.first), *[start] * stage.norms) as (loop, k, *sums):
            loop.until(asm.let(f"icmp uge i64 {k}, {self.end}"))
            matrix = asm.let(f"udiv i64 {k}, {self.height}")
            own, columns = asm.let(f"mul i64 {k}, {self.width}"), asm.let(f"mul i64 {matrix}, {self.width}")
            address = [self._of(array, own) for array in range(len(self.base))]
            state = asm.load_one(self.kernel.dtypes[self.row_state], self._of(self.row_state, k))
            factor = self._made(self.reduction.row_factor, {self.reduction.row_state: state})
            one = asm.let(f"extractelement {asm.vec(asm.real)} {factor}, i64 0")
            fixed = {"row_factor": asm.splat(asm.real, one)}
            along = {"column_factor": asm.at(asm.real, self.factors, columns)}
            totals = self.span(address, self.width, stage.function, stage.writes, sums, fixed, along=along)
            loop.again(asm.let(f"add i64 {k}, 1"), *totals)
        self.keep([asm.halves(total) for total in sums])
