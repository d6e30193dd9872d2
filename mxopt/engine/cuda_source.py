"""Writes a rule's kernel for a GPU: CUDA C from the same tape of which `kernel.py` makes LLVM
assembly.

One transpiler, two printers. The rule is traced once; here each operation of the tape becomes one
line of C, in the tape's order and in IEEE arithmetic, and the compiler is told not to contract
products and sums (`OPTIONS`). So a GPU gives the bits of the CPU's engines. CuPy's own transpiler
would translate the rules too, by rules of its own.

A block of threads has one piece of a tensor (or one row of it), whose threads take its elements in
turn:

    for each element of the piece that is this thread's:
        load the arrays' elements and widen them to the arithmetic's type
        do what the rule's tape says
        round what the rule writes to each array's own type, and store it

Sums of squares have the order that `kernel.py` states. The threads put their squares into the
block's shared memory; there one thread for each norm and lane adds its lane's squares one after the
other, in double.
"""

from __future__ import annotations

from collections.abc import Sequence

from mxopt.engine.assembly import LANES, arithmetic
from mxopt.engine.kernel import FIRST, KEY, KEY_WORDS, NUMBERS, PIECE_WORDS, Kernel
from mxopt.engine.operations import operation
from mxopt.engine.trace import Operand, Tape, trace
from mxopt.rules.noise import drawn, normal, parted
from mxopt.rules.rule import Function, Reduction, parameters
from mxopt.rules.words import WEYL, bfloat16_of, share

OPTIONS = ("-fmad=false",)
NUMBER = f"((before + (unsigned)i) * {WEYL}u)"  # what random bits of element `i` are made of
THREADS = 256  # of a block, at most; what is computed doesn't depend on it

TYPES = {"float16": "__half", "bfloat16": "bfloat16", "float32": "float", "float64": "double"}

# A kernel's parameters, all of them addresses on the GPU but the last:
PARAMETERS = (
    "const word *pieces",  # of each block: tensor, first element, elements
    "const word *table",  # the addresses of each tensor's arrays
    "const word *hyper_rows",  # which row of `hypers` each tensor takes
    "const double *hypers",
    "const word *keys",  # for stochastic rounding; see `kernel.py`
    "double *sums",  # of squares, for each piece and norm
    "const word *indices",  # by rows: which row of the tensor each row of the gradient is; null: its own
    "word row",  # by rows: elements of a row
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
    """The kernel alone, without the functions it calls."""
    return _Writer(kernel).definition()


class _Writer:
    """Lines of C. There `a_x` is the address of array x, `x_x` its element, `h_x` a
    hyper-parameter, `v<n>` a value."""

    def __init__(self, kernel: Kernel) -> None:
        self.kernel = kernel
        self.rule = kernel.rule
        (self.stage,) = (self.rule.stages[s] for s in kernel.stages)
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
        kernel, rule, stage = self.kernel, self.rule, self.stage
        self.put(f'\nextern "C" __global__ void __launch_bounds__(THREADS) {kernel.name}(')
        self.put(f"    {', '.join(PARAMETERS)}) {{")
        if kernel.rows:
            self.put("const word tensor = 0, k = blockIdx.x, which = indices ? indices[k] : k, count = row;")
            places = {"grad": "k * row"} | ({rule.by_row.state: "which"} if rule.by_row else {})
            places = {array: places.get(array, "which * row") for array in self.arrays}
        else:
            self.put(f"const word *piece = pieces + {PIECE_WORDS} * (word)blockIdx.x;")
            self.put("const word tensor = piece[0], first = piece[1], count = piece[2];")
            places = dict.fromkeys(self.arrays, "first")
        functions = [stage.function] + ([rule.by_row.value, rule.by_row.update] if rule.by_row else [])
        names = {name for function in functions for name in parameters(function)}
        touched = {*map(self._source, {*names, *stage.writes}), *stage.writes}
        if kernel.random:
            self.put(f"const word *about = keys + {KEY_WORDS} * tensor, *numbers = (const word *)about[{NUMBERS}];")
            element = "(numbers ? numbers[which] : which) * row" if kernel.rows else "first"
            self.put(f"const unsigned key = (unsigned)about[{KEY}], before = (unsigned)(about[{FIRST}] + {element});")
        for k, (array, type) in enumerate(self.types.items()):
            if array in touched:
                address = f"table[{len(self.types)} * tensor + {k}]"
                self.put(f"{type} *a_{array} = ({type} *){address} + {places[array]};")
        for k, name in enumerate(rule.hypers):
            if name in names:
                given = f"hypers[{len(rule.hypers)} * hyper_rows[tensor] + {k}]"
                self.put(f"const {self.real} h_{name} = ({self.real}){given};")
        if rule.by_row is not None:
            self._renew_row_state(rule.by_row)
        if stage.norms:
            self._sum(stage.function, stage.writes, stage.norms)
            self.put(f"if (threadIdx.x < LANES * {stage.norms} && threadIdx.x % LANES == 0)")
            self.put(f"    sums[{stage.norms} * (word)blockIdx.x + threadIdx.x / LANES] = sum;")
        else:
            self.put("const unsigned stride = blockDim.x * gridDim.y;")
            self.put("#pragma unroll 1")
            self.put("for (word i = blockIdx.y * blockDim.x + threadIdx.x; i < count; i += stride) {")
            self._element(stage.function, stage.writes)
            self.put("}")
        self.put("}")
        return "\n".join(self.lines) + "\n"

    def _element(self, function: Function, writes: Sequence[str]) -> list[str]:
        """What happens to element `i`; returns the values behind those written."""
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
        """Where an array's values are read: a weight's from its master copy, if there is one."""
        return "master" if array == "weight" and self.kernel.master else array

    def _sum(self, function: Function, writes: Sequence[str], norms: int) -> None:
        """A pass over all elements that leaves the sums of squares in `sum` of each norm's
        lane 0."""
        self.put(f"__shared__ double squares[{norms}][THREADS];")
        self.put("double sum = 0;")
        self.put("for (word tile = 0; tile < count; tile += blockDim.x) {")
        self.put("const word i = tile + threadIdx.x;")
        self.put(f"for (int n = 0; n < {norms}; n++) squares[n][threadIdx.x] = 0;")
        self.put("if (i < count) {")
        for n, value in enumerate(self._element(function, writes)):
            self.put(f"squares[{n}][threadIdx.x] = (double){value} * (double){value};")
        self.put("}")
        self.put(f"add_squares(&sum, squares, {norms});")
        self.put("}")
        self.put("sum = halves(sum);")

    def _renew_row_state(self, reduction: Reduction) -> None:
        """Each thread computes the row's new state, as `x_<state>`; one stores it."""
        state = reduction.state
        self._sum(reduction.value, (), 1)
        self.put("__shared__ double total;")
        self.put("if (threadIdx.x == 0) total = sum;")
        self.put(f"{self.real} x_{state} = load(a_{state});")
        self.put("__syncthreads();  // before the state is written, too")
        self.put(f"const {self.real} x_mean_square = ({self.real})(total / (double)row);")
        (new,) = self._run(reduction.update)
        self.put(f"x_{state} = {new};")
        self.put(f"if (threadIdx.x == 0) store(a_{state}, {new});")
        self.fixed = frozenset([state])

    def _run(self, function: Function) -> list[str]:
        """The operations of a function on values of the names of its parameters; returns the names
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
