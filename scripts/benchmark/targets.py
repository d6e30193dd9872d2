"""The project's targets for local updates, each a ratio within one run, and what a run says of
them."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from benchmark.driver import Result
from benchmark.environments import PEERS
from benchmark.rows import OPTIMIZERS

Value = Callable[[Result], float | None]


def to_reference(row: Result) -> float | None:
    return row.ratio("mxopt")


def faster_than(system: str) -> Value:
    """How many times faster than the best way of a system."""

    def value(row: Result) -> float | None:
        ratio = row.ratio("mxopt", system)
        return 1 / ratio if ratio else None

    return value


def faster_than_fused(row: Result) -> float | None:
    """The same for PyTorch, where it has a fused form; its best way counts, whichever that is."""
    torch = row.systems.get("pytorch")
    return faster_than("pytorch")(row) if torch and "fused" in torch.trials else None


def faster_than_all(row: Result) -> float | None:
    peers = [faster_than(name)(row) for name in row.systems if name in PEERS]
    return min((x for x in peers if x is not None), default=None)


def to_loop(row: Result) -> float | None:
    return row.ratio("mxopt", "loop")


def to_wide(row: Result) -> float | None:
    return row.ratio("mxopt", "wide")


def seconds(row: Result) -> float | None:
    times = row.systems.get("mxopt")
    return times.median if times else None


@dataclass(frozen=True)
class Target:
    """`value` of every row of `kinds` that `rows` accepts must be at most (or, if `least`, at
    least) `bound`."""

    what: str
    kinds: tuple[str, ...]
    value: Value
    bound: float
    least: bool = False
    rows: Callable[[Result], bool] = lambda row: True
    unit: str = "×"

    def met(self, value: float) -> bool:
        return value >= self.bound if self.least else value <= self.bound

    def text(self, value: float) -> str:
        if self.unit == "×":
            return f"{value:.2f} ×"
        return f"{value * 1e6:.2f} µs" if self.unit == "µs" else f"{value:.3f} s"


def _layerwise(row: Result) -> bool:
    return OPTIMIZERS[row.optimizer].layerwise


def _elementwise(row: Result) -> bool:
    return not _layerwise(row) and not OPTIMIZERS[row.optimizer].noisy


def _called(*names: str) -> Callable[[Result], bool]:
    return lambda row: row.optimizer in names


TARGETS = (
    Target("elementwise, 25M float32: to the limit", ("dense",), to_reference, 1.05, rows=_elementwise),
    Target("Adam, 25M float32: to the best loop in C of the same arithmetic", ("dense",), to_loop, 1.03),
    Target("noise, 25M float32: to the limit", ("dense",), to_reference, 5, rows=_called("sgld")),
    Target("states in bfloat16, Adam: to float32 states", ("narrow",), to_wide, 0.76, rows=_called("adam")),
    Target("states in bfloat16, momentum: to float32 states", ("narrow",), to_wide, 0.88, rows=_called("sgd-momentum")),
    Target("layer-wise, 25M float32: to the limit of their passes", ("dense",), to_reference, 1.15, rows=_layerwise),
    Target("16 bits with master: to the limit", ("float16", "bfloat16"), to_reference, 1.10, rows=_elementwise),
    Target("ResNet-50's list: to the limit", ("resnet50",), to_reference, 1.10, rows=_elementwise),
    Target("ResNet-50's list: faster than PyTorch fused", ("resnet50",), faster_than_fused, 1.15, least=True),
    Target("1,000 small tensors: faster than PyTorch fused", ("small",), faster_than_fused, 3, least=True),
    Target("1,000 small tensors: faster than MXNet's best", ("small",), faster_than("mxnet"), 10, least=True),
    Target("one tiny tensor per call", ("tiny",), seconds, 3e-6, unit="µs", rows=_elementwise),
    Target("one tiny tensor per call: faster than every peer", ("tiny",), faster_than_all, 1, least=True),
    Target("sparse, 1,000 rows: to the limit", ("sparse1k",), to_reference, 1.5),
    Target("sparse, 50,000 rows: to the limit", ("sparse50k",), to_reference, 1.1),
    Target("sparse, every row moves: to the dense limit", ("every",), to_reference, 1.1),
    Target("clipped by the norm of all gradients: to the limit and one more read", ("clipped",), to_reference, 1.10),
    Target("import", ("startup",), seconds, 0.35, rows=_called("import, warm"), unit="s"),
    Target("first update, warm", ("startup",), seconds, 0.5, rows=_called("first update, warm"), unit="s"),
    Target("first update, cold", ("startup",), seconds, 1.5, rows=_called("first update, cold"), unit="s"),
    Target("a core kept busy: to one thread's time", ("busy",), to_reference, 1.3),
)


@dataclass(frozen=True)
class Verdict:
    """A target and the values of its rows, worst first."""

    target: Target
    values: tuple[tuple[float, Result], ...]

    @property
    def missed(self) -> list[tuple[float, Result]]:
        return [(value, row) for value, row in self.values if not self.target.met(value)]


def check(rows: Iterable[Result]) -> list[Verdict]:
    rows, verdicts = list(rows), []
    for target in TARGETS:
        mine = [row for row in rows if row.kind in target.kinds and target.rows(row)]
        values = [(value, row) for row in mine if (value := target.value(row)) is not None]
        values.sort(key=lambda pair: pair[0], reverse=not target.least)
        verdicts.append(Verdict(target, tuple(values)))
    return verdicts
