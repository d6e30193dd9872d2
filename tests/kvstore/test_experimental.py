"""The optimizers of `mxopt.experimental.optim` through stores: the bits of an optimizer that steps
by itself."""

from __future__ import annotations

from pathlib import Path

import experimental
import numpy as np
import pytest
from experimental import SHAPES, TABLE, grouped, parameters
from jobs import Job

from mxopt import Parameter, Trainer, kvstore
from mxopt.errors import ArgumentError, StatesError
from mxopt.experimental import optim

STRIPED = {"MXNET_KVSTORE_BIGARRAY_BOUND": 1000}


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (1, 2), (2, 2)])
def test_servers_give_the_bits_of_an_optimizer_that_steps_by_itself(workers: int, servers: int) -> None:
    with Job(workers, servers, **STRIPED) as job:
        assert job.run("experimental.optimizers", {}) == [[]] * workers
        assert job.ended() == [0] * (1 + servers)


@pytest.mark.parametrize("workers", [1, 2])
def test_those_that_hand_a_number_on_give_them_with_whole_arrays(workers: int) -> None:
    with Job(workers, 2, **STRIPED) as job:
        assert job.run("experimental.optimizers", {"whole": True}) == [[]] * workers


def test_half_precision_with_masters_gives_them_too() -> None:
    with Job(2, 2, **STRIPED) as job:
        assert job.run("experimental.optimizers", {"half": True}) == [[], []]


def test_asynchronous_with_one_worker_gives_them_too() -> None:
    with Job(1, 2, **STRIPED) as job:
        assert job.run("experimental.optimizers", {"mode": "dist_async"}) == [[]]


def test_row_sparse_gradients_too() -> None:
    with Job(2, 2, **STRIPED) as job:
        assert job.run("experimental.sparse") == [[], []]


@pytest.mark.parametrize("name", TABLE)
def test_a_local_store_gives_them_too(name: str, rng: np.random.Generator) -> None:
    weights, others = (parameters("p", np.random.default_rng(0), np.float32) for _ in range(2))
    here, stored = grouped(TABLE[name], weights), grouped(TABLE[name], others)
    store, keys = kvstore.create("local"), list(range(len(SHAPES)))
    store.set_optimizer(stored)
    store.init(keys, [p.value for p in others])
    for step in range(4):
        if step == 2:
            here.param_groups[0]["lr"] = stored.param_groups[0]["lr"] = 0.03
        grads = [rng.normal(size=s).astype(np.float32) for s in SHAPES]
        here(grads)
        store.pushpull(keys, grads, out=[p.value for p in others])
    assert [p.value.tobytes() for p in weights] == [p.value.tobytes() for p in others]


TRAINERS = [{"kvstore": "dist_sync"}, {"kvstore": "dist_sync", "update_on_kvstore": False}, {"kvstore": "dist_async"}]


@pytest.mark.parametrize("trainer", TRAINERS, ids=str)
def test_a_trainer_gives_the_same_steps_with_servers_as_without_and_a_schedule_reaches_them(
    trainer: dict[str, object],
) -> None:
    alone = experimental.train({"optimizer": "NAdam", "steps": 5})
    assert alone["lr"] == [0.025, 0.0175]
    with Job(1, 2, **STRIPED) as job:
        assert job.run("experimental.train", {"optimizer": "NAdam", "steps": 5, "trainer": trainer}) == [alone]


@pytest.mark.parametrize("update", [True, False])
def test_two_workers_of_a_trainer_give_the_steps_of_the_summed_gradient(update: bool) -> None:
    arguments = {"optimizer": "SGD momentum", "steps": 3}
    trainer = {"kvstore": "dist_sync", "update_on_kvstore": update}
    with Job(2, 1) as job:
        first, second = job.run("experimental.train", {**arguments, "trainer": trainer})
    assert first == second == experimental.train({**arguments, "scale": 2})


@pytest.mark.parametrize("name", ["ASGD", "Adam amsgrad"])
def test_states_go_from_servers_to_a_trainer_by_itself_and_back(tmp_path: Path, name: str) -> None:
    path = str(tmp_path / "states")
    whole = experimental.train({"optimizer": name, "steps": 6})
    servers = {"trainer": {"kvstore": "dist_sync"}}
    with Job(1, 2, **STRIPED) as job:
        job.run("experimental.train", {"optimizer": name, "steps": 2, "save": path, **servers})
    experimental.train({"optimizer": name, "steps": 2, "first": 2, "load": path, "save": path})
    with Job(1, 3, **STRIPED) as job:
        arguments = {"optimizer": name, "steps": 2, "first": 4, "load": path, **servers}
        assert job.run("experimental.train", arguments) == [whole]


def test_what_a_store_cannot_do_is_refused_by_name() -> None:
    with Job(1, 1) as job:
        (said,) = job.run("experimental.refused")
    assert [text.partition(":")[0] for text in said[:6]] == [
        *["ArgumentError"] * 3,
        "StatesError",
        *["ArgumentError"] * 2,
    ]
    for text, part in zip(
        said,
        ["made 1 step already", "Own defines construct", "'secret'", "experimental optimizer is 'Unknown'",
         "key 'x' is no parameter", "other states", "[0.79999"],
        strict=True,
    ):  # fmt: skip
        assert part in text


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
    experimental.train({"optimizer": "Adam", "steps": 1, "save": path})
    params = parameters("p", np.random.default_rng(0), np.float32)
    optimizer = grouped(TABLE["AdamW"], params)
    before = optimizer.state_dict()
    with pytest.raises(StatesError, match="those of Adam, this is AdamW"):
        Trainer(params, optimizer).load_states(path)
    assert optimizer.state_dict() == before
