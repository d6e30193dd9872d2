"""Writes the kernels of rows: row-wise ones, and those of gradients of which some rows are
there."""

from __future__ import annotations

from functools import wraps
from typing import Any

from mxopt.engine.assembly import ITEMSIZE, LANES, STORED
from mxopt.engine.kernel import LINE, PIECE, ROW_COUNT, ROW_LENGTH, ROWS_AHEAD, Writer
from mxopt.engine.trace import trace
from mxopt.rules.rule import Function
from mxopt.typing import Array


def _value(function: Function, k: int) -> Function:
    """Only the value k of what `function` returns."""

    @wraps(function)
    def one(*values: Array) -> Any:
        return function(*values)[k]

    return one


class RowWriter(Writer):
    """Of the row-wise form, in which a piece is some rows, and of the scattered one, in which it is
    elements of a tensor whose gradient has some rows."""

    row: str
    n_rows: str
    ahead: str

    def begin(self) -> None:
        if self.kernel.scattered:
            self.asm.put(f"%scratch = alloca {STORED[self.kernel.dtypes[1]]}, i64 {PIECE}, align {LINE}")

    def body(self) -> None:
        self.row, self.n_rows, self.ahead = (self.asm.word(self.about, x) for x in (ROW_LENGTH, ROW_COUNT, ROWS_AHEAD))
        if self.kernel.scattered:
            weight, _, *others = self.addresses()
            self._scatter()
            self.flat("scattered", [weight, "%scratch", *others])
        elif self.stages[0].norms:
            self._norms()
        else:
            self._rows()

    def _scatter(self) -> None:
        """Makes the gradient of the piece in `%scratch`. Control leaves in block `scattered`."""
        asm, dtype, none = self.asm, self.kernel.dtypes[1], "zeroinitializer"
        stored, vec = STORED[dtype], asm.vec(STORED[dtype])
        end = asm.let(f"add i64 {self.first}, {self.count}")
        asm.put("br label %zero")
        asm.label("zero")
        asm.put("%z = phi i64 [ 0, %piece ], [ %z.next, %zero ]")
        asm.put(f"store {vec} {none}, ptr {asm.at(stored, '%scratch', '%z')}, align {ITEMSIZE[dtype]}")
        asm.put(f"%z.next = add i64 %z, {LANES}")
        some = asm.let(f"icmp ult i64 %z.next, {self.count}")
        asm.put(f"br i1 {some}, label %zero, label %zero.end")
        asm.label("zero.end")
        self._search("zero.end")
        asm.label("row")
        asm.put("%k = phi i64 [ %low, %search ], [ %k.next, %row.done ]")
        more = asm.let(f"icmp ult i64 %k, {self.n_rows}")
        asm.put(f"br i1 {more}, label %row.where, label %scattered")
        asm.label("row.where")
        at = asm.let(f"mul i64 {asm.word(self.indices, '%k')}, {self.row}")
        start, stop = asm.larger(at, self.first), asm.smaller(asm.let(f"add i64 {at}, {self.row}"), end)
        moved = asm.let(f"sub i64 {asm.let(f'mul i64 %k, {self.row}')}, {at}")
        within = asm.let(f"icmp ult i64 {at}, {end}")
        asm.put(f"br i1 {within}, label %vector, label %scattered")
        asm.label("vector")
        asm.put(f"%i = phi i64 [ {start}, %row.where ], [ %i.next, %vector.body ]")
        left = asm.let(f"icmp ult i64 %i, {stop}")
        asm.put(f"br i1 {left}, label %vector.body, label %row.done")
        asm.label("vector.body")
        mask = asm.first(asm.let(f"sub i64 {stop}, %i"))
        source = asm.at(stored, self.base[1], asm.let(f"add i64 {moved}, %i"))
        place = asm.at(stored, "%scratch", asm.let(f"sub i64 %i, {self.first}"))
        asm.copy(dtype, source, place, mask)
        asm.put(f"%i.next = add i64 %i, {LANES}")
        asm.put("br label %vector")
        asm.label("row.done")
        asm.put("%k.next = add i64 %k, 1")
        asm.put("br label %row")
        asm.label("scattered")

    def _search(self, before: str) -> None:
        """Looks for the first row that reaches into the piece: `%low`. From block `before` to block
        `row`."""
        asm = self.asm
        asm.put("br label %search")
        asm.label("search")
        asm.put(f"%low = phi i64 [ 0, %{before} ], [ %low.next, %halve ]")
        asm.put(f"%rows = phi i64 [ {self.n_rows}, %{before} ], [ %rows.next, %halve ]")
        found = asm.let("icmp eq i64 %rows, 0")
        asm.put(f"br i1 {found}, label %row, label %halve")
        asm.label("halve")
        half = asm.let("lshr i64 %rows, 1")
        middle = asm.let(f"add i64 %low, {half}")
        above = asm.let(f"add i64 {middle}, 1")
        row_end = asm.let(f"mul i64 {asm.let(f'add i64 {asm.word(self.indices, middle)}, 1')}, {self.row}")
        below = asm.let(f"icmp ule i64 {row_end}, {self.first}")
        asm.put(f"%low.next = select i1 {below}, i64 {above}, i64 %low")
        rest = asm.let(f"sub i64 %rows, {asm.let(f'add i64 {half}, 1')}")
        asm.put(f"%rows.next = select i1 {below}, i64 {rest}, i64 {half}")
        asm.put("br label %search")

    def _norms(self) -> None:
        """Sums the squares of the stage's first value, made of the weight, and of its second, made
        of a gradient of which some rows are there: in the lanes, and in the order, in which a dense
        gradient's would be."""
        asm, (stage,) = self.asm, self.stages
        doubles, dtype = asm.vec("double"), self.kernel.dtypes[1]
        end = asm.let(f"add i64 {self.first}, {self.count}")
        none = {"grad": asm.splat(asm.real, "0.0")}
        weight = [asm.at(STORED[d], p, self.first) for d, p in zip(self.kernel.dtypes, self.base, strict=True)]
        asm.put("br label %span")
        (by_weight,) = self.span("span", "piece", weight, self.count, _value(stage.function, 0), (), 1, none)
        self._search("span.end")
        asm.label("row")
        asm.put("%k = phi i64 [ %low, %search ], [ %k.next, %row.done ]")
        asm.put(f"%total = phi {doubles} [ zeroinitializer, %search ], [ %sum, %row.done ]")
        more = asm.let(f"icmp ult i64 %k, {self.n_rows}")
        asm.put(f"br i1 {more}, label %row.where, label %row.none")
        asm.label("row.where")
        at = asm.let(f"mul i64 {asm.word(self.indices, '%k')}, {self.row}")
        start, stop = asm.larger(at, self.first), asm.smaller(asm.let(f"add i64 {at}, {self.row}"), end)
        aligned = asm.let(f"and i64 {start}, {-LANES}")
        moved = asm.let(f"sub i64 {asm.let(f'mul i64 %k, {self.row}')}, {at}")
        within = asm.let(f"icmp ult i64 {at}, {end}")
        asm.put(f"br i1 {within}, label %vector, label %row.none")
        asm.label("vector")
        asm.put(f"%i = phi i64 [ {aligned}, %row.where ], [ %i.next, %vector.body ]")
        asm.put(f"%sum = phi {doubles} [ %total, %row.where ], [ %sum.next, %vector.body ]")
        left = asm.let(f"icmp ult i64 %i, {stop}")
        asm.put(f"br i1 {left}, label %vector.body, label %row.done")
        asm.label("vector.body")
        mask = asm.between(asm.let(f"sub i64 {start}, %i"), asm.let(f"sub i64 {stop}, %i"))
        place = asm.at(STORED[dtype], self.base[1], asm.let(f"add i64 {moved}, %i"))
        by_grad = _value(stage.function, 1)
        values = self.hypers | {"weight": none["grad"], "grad": asm.load(dtype, place, mask)}
        tape = trace(by_grad)
        (x,) = asm.run(tape, [values[name] for name in tape.arguments])
        asm.put(f"%sum.next = fadd {doubles} %sum, {asm.square(x, mask)}")
        asm.put(f"%i.next = add i64 %i, {LANES}")
        asm.put("br label %vector")
        asm.label("row.done")
        asm.put("%k.next = add i64 %k, 1")
        asm.put("br label %row")
        asm.label("row.none")
        self.keep([asm.halves(by_weight), asm.halves("%total")])
        asm.put("br label %piece.end")

    def _rows(self) -> None:
        """A span a row: row k of the gradient belongs to row `indices[k]` of the others; without
        indices, to k."""
        asm, (stage,) = self.asm, self.stages
        end = asm.smaller(asm.let(f"add i64 {self.first}, {self.count}"), self.n_rows)
        last = asm.let(f"sub i64 {self.n_rows}, 1")
        all_rows = asm.let(f"icmp eq ptr {self.indices}, null")
        indices = asm.let(f"select i1 {all_rows}, ptr %job, ptr {self.indices}")

        def row(k: str) -> str:
            listed = asm.word(indices, asm.let(f"select i1 {all_rows}, i64 0, i64 {k}"))
            return asm.let(f"select i1 {all_rows}, i64 {k}, i64 {listed}")

        asm.put("br label %row")
        asm.label("row")
        asm.put(f"%k = phi i64 [ {self.first}, %piece ], [ %next.k, %row.done ]")
        more = asm.let(f"icmp ult i64 %k, {end}")
        asm.put(f"br i1 {more}, label %row.start, label %piece.end")
        asm.label("row.start")
        which, later = row("%k"), row(asm.smaller(asm.let(f"add i64 %k, {self.ahead}"), last))
        own, grads, next_own = (asm.let(f"mul i64 {k}, {self.row}") for k in (which, "%k", later))
        row_state = self.arrays.index(self.rule.by_row.state) if self.rule.by_row else None
        offset = [own, grads, *[own] * (len(self.base) - 2)]
        next_offset = [next_own] * len(offset)
        if row_state is not None:
            offset[row_state], next_offset[row_state] = which, later
        address = [asm.at(STORED[d], p, at) for d, p, at in zip(self.kernel.dtypes, self.base, offset, strict=True)]
        then = [asm.at(STORED[d], p, at) for d, p, at in zip(self.kernel.dtypes, self.base, next_offset, strict=True)]
        if self.kernel.random:
            self.number_from(self._numbered(which))
        fixed, before = {}, "row.start"
        if row_state is not None:
            asm.fetch(then[row_state])
            fixed[self.arrays[row_state]] = self._row_state(address, row_state)
            before = "square.end"
        asm.put("br label %span")
        fetch = {k: place for k, place in enumerate(then) if k not in (1, row_state)}  # gradients follow each other
        self.span("span", before, address, self.row, stage.function, stage.writes, stage.norms, fixed, fetch)
        asm.put("br label %row.done")
        asm.label("row.done")
        asm.put("%next.k = add i64 %k, 1")
        asm.put("br label %row")

    def _numbered(self, row: str) -> str:
        """The number in the tensor of the first element of a row: where some rows of it are stored,
        NUMBERS knows which they are."""
        asm = self.asm
        all_rows = asm.let(f"icmp eq ptr {self.numbers}, null")
        numbers = asm.let(f"select i1 {all_rows}, ptr %job, ptr {self.numbers}")
        number = asm.word(numbers, asm.let(f"select i1 {all_rows}, i64 0, i64 {row}"))
        return asm.let(f"mul i64 {asm.let(f'select i1 {all_rows}, i64 {row}, i64 {number}')}, {self.row}")

    def _row_state(self, address: list[str], k: int) -> str:
        """Renews a row's state from the mean of the row's squares; returns it in every lane."""
        asm, reduction, dtype = self.asm, self.rule.by_row, self.kernel.dtypes[k]
        assert reduction is not None
        asm.put("br label %square")
        (total,) = self.span("square", "row.start", address, self.row, reduction.value, (), 1, {})
        length = asm.let(f"uitofp i64 {self.row} to double")
        mean = self.everywhere(asm.let(f"fdiv double {asm.halves(total)}, {length}"))
        values = {reduction.state: asm.load_one(dtype, address[k]), "mean_square": mean}
        tape = trace(reduction.update)
        (new,) = asm.run(tape, [(self.hypers | values)[name] for name in tape.arguments])
        asm.store_one(dtype, address[k], new)
        scalar = asm.let(f"extractelement {asm.vec(asm.real)} {new}, i64 0")
        return asm.splat(asm.real, scalar)
