"""The optimizers of `mxopt.nn` through stores and Trainers: the bits of an optimizer that steps by
itself."""

from __future__ import annotations

from pathlib import Path

import nn_jobs
import numpy as np
import pytest
from experimental import SHAPES, parameters
from jobs import Job
from nn_jobs import TABLE, change_rate, grouped

from mxopt import Parameter, Trainer, kvstore, nn
from mxopt.errors import ArgumentError, ScheduleOverError, StatesError

STRIPED = {"MXNET_KVSTORE_BIGARRAY_BOUND": 1000}


@pytest.mark.parametrize("whole", [False, True])
def test_servers_give_the_bits_of_an_optimizer_that_steps_by_itself(whole: bool) -> None:
    with Job(2, 2, **STRIPED) as job:
        assert job.run("nn_jobs.optimizers", {"whole": whole}) == [[]] * 2
        assert job.ended() == [0] * 3


def test_asynchronous_with_one_worker_gives_them_too() -> None:
    with Job(1, 2, **STRIPED) as job:
        assert job.run("nn_jobs.optimizers", {"mode": "dist_async", "whole": False}) == [[]]


@pytest.mark.parametrize("one_by_one", [False, True])
@pytest.mark.parametrize("name", TABLE)
def test_a_local_store_gives_them_too(name: str, one_by_one: bool, rng: np.random.Generator) -> None:
    weights, others = (parameters("p", np.random.default_rng(0), np.float32) for _ in range(2))
    here, stored = grouped(name, weights), grouped(name, others)
    store, keys = kvstore.create("local"), list(range(len(SHAPES)))
    store.set_optimizer(stored)
    store.init(keys, [p.value for p in others])
    for step in range(4):
        if step == 2:
            change_rate(here, weights)
            change_rate(stored, others)
        grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        here(tuple(grads))
        if one_by_one:
            for key in keys:
                store.pushpull(key, grads[key], out=others[key].value)
        else:
            store.pushpull(keys, grads, out=[p.value for p in others])
        assert stored.global_step == here.global_step
    assert [p.value.tobytes() for p in weights] == [p.value.tobytes() for p in others]


TRAINERS = [{}, {"kvstore": "local", "update_on_kvstore": True}]


@pytest.mark.parametrize("trainer", TRAINERS, ids=str)
@pytest.mark.parametrize("name", TABLE)
def test_a_trainer_gives_them_too(name: str, trainer: dict[str, object], rng: np.random.Generator) -> None:
    weights, others = (parameters("p", np.random.default_rng(0), np.float32) for _ in range(2))
    here, trained = grouped(name, weights), grouped(name, others)
    if trainer:
        trainer = {**trainer, "kvstore": kvstore.create("local")}
    trainer = Trainer(others, trained, **trainer)
    for _ in range(3):
        grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        here(tuple(grads))
        for p, grad in zip(others, grads, strict=True):
            p.grad = grad * 4
        trainer.step(4)
    assert [p.value.tobytes() for p in weights] == [p.value.tobytes() for p in others]


@pytest.mark.parametrize("update", [True, False])
def test_two_workers_of_a_trainer_give_the_steps_of_the_summed_gradient_by_a_schedule(update: bool) -> None:
    arguments = {"optimizer": "Momentum", "steps": 3}
    trainer = {"kvstore": "dist_sync", "update_on_kvstore": update}
    with Job(2, 2) as job:
        first, second = job.run("nn_jobs.train", {**arguments, "trainer": trainer})
    assert first == second == nn_jobs.train({**arguments, "scale": 2})


@pytest.mark.parametrize("name", ["ASGD", "Adam, amsgrad"])
def test_states_go_from_servers_to_a_trainer_by_itself_and_back(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "states")
    whole = nn_jobs.train({"optimizer": name, "steps": 6})
    servers = {"trainer": {"kvstore": "dist_sync"}}
    with Job(1, 2, **STRIPED) as job:
        job.run("nn_jobs.train", {"optimizer": name, "steps": 2, "save": path, **servers})
    nn_jobs.train({"optimizer": name, "steps": 2, "first": 2, "load": path, "save": path})
    with Job(1, 3, **STRIPED) as job:
        assert job.run("nn_jobs.train", {"optimizer": name, "steps": 2, "first": 4, "load": path, **servers}) == [whole]


def test_what_a_store_cannot_do_is_refused_by_name() -> None:
    with Job(1, 1) as job:
        (said,) = job.run("nn_jobs.refused")
    for text, part in zip(
        said,
        ["ArgumentError: LARS defines construct", "ArgumentError: Own defines construct",
         "StatesError: server 0: the saved optimizer of mxopt.nn is 'Unknown'",
         "ArgumentError: the SGD has made 1 step already",
         "ScheduleOverError: SGD: learning_rate lists 2 values, there is none for step 2", "[0.25, 0.25, 0.25]"],
        strict=True,
    ):  # fmt: skip
        assert part in text


def test_a_trainer_sets_the_rate_and_saves_after_the_last_of_a_list(tmp_path: Path) -> None:
    w = Parameter(np.ones(2, np.float32), "w")
    trainer = Trainer([w], nn.SGD([w], 0.5))
    trainer.set_learning_rate(0.25)
    w.grad = np.ones(2, np.float32)
    trainer.step(1)
    assert (w.value.tolist(), trainer.learning_rate) == ([0.75, 0.75], 0.25)
    w = Parameter(np.ones(2, np.float32), "w")
    trainer = Trainer([w], nn.SGD([w], [0.5]))
    w.grad = np.ones(2, np.float32)
    trainer.step(1)
    trainer.save_states(str(tmp_path / "states"))
    trainer.load_states(str(tmp_path / "states"))
    with pytest.raises(ScheduleOverError):
        trainer.step(1)
    with pytest.raises(ArgumentError, match="a schedule gives the learning rate"):
        trainer.set_learning_rate(0.1)
    with pytest.raises(StatesError, match="those of SGD, this is Momentum"):
        Trainer([w], nn.Momentum([w], 0.5, 0.9)).load_states(str(tmp_path / "states"))


def test_a_states_file_has_the_same_form_from_a_store_and_from_a_trainer(
    tmp_path: Path, rng: np.random.Generator
) -> None:
    grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
    files = []
    for store in (None, kvstore.create("local")):
        params = parameters("p", np.random.default_rng(0), np.float32)
        trainer = Trainer(params, grouped("ASGD", params), kvstore=store)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        trainer.step(1)
        trainer.save_states(str(tmp_path / "states"))
        files.append((tmp_path / "states").read_bytes())
    assert files[0] == files[1]
