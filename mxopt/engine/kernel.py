"""Writes a rule's kernel: LLVM assembly that updates arrays in place.

A kernel takes the address of a *job* (the words below) and the number of one of its batches, which
any thread may take (`team.py`):

    for each piece of the batch:              # many small tensors make one batch
      for 16 elements of the piece at a time:
          load a vector of each array and widen it to the arithmetic's type
          do what the rule's tape says
          round what the rule writes to each array's own type, and store it

The last, short vector runs the same code under a mask. A row-wise kernel does this for each touched
row, and prefetches the rows that come AHEAD elements later, which no processor could predict.

A scattered kernel first builds each piece's gradient in memory of the thread that stays in the
cache: zeros, and the rows that are there.

Norms: lane `i % 16` sums the squares of its elements in double; the lanes are added in halves (8,
4, 2, 1), and each piece stores its sum in its own place. So the result doesn't depend on which
thread computed it, or when.

A rule of several stages has a kernel for each, and runs them one after the other over tensors of
several pieces. The norms of a tensor of one piece are known at the end of the piece: there one
kernel does all stages while the piece is in the cache, and derives the scalars in between.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType
from typing import Literal

from mxopt.engine import noise
from mxopt.engine.assembly import ITEMSIZE, LANES, STORED, Assembly, arithmetic
from mxopt.engine.trace import Tape, trace
from mxopt.rules.rule import Derivation, Function, Rule, Stage, parameters
from mxopt.rules.words import WEYL, share

PIECE = 16384  # elements, a multiple of LANES: about 10 µs of work, far below a scheduler's time slice

# The words (8 bytes) of a job. Every thread writes NEXT (how many batches are left to take) and
# DONE (how many are done), so these have cache lines of their own.
PIECES, BATCHES, N_BATCHES, POINTERS, HYPERS, HYPER_ROWS, SUMS, INDICES, ABOUT_ROWS = range(9)
WEIGHT_IDS, GRAD_IDS, N_TENSORS, EXPECTED, TAKEN, N_TAKEN = range(9, 15)  # for `binding.py`
KERNEL, CREW, OPEN, NEXT, DONE, MODE, JOB_WORDS = 15, 16, 17, 24, 32, 40, 48  # for `team.py`
KEYS = 18  # for stochastic rounding, and for noise
MATRICES = 19  # the address of MATRIX_WORDS words for each tensor; see `matrices.py`
OWNER = 20  # the thread that has bound arrays to the job, until the job has run; see `binding.py`
GRAD_ROWS = 21  # where each row of a gradient is whose rows lie apart
MATRIX_WORDS = 6  # a matrix's width and height, rows of a piece, its records; where records and factors are
KEY, FIRST, NUMBERS, KEY_WORDS = range(4)  # what it finds there for each tensor; see `rounding.py`
PIECE_WORDS = 3  # of a piece: tensor, first element, elements; row-wise: tensor, first row, rows
ROW_LENGTH, ROW_COUNT, ROWS_AHEAD, ROW_WORDS = range(4)  # what kernels of rows find at ABOUT_ROWS for each tensor
AHEAD = 512
FETCHED = 256  # elements ahead that kernels with stochastic rounding fetch what lies in order
LINE = 64  # bytes fetched at a time


Reduces = Literal["", "rows", "columns"]
REDUCES: tuple[Reduces, Reduces] = ("rows", "columns")  # in this order


@dataclass(frozen=True)
class Kernel:
    """What is compiled: one stage of a rule for arrays of given dtypes, or without `stage` all of
    them, for tensors of a single piece.

    `dtypes` are those of weight, gradient and states, then of the master copy where there is one:
    the arithmetic then reads the master in the weight's place and writes both. `rowwise` makes
    the row-wise form, with `apart` for a gradient whose rows don't follow each other; `scattered`
    the one for a gradient of which some rows are there, and the others zeros. `stochastic` is how
    it rounds to bfloat16. It `reduces` matrices to the states of these, and does no stage.
    """

    rule: Rule
    stage: int | None
    dtypes: tuple[str, ...]
    rowwise: bool = False
    scattered: bool = False
    stochastic: bool = False
    apart: bool = False
    reduces: Reduces = ""

    @property
    def stages(self) -> range:
        if self.reduces:
            return range(0)
        return range(len(self.rule.stages)) if self.stage is None else range(self.stage, self.stage + 1)

    @property
    def master(self) -> bool:
        return len(self.dtypes) > 2 + len(self.rule.states)

    @property
    def random(self) -> bool:
        """Whether it needs random bits."""
        return self.stochastic or self.rule.draws

    @property
    def rounded(self) -> dict[str, int]:
        """The arrays that are rounded stochastically, and the number of each among the parameter's
        arrays."""
        if not self.stochastic:
            return {}
        states = self.rule.states
        found = {name: k for k, name in enumerate(states) if self.dtypes[2 + k] == "bfloat16"}
        return found | ({"weight": len(states)} if self.dtypes[0] == "bfloat16" and not self.master else {})

    @property
    def name(self) -> str:
        stage = "all" if self.stage is None else self.stage
        form = "_rows" * self.rowwise + "_scattered" * self.scattered + "_stochastic" * self.stochastic
        form += "_apart" * self.apart
        form += f"_{self.reduces}_of_matrices" * bool(self.reduces)
        return f"{self.rule.name}_{stage}_{'_'.join(self.dtypes)}{form}"


class Writer:
    """Writes kernels for arrays of which every element is there, one after the other."""

    stages: list[Stage]
    derivations: tuple[Derivation, ...]
    arrays: tuple[str, ...]
    sums: str
    indices: str
    first: str
    count: str
    before: str
    numbers: str

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rule: Rule = kernel.rule
        self.stages = [self.rule.stages[s] for s in kernel.stages]
        self.derivations = self.rule.derivations[: max(len(self.stages) - 1, 0)]
        self.arrays = ("weight", "grad", *self.rule.states)
        self.asm: Assembly = Assembly(arithmetic(kernel.dtypes))

    def module(self) -> str:
        asm, kernel = self.asm, self.kernel
        with asm.function(f"void @{kernel.name}(ptr %job, i64 %batch)"):
            self.begin()
            words = (PIECES, BATCHES, POINTERS, HYPERS, HYPER_ROWS, SUMS, INDICES, ABOUT_ROWS)
            pieces, batches, pointers, hypers, hyper_rows, self.sums, self.indices, row_words = (
                asm.pointer("%job", w) for w in words
            )
            bounds = asm.at("i64", batches, "%batch")
            first_piece, end_piece = asm.word(bounds, 0), asm.word(bounds, 1)
            with asm.loop("piece", ("i64", first_piece)) as (loop, self.piece):
                loop.until(asm.let(f"icmp uge i64 {self.piece}, {end_piece}"))
                record = asm.at("i64", pieces, asm.let(f"mul i64 {self.piece}, {PIECE_WORDS}"))
                tensor, self.first, self.count = (asm.word(record, word) for word in range(PIECE_WORDS))
                self.tensor: str = tensor
                table = asm.at("ptr", pointers, asm.let(f"mul i64 {tensor}, {len(kernel.dtypes)}"))
                self.base: list[str] = [asm.pointer(table, i) for i in range(len(kernel.dtypes))]
                hyper_row = asm.let(f"mul i64 {asm.word(hyper_rows, tensor)}, {len(self.rule.hypers)}")
                self.scalars: str = asm.at("double", hypers, hyper_row)
                self.hypers: dict[str, str] = {name: self.everywhere(self._hyper(name)) for name in self.taken()}
                self.about: str = asm.at("i64", row_words, asm.let(f"mul i64 {tensor}, {ROW_WORDS}"))
                if kernel.random:
                    about = asm.at("i64", asm.pointer("%job", KEYS), asm.let(f"mul i64 {tensor}, {KEY_WORDS}"))
                    self.key: str = asm.splat("i32", asm.let(f"trunc i64 {asm.word(about, KEY)} to i32"))
                    self.before, self.numbers = asm.word(about, FIRST), asm.pointer(about, NUMBERS)
                self.body()
                loop.again(asm.let(f"add i64 {self.piece}, 1"))
            asm.put("ret void")
        return asm.module()

    def taken(self) -> list[str]:
        """The hyper-parameters that the job provides."""
        functions = [s.function for s in self.stages]
        functions += self.rule.reduction.functions if self.rule.reduction else ()
        names = {name: None for f in functions for name in parameters(f) if name in self.rule.hypers}
        derived = {name for derivation in self.derivations for name in derivation.names}
        return [name for name in names if name not in derived]

    def begin(self) -> None:
        """Allocates the memory that a thread needs."""

    def body(self) -> None:
        """Writes what is done to a piece."""
        self.flat(self.addresses())

    def addresses(self) -> list[str]:
        """The address of the piece's first element in each array."""
        return [self.asm.at(STORED[d], p, self.first) for d, p in zip(self.kernel.dtypes, self.base, strict=True)]

    def _hyper(self, name: str) -> str:
        """A hyper-parameter, in double."""
        at = self.asm.at("double", self.scalars, self.rule.hypers.index(name))
        return self.asm.let(f"load double, ptr {at}")

    def everywhere(self, value: str) -> str:
        """A double rounded to the arithmetic's type, in every lane."""
        asm = self.asm
        if asm.real != "double":
            value = asm.let(f"fptrunc double {value} to {asm.real}")
        return asm.splat(asm.real, value)

    def flat(self, address: list[str]) -> None:
        """Writes a span for each stage, all from the piece's first element. Sums from which nothing
        is derived here are stored for the piece."""
        asm = self.asm
        derived: dict[str, str] = {}
        fetch = {}
        if self.kernel.random:
            self.number_from(self.first)
        if self.kernel.stochastic:  # so many instructions a byte that the processor's own prefetching falls behind
            dtypes = self.kernel.dtypes
            fetch = {k: asm.at(STORED[d], p, FETCHED) for k, (d, p) in enumerate(zip(dtypes, address, strict=True))}
        for number, stage in enumerate(self.stages):
            none = ["zeroinitializer"] * stage.norms
            totals = self.span(address, self.count, stage.function, stage.writes, none, {}, fetch)
            sums = [asm.halves(total) for total in totals]
            if number < len(self.derivations):
                self._derive(number, sums, derived)
            else:
                self.keep(sums)

    def number_from(self, first: str) -> None:
        """Numbers the elements of the next span: its first one is element `first` of the tensor."""
        asm = self.asm
        lanes = ", ".join(f"i32 {lane * WEYL % 2**32}" for lane in range(LANES))
        first = self._weyl(asm.let(f"add i64 {self.before}, {first}"))
        self.first_weyl: str = asm.let(f"add {asm.vec('i32')} {first}, <{lanes}>")

    def _weyl(self, number: str) -> str:
        """A number times WEYL, in every lane."""
        asm = self.asm
        return asm.splat("i32", asm.let(f"trunc i64 {asm.let(f'mul i64 {number}, {WEYL}')} to i32"))

    def share(self, array: str, i: str) -> str:
        """The random bits that round the span's elements from `i` on."""
        return self.asm.run_words(trace(share(self.kernel.rounded[array]), words=True), [self.weyl(i), self.key])[0]

    def weyl(self, i: str) -> str:
        """The numbers of the span's elements from `i` on, times WEYL."""
        return self.asm.let(f"add {self.asm.vec('i32')} {self.first_weyl}, {self._weyl(i)}")

    def keep(self, sums: list[str]) -> None:
        """Stores the sums of a piece in its own place."""
        asm = self.asm
        at = asm.let(f"mul i64 {self.piece}, {len(sums)}")
        for k, total in enumerate(sums):
            place = asm.at("double", self.sums, asm.let(f"add i64 {at}, {k}"))
            asm.put(f"store double {total}, ptr {place}")

    def _derive(self, step: int, sums: list[str], derived: dict[str, str]) -> None:
        """Computes the scalars that follow from the norms of the whole tensor after a stage; adds
        them to `derived`."""
        asm, derivation = self.asm, self.derivations[step]
        norms = [asm.call("double", "llvm.sqrt.f64", f"double {x}") for x in sums]
        names = parameters(derivation.function)
        given = [derived.get(name) or self._hyper(name) for name in names[len(norms) :]]
        results = asm.run_one(trace(derivation.function), [*norms, *given])
        derived.update(zip(derivation.names, results, strict=True))
        self.hypers.update((name, self.everywhere(derived[name])) for name in derivation.names)

    def span(
        self,
        address: list[str],
        elements: str,
        function: Function,
        writes: tuple[str, ...],
        sums: Sequence[str],
        fixed: dict[str, str],
        fetch: Mapping[int, str] = MappingProxyType({}),
        along: Mapping[str, str] = MappingProxyType({}),
        beside: tuple[Function, str] | None = None,
    ) -> list[str]:
        """Runs `function` over `elements` elements from `address` on, where arrays in `fixed` have
        one value. For array k the elements from `fetch[k]` on are fetched into the caches. Adds the
        squares to the vectors `sums`, and returns what these are then; `beside`, a function of the
        gradient alone and where other elements of it are, adds those of its value."""
        asm, dtypes = self.asm, self.kernel.dtypes
        tape, doubles = trace(function), asm.vec("double")
        constant, varying = self._constant(tape, fixed)
        if beside is not None:
            normed = trace(beside[0])

        def vectors(i: str, totals: list[str], mask: str | None) -> list[str]:
            at = [asm.at(STORED[d], p, i) for d, p in zip(dtypes, address, strict=True)]
            values = dict(constant)
            for k, array in enumerate(self.arrays):
                if array in tape.arguments and array not in fixed:
                    source = -1 if array == "weight" and self.kernel.master else k
                    values[array] = asm.load(dtypes[source], at[source], mask)
            others = []
            if beside is not None:  # before anything is stored: a processor may take the places for the same
                place = asm.at(STORED[dtypes[1]], beside[1], i)
                given = self.hypers | {"grad": asm.load(dtypes[1], place, mask)}
                others = asm.run(normed, [given[n] for n in normed.arguments])
            for name, place in along.items():
                values[name] = asm.load(asm.dtype, asm.at(asm.real, place, i), mask)
            touched = {*tape.arguments, *writes}
            for k, place in fetch.items():
                if k < len(self.arrays) and self.arrays[k] not in touched:
                    continue
                for line in range(0, LANES * ITEMSIZE[dtypes[k]], LINE):
                    written = k >= len(self.arrays) or self.arrays[k] in writes
                    asm.fetch(asm.at("i8", asm.at(STORED[dtypes[k]], place, i), line), written)
            if self.rule.draws and "noise" in tape.arguments:
                values["noise"] = noise.vector(asm, self.weyl(i), self.key)
            results = asm.run(varying, [values[n] for n in varying.arguments])
            for array, value in zip(writes, results, strict=False):
                k = self.arrays.index(array)
                if array in self.kernel.rounded:
                    asm.store_rounded(at[k], value, mask, self.share(array, i))
                else:
                    asm.store(dtypes[k], at[k], value, mask)
                if array == "weight" and self.kernel.master:
                    asm.store(dtypes[-1], at[-1], value, mask)
            squared = [*results[len(writes) :], *others]
            return [asm.add_square(total, x, mask) for total, x in zip(totals, squared, strict=True)]

        with asm.loop("span", ("i64", "0"), *((doubles, total) for total in sums)) as (loop, i, *totals):
            following = asm.let(f"add i64 {i}, {LANES}")
            loop.until(asm.let(f"icmp ugt i64 {following}, {elements}"))
            loop.again(following, *vectors(i, totals, None))
        rest = asm.let(f"sub i64 {elements}, {i}")
        some = asm.let(f"icmp ne i64 {rest}, 0")
        return asm.when(some, lambda: vectors(i, totals, asm.first(rest)), doubles, totals)

    def _constant(self, tape: Tape, fixed: Mapping[str, str]) -> tuple[dict[str, str], Tape]:
        """What is the same for all elements of a span, made once, and the tape that takes it. (LLVM
        takes the hyper-parameters' part out of a loop by itself.)"""
        first, rest = tape.split(fixed, self.hypers)
        given = self.hypers | dict(fixed)
        made = self.asm.run(first, [given[name] for name in first.arguments])
        return given | dict(zip(rest.arguments[len(tape.arguments) :], made, strict=True)), rest

    def renew(self, function: Function, dtype: str, address: str, mean: str) -> str:
        """Renews the state of one element at `address` from a mean square. Returns the new one, in
        lane 0."""
        asm, tape = self.asm, trace(function)
        values = {tape.arguments[0]: asm.load_one(dtype, address), "mean_square": mean}
        (new,) = asm.run(tape, [(self.hypers | values)[name] for name in tape.arguments])
        asm.store_one(dtype, address, new)
        return new
