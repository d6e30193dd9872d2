"""What a row of the benchmark is, as plain data: an optimizer, and a kind of work."""

from __future__ import annotations

import math
from dataclasses import asdict, dataclass, field
from typing import Any

Shape = tuple[int, ...]
TABLE_WIDTH = 64  # floats in a row of the sparse table


@dataclass(frozen=True)
class Optimizer:
    """A row's optimizer: `create(name, **options)`.

    `passes` says what an update must touch, "read > written" for each pass over the memory: `w` the
    weight, `g` the gradient, `a`, `b`, `c` its states. The limit does this and nothing else.
    `lazy`: it can leave rows alone for which a row-sparse gradient has none. `layerwise`: it needs
    norms of the whole tensor. `noisy`: it draws random numbers, so memory isn't what limits it.
    """

    name: str
    passes: tuple[str, ...]
    options: dict[str, Any] = field(default_factory=dict)
    lazy: bool = True
    layerwise: bool = False
    noisy: bool = False


@dataclass(frozen=True)
class Kind:
    """A kind of work: what is updated, and in which unit its time is told.

    `fresh`: the gradients are new arrays at every step. `row_count`: how many of a table's million
    rows the gradient has. `clipped`: by the norm of all gradients, which a pass before the others
    reads. `every`: without lazy update, so that every row of the table moves. `narrow`: states are
    in bfloat16.
    """

    title: str
    unit: str = "ms"
    shapes: tuple[Shape, ...] = ()
    dtype: str = "float32"
    fresh: bool = False
    row_count: int = 0
    clipped: bool = False
    every: bool = False
    narrow: bool = False

    @property
    def master(self) -> bool:
        return self.dtype != "float32"


def resnet50() -> tuple[Shape, ...]:
    """The shapes of ResNet-50's 161 parameters."""
    shapes: list[Shape] = []

    def convolution(out: int, channels: int, size: int) -> None:
        shapes.extend([(out, channels, size, size), (out,), (out,)])  # with its batch norm

    convolution(64, 3, 7)
    channels = 64
    for blocks, width in ((3, 64), (4, 128), (6, 256), (3, 512)):
        for block in range(blocks):
            convolution(width, channels, 1)
            convolution(width, width, 3)
            convolution(4 * width, width, 1)
            if block == 0:
                convolution(4 * width, channels, 1)
            channels = 4 * width
    return (*shapes, (1000, 2048), (1000,))


BIG, TABLE = ((390_625, TABLE_WIDTH),), ((1_000_000, TABLE_WIDTH),)
KINDS = {
    "dense": Kind("one tensor of 25M float32", shapes=BIG),
    "resnet50": Kind("ResNet-50's 161 tensors", shapes=resnet50()),
    "small": Kind("1,000 tensors of 256 floats, fresh gradients", shapes=((256,),) * 1000, fresh=True),
    "tiny": Kind("one tensor of 16 floats", "µs", ((16,),)),
    "float16": Kind("25M float16 with float32 master", shapes=BIG, dtype="float16"),
    "bfloat16": Kind("25M bfloat16 with float32 master", shapes=BIG, dtype="bfloat16"),
    "sparse1k": Kind("1,000 rows of a 1M × 64 table", shapes=TABLE, row_count=1_000),
    "sparse50k": Kind("50,000 rows of a 1M × 64 table", shapes=TABLE, row_count=50_000),
    "every": Kind(
        "50,000 rows of a 1M × 64 table, of which every row moves", shapes=TABLE, row_count=50_000, every=True
    ),
    "narrow": Kind("25M float32, states in bfloat16", shapes=BIG, narrow=True),
    "startup": Kind("a fresh process", "s"),
    "clipped": Kind("25M float32, clipped by the norm of all gradients", shapes=BIG, clipped=True),
    "busy": Kind("25M float32, one core kept busy by another process", shapes=BIG),
}
UNITS = {"s": 1.0, "ms": 1e3, "µs": 1e6}
NARROW = ("sgd-momentum", "lion", "adam", "adamw", "nadam", "adagrad", "rmsprop", "adadelta", "lars", "lamb")
SOME = {"narrow": NARROW, "clipped": ("adam",), "busy": ("adam",), "every": ("sgd-momentum", "adam", "adagrad")}
QUICK = {
    "dense": ("sgd-momentum", "adam"),
    "narrow": ("sgd-momentum", "adam"),
    **dict.fromkeys(("resnet50", "small", "tiny", "float16", "sparse50k", "clipped", "busy"), ("adam",)),
}


@dataclass(frozen=True)
class Case:
    """One row: an optimizer at one kind of work, in full, as plain data for a worker."""

    kind: str
    optimizer: str  # what the row calls it
    row: Optimizer = field(compare=False)
    shapes: tuple[Shape, ...]
    dtype: str = "float32"
    fresh: bool = False
    row_count: int = 0

    @property
    def every(self) -> bool:
        return KINDS[self.kind].every

    @property
    def master(self) -> bool:
        return self.dtype != "float32"

    @property
    def clipped(self) -> bool:
        return KINDS[self.kind].clipped

    @property
    def halves(self) -> str:
        """The letters of the arrays of 16 bits."""
        return "wg" if self.master else "abc" if KINDS[self.kind].narrow else ""

    @property
    def passes(self) -> list[tuple[str, str]]:
        """What each pass reads and writes. With a master copy (`m`) that is read in the weight's
        place."""
        passes = [p.replace(" ", "").split(">") for p in ("g >",) * self.clipped + self.row.passes]
        if self.every:  # the gradient's rows are next to nothing
            return [(reads.replace("g", ""), writes) for reads, writes in passes]
        if self.master:
            return [(reads.replace("w", "m"), writes.replace("w", "wm")) for reads, writes in passes]
        return [(reads, writes) for reads, writes in passes]

    def itemsize(self, array: str) -> int:
        return 2 if array in self.halves else 4

    @property
    def bytes(self) -> int:
        """What all passes together read and write."""
        elements = sum(math.prod(shape) for shape in self.shapes)
        touched = elements if not self.row_count or self.every else self.row_count * TABLE_WIDTH
        total = 0
        for reads, writes in self.passes:
            for array in reads:
                whole = not writes and array == "w"  # a norm is of the whole weight, whatever the gradient's rows
                total += self.itemsize(array) * (elements if whole else touched)
            total += sum(self.itemsize(array) for array in writes) * touched
        return total

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def make_case(data: dict[str, Any]) -> Case:
    """The case that `Case.plain` gave, after a journey through JSON."""
    row = Optimizer(**{**data["row"], "passes": tuple(data["row"]["passes"])})
    return Case(**{**data, "row": row, "shapes": tuple(map(tuple, data["shapes"]))})
