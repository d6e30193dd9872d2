"""The limit's C form: source that is written for each pass, compiled once, kept in a folder of the user's."""

from __future__ import annotations

import ctypes
import hashlib
import os
import shutil
import subprocess
from functools import cache
from pathlib import Path

import numpy as np

from benchmark.cases import Case

PIECE = 16384  # elements a thread takes at a time
WORTH_THREADS = 65_536  # elements from which waking other threads pays
LETTERS = "wgabcm"
FLAGS = ("-O3", "-march=native", "-funroll-loops", "-fno-trapping-math", "-fassociative-math", "-fno-signed-zeros")

SOURCE = """
typedef unsigned short half;
static float span(char **base, long at, long grad_at, long count, float zero) {{
{arrays}
  float lost = 0;
  for (long i = 0; i < count; i++) {{
    float total = {total};
{writes}
  }}
  return lost;
}}
static volatile float nothing = 0;
/* A job: pieces (tensor, first element or row, elements or rows), their number, table of arrays, indices, length of a
   row, threads. With indices the gradient's row k is row indices[k] of the others. */
float touch(const long *job) {{
  const long *pieces = (const long *)job[0], n = job[1], *indices = (const long *)job[3], row = job[4];
  char **table = (char **)job[2];
  float lost = 0, zero = nothing;
  #pragma omp parallel for schedule(dynamic, 1) num_threads(job[5]) if (job[5] > 1) reduction(+: lost)
  for (long p = 0; p < n; p++) {{
    const long *piece = pieces + 3 * p;
    char **base = table + {width} * piece[0];
    if (!indices) lost += span(base, piece[1], piece[1], piece[2], zero);
    else for (long k = piece[1]; k < piece[1] + piece[2]; k++)
      lost += span(base, indices[k] * row, k * row, row, zero);
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


def source(reads: str, writes: str, halves: str) -> str:
    """`halves` are the letters of the 16-bit arrays. They are read as whole numbers, which costs no more."""
    kind = {letter: "half" if letter in halves else "float" for letter in LETTERS}
    used = [letter for letter in LETTERS if letter in reads + writes]
    arrays = [
        f"  {kind[x]} *restrict {x} = ({kind[x]} *)base[{LETTERS.index(x)}] + {'grad_at' if x == 'g' else 'at'};"
        for x in used
    ]
    lines = [
        f"    {x}[i] = ({kind[x]})({f'{x}[i] + ' if x in reads else '(int)' * (x in halves)}(zero * total));"
        for x in writes
    ]
    return SOURCE.format(
        arrays="\n".join(arrays),
        total=" + ".join(f"(float){x}[i]" for x in reads),
        writes="\n".join(lines) or "    lost += total;",
        width=len(LETTERS),
    )


@cache
def compiled(text: str) -> ctypes._CFuncPtr:
    """The function `touch` of a source."""
    folder = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "mxopt-bench" / "touch"
    folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    host = f"{compiler()} {FLAGS} {os.uname().machine} {_cpu()}"
    library = folder / f"{hashlib.sha256((text + host).encode()).hexdigest()[:20]}.so"
    if not library.exists():
        mine = library.with_suffix(f".{os.getpid()}")
        command = [os.environ.get("CC", compiler()), *FLAGS, "-fopenmp", "-shared", "-fPIC", "-x", "c", "-", "-o", mine]
        subprocess.run(command, input=text.encode(), check=True)
        mine.replace(library)
    function = ctypes.PyDLL(str(library)).touch  # that keeps the GIL, which costs less than to let it go
    function.argtypes, function.restype = [ctypes.c_void_p], ctypes.c_float
    return function


def _cpu() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return ""
    return next((line for line in lines if line.startswith("flags")), "")


class Pass:
    """One pass over a case's arrays, `arrays[letter][tensor]`."""

    def __init__(self, case: Case, reads: str, writes: str, arrays: dict[str, list[np.ndarray]], threads: int) -> None:
        self.function = compiled(source(reads, writes, "wg" if case.master else ""))
        self.rows = case.rows
        self.whole = case.rows > 0 and not writes  # a norm is of the whole weight
        if self.whole:
            self.function = compiled(source(reads.replace("g", ""), writes, ""))
        self.row = case.shapes[0][-1]
        sizes = [w.size for w in arrays["w"]]
        self.arrays = arrays  # kept alive
        self.table = np.zeros((len(sizes), len(LETTERS)), np.int64)
        for letter, tensors in arrays.items():
            for k, array in enumerate(tensors):
                self.table[k, LETTERS.index(letter)] = array.ctypes.data
        if self.rows and not self.whole:
            sizes, piece = [self.rows], max(1, PIECE // self.row)
            elements = self.rows * self.row
        else:
            piece, elements = PIECE, sum(sizes)
        cut = [(t, at, min(piece, size - at)) for t, size in enumerate(sizes) for at in range(0, size, piece)]
        self.pieces = np.array(cut, np.int64)
        self.indices: np.ndarray | None = None
        threads = threads if elements >= WORTH_THREADS else 1
        pieces, table = self.pieces.ctypes.data, self.table.ctypes.data
        self.job = np.array([pieces, len(self.pieces), table, 0, self.row, threads], np.int64)
        self.address = self.job.ctypes.data

    def take(self, data: np.ndarray, indices: np.ndarray) -> None:
        """Takes this row-sparse gradient."""
        self.table[0, LETTERS.index("g")] = data.ctypes.data
        if not self.whole:
            self.indices = indices
            self.job[3] = indices.ctypes.data

    def run(self) -> None:
        self.function(self.address)
