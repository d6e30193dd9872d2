"""What is measured: set-ups of processes, and lists of keys."""

from __future__ import annotations

from dataclasses import dataclass

from benchmark.cases import resnet50


@dataclass(frozen=True)
class Setup:
    """So many workers and servers, and the kind of store."""

    workers: int
    servers: int
    store: str


@dataclass(frozen=True)
class Case:
    """Keys with values of these shapes, the number of rounds, and the targets with one worker and
    with several: times the floor over the same transport. With `draw`, this number of random rows
    of a table by each worker."""

    title: str
    shapes: tuple[tuple[int, ...], ...]
    rounds: int
    mxnet_rounds: int
    targets: tuple[float, float]
    draw: int = 0

    def target(self, workers: int) -> float:
        """The target with this number of workers."""
        return self.targets[workers > 1]


SETUPS = {
    "1x1-async": Setup(1, 1, "dist_async"),
    "2x1-sync": Setup(2, 1, "dist_sync"),
    "2x2-sync": Setup(2, 2, "dist_sync"),
}
CASES = {
    "latency": Case("one key of 1,000 floats", ((1000,),), 2000, 200, (1.5, 1.7)),
    "small": Case("1,000 keys of 256", ((256,),) * 1000, 100, 5, (10.0, 10.0)),
    "resnet50": Case("ResNet-50's 161 keys", resnet50(), 40, 8, (1.3, 1.3)),
    "large": Case("one key of 25M", ((25_000_000,),), 30, 6, (1.3, 1.3)),
    "rows": Case("50,000 rows of 1M x 64", ((1_000_000, 64),), 40, 10, (1.8, 1.8), draw=50_000),
}
BLOCKS = 10  # of rounds, in which floor and store take turns
