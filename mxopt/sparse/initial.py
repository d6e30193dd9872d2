"""First values of a table's rows: a function of the seed, the key and the row, whoever asks for
them."""

from __future__ import annotations

import hashlib
import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
from numpy.typing import DTypeLike

from mxopt.errors import ArgumentError, ArgumentTypeError, ArrayError, ArrayTypeError, UnknownNameError
from mxopt.typing import Array, Plain

Begin = Literal["zeros", "constant", "uniform"]
KINDS = "zeros", "constant", "uniform"
DTYPES = "float16", "bfloat16", "float32", "float64"
SCALE = 0.07  # of "uniform", as in MXNet's initializer of that name
BLOCK = 1 << 15  # elements that are computed at once
# The generator and finalizer of SplitMix64 (Steele, Lea and Flood, 2014, https://doi.org/10.1145/2660193.2660195).
GOLDEN, FIRST, SECOND = (np.uint64(n) for n in (0x9E3779B97F4A7C15, 0xBF58476D1CE4E5B9, 0x94D049BB133111EB))


@dataclass(frozen=True)
class Table:
    """A table as `mxopt.sparse.table` declares it: it has no rows, a store makes them."""

    shape: tuple[int, ...]
    dtype: np.dtype
    init: Begin = "zeros"
    scale: float = 0.0
    seed: int = 0

    @property
    def ndim(self) -> int:
        """How many axes there are."""
        return len(self.shape)

    def __len__(self) -> int:
        return self.shape[0]

    def plain(self) -> Plain:
        """All of it as plain data."""
        about = {"init": self.init, "scale": self.scale, "seed": self.seed}
        return {"shape": list(self.shape), "dtype": str(self.dtype), **about}

    @classmethod
    def of(cls, plain: Plain) -> Table:
        """The table that `plain` describes. Raises what `table` raises, or TypeError, if it
        describes none."""
        return table(**{**plain, "scale": None if plain.get("init") == "zeros" else plain.get("scale")})

    def __repr__(self) -> str:
        rest = {"zeros": "", "constant": f" {self.scale}", "uniform": f" {self.scale}, seed {self.seed}"}[self.init]
        return f"<Table {'x'.join(map(str, self.shape))} {self.dtype}, {self.init}{rest}>"


def table(
    shape: Sequence[int], dtype: DTypeLike = "float32", init: Begin = "zeros", scale: float | None = None, seed: int = 0
) -> Table:
    """Declares a table for `store.init`: an array whose rows take memory only once they are stored
    or updated.

    Parameters
    ----------
    shape : sequence of int
        Rows, then what a row is. There may be more rows than fit into any memory.
    dtype : str or dtype
        float16, bfloat16, float32 or float64.
    init : str
        What rows begin with: 'zeros'; 'constant', which is `scale`; or 'uniform', numbers from
        `-scale` up to `scale` that depend on the seed, the key and the place in the table, and on
        nothing else.
    scale : float
        For 'uniform' 0.07 if it isn't given.
    seed : int

    Raises
    ------
    UnknownNameError, ArgumentError, ArrayError, ArrayTypeError
        There is no such table.

    >>> from mxopt import kvstore, sparse
    >>> store = kvstore.create()
    >>> store.init("users", sparse.table((10**9, 2), init="constant", scale=0.5))
    >>> rows = sparse.zeros("row_sparse", (10**9, 2))
    >>> store.row_sparse_pull("users", rows, row_ids=[7, 999_999_999])
    >>> rows.data.tolist()
    [[0.5, 0.5], [0.5, 0.5]]
    """
    if not isinstance(shape, Sequence):
        raise ArrayTypeError(f"table: the shape is (rows, ...), got {shape!r}")
    shape = tuple(_whole("a number of the shape", n) for n in shape)
    if not shape or min(shape) < 1:
        raise ArrayError(f"a table needs a shape of one axis or more, none of them 0, got {shape}")
    if max(shape) >= 1 << 63:
        raise ArrayError(f"a table's rows are numbered by 64 bits, so there are fewer than 2**63, got {shape}")
    if init not in KINDS:
        raise UnknownNameError(f"table: the rows can begin as {', '.join(map(repr, KINDS))}, not {init!r}")
    try:
        dtype = np.dtype(dtype)
    except TypeError as error:
        raise ArrayTypeError(f"a table is of {', '.join(DTYPES)}, not {dtype!r:.80}") from error
    if str(dtype) not in DTYPES:
        raise ArrayTypeError(f"a table is of {', '.join(DTYPES)}, not {dtype}")
    if (init == "constant" and scale is None) or (init == "zeros" and scale is not None):
        raise ArgumentError(f"table: init={init!r} {'needs a scale' if scale is None else 'takes no scale'}")
    scale = (SCALE if init == "uniform" else 0.0) if scale is None else _number("the scale", scale)
    with np.errstate(over="ignore"):
        fits = math.isfinite(scale) and bool(np.isfinite(np.float64(scale).astype(dtype)))
    if not fits:
        raise ArgumentError(f"table: the scale must be a finite number of {dtype}, got {scale}")
    seed = _whole("the seed", seed)
    if not 0 <= seed < 1 << 63:
        raise ArgumentError(f"table: the seed must be a whole number from 0 on and below 2**63, got {seed}")
    return Table(shape, dtype, init, scale, seed)


@dataclass(frozen=True)
class Initial:
    """The first values of the rows of a table under a key."""

    table: Table
    key: int | str

    def plain(self) -> Plain:
        """All of it as plain data."""
        return {**self.table.plain(), "key": self.key}

    @classmethod
    def of(cls, plain: Plain) -> Initial:
        """The object that `plain` describes. Raises what `table` raises, or TypeError, if it
        describes none."""
        plain = dict(plain)
        key = plain.pop("key")
        if type(key) not in (int, str):
            raise ArgumentTypeError(f"a table is under a key, an int or a str, not {key!r:.80}")
        return cls(Table.of(plain), key)

    def write(self, ids: np.ndarray, out: Array) -> None:
        """Writes the first values of the rows `ids` into `out`, converted to its dtype."""
        if self.table.init == "zeros":
            out[...] = 0
        elif self.table.init == "constant":
            out[...] = np.array(self.table.scale).astype(self.table.dtype).astype(out.dtype)
        else:
            self._write_uniform(ids, out)

    def _write_uniform(self, ids: np.ndarray, out: Array) -> None:
        """Computes in whole numbers until the last step, so that nothing is rounded: 24 bits are
        exact in float32, and 53 in float64."""
        real: Any
        real, bits = (np.float64, 53) if self.table.dtype.itemsize == 8 else (np.float32, 24)
        step, scale, key = real(2.0 ** (1 - bits)), real(self.table.scale), self._key()
        width = math.prod(self.table.shape[1:])
        columns, at_once = np.arange(width, dtype=np.uint64), max(1, BLOCK // width)
        for start in range(0, len(ids), at_once):
            x = ids[start : start + at_once, None].astype(np.uint64) * np.uint64(width) + columns
            x *= GOLDEN
            x += key
            for shift, factor in ((30, FIRST), (27, SECOND)):
                x ^= x >> np.uint64(shift)
                x *= factor
            x ^= x >> np.uint64(31)
            x >>= np.uint64(64 - bits)
            values = x.astype(real)
            values *= step
            values -= real(1)
            values *= scale
            values = values.astype(self.table.dtype, copy=False)
            out[start : start + at_once] = values.reshape(-1, *self.table.shape[1:])

    def _key(self) -> np.uint64:
        name = f"{self.table.seed} {type(self.key).__name__} {self.key}".encode(errors="surrogatepass")
        return np.uint64(int.from_bytes(hashlib.blake2b(name, digest_size=8).digest(), "little"))


def _whole(what: str, value: Any) -> int:
    try:
        return operator.index(value)
    except TypeError:
        raise ArgumentTypeError(f"table: {what} must be a whole number, got {value!r}") from None


def _number(what: str, value: Any) -> float:
    try:
        return float(value)
    except (TypeError, ValueError):
        raise ArgumentTypeError(f"table: {what} must be a number, got {value!r}") from None
