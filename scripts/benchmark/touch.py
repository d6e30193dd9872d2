"""Loops in C over a case's arrays: source that is written for each pass, compiled once, kept in a
folder of the user's.

A loop only touches the arrays, which is the limit, or does a rule's arithmetic (`ARITHMETIC`). A
scheme says in which order two threads walk the memory.
"""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import numpy as np

from benchmark.cases import Case

PIECE = 16384  # elements a thread takes at a time
WORTH_THREADS = 65_536  # elements from which waking other threads pays
AHEAD = 1024  # elements between what is worked on and what is fetched
LETTERS = "wgabcm"
FAST = ("-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros")  # for sums that nobody looks at
EXACT = ("-ffp-contract=off", "-fno-math-errno", "-fno-trapping-math")  # which change no bit of a result
FLAGS = ("-O3", "-march=native", "-funroll-loops")


@dataclass(frozen=True)
class Scheme:
    """Pieces of `piece` elements, taken in turn or, as `ranges`, one half of all by each of two
    threads. `fetch`: the memory is asked for AHEAD elements before. `stream`: what is written goes
    by the caches."""

    piece: int = PIECE
    ranges: bool = False
    fetch: bool = False
    stream: bool = False


SCHEMES = {
    "pieces of 16384": Scheme(),
    "pieces of 131072": Scheme(131_072),
    "pieces of 524288": Scheme(524_288),
    "ranges": Scheme(ranges=True),
    "fetching ahead": Scheme(131_072, fetch=True),
    "ranges, fetching ahead": Scheme(ranges=True, fetch=True),
    "streaming": Scheme(131_072, stream=True),
}

# What a loop does to element i, with the numbers that `h` points to, as the rule does it.
ARITHMETIC = {
    "adam": """
    float x = h[0] * g[i] + h[1] * w[i];
    x = x > h[2] ? h[2] : x < -h[2] ? -h[2] : x;
    float mean = h[3] * a[i] + (1 - h[3]) * x, var = h[4] * b[i] + (1 - h[4]) * (x * x);
    a[i] = mean;
    b[i] = var;
    w[i] = w[i] - h[5] * mean / (sqrtf(var) + h[6]);
""",
}
NUMBERS = {"adam": (1.0, 0.0, np.inf, 0.9, 0.999, 1e-3, 1e-8)}

BLOCK = 64  # elements between two looks ahead, and of what is written at a time by a stream
SOURCE = """
#include <math.h>
#ifdef __SSE__
#include <xmmintrin.h>
#else
#define _mm_stream_ps(place, four) __builtin_memcpy(place, &(four), 16)
#define _mm_loadu_ps(place) (*(const struct {{ float x[4]; }} *)(place))
#endif
typedef unsigned short half;
static float span(char **base, long at, long grad_at, long count, float zero, const float *h) {{
{arrays}
  float lost = 0;
  long i = 0;
{blocks}
  for (; i < count; i++) {{
{body}
  }}
  return lost;
}}
static volatile float nothing = 0;
/* A job: pieces (tensor, first element or row, elements or rows), their number, table of arrays, indices, length of a
   row, threads, numbers. With indices the gradient's row k is row indices[k] of the others. */
float run(const long *job) {{
  const long *pieces = (const long *)job[0], n = job[1], *indices = (const long *)job[3], row = job[4];
  char **table = (char **)job[2];
  const float *h = (const float *)job[6];
  float lost = 0, zero = nothing;
  #pragma omp parallel for schedule({schedule}) num_threads(job[5]) if (job[5] > 1) reduction(+: lost)
  for (long p = 0; p < n; p++) {{
    const long *piece = pieces + 3 * p;
    char **base = table + {width} * piece[0];
    if (!indices) lost += span(base, piece[1], piece[1], piece[2], zero, h);
    else for (long k = piece[1]; k < piece[1] + piece[2]; k++)
      lost += span(base, indices[k] * row, k * row, row, zero, h);
  }}
  return lost;
}}
"""


@cache
def compiler() -> str | None:
    """The C compiler's name, if it knows OpenMP."""
    name = os.environ.get("CC") or shutil.which("gcc") or shutil.which("cc")
    if name is None:
        return None
    test = subprocess.run([name, "-fopenmp", "-x", "c", "-E", os.devnull], capture_output=True)
    return Path(name).name if test.returncode == 0 else None


def source(reads: str, writes: str, halves: str, scheme: Scheme = SCHEMES["pieces of 16384"], rule: str = "") -> str:
    """`halves` are the letters of the 16-bit arrays. They are read as whole numbers, which costs no
    more."""
    kind = {letter: "half" if letter in halves else "float" for letter in LETTERS}
    used = [letter for letter in LETTERS if letter in reads + writes]
    arrays = [
        f"  {kind[x]} *restrict {x} = ({kind[x]} *)base[{LETTERS.index(x)}] + {'grad_at' if x == 'g' else 'at'};"
        for x in used
    ]
    total = " + ".join(f"(float){x}[i]" for x in reads)
    lines = [f"    float total = {total};"] + [
        f"    {x}[i] = ({kind[x]})({f'{x}[i] + ' if x in reads else '(int)' * (x in halves)}(zero * total));"
        for x in writes
    ]
    body = ARITHMETIC.get(rule) or "\n".join(lines if writes else [*lines, "    lost += total;"])
    streamed = [x for x in writes if x not in halves] if scheme.stream else []
    return SOURCE.format(
        arrays="\n".join(arrays),
        blocks=_blocks(scheme, used, kind, body, streamed) if scheme.fetch or streamed else "",
        body=body,
        schedule="static" if scheme.ranges else "dynamic, 1",
        width=len(LETTERS),
    )


def _blocks(scheme: Scheme, used: list[str], kind: dict[str, str], body: str, streamed: list[str]) -> str:
    """The loop over whole blocks: what comes before a block, the block, and what comes after."""
    before, after = [], []
    for x in used if scheme.fetch else ():
        step = 64 // (2 if kind[x] == "half" else 4)
        before += [
            f"    __builtin_prefetch({x} + i + {AHEAD + at}, {int(x != 'g')}, 3);" for at in range(0, BLOCK, step)
        ]
    for x in streamed:
        before.append(f"    float {x}_new[{BLOCK}];")
        copy = f"_mm_stream_ps({x} + i + k, _mm_loadu_ps({x}_new + k));"
        after.append(f"    for (int k = 0; k < {BLOCK}; k += 4) {copy}")
        body = body.replace(f"    {x}[i] =", f"    {x}_new[i - first] =")
    lines = [
        f"  for (; i + {BLOCK} <= count;) {{",
        *before,
        "    long first = i;",
        f"    for (; i < first + {BLOCK}; i++) {{",
    ]
    return "\n".join([*lines, body, "    }", "    i = first;", *after, f"    i = first + {BLOCK};", "  }"])


@cache
def compiled(text: str, flags: tuple[str, ...] = FAST) -> Callable[[int], float]:
    """The function `run` of a source."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mxopt-bench" / "touch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    flags = (*FLAGS, *flags)
    host = f"{compiler()} {flags} {os.uname().machine} {_cpu()}"
    library = folder / f"{hashlib.sha256((text + host).encode()).hexdigest()[:20]}.so"
    if not library.exists():
        mine = library.with_suffix(f".{os.getpid()}")
        made = ["-fopenmp", "-shared", "-fPIC", "-x", "c", "-", "-o", str(mine), "-lm"]
        subprocess.run([os.environ.get("CC") or str(compiler()), *flags, *made], input=text.encode(), check=True)
        mine.replace(library)
    function = ctypes.PyDLL(str(library)).run  # that keeps the GIL, which costs less than to let it go
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_float
    run: Callable[[int], float] = function
    return run


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


class Pass:
    """One pass over a case's arrays, `arrays[letter][tensor]`, with the arithmetic of `rule` if
    that is given."""

    def __init__(
        self,
        case: Case,
        reads: str,
        writes: str,
        arrays: dict[str, list[np.ndarray]],
        threads: int,
        scheme: Scheme = SCHEMES["pieces of 16384"],
        rule: str = "",
    ) -> None:
        self.row_count = case.row_count
        self.whole = case.row_count > 0 and not writes  # a norm is of the whole weight
        if self.whole:
            reads = reads.replace("g", "")
        text = source(reads, writes, case.halves, scheme, rule)
        self.function = compiled(text, EXACT if rule else FAST)
        self.row_length = case.shapes[0][-1]
        sizes = [w.size for w in arrays["w"]]
        self.arrays = arrays  # kept alive
        self.table = np.zeros((len(sizes), len(LETTERS)), np.int64)
        for letter, tensors in arrays.items():
            for k, array in enumerate(tensors):
                self.table[k, LETTERS.index(letter)] = array.ctypes.data
        if self.row_count and not self.whole:
            sizes, piece = [self.row_count], max(1, scheme.piece // self.row_length)
            elements = self.row_count * self.row_length
        else:
            piece, elements = scheme.piece, sum(sizes)
        cut = [(t, at, min(piece, size - at)) for t, size in enumerate(sizes) for at in range(0, size, piece)]
        self.pieces = np.array(cut, np.int64)
        self.indices: np.ndarray | None = None
        self.numbers = np.array(NUMBERS.get(rule, (0,)), np.float32)
        threads = threads if elements >= WORTH_THREADS else 1
        pieces, table, numbers = self.pieces.ctypes.data, self.table.ctypes.data, self.numbers.ctypes.data
        self.job = np.array([pieces, len(self.pieces), table, 0, self.row_length, threads, numbers], np.int64)
        self.address = self.job.ctypes.data

    def take(self, data: np.ndarray, indices: np.ndarray) -> None:
        """Takes this row-sparse gradient."""
        self.table[0, LETTERS.index("g")] = data.ctypes.data
        if not self.whole:
            self.indices = indices
            self.job[3] = indices.ctypes.data

    def run(self) -> None:
        self.function(self.address)
