"""Writes a rule's kernel: LLVM assembly that updates arrays in place.

A kernel takes one argument, the address of a *job* (the words below), and works through its pieces:

    while a batch is left:                    # taken with one atomic add, by any thread
      for each piece of the batch:            # many small tensors make one batch
        for 16 elements of the piece at a time:
            load a vector of each array and widen it to the arithmetic's type
            do what the rule's tape says
            round what the rule writes to each array's own type, and store it

The last, short vector is the same code under a mask. A row-wise kernel does this for each touched row, and meanwhile
fetches the rows that come AHEAD elements later, which no processor could guess.

Norms: lane `i % 16` sums the squares of its elements in double; the lanes are added in halves (8, 4, 2, 1),
and each piece stores its sum in its own place. Which thread computed it, and when, can't be seen.

A rule of several stages has a kernel for each, to be run one after the other over tensors of several pieces. Where
a tensor is a single piece, its norms are known at the piece's end: one kernel does all stages to the piece, while it
is in the cache, and derives the scalars in between.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from functools import wraps
from types import MappingProxyType
from typing import Any

from mxopt.engine.assembly import ITEMSIZE, LANES, STORED, Assembly, arithmetic
from mxopt.engine.trace import trace
from mxopt.rules.rule import Function, Rule, parameters

PIECE = 16384  # elements, a multiple of LANES: some 10 µs of work, far below a scheduler's time slice

# The words (8 bytes) of a job. Every thread writes NEXT (the next batch) and LEFT (how many threads have returned),
# so these have cache lines of their own.
PIECES, BATCHES, N_BATCHES, POINTERS, HYPERS, HYPER_ROWS, SUMS, INDICES, ROWS = range(9)
WEIGHT_IDS, GRAD_IDS, N_TENSORS, EXPECTED, TAKEN, N_TAKEN = range(9, 15)  # for `binding.py`
NEXT, LEFT, JOB_WORDS = 16, 24, 32
PIECE_WORDS = 3  # of a piece: tensor, first element, elements; row-wise: tensor, first row, rows
ROW_LENGTH, ROW_COUNT, ROWS_AHEAD, ROW_WORDS = range(4)  # what a row-wise kernel finds at ROWS for each tensor
AHEAD = 512
LINE = 64  # bytes fetched at a time


@dataclass(frozen=True)
class Kernel:
    """What is compiled: one stage of a rule for arrays of given dtypes, or without `stage` all of them, for tensors of
    a single piece.

    `dtypes` are those of weight, gradient and states, then of the master copy where there is one: the arithmetic
    then reads the master in the weight's place and writes both. `rows` makes the row-wise form.
    """

    rule: Rule
    stage: int | None
    dtypes: tuple[str, ...]
    rows: bool = False

    @property
    def stages(self) -> range:
        return range(len(self.rule.stages)) if self.stage is None else range(self.stage, self.stage + 1)

    @property
    def master(self) -> bool:
        return len(self.dtypes) > 2 + len(self.rule.states)

    @property
    def name(self) -> str:
        stage = "all" if self.stage is None else self.stage
        return f"{self.rule.name}_{stage}_{'_'.join(self.dtypes)}{'_rows' * self.rows}"


def assemble(kernel: Kernel) -> str:
    """The assembly of a module with the function `void kernel.name(job)`."""
    return _Writer(kernel).module()


def _value(function: Function, k: int) -> Function:
    """Only the value k of what `function` returns."""

    @wraps(function)
    def one(*values: Any) -> Any:
        return function(*values)[k]

    return one


class _Writer:
    def __init__(self, kernel: Kernel) -> None:
        self.kernel, self.rule = kernel, kernel.rule
        self.stages = [self.rule.stages[s] for s in kernel.stages]
        self.derivations = self.rule.derivations[: len(self.stages) - 1]
        self.arrays = ("weight", "grad", *self.rule.states)
        self.asm = Assembly(arithmetic(kernel.dtypes))

    def module(self) -> str:
        asm, kernel = self.asm, self.kernel
        asm.label("entry")
        words = (PIECES, BATCHES, POINTERS, HYPERS, HYPER_ROWS, SUMS, INDICES, ROWS)
        pieces, batches, pointers, hypers, hyper_rows, self.sums, self.indices, rows = (
            asm.pointer("%job", w) for w in words
        )
        n_batches = asm.word("%job", N_BATCHES)
        counter = asm.at("i64", "%job", NEXT)
        asm.put("br label %take")

        asm.label("take")
        batch = asm.let(f"atomicrmw add ptr {counter}, i64 1 monotonic")
        left = asm.let(f"icmp ult i64 {batch}, {n_batches}")
        asm.put(f"br i1 {left}, label %batch, label %done")

        asm.label("batch")
        bounds = asm.at("i64", batches, batch)
        first_piece, end_piece = asm.word(bounds, 0), asm.word(bounds, 1)
        asm.put("br label %pieces")
        asm.label("pieces")
        self.piece = "%piece.number"
        asm.put(f"{self.piece} = phi i64 [ {first_piece}, %batch ], [ %piece.next, %piece.end ]")
        more = asm.let(f"icmp ult i64 {self.piece}, {end_piece}")
        asm.put(f"br i1 {more}, label %piece, label %take")

        asm.label("piece")
        record = asm.at("i64", pieces, asm.let(f"mul i64 {self.piece}, {PIECE_WORDS}"))
        tensor, self.first, self.count = (asm.word(record, word) for word in range(PIECE_WORDS))
        table = asm.at("ptr", pointers, asm.let(f"mul i64 {tensor}, {len(kernel.dtypes)}"))
        self.base = [asm.pointer(table, i) for i in range(len(kernel.dtypes))]
        hyper_row = asm.let(f"mul i64 {asm.word(hyper_rows, tensor)}, {len(self.rule.hypers)}")
        self.scalars = asm.at("double", hypers, hyper_row)
        functions = [s.function for s in self.stages] + [self.rule.row_value, self.rule.row_update]
        names = {name: None for f in functions if f is not None for name in parameters(f) if name in self.rule.hypers}
        derived = {name for derivation in self.derivations for name in derivation.names}
        self.hypers = {name: self._everywhere(self._hyper(name)) for name in names if name not in derived}
        if kernel.rows:
            about = asm.at("i64", rows, asm.let(f"mul i64 {tensor}, {ROW_WORDS}"))
            self.row, self.n_rows, self.ahead = (asm.word(about, x) for x in (ROW_LENGTH, ROW_COUNT, ROWS_AHEAD))
        if kernel.rows and self.stages[0].norms:
            self._norms()
        elif kernel.rows:
            self._rows()
        else:
            self._flat()
        asm.label("piece.end")
        asm.put(f"%piece.next = add i64 {self.piece}, 1")
        asm.put("br label %pieces")
        asm.label("done")
        left = asm.at("i64", "%job", LEFT)
        asm.put(f"atomicrmw add ptr {left}, i64 1 release")
        asm.put("ret void")
        return "\n".join([*sorted(asm.declarations), f"define void @{kernel.name}(ptr %job) {{", *asm.lines, "}", ""])

    def _hyper(self, name: str) -> str:
        """A hyper-parameter, in double."""
        at = self.asm.at("double", self.scalars, self.rule.hypers.index(name))
        return self.asm.let(f"load double, ptr {at}")

    def _everywhere(self, value: str) -> str:
        """A double rounded to the arithmetic's type, in every lane."""
        asm = self.asm
        if asm.real != "double":
            value = asm.let(f"fptrunc double {value} to {asm.real}")
        return asm.splat(asm.real, value)

    def _flat(self) -> None:
        """A span for each stage, all from the piece's first element. Sums that nothing here is derived from go to the
        piece's place."""
        asm, before = self.asm, "piece"
        address = [asm.at(STORED[d], p, self.first) for d, p in zip(self.kernel.dtypes, self.base, strict=True)]
        derived: dict[str, str] = {}
        for number, stage in enumerate(self.stages):
            asm.put(f"br label %span{number}")
            totals = self._span(
                f"span{number}", before, address, self.count, stage.function, stage.writes, stage.norms, {}
            )
            sums, before = [asm.halves(total) for total in totals], f"span{number}.end"
            if number < len(self.derivations):
                self._derive(number, sums, derived)
                continue
            self._keep(sums)
        asm.put("br label %piece.end")

    def _keep(self, sums: list[str]) -> None:
        """Stores a piece's sums in its own place."""
        asm = self.asm
        at = asm.let(f"mul i64 {self.piece}, {len(sums)}")
        for k, total in enumerate(sums):
            place = asm.at("double", self.sums, asm.let(f"add i64 {at}, {k}"))
            asm.put(f"store double {total}, ptr {place}")

    def _derive(self, step: int, sums: list[str], derived: dict[str, str]) -> None:
        """Makes the scalars that follow from the norms of the whole tensor after a stage; adds them to `derived`."""
        asm, derivation = self.asm, self.derivations[step]
        norms = [asm.call("double", "llvm.sqrt.f64", f"double {x}") for x in sums]
        names = parameters(derivation.function)
        given = [derived.get(name) or self._hyper(name) for name in names[len(norms) :]]
        results = asm.run_one(trace(derivation.function), [*norms, *given])
        derived.update(zip(derivation.names, results, strict=True))
        self.hypers.update((name, self._everywhere(derived[name])) for name in derivation.names)

    def _norms(self) -> None:
        """Sums the squares of the stage's first value, made of the weight, and of its second, made of a gradient of
        which some rows are there: in the lanes, and in the order, in which a dense gradient's would be."""
        asm, (stage,) = self.asm, self.stages
        doubles, dtype = asm.vec("double"), self.kernel.dtypes[1]
        end = asm.let(f"add i64 {self.first}, {self.count}")
        none = {"grad": asm.splat(asm.real, "0.0")}
        weight = [asm.at(STORED[d], p, self.first) for d, p in zip(self.kernel.dtypes, self.base, strict=True)]
        asm.put("br label %span")
        (by_weight,) = self._span("span", "piece", weight, self.count, _value(stage.function, 0), (), 1, none)
        asm.put("br label %search")

        asm.label("search")  # for the first row that reaches into the piece
        asm.put("%low = phi i64 [ 0, %span.end ], [ %low.next, %halve ]")
        asm.put(f"%rows = phi i64 [ {self.n_rows}, %span.end ], [ %rows.next, %halve ]")
        found = asm.let("icmp eq i64 %rows, 0")
        asm.put(f"br i1 {found}, label %row, label %halve")
        asm.label("halve")
        half = asm.let("lshr i64 %rows, 1")
        middle = asm.let(f"add i64 %low, {half}")
        above = asm.let(f"add i64 {middle}, 1")
        row_end = asm.let(f"mul i64 {asm.let(f'add i64 {asm.word(self.indices, middle)}, 1')}, {self.row}")
        before = asm.let(f"icmp ule i64 {row_end}, {self.first}")
        asm.put(f"%low.next = select i1 {before}, i64 {above}, i64 %low")
        rest = asm.let(f"sub i64 %rows, {asm.let(f'add i64 {half}, 1')}")
        asm.put(f"%rows.next = select i1 {before}, i64 {rest}, i64 {half}")
        asm.put("br label %search")

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
        self._keep([asm.halves(by_weight), asm.halves("%total")])
        asm.put("br label %piece.end")

    def _rows(self) -> None:
        """A span a row: row k of the gradient belongs to row `indices[k]` of the others; without indices, to k."""
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
        row_state = self.arrays.index(self.rule.row_state) if self.rule.row_state else None
        offset = [own, grads, *[own] * (len(self.base) - 2)]
        next_offset = [next_own] * len(offset)
        if row_state is not None:
            offset[row_state], next_offset[row_state] = which, later
        address = [asm.at(STORED[d], p, at) for d, p, at in zip(self.kernel.dtypes, self.base, offset, strict=True)]
        then = [asm.at(STORED[d], p, at) for d, p, at in zip(self.kernel.dtypes, self.base, next_offset, strict=True)]
        fixed, before = {}, "row.start"
        if row_state is not None:
            asm.fetch(then[row_state])
            fixed[self.arrays[row_state]] = self._row_state(address, row_state)
            before = "square.end"
        asm.put("br label %span")
        fetch = {k: place for k, place in enumerate(then) if k not in (1, row_state)}  # gradients follow each other
        self._span("span", before, address, self.row, stage.function, stage.writes, stage.norms, fixed, fetch)
        asm.put("br label %row.done")
        asm.label("row.done")
        asm.put("%next.k = add i64 %k, 1")
        asm.put("br label %row")

    def _row_state(self, address: list[str], k: int) -> str:
        """Renews a row's state from the mean of the row's squares; returns it in every lane."""
        asm, rule, dtype = self.asm, self.rule, self.kernel.dtypes[k]
        assert rule.row_value is not None
        assert rule.row_update is not None
        asm.put("br label %square")
        (total,) = self._span("square", "row.start", address, self.row, rule.row_value, (), 1, {})
        length = asm.let(f"uitofp i64 {self.row} to double")
        mean = self._everywhere(asm.let(f"fdiv double {asm.halves(total)}, {length}"))
        values = {rule.row_state: asm.load_one(dtype, address[k]), "mean_square": mean}
        tape = trace(rule.row_update)
        (new,) = asm.run(tape, [(self.hypers | values)[name] for name in tape.arguments])
        asm.store_one(dtype, address[k], new)
        scalar = asm.let(f"extractelement {asm.vec(asm.real)} {new}, i64 0")
        return asm.splat(asm.real, scalar)

    def _span(
        self,
        name: str,
        before: str,
        address: list[str],
        elements: str,
        function: Function,
        writes: tuple[str, ...],
        norms: int,
        fixed: dict[str, str],
        fetch: Mapping[int, str] = MappingProxyType({}),
    ) -> list[str]:
        """Runs `function` over `elements` elements from `address` on, where arrays in `fixed` have one value. For array
        k the elements from `fetch[k]` on are fetched into the caches.

        Control comes from block `before` into block `name` and leaves in block `name.end`. Returns the
        vectors of summed squares.
        """
        asm, dtypes = self.asm, self.kernel.dtypes
        tape, doubles, i = trace(function), asm.vec("double"), f"%{name}.i"

        def vectors(mask: str | None) -> list[str]:
            at = [asm.at(STORED[d], p, i) for d, p in zip(dtypes, address, strict=True)]
            values = self.hypers | fixed
            for k, array in enumerate(self.arrays):
                if array in tape.arguments and array not in fixed:
                    source = -1 if array == "weight" and self.kernel.master else k
                    values[array] = asm.load(dtypes[source], at[source], mask)
            for k, place in fetch.items():
                for line in range(0, LANES * ITEMSIZE[dtypes[k]], LINE):
                    asm.fetch(asm.at("i8", asm.at(STORED[dtypes[k]], place, i), line))
            results = asm.run(tape, [values[n] for n in tape.arguments])
            for array, value in zip(writes, results, strict=False):
                k = self.arrays.index(array)
                asm.store(dtypes[k], at[k], value, mask)
                if array == "weight" and self.kernel.master:
                    asm.store(dtypes[-1], at[-1], value, mask)
            return [asm.square(x, mask) for x in results[len(writes) :]]

        asm.label(name)
        asm.put(f"{i} = phi i64 [ 0, %{before} ], [ %{name}.next, %{name}.body ]")
        squares = [f"%{name}.sum{k}" for k in range(norms)]
        for k, square in enumerate(squares):
            asm.put(f"{square} = phi {doubles} [ zeroinitializer, %{before} ], [ %{name}.more{k}, %{name}.body ]")
        asm.put(f"%{name}.next = add i64 {i}, {LANES}")
        fits = asm.let(f"icmp ule i64 %{name}.next, {elements}")
        asm.put(f"br i1 {fits}, label %{name}.body, label %{name}.rest")

        asm.label(f"{name}.body")
        for k, x in enumerate(vectors(None)):
            asm.put(f"%{name}.more{k} = fadd {doubles} {squares[k]}, {x}")
        asm.put(f"br label %{name}")

        asm.label(f"{name}.rest")
        rest = asm.let(f"sub i64 {elements}, {i}")
        none = asm.let(f"icmp eq i64 {rest}, 0")
        asm.put(f"br i1 {none}, label %{name}.end, label %{name}.tail")
        asm.label(f"{name}.tail")
        last = [asm.let(f"fadd {doubles} {squares[k]}, {x}") for k, x in enumerate(vectors(asm.first(rest)))]
        asm.put(f"br label %{name}.end")

        asm.label(f"{name}.end")
        return [
            asm.let(f"phi {doubles} [ {squares[k]}, %{name}.rest ], [ {last[k]}, %{name}.tail ]") for k in range(norms)
        ]
