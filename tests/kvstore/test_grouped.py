"""The optimizers of `mxopt.experimental.optim` and `mxopt.nn` through stores and Trainers: the bits
of an optimizer that steps by itself."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import grouped_jobs
import numpy as np
import pytest
from bitwise import assert_same
from grouped_jobs import STORED, change_rate, drawn, grouped, parameters
from jobs import Job
from table import Grouped

from mxopt import Parameter, Trainer, kvstore, nn
from mxopt.errors import ArgumentError, ScheduleOverError, StatesError
from mxopt.experimental import optim

STRIPED: dict[str, Any] = {"MXNET_KVSTORE_BIGARRAY_BOUND": 1000}
every = pytest.mark.parametrize("row", STORED.values(), ids=str)
NADAM, SGD = "experimental.NAdam-lr=0.1-weight_decay=0.1", "experimental.SGD-lr=0.1-momentum=0.9-nesterov=True"
MOMENTUM = next(name for name in STORED if name.startswith("nn.Momentum"))
HANDED_ON = [name for name in STORED if "ASGD" in name or "amsgrad" in name]


@pytest.mark.parametrize(
    ("workers", "servers", "whole"), [(1, 1, False), (1, 2, True), (1, 2, False), (2, 2, True), (2, 2, False)]
)
def test_servers_give_the_bits_of_an_optimizer_that_steps_by_itself(workers: int, servers: int, whole: bool) -> None:
    with Job(workers, servers, **STRIPED) as job:
        job.run("grouped_jobs.optimizers", {"whole": whole})
        assert job.ended() == [0] * (1 + servers)


def test_half_precision_with_masters_gives_them_too() -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("grouped_jobs.optimizers", {"half": True})


def test_asynchronous_with_one_worker_gives_them_too() -> None:
    with Job(1, 2, **STRIPED) as job:
        job.run("grouped_jobs.optimizers", {"mode": "dist_async"})


def test_states_of_other_shapes_than_their_weights_are_saved_and_loaded_as_they_are(tmp_path: Path) -> None:
    with Job(1, 2) as job:
        job.run("grouped_jobs.odd_shapes", {"folder": str(tmp_path)})


def test_row_sparse_gradients_too() -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("grouped_jobs.sparse")


def pair(row: Grouped) -> tuple[list[Parameter], Any, list[Parameter], Any]:
    """Two optimizers of the same parameters."""
    weights, others = (parameters("p", np.random.default_rng(0)) for _ in range(2))
    return weights, grouped(row, weights), others, grouped(row, others)


@every
@pytest.mark.parametrize("one_by_one", [False, True])
def test_a_local_store_gives_them_too(row: Grouped, one_by_one: bool, rng: np.random.Generator) -> None:
    weights, here, others, stored = pair(row)
    store, keys = kvstore.create("local"), list(range(len(weights)))
    store.set_optimizer(stored)
    store.init(keys, [p.value for p in others])
    for step in range(4):
        if step == 2:
            change_rate(here, weights)
            change_rate(stored, others)
        grads = drawn(rng)
        here(tuple(grads))
        if one_by_one:
            for key in keys:
                store.pushpull(key, grads[key], out=others[key].value)
        else:
            store.pushpull(keys, grads, out=[p.value for p in others])
        assert getattr(stored, "global_step", None) == getattr(here, "global_step", None)
    assert_same([p.value for p in weights], [p.value for p in others])


@every
@pytest.mark.parametrize("in_store", [False, True])
def test_a_trainer_gives_them_too(row: Grouped, in_store: bool, rng: np.random.Generator) -> None:
    weights, here, others, trained = pair(row)
    trainer = Trainer(
        others, trained, kvstore=kvstore.create("local") if in_store else None, update_on_kvstore=in_store
    )
    for _ in range(3):
        grads = drawn(rng)
        here(tuple(grads))
        for p, grad in zip(others, grads, strict=True):
            p.grad = grad * 4
        trainer.step(4)
    assert_same([p.value for p in weights], [p.value for p in others])


TRAINERS = [{"kvstore": "dist_sync"}, {"kvstore": "dist_sync", "update_on_kvstore": False}, {"kvstore": "dist_async"}]


@pytest.mark.parametrize("trainer", TRAINERS, ids=str)
def test_a_trainer_gives_the_same_steps_with_servers_as_without_and_a_schedule_reaches_them(
    trainer: dict[str, object],
) -> None:
    alone = grouped_jobs.train({"optimizer": NADAM, "steps": 5})
    assert alone["lr"] == [0.025, 0.0175]
    with Job(1, 2, **STRIPED) as job:
        assert job.run("grouped_jobs.train", {"optimizer": NADAM, "steps": 5, "trainer": trainer}) == [alone]


@pytest.mark.parametrize("name", [SGD, MOMENTUM])
@pytest.mark.parametrize("update", [True, False])
def test_two_workers_of_a_trainer_give_the_steps_of_the_summed_gradient(name: str, update: bool) -> None:
    arguments, trainer = {"optimizer": name, "steps": 3}, {"kvstore": "dist_sync", "update_on_kvstore": update}
    with Job(2, 2) as job:
        first, second = job.run("grouped_jobs.train", {**arguments, "trainer": trainer})
    assert first == second == grouped_jobs.train({**arguments, "scale": 2})


@pytest.mark.parametrize("name", HANDED_ON)
def test_states_go_from_servers_to_a_trainer_by_itself_and_back(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "states")
    whole = grouped_jobs.train({"optimizer": name, "steps": 6})
    servers = {"trainer": {"kvstore": "dist_sync"}}
    with Job(1, 2, **STRIPED) as job:
        job.run("grouped_jobs.train", {"optimizer": name, "steps": 2, "save": path, **servers})
    grouped_jobs.train({"optimizer": name, "steps": 2, "first": 2, "load": path, "save": path})
    with Job(1, 3, **STRIPED) as job:
        arguments = {"optimizer": name, "steps": 2, "first": 4, "load": path, **servers}
        assert job.run("grouped_jobs.train", arguments) == [whole]


def test_what_a_store_cannot_do_is_refused_by_name() -> None:
    with Job(1, 1) as job:
        job.run("grouped_jobs.never_possible")


@pytest.mark.parametrize("function", ["refused_pushes", "refused_after_the_schedule"])
def test_a_refused_push_loses_nothing(function: str) -> None:
    with Job(1, 1) as job:
        job.run(f"grouped_jobs.{function}")


def test_a_trainer_takes_the_very_parameters_of_its_optimizer() -> None:
    a, b = Parameter(np.ones(2, np.float32), "a"), Parameter(np.ones(2, np.float32), "b")
    optimizer = optim.SGD([b, a], 1.0)
    with pytest.raises(ArgumentError, match="has 2 parameters, the Trainer 1"):
        Trainer([a], optimizer)
    with pytest.raises(ArgumentError, match="'c' is none of those"):
        Trainer([a, Parameter(np.ones(2, np.float32), "c")], optimizer)
    with pytest.raises(AssertionError, match="optimizer_params"):
        Trainer([a, b], optimizer, {"lr": 1})
    a.grad, b.grad = np.ones(2, np.float32), np.full(2, 2, np.float32)
    trainer = Trainer({"a": a, "b": b}, optimizer)
    trainer.step(2)
    assert (a.value.tolist(), b.value.tolist()) == ([0.5, 0.5], [0, 0])
    assert optimizer.state_dict()["state"]["a"]["step"] == 1
    trainer.set_learning_rate(0.5)
    assert trainer.learning_rate == optimizer.param_groups[0]["lr"] == 0.5
    optimizer.add_param_group({"params": [np.ones(1, np.float32)], "lr": 0.1})
    with pytest.raises(ArgumentError, match="param_groups"):
        _ = trainer.learning_rate


def test_states_of_another_optimizer_are_refused_and_nothing_changes(tmp_path: Path) -> None:
    path = str(tmp_path / "states")
    adam, adamw = (next(name for name in STORED if name.startswith(f"experimental.{n}-")) for n in ("Adam", "AdamW"))
    grouped_jobs.train({"optimizer": adam, "steps": 1, "save": path})
    params = parameters("p", np.random.default_rng(0))
    optimizer = grouped(STORED[adamw], params)
    before = optimizer.state_dict()
    with pytest.raises(StatesError, match="those of Adam, this is AdamW"):
        Trainer(params, optimizer).load_states(path)
    assert optimizer.state_dict() == before


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


@every
def test_a_states_file_has_the_same_form_from_a_store_and_from_a_trainer(
    row: Grouped, tmp_path: Path, rng: np.random.Generator
) -> None:
    grads, files = drawn(rng), []
    for store in (None, kvstore.create("local")):
        params = parameters("p", np.random.default_rng(0))
        trainer = Trainer(params, grouped(row, params), kvstore=store)
        for p, grad in zip(params, grads, strict=True):
            p.grad = grad
        trainer.step(1)
        trainer.save_states(str(tmp_path / "states"))
        files.append((tmp_path / "states").read_bytes())
    assert files[0] == files[1]
