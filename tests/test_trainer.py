"""`Trainer`, by itself, through a local store and through servers."""

# mypy: disable-error-code="arg-type, union-attr"

from __future__ import annotations

import copy
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from jobs import Job
from training import parameters, scheduled, steps

import mxopt
from mxopt import kvstore
from mxopt.errors import KVStoreError
from mxopt.experimental import optim
from mxopt.parameter import Parameter
from mxopt.sparse import row_sparse_array
from mxopt.trainer import Trainer

KINDS = [
    {"kvstore": None},
    {"kvstore": "device"},
    {"kvstore": "store"},
    {"kvstore": "store", "update_on_kvstore": False},
]


def made(**options: Any) -> tuple[dict[str, Parameter], Trainer]:
    params = parameters()
    if options.get("kvstore") == "store":
        options["kvstore"] = kvstore.create("local")
    return params, Trainer(params, "sgd", {"learning_rate": 1.0, "wd": 0.1}, **options)


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_every_kind_of_store_gives_the_same_steps(options: dict[str, Any]) -> None:
    params, trainer = made(**options)
    assert steps(params, trainer) == steps(*made(kvstore=None))
    assert params["w"].value[0, 0] == 1 - 0.5 - 0.5 - 0.25
    assert trainer.learning_rate == 0.5


@pytest.mark.parametrize(
    "options",
    [{"kvstore": "dist_sync"}, {"kvstore": "dist_sync", "update_on_kvstore": False}, {"kvstore": "dist_async"}],
    ids=str,
)
def test_servers_give_the_same_steps_and_a_changed_rate_reaches_them(options: dict[str, Any]) -> None:
    with Job(1, 2) as job:
        assert job.run("training.train", options) == [steps(*made(kvstore=None))]


@pytest.mark.parametrize("parameters", [1, 2])
@pytest.mark.parametrize(
    ("optimizer", "options"),
    [
        ("sgd", {}), ("adam", {"learning_rate": 1.0}), ("lbsgd", {"warmup_epochs": 0}),
        ("lbsgd", {"warmup_epochs": 0, "batch_scale": 2}), ("sgd", {"begin_num_update": 3}),
    ],
    ids=["sgd", "adam", "lbsgd", "lbsgd by 2", "begun at 3"],
)  # fmt: skip
def test_a_rate_assigned_to_the_schedule_counts_from_there_on_servers_too(
    optimizer: str, options: dict[str, Any], parameters: int
) -> None:
    arguments = {"optimizer": optimizer, "options": options, "parameters": parameters}
    expected = scheduled({**arguments, "grad": 1.0, "kvstore": None})
    assert scheduled({**arguments, "grad": 1.0, "kvstore": kvstore.create("local")}) == expected
    for workers in (1, 2):
        with Job(workers, 1) as job:
            shared = {**arguments, "grad": 1 / workers, "kvstore": "dist_sync"}
            assert job.run("training.scheduled", shared) == [expected] * workers


def test_two_workers_sum_their_gradients() -> None:
    with Job(2, 1) as job:
        first, second = job.run("training.train", {"kvstore": "dist_sync"})
    assert first == second
    assert first[0][0][0] == 1 - 1 - 1 - 0.5


@pytest.mark.parametrize("options", KINDS, ids=str)
@pytest.mark.parametrize("experimental", [False, True])
def test_set_data_reaches_the_store_and_keeps_the_states(options: dict[str, Any], experimental: bool) -> None:
    if options.get("kvstore") == "store":
        options = {**options, "kvstore": kvstore.create("local")}
    params = [Parameter(np.ones(2, np.float16), "a"), Parameter(np.ones(2, np.float16), "b")]
    if experimental:
        trainer = Trainer(params, optim.SGD(params, 1.0, momentum=0.5, multi_precision=True), **options)
    else:
        kwargs = {"learning_rate": 1.0, "momentum": 0.5, "multi_precision": True}
        trainer = Trainer(params, "sgd", kwargs, **options)
    for step in range(2):
        for p in params:
            p.grad = np.ones(2, np.float16)
        if step == 1:
            params[1].set_data(np.full(2, 5))
        trainer.step(1)
    assert params[0].value.tolist() == [1 - 1 - 1.5] * 2
    assert params[1].value.tolist() == [5 - 1.5] * 2
    assert copy.deepcopy(params[0]).value.tolist() == params[0].value.tolist()


@pytest.mark.parametrize("update", [True, False])
def test_set_data_is_refused_only_where_servers_hold_the_value(update: bool) -> None:
    with Job(1, 1) as job:
        job.run("training.set_data", {"update_on_kvstore": update})


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_states_are_saved_and_resumed(tmp_path: Path, options: dict[str, Any]) -> None:
    params, trainer = made(**options)
    steps(params, trainer)
    trainer.save_states(str(tmp_path / "s"))
    _, other = made(**options)
    other.load_states(str(tmp_path / "s"))
    assert other.learning_rate == 0.5
    assert other.optimizer.num_update == 3


def test_summing_and_updating_apart() -> None:
    params, trainer = made(kvstore="store", update_on_kvstore=False)
    for p in params.values():
        p.grad = np.ones(p.shape, np.float32)
    trainer.allreduce_grads()
    trainer.update(1)
    assert params["w"].value[0, 0] == 0
    _, trainer = made(kvstore="store")
    with pytest.raises(AssertionError, match="update_on_kvstore"):
        trainer.update(1)
    with pytest.raises(AssertionError, match="update_on_kvstore"):
        trainer.allreduce_grads()


def test_plain_arrays_become_parameters_over_the_same_memory() -> None:
    w, b = np.ones(2, np.float32), np.ones(3, np.float32)
    trainer = Trainer({"w": w, "b": b}, "sgd", {"learning_rate": 1.0})
    assert [p.name for p in trainer.parameters] == ["b", "w"]
    for p in trainer.parameters:
        p.grad = np.ones(p.shape, np.float32)
    trainer.step(2)
    assert (w.tolist(), b.tolist()) == ([0.5] * 2, [0.5] * 3)
    with pytest.raises(ValueError, match="give the same to both"):
        Trainer([w], optim.SGD([w], 1.0))
    with pytest.raises(ValueError, match="got a str at 1"):
        Trainer([w, "b"], "sgd")


def test_a_subclass_may_sum_in_a_way_of_its_own() -> None:
    class Twice(Trainer):
        def _allreduce_grads(self) -> None:
            for param in self._params:
                if param.grad_req != "null":
                    param.list_grad()[0][:] *= 2

    for how in ("step", "apart"):
        params = parameters()
        trainer = Twice(params, "sgd", {"learning_rate": 1.0})
        for p in params.values():
            p.grad = np.ones(p.shape, np.float32)
        if how == "step":
            trainer.step(4)
        else:
            trainer.allreduce_grads()
            trainer.update(4)
        assert params["w"].value[0, 0] == 1 - 2 / 4


@pytest.mark.parametrize("update_on_kvstore", [None, True, False])
@pytest.mark.parametrize("store", ["local", "device", "object"])
def test_row_sparse_gradients(store: str, update_on_kvstore: bool | None) -> None:
    p, q = Parameter(np.ones((3, 2), np.float32), "p"), Parameter(np.ones(2, np.float32), "q")
    p.grad, q.grad = row_sparse_array((np.ones((1, 2), np.float32), [1]), shape=(3, 2)), np.ones(2, np.float32)
    where = kvstore.create("local") if store == "object" else store
    trainer = Trainer([p, q], "sgd", {"learning_rate": 0.5}, kvstore=where, update_on_kvstore=update_on_kvstore)
    if update_on_kvstore is False:
        trainer.allreduce_grads()
        trainer.update(1)
    else:
        trainer.step(1)
    assert p.value[:, 0].tolist() == [1, 0.5, 1]
    assert q.value.tolist() == [0.5, 0.5]


@pytest.mark.parametrize("batch_size", [0, -2, 0.0, float("nan"), float("inf"), None, "4", [1], np.zeros(2)], ids=repr)
@pytest.mark.parametrize("apart", [False, True])
def test_a_batch_size_that_nothing_can_be_divided_by_changes_nothing(batch_size: object, apart: bool) -> None:
    params, trainer = made(kvstore="store", update_on_kvstore=False)
    steps(params, trainer)
    before = [p.value.tolist() for p in params.values()], trainer.optimizer.num_update, trainer.optimizer.rescale_grad
    with pytest.raises(ValueError, match="batch_size must be a number above 0"):
        (trainer.update if apart else trainer.step)(batch_size)
    after = [p.value.tolist() for p in params.values()], trainer.optimizer.num_update, trainer.optimizer.rescale_grad
    assert after == before


def test_a_step_that_fails_leaves_the_optimizer_as_it_was() -> None:
    params, trainer = made()
    steps(params, trainer)
    before = trainer._updater.get_states(dump_optimizer=True)
    params["w"].grad = np.ones(5, np.float32)
    with pytest.raises(ValueError, match="shape"):
        trainer.step(17)
    assert trainer._updater.get_states(dump_optimizer=True) == before


def test_a_parameter_without_gradient_stops_the_step() -> None:
    params, trainer = made()
    params["w"].grad = np.ones((3, 2), np.float32)
    with pytest.raises(UserWarning, match="'b' has no gradient"):
        trainer.step(1)
    trainer.step(1, ignore_stale_grad=True)
    assert params["b"].value.tolist() == [2, 2]


def test_what_cannot_be_is_refused() -> None:
    with pytest.raises(ValueError, match="Parameter"):
        Trainer(3, "sgd")
    with pytest.raises(TypeError, match="optimizer_params must be a dict"):
        Trainer([], "sgd", 0.1)
    with pytest.raises(AssertionError):
        Trainer([], mxopt.create("sgd"), {"learning_rate": 1})
    params, _ = made()
    for p in params.values():
        p.grad = np.ones(p.shape, np.float32)
    with pytest.raises(ValueError, match="TestStore"):
        Trainer(params, "sgd", kvstore=kvstore.create("teststore"), update_on_kvstore=True).step(1)
    with pytest.raises(TypeError):
        Trainer(params, "sgd", kvstore=3).step(1)


def test_a_trainer_that_cannot_be_made_leaves_optimizer_store_and_names_as_they_were() -> None:
    """Also while the error is held on to, as a notebook does."""
    good, optimizer, store = Parameter(np.ones(2, np.float32)), mxopt.create("adam"), kvstore.create("local")
    held = []
    for params, options in (({"a": good, "b": "no array"}, {}), ([good], {"optimizer_params": {"wd": 1}})):
        with pytest.raises((ValueError, AssertionError)) as caught:
            Trainer(params, optimizer, kvstore=store, **options)
        held.append(caught.value)
    assert (optimizer.param_dict, good.name) == ({}, None)
    trainer = Trainer([good], optimizer, kvstore=store)
    good.grad = np.ones(2, np.float32)
    trainer.step(1)
    assert (good.value < 1).all()


def test_a_dict_may_have_a_parameter_twice_or_numbers_for_keys() -> None:
    shared = Parameter(np.ones(2, np.float32))
    with pytest.warns(UserWarning, match="stand twice among params are updated once: 'decoder'"):
        trainer = Trainer({"encoder": shared, "decoder": shared}, "sgd")
    assert trainer.parameters == [shared]
    numbered = Trainer({1: np.ones(2, np.float32), 0: np.ones(3, np.float32)}, "sgd").parameters
    assert [(p.name, p.shape) for p in numbered] == [(None, (3,)), (None, (2,))]
    with pytest.raises(ValueError, match="must all be texts"):
        Trainer({1: shared, "a": np.ones(2, np.float32)}, "sgd")


def test_a_store_without_optimizer_only_sums() -> None:
    params, trainer = made(kvstore=kvstore.create("teststore"))
    assert steps(params, trainer) == steps(*made(kvstore=None))


def two() -> list[Parameter]:
    """Two parameters with gradients."""
    params = [Parameter(np.zeros(2, np.float32), name=name) for name in "ab"]
    for param in params:
        param.grad = np.ones(2, np.float32)
    return params


@pytest.mark.parametrize("experimental", [False, True])
def test_an_optimizer_has_one_trainer(experimental: bool) -> None:
    a, b = two()
    optimizer = optim.Adam([a]) if experimental else mxopt.create("adam")
    trainer = Trainer([a], optimizer)
    trainer.step(1)
    before = a.value.copy()
    with pytest.raises(ValueError, match="Adam is another Trainer's already"):
        Trainer([a] if experimental else {"renamed": b}, optimizer)
    if not experimental:
        assert optimizer.param_dict == {0: a}
    assert np.array_equal(a.value, before)
    assert trainer.optimizer is optimizer
    del trainer
    assert Trainer([a], optimizer).optimizer is optimizer  # whose Trainer is gone


@pytest.mark.parametrize("update_on_kvstore", [True, False])
def test_a_store_has_one_trainer(update_on_kvstore: bool) -> None:
    a, b = two()
    store = kvstore.create("local")
    first = Trainer([a], "sgd", {"learning_rate": 1.0}, kvstore=store, update_on_kvstore=update_on_kvstore)
    with pytest.raises(ValueError, match="KVStore is another Trainer's already"):
        Trainer([b], "adam", kvstore=store, update_on_kvstore=update_on_kvstore)
    first.step(1)
    assert a.value.tolist() == [-1, -1]
    sums = kvstore.create("teststore")  # keeps nothing: any number may sum with it
    for param in (a, b):
        Trainer([param], "sgd", kvstore=sums).step(1)


@pytest.mark.parametrize("key", [1, "w"])
def test_a_store_that_has_the_keys_already_is_left_as_it_is(key: int | str) -> None:
    store = kvstore.create("local")
    store.init(key, np.zeros(2, np.float32))
    store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
    with pytest.raises(KVStoreError, match="key"):
        Trainer(two(), "adam", kvstore=store, update_on_kvstore=True).step(1)
    store.push(key, np.ones(2, np.float32))
    out = np.zeros(2, np.float32)
    store.pull(key, out)
    assert out.tolist() == [-1, -1]  # by its own optimizer, and the first update


def test_init_of_several_keys_takes_all_or_none() -> None:
    store = kvstore.create("local")
    store.init(1, np.zeros(1, np.float32))
    with pytest.raises(KVStoreError, match="key 1 is initialised already"):
        store.init([0, 1], [np.zeros(1, np.float32)] * 2)
    store.init(0, np.zeros(1, np.float32))


@pytest.mark.parametrize("options", KINDS, ids=str)
def test_a_parameter_that_stands_twice_is_updated_once(options: dict[str, Any]) -> None:
    if options.get("kvstore") == "store":
        options = {**options, "kvstore": kvstore.create("local")}
    a, b = two()
    with pytest.warns(UserWarning, match="updated once: 'a'"):
        trainer = Trainer([a, b, a], "sgd", {"learning_rate": 1.0}, **options)
    assert trainer.parameters == [a, b]
    trainer.step(1)
    assert [p.value.tolist() for p in (a, b)] == [[-1, -1]] * 2


@pytest.mark.parametrize("update", [True, False])
def test_a_parameter_without_a_gradient_on_one_worker_counts_as_zeros_there(update: bool) -> None:
    with Job(2, 1) as job:
        job.run("training.stale", {"update_on_kvstore": update})
