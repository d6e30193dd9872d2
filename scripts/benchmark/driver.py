"""Runs the rows: all systems in turn, round by round, until the ratios settle or the time is up."""

from __future__ import annotations

import statistics
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager, nullcontext
from dataclasses import asdict, dataclass, field
from time import perf_counter
from typing import Any

from benchmark.cases import KINDS, Case
from benchmark.machine import Watch
from benchmark.protocol import PATIENCE, Worker, WorkerError

WANDERED = 0.05  # of its median: spread of the limit (half of its rounds) above which a row says so
SETTLED = 0.005  # uncertainty of the median ratio at which a row is done


@dataclass
class Pace:
    """How long to measure, in seconds: `turn` for one system, `trial` for one way of it, `row` for
    all rounds. `patience` is how long a system may take to get ready."""

    turn: float = 0.1
    trial: float = 0.1
    row: float = 8.0
    rounds: int = 7  # at least; slow systems take part in the first SLOW_ROUNDS only
    slow_rounds: int = 3
    patience: float = PATIENCE


@dataclass
class Times:
    """One system in one row. `rounds` are the medians of its turns, in seconds, for each way that
    takes part; None where it had no turn. Errors are those of ways that don't work."""

    rounds: dict[str, list[float | None]] = field(default_factory=dict)
    trials: dict[str, float] = field(default_factory=dict)
    errors: dict[str, str] = field(default_factory=dict)

    @property
    def way(self) -> str:
        """The best way."""
        return min(self.rounds, key=lambda way: statistics.median(_taken(self.rounds[way])))

    @property
    def best(self) -> list[float | None]:
        return self.rounds[self.way]

    @property
    def taken(self) -> list[float]:
        return _taken(self.best)

    @property
    def median(self) -> float:
        return statistics.median(self.taken)


def _taken(rounds: list[float | None]) -> list[float]:
    return [seconds for seconds in rounds if seconds is not None]


@dataclass
class Result:
    """The outcome of a case. Ratios are to `reference`, one of the systems: medians over the
    rounds, in which both stood side by side. `remarks` say what disturbed it, `failures` which
    systems couldn't do it, and why."""

    kind: str
    optimizer: str
    reference: str = "limit"
    bytes: int = 0
    systems: dict[str, Times] = field(default_factory=dict)
    remarks: list[str] = field(default_factory=list)
    failures: dict[str, str] = field(default_factory=dict)

    @property
    def unit(self) -> str:
        return KINDS[self.kind].unit

    def ratios(self, system: str, to: str | None = None) -> list[float]:
        mine, theirs = self.systems.get(system), self.systems.get(to or self.reference)
        if mine is None or theirs is None:
            return []
        return [a / b for a, b in zip(mine.best, theirs.best, strict=False) if a is not None and b is not None]

    def ratio(self, system: str, to: str | None = None) -> float | None:
        ratios = self.ratios(system, to)
        return statistics.median(ratios) if ratios else None

    def uncertainty(self, system: str) -> float:
        """How sure the median ratio is: the width of the middle half over the root of the number of
        rounds."""
        ratios = self.ratios(system)
        return spread(ratios) / len(ratios) ** 0.5 if len(ratios) > 3 else float("inf")

    def plain(self) -> dict[str, Any]:
        return asdict(self)


def make_result(data: Mapping[str, Any]) -> Result:
    return Result(**{**data, "systems": {name: Times(**times) for name, times in data["systems"].items()}})


def spread(values: list[float]) -> float:
    """The width of the middle half, as a part of the median."""
    if len(values) < 3:
        return 0.0
    low, middle, high = statistics.quantiles(values, n=4)
    return (high - low) / middle


def prepare(case: Case, workers: Mapping[str, Worker], pace: Pace, row: Result) -> dict[str, Worker]:
    """Has each worker build the case; returns those that could."""
    able = {}
    for name, worker in workers.items():
        try:
            answer = worker.ask("prepare", pace.patience, case=case.plain(), seconds=pace.trial)
        except WorkerError as error:
            row.failures[name] = str(error)
            continue
        if answer["ways"]:
            able[name] = worker
            row.systems[name] = Times({way: [] for way in answer["ways"]}, answer["trials"], answer["errors"])
        elif answer["errors"]:
            row.failures[name] = "; ".join(f"{way}: {message}" for way, message in answer["errors"].items())
    return able


def run(
    case: Case,
    workers: Mapping[str, Worker],
    pace: Pace,
    reference: str = "limit",
    around: Callable[[str], AbstractContextManager[object]] = lambda name: nullcontext(),
    helpers: tuple[int, ...] = (),
) -> Result:
    """Measures a row. `around(system)` surrounds each turn; `helpers` are processes that are meant
    to work, too."""
    row = Result(case.kind, case.optimizer, reference, case.bytes)
    able = prepare(case, workers, pace, row)
    watch = Watch([*(w.process.pid for w in workers.values() if w.alive), *helpers])
    start, involuntary, measured, done = perf_counter(), 0, 0.0, 0
    active = list(able)
    while active:
        for name in able:
            turn: dict[str, Any] = {"samples": {}}
            if name in active:
                try:
                    with around(name):
                        turn = able[name].ask("measure", seconds=pace.turn)
                    if name in ("mxopt", reference):  # the others may well have more threads than there are cores
                        involuntary, measured = involuntary + turn["involuntary"], measured + turn["wall"]
                except WorkerError as error:
                    row.failures[name] = str(error)
                    active.remove(name)
            for way, rounds in row.systems[name].rounds.items():
                samples = turn["samples"].get(way)
                rounds.append(statistics.median(samples) if samples else None)
        row.systems = {name: times for name, times in row.systems.items() if name in active or done}
        able = {name: worker for name, worker in able.items() if name in row.systems}
        done += 1
        if done >= pace.slow_rounds:
            active = [name for name in active if row.systems[name].median < 1.5 * pace.turn]
        if done >= pace.rounds and (perf_counter() - start > pace.row or settled(row)):
            break
    row.remarks += watch.remarks(involuntary, measured)
    limit = row.systems.get(reference)
    if limit is not None and spread(limit.taken) > WANDERED:
        row.remarks.append(f"the {reference} wandered by {spread(limit.taken):.0%}")
    for worker in able.values():
        if worker.alive:
            worker.ask("drop")
    return row


def settled(row: Result) -> bool:
    return "mxopt" in row.systems and row.uncertainty("mxopt") < SETTLED
