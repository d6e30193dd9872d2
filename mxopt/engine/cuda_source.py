"""Writes a rule's kernel for a GPU: CUDA C from the same tape that `kernel.py` prints as LLVM
assembly.

Each operation of the tape becomes one line of C, in the tape's order and in IEEE arithmetic, and
the compiler is told not to contract products and sums (`OPTIONS`). So a GPU gives the bits of the
CPU's engines, which CuPy's own transpiler wouldn't promise.

A block of threads takes one piece of a tensor, or one row of it, and its threads share the
elements:

    for each element of the piece that is this thread's:
        load the arrays' elements and widen them to the arithmetic's type
        do what the rule's tape says
        round what the rule writes to each array's own type, and store it

Sums of squares have the order that `kernel.py` states. The threads put their squares into the
block's shared memory, where one thread for each norm and lane adds its lane's squares in order, in
double.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from mxopt.engine.assembly import LANES, arithmetic
from mxopt.engine.kernel import FIRST, KEY, KEY_WORDS, MATRIX_WORDS, NUMBERS, PIECE_WORDS, Kernel
from mxopt.engine.operations import operation
from mxopt.engine.trace import Operand, Tape, trace
from mxopt.rules.noise import drawn, normal, parted
from mxopt.rules.rule import Function, Reduction, parameters
from mxopt.rules.words import WEYL, bfloat16_of, share

OPTIONS = ("-fmad=false",)
NUMBER = f"((before + (unsigned)i) * {WEYL}u)"  # from which the random bits of element `i` are made
THREADS = 256  # of a block, at most; no result depends on it

TYPES = {"float16": "__half", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}

# A kernel's parameters: addresses on the GPU, except the last. (For matrices `indices` are
# MATRIX_WORDS words for each tensor.)
PARAMETERS = (
    "const word *pieces",  # of each block: tensor, first element, elements
    "const word *table",  # the addresses of each tensor's arrays
    "const word *hyper_rows",  # which row of `hypers` each tensor takes
    "const double *hypers",
    "const word *keys",  # for stochastic rounding; see `kernel.py`
    "double *sums",  # of squares, for each piece and norm
    "const word *indices",  # row-wise: the tensor's row of each row of the gradient; null if they are the same
    "word row",  # row-wise: elements of a row
)

HALF = """
#include <cuda_fp16.h>

__device__ inline float load(const __half *at) { return __half2float(*at); }
__device__ inline void store(__half *at, float x) { *at = __float2half_rn(x); }
__device__ inline void store(__half *at, double x) { *at = __double2half(x); }
"""

COMMON = f"""
typedef long long word;
struct bfloat16 {{ unsigned short bits; }};  // the upper half of a float
const int LANES = {LANES}, THREADS = {THREADS};
#define inf (1.0 / 0.0)  // as Python writes these literals
#define nan (0.0 / 0.0)

__device__ inline float load(const float *at) {{ return *at; }}
__device__ inline double load(const double *at) {{ return *at; }}
__device__ inline float load(const bfloat16 *at) {{ return __uint_as_float((unsigned)at->bits << 16); }}
template <typename T> __device__ inline void store(float *at, T x) {{ *at = (float)x; }}
__device__ inline void store(double *at, double x) {{ *at = x; }}

// To nearest, ties to even; a NaN stays a quiet NaN.
__device__ inline void store(bfloat16 *at, float x) {{
    const unsigned bits = __float_as_uint(x);
    at->bits = x != x ? ((bits >> 16) & 0x8000) | 0x7fc0 : (bits + 0x7fff + ((bits >> 16) & 1)) >> 16;
}}

// Adds the squares of a block's threads to the sums, of which thread LANES * norm + lane holds one.
__device__ inline void add_squares(double *sum, double (*squares)[THREADS], unsigned norms) {{
    __syncthreads();
    if (threadIdx.x < LANES * norms)
        for (unsigned i = threadIdx.x % LANES; i < blockDim.x; i += LANES)
            *sum += squares[threadIdx.x / LANES][i];
    __syncthreads();
}}

// The lanes' sum, in lane 0: upper half onto lower half until one lane is left.
__device__ inline double halves(double sum) {{
    for (int half = LANES / 2; half > 0; half /= 2)
        sum += __shfl_down_sync(0xffffffffu, sum, half, LANES);
    return sum;
}}
"""


def source(kernel: Kernel) -> str:
    """The CUDA C of the kernel `kernel.name`."""
    return HALF * ("float16" in kernel.dtypes) + COMMON + definition(kernel)


def definition(kernel: Kernel) -> str:
    """The kernel alone, without the functions that it calls."""
    return (_Writer if kernel.rule.by_matrix is None else _MatrixWriter)(kernel).definition()


class _Writer:
    """Writes lines of C, in which `a_x` is the address of array x, `x_x` its element, `h_x` a
    hyper-parameter and `v<n>` a value."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rule = kernel.rule
        self.stages = [self.rule.stages[s] for s in kernel.stages]  # one, or none where matrices are reduced
        self.arrays = ("weight", "grad", *self.rule.states, "master")[: len(kernel.dtypes)]
        self.types = dict(zip(self.arrays, (TYPES[d] for d in kernel.dtypes), strict=True))
        self.real = TYPES[arithmetic(kernel.dtypes)]
        self.rounded = kernel.rounded
        self.fixed: frozenset[str] = frozenset()  # arrays that have one value for a whole row
        self.lines: list[str] = []
        self._depth = self._names = 0

    def put(self, line: str) -> None:
        self._depth -= line.startswith("}")
        self.lines.append("    " * self._depth + line)
        self._depth += line.endswith("{")

    def let(self, expression: str, type: str | None = None) -> str:
        self._names += 1
        self.put(f"const {type or self.real} v{self._names} = {expression};")
        return f"v{self._names}"

    def definition(self) -> str:
        self.put(f'\nextern "C" __global__ void __launch_bounds__(THREADS) {self.kernel.name}(')
        self.put(f"    {', '.join(PARAMETERS)}) {{")
        self.body()
        self.put("}")
        return "\n".join(self.lines) + "\n"

    def body(self) -> None:
        kernel, rule, (stage,) = self.kernel, self.rule, self.stages
        if kernel.rowwise:
            self.put("const word tensor = 0, k = blockIdx.x, which = indices ? indices[k] : k, count = row;")
            places = {"grad": "k * row"} | ({rule.by_row.row_state: "which"} if rule.by_row else {})
            places = {array: places.get(array, "which * row") for array in self.arrays}
        else:
            self.put(f"const word *piece = pieces + {PIECE_WORDS} * (word)blockIdx.x;")
            self.put("const word tensor = piece[0], first = piece[1], count = piece[2];")
            places = dict.fromkeys(self.arrays, "first")
        if kernel.random:
            self.put(f"const word *about = keys + {KEY_WORDS} * tensor, *numbers = (const word *)about[{NUMBERS}];")
            element = "(numbers ? numbers[which] : which) * row" if kernel.rowwise else "first"
            self.put(f"const unsigned key = (unsigned)about[{KEY}], before = (unsigned)(about[{FIRST}] + {element});")
        self._declare("a", places, [stage.function, *(rule.by_row.functions if rule.by_row else ())], stage.writes)
        if rule.by_row is not None:
            self._renew_row_state(rule.by_row)
        if stage.norms:
            self._sum(stage.function, stage.writes, stage.norms)
            self._keep(stage.norms)
        else:
            self.put("const unsigned stride = blockDim.x * gridDim.y;")
            self.put("#pragma unroll 1")
            self.put("for (word i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += stride) {")
            self._element(stage.function, stage.writes)
            self.put("}")

    def _declare(
        self, letter: str, places: Mapping[str, str], functions: Sequence[Function], writes: Sequence[str]
    ) -> list[str]:
        """Declares the arrays that the functions take or write, from these places on, and the
        hyper-parameters. Returns the arrays' names."""
        names = {name for function in functions for name in parameters(function)}
        touched = {*map(self._source, {*names, *writes}), *writes}
        for k, (array, type) in enumerate(self.types.items()):
            if array in touched:
                address = f"table[{len(self.types)} * tensor + {k}]"
                self.put(f"{type} *{letter}_{array} = ({type} *){address} + {places[array]};")
        for k, name in enumerate(self.rule.hypers):
            if name in names:
                given = f"hypers[{len(self.rule.hypers)} * hyper_rows[tensor] + {k}]"
                self.put(f"const {self.real} h_{name} = ({self.real}){given};")
        return [array for array in self.arrays if array in touched]

    def _keep(self, norms: int) -> None:
        """Stores each norm's `sum`, of lane 0, for this block."""
        self.put(f"if (threadIdx.x < LANES * {norms} && threadIdx.x % LANES == 0)")
        self.put(f"    sums[{norms} * (word)blockIdx.x + threadIdx.x / LANES] = sum;")

    def _element(self, function: Function, writes: Sequence[str]) -> list[str]:
        """Updates element `i`; returns the function's values after those that are written."""
        for name in parameters(function):
            if name in self.types and name not in self.fixed:
                self.put(f"const {self.real} x_{name} = load(a_{self._source(name)} + i);")
        if self.rule.draws and "noise" in parameters(function):
            self._draw()
        results = self._run(function)
        for array, value in zip(writes, results, strict=False):
            if array in self.rounded:
                tape = trace(share(self.rounded[array]), words=True)
                numbers = self._run_tape(tape, [NUMBER, "key"])
                words = [f"__float_as_uint({value})", *numbers, f"{value} != {value}"]
                (bits,) = self._run_tape(trace(bfloat16_of, words=True), words)
                self.put(f"a_{array}[i].bits = {bits};")
                continue
            for copy in dict.fromkeys((array, self._source(array))):
                self.put(f"store(a_{copy} + i, {value});")
        return results[len(writes) :]

    def _draw(self) -> None:
        """The noise of element `i`."""
        number, side = self._run_tape(trace(drawn, words=True), [NUMBER, "key"])
        bits = self.let(f"__float_as_uint((float){number})", "unsigned")
        exponent, mantissa = self._run_tape(trace(parted, words=True), [bits])
        real = [f"({self.real}){x}" for x in (exponent, f"__uint_as_float({mantissa})", side)]
        (noise,) = self._run_tape(trace(normal), [self.let(x) for x in real])
        self.put(f"const {self.real} x_noise = {noise};")

    def _source(self, array: str) -> str:
        """The array that is read: the master copy for a weight that has one."""
        return "master" if array == "weight" and self.kernel.master else array

    def _sum(self, function: Function, writes: Sequence[str], norms: int) -> None:
        """A pass over all elements that leaves each norm's sum of squares in `sum`, of lane 0."""
        self._begin_sums(norms)
        self._add_squares(function, writes, norms)
        self.put("sum = halves(sum);")

    def _begin_sums(self, norms: int) -> None:
        self.put(f"__shared__ double squares[{norms}][THREADS];")
        self.put("double sum = 0;")

    def _add_squares(self, function: Function, writes: Sequence[str], norms: int) -> None:
        """A pass over `count` elements that adds the squares to `sum`, in each norm's lanes."""
        self.put("for (word tile = 0; tile < count; tile += blockDim.x) {")
        self.put("const word i = tile + threadIdx.x;")
        self.put(f"for (int n = 0; n < {norms}; n++) squares[n][threadIdx.x] = 0;")
        self.put("if (i < count) {")
        for n, value in enumerate(self._element(function, writes)):
            self.put(f"squares[{n}][threadIdx.x] = (double){value} * (double){value};")
        self._also()
        self.put("}")
        self.put(f"add_squares(&sum, squares, {norms});")
        self.put("}")

    def _also(self) -> None:
        """What else a subclass does to an element in that pass."""

    def _renew_row_state(self, reduction: Reduction) -> None:
        """Each thread computes the row's new state, `x_<state>`; one stores it."""
        state = reduction.row_state
        self._sum(reduction.value, (), 1)
        self.put("__shared__ double total;")
        self.put("if (threadIdx.x == 0) total = sum;")
        self.put(f"{self.real} x_{state} = load(a_{state});")
        self.put("__syncthreads();  // also before the state is written")
        self.put(f"const {self.real} x_mean_square = ({self.real})(total / (double)row);")
        (new,) = self._run(reduction.row)
        self.put(f"x_{state} = {new};")
        self.put(f"if (threadIdx.x == 0) store(a_{state}, {new});")
        self.fixed = frozenset([state])

    def _run(self, function: Function) -> list[str]:
        """Writes a function's operations on the values named like its parameters; returns the names
        of its results."""
        tape = trace(function)
        return self._run_tape(tape, [("h_" if name in self.rule.hypers else "x_") + name for name in tape.arguments])

    def _run_tape(self, tape: Tape, arguments: Sequence[str]) -> list[str]:
        values = list(arguments)

        def name(x: Operand) -> str:
            return values[x] if isinstance(x, int) else f"{int(x)}u" if tape.words else f"({self.real}){x!r}"

        for done, operands in tape.operations:
            made = operation(done, tape.words)
            type = "bool" if made.boolean else "unsigned" if tape.words else None
            values.append(self.let(made.cuda.format(*map(name, operands)), type))
        return [name(o) for o in tape.outputs]


class _MatrixWriter(_Writer):
    """Kernels of weights whose rows and columns have states, as `matrix_kernel.py` has them."""

    def body(self) -> None:
        reduction, reduces = self.rule.by_matrix, self.kernel.reduces
        assert reduction is not None
        self.row_state, self.column_state = reduction.row_state, reduction.column_state
        self.put(f"const word *piece = pieces + {PIECE_WORDS} * (word)blockIdx.x;")
        self.put("const word tensor = piece[0], first = piece[1], end = first + piece[2];")
        self.put(f"const word *about = indices + {MATRIX_WORDS} * tensor;")
        self.put("const word count = about[0], rows = about[1], most = about[2], each = about[3];")
        self.put("double *records = (double *)about[4];")
        self.put(f"{self.real} *factors = ({self.real} *)about[5];")
        functions = [*reduction.functions, *(stage.function for stage in self.stages)]
        writes = (self.row_state, self.column_state) if reduces else self.stages[0].writes
        touched = self._declare("b", dict.fromkeys(self.arrays, "0"), functions, writes)
        if reduces == "columns":
            self._columns(reduction)
            return
        norms = 1 if reduces else self.stages[0].norms
        if norms:
            self._begin_sums(norms)
        self.put("for (word k = first; k < end; k++) {")
        self.put("const word matrix = k / rows, number = k % rows / most;")
        if reduces:
            self._row(reduction)
        else:
            self._stage(norms, [array for array in touched if array not in (self.row_state, self.column_state)])
        self.put("}")
        if norms and not reduces:
            self.put("sum = halves(sum);")
            self._keep(norms)

    def _at_row(self, arrays: Sequence[str]) -> None:
        """Declares where row k of each array begins."""
        for array in arrays:
            self.put(f"{self.types[array]} *a_{array} = b_{array} + k * count;")

    def _row(self, reduction: Reduction) -> None:
        self.put("const bool begins = k % rows == number * most;")
        self.put("double *record = records + (matrix * each + number) * (count + 1);")
        self._at_row(["grad"])
        self.put("sum = 0;")
        self._add_squares(reduction.value, (), 1)
        self.put("sum = halves(sum);")
        self.put("if (threadIdx.x == 0) {")
        self.put(f"const {self.real} x_mean_square = ({self.real})(sum / (double)count);")
        self.put(f"const {self.real} x_{self.row_state} = load(b_{self.row_state} + k);")
        (new,) = self._run(reduction.row)
        self.put(f"store(b_{self.row_state} + k, {new});")
        self.put(f"record[count] = (begins ? 0 : record[count]) + (double)load(b_{self.row_state} + k);")
        self.put("}")

    def _element(self, function: Function, writes: Sequence[str]) -> list[str]:
        if not self.kernel.reduces:
            self.put(f"const {self.real} x_column_factor = a_factor[i];")
        return super()._element(function, writes)

    def _also(self) -> None:
        if self.kernel.reduces:
            self.put("record[i] = (begins ? 0 : record[i]) + squares[0][threadIdx.x];")

    def _columns(self, reduction: Reduction) -> None:
        def total(place: str) -> None:
            self.put("double total = 0;")
            self.put(f"for (word n = 0; n < each; n++) total += record[n * (count + 1) + {place}];")

        assert reduction.column is not None
        assert reduction.column_factor is not None
        self.put("for (word matrix = (first + rows - 1) / rows; matrix * rows < end; matrix++) {")
        self.put("const double *record = records + matrix * each * (count + 1);")
        total("count")
        self.put(f"const {self.real} x_mean_row = ({self.real})(total / (double)rows);")
        self.put("for (word i = threadIdx.x; i < count; i += blockDim.x) {")
        total("i")
        self.put(f"const {self.real} x_mean_square = ({self.real})(total / (double)rows);")
        self.put(f"{self.real} x_{self.column_state} = load(b_{self.column_state} + matrix * count + i);")
        (new,) = self._run(reduction.column)
        self.put(f"store(b_{self.column_state} + matrix * count + i, {new});")
        self.put(f"x_{self.column_state} = load(b_{self.column_state} + matrix * count + i);")
        (factor,) = self._run(reduction.column_factor)
        self.put(f"factors[matrix * count + i] = {factor};")
        self.put("}")
        self.put("}")

    def _stage(self, norms: int, touched: Sequence[str]) -> None:
        (stage,), reduction = self.stages, self.rule.by_matrix
        assert reduction is not None
        assert reduction.row_factor is not None
        self._at_row(touched)
        self.put(f"const {self.real} *a_factor = factors + matrix * count;")
        self.put(f"const {self.real} x_{self.row_state} = load(b_{self.row_state} + k);")
        (factor,) = self._run(reduction.row_factor)
        self.put(f"const {self.real} x_row_factor = {factor};")
        if norms:
            self._add_squares(stage.function, stage.writes, norms)
            return
        self.put("for (word i = threadIdx.x; i < count; i += blockDim.x) {")
        self._element(stage.function, stage.writes)
        self.put("}")
