"""Jobs whose scripts save checkpoints and begin with them."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from simulation.disk import MOMENTS
from simulation.jobs import Job, Plan
from simulation.network import Weather
from simulation.programs import result

import mxopt
from mxopt.document import load_document
from mxopt.kvstore import messages as m, wire

SHAPES = {"small": (5,), "striped": (300,)}
KEYS, STEPS, SAVED = list(SHAPES), 16, 4
PLAN = Plan("", "sync", 2, 2, weather=Weather(0.005), pause=2.0, durability="journal")


def training(
    store: Any, pause: Callable[[], None], load: Path | None = None, save: dict[int, Path] | None = None
) -> bytes:
    """Whole steps of exact arithmetic, in any order; `save` says before which a checkpoint is
    written to which folder."""
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, momentum=0.5))
    weights = [np.zeros(shape, np.float32) for shape in SHAPES.values()]
    if load is None:
        store.init(KEYS, weights)
    else:
        store.load_checkpoint(load)
    store.pull(KEYS, weights)
    for step in range(store.round("small"), STEPS):
        pause()
        if step in (save or {}):
            assert save is not None
            store.save_checkpoint(save[step])
        store.pushpull(KEYS, [np.full_like(weight, 2.0 ** (step % 3)) for weight in weights], out=weights)
    store.barrier()
    store.pull(KEYS, weights)
    return result(weights)


def results(job: Job) -> list[bytes]:
    job.run()
    return [worker.result or repr(worker.error).encode() for worker in job.workers]


@pytest.fixture(scope="module")
def saved(tmp_path_factory: pytest.TempPathFactory) -> dict[int, Path]:
    """Checkpoints of two moments of one training."""
    folders = {step: tmp_path_factory.mktemp("saved") / str(step) for step in (SAVED, 2 * SAVED)}
    first, second = results(Job(PLAN, partial(training, save=folders)))
    assert first == second
    return folders


@pytest.fixture(scope="module")
def expected() -> bytes:
    first, second = results(Job(PLAN, training))
    assert first == second
    return first


def test_a_job_that_begins_with_a_checkpoint_ends_with_the_same_bits(saved: dict[int, Path], expected: bytes) -> None:
    assert results(Job(PLAN, partial(training, load=saved[SAVED]))) == [expected] * 2


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
@pytest.mark.parametrize("began", ["with init", "with a checkpoint"])
def test_a_job_that_is_taken_up_again_goes_on_from_its_own_state_whichever_checkpoint_its_script_loads(
    durability: str, began: str, saved: dict[int, Path], expected: bytes
) -> None:
    later = 0
    for seed in range(4):
        plan = replace(PLAN, seed=seed, durability=durability, death=(26.0 + seed, "worker 1"))
        job = Job(plan, partial(training, load=saved[SAVED] if began == "with a checkpoint" else None))
        job.run()
        again = Job(replace(plan, death=None), partial(training, load=saved[2 * SAVED]), job.root)
        assert results(again) == [expected] * 2, seed
        later += any(node.goes_on > 0 for node in again.scheduler.roster)
    assert later


@pytest.mark.parametrize("moment", MOMENTS)
def test_servers_that_die_in_a_job_which_began_with_a_checkpoint_lose_nothing(
    moment: str, saved: dict[int, Path], expected: bytes
) -> None:
    for record in range(0, 24, 3):
        plan = replace(PLAN, seed=record, crashes={0: (record, moment, 0.5), 1: (record + 1, moment, 0.5)})
        assert results(Job(plan, partial(training, load=saved[SAVED]))) == [expected] * 2, record


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_key_that_a_job_which_goes_on_lacks_begins_with_the_checkpoints_states_too(
    mode: str, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    def program(store: Any, pause: Callable[[], None], keys: list[str], last: int, load: bool, save: bool) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, momentum=0.5))
        weights = [np.zeros(SHAPES[key], np.float32) for key in keys]
        store.load_checkpoint(tmp_path) if load else store.init(keys, weights)
        for key, weight in zip(keys, weights, strict=True):
            for step in range(store.round(key), last):
                pause()
                store.pushpull(key, np.full_like(weight, 2.0 ** (step % 3)), out=weight)
        if save:
            store.save_checkpoint(tmp_path)
        store.barrier()
        store.pull(keys, weights)
        return result(weights)

    plan = replace(PLAN, mode=mode, workers=2 if mode == "sync" else 1)
    saved = results(Job(plan, partial(program, keys=KEYS, last=SAVED, load=False, save=True)))
    expected = results(Job(plan, partial(program, keys=KEYS, last=STEPS, load=False, save=False)))
    assert saved != expected
    first = Job(plan, partial(program, keys=KEYS[:1], last=STEPS, load=False, save=False))
    results(first)
    again = Job(plan, partial(program, keys=KEYS, last=STEPS, load=True, save=False), first.root)
    found = results(again)
    if mode == "sync":
        assert max(node.goes_on for node in again.scheduler.roster) not in (0, SAVED)
        assert found == expected
        assert "left out" not in caplog.text
    else:
        assert found != expected
        assert "the checkpoint's states of 'striped' are left out" in caplog.text


def test_a_checkpoint_is_whole_though_servers_are_killed_while_it_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its states, and its rows, which a server that comes back has in another order."""
    monkeypatch.setattr(wire, "CHUNK_BYTES", 64)
    doomed: set[tuple[type, str, int]] = set()  # by question, key and server: in the middle of the answers

    def program(store: Any, pause: Callable[[], None], folder: Path, kills: bool) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, momentum=0.5))
        store.init(["dense", "table"], [np.zeros(300, np.float32), mxopt.sparse.table((500, 2), init="uniform")])
        for step in range(6):
            ids = np.arange(460 - 40 * step, 500 - 40 * step)
            rows = np.full((len(ids), 2), 2.0**step, np.float32)
            store.push("table", mxopt.sparse.row_sparse_array((rows, ids), (500, 2)))
            store.pushpull("dense", np.full(300, 2.0**step, np.float32), out=np.zeros(300, np.float32))
        for _ in range(30):  # while there are checkpoints of the servers
            pause()
            store.pushpull("dense", np.zeros(300, np.float32), out=np.zeros(300, np.float32))
        send = store._connections.send

        def killing(server: int, message: Any, *more: Any) -> None:
            send(server, message, *more)
            about = type(message), getattr(message, "key", ""), server
            if isinstance(message, m.FetchStates | m.ListRows) and message.offset >= 192 and about not in doomed:
                doomed.add(about)
                store._job.servers[server].kill()
                store._job._start_again(server)

        if kills and store.rank == 0:
            store._connections.send = killing
        store.save_checkpoint(folder)
        return (folder / "checkpoint").read_bytes()

    plan = replace(PLAN, pause=0.3, again=1)
    expected = results(Job(plan, partial(program, folder=tmp_path / "a", kills=False)))
    job = Job(plan, partial(program, folder=tmp_path / "b", kills=True))
    found = results(job)
    assert len(doomed) == 2 * 3  # states of two keys, and rows of one, on two servers
    weights = [load_document(document)["weights"]["table"].row_count for document in (expected[0], found[0])]
    assert weights == [240, 240]
    assert load_document(found[0])["rounds"].keys() == load_document(expected[0])["rounds"].keys()


def test_workers_that_have_read_different_checkpoints_are_told(saved: dict[int, Path]) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        return training(store, pause, saved[SAVED * (1 + store.rank)])

    of_0, of_1 = results(Job(PLAN, program))
    assert b"worker 1 has read another checkpoint than worker 0" in of_1
    assert b"worker 1" in of_0


def test_an_asynchronous_job_whose_workers_have_read_different_checkpoints_goes_on_from_that_of_worker_0(
    saved: dict[int, Path],
) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, momentum=0.5))
        store.load_checkpoint(saved[SAVED * (1 + store.rank)])
        return bytes([store.round("small"), store.round("striped")])

    assert results(Job(replace(PLAN, mode="async"), program)) == [bytes([SAVED, SAVED])] * 2


def test_what_was_trained_before_a_checkpoint_is_loaded_keeps_its_states(saved: dict[int, Path]) -> None:
    def program(store: Any, pause: Callable[[], None], loads: bool) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0, momentum=0.5))
        weight = np.zeros(3, np.float32)
        store.init("before", weight)
        store.pushpull("before", np.ones_like(weight), out=weight)
        if loads:
            store.load_checkpoint(saved[SAVED])
        store.pushpull("before", np.ones_like(weight), out=weight)
        return result([weight])

    assert results(Job(PLAN, partial(program, loads=True))) == results(Job(PLAN, partial(program, loads=False)))


def test_a_checkpoint_that_worker_0_does_not_write_is_an_error(tmp_path: Path) -> None:
    def program(store: Any, pause: Callable[[], None]) -> bytes:
        if store.rank == 0:
            store.barrier()
            store.barrier()
        else:
            store.save_checkpoint(tmp_path)
        return b"saved"

    assert b"worker 0, which writes it, hasn't called it" in results(Job(PLAN, program))[1]
