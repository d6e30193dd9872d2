"""The local stores: MXNet's values, orders and errors. Numbers in comments are lines of
docs/departures-kvstore.md."""

from __future__ import annotations

import enum
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import kvstore
from mxopt.errors import ArrayError, KVStoreError, NotInitializedError
from mxopt.kvstore import KVStoreBase
from mxopt.kvstore.values import total
from mxopt.sparse import row_sparse_array
from mxopt.typing import Array


def full(x: float, n: int = 2) -> np.ndarray:
    return np.full(n, x, np.float32)


def pulled(kv: kvstore.KVStore, key: Any, like: np.ndarray) -> Any:
    out = np.zeros_like(like)
    kv.pull(key, out)
    return out.tolist()


@pytest.mark.parametrize(
    "name", ["local", "device", "local_update_cpu", "local_allreduce_cpu", "local_allreduce_device", "LOCAL"]
)
def test_a_push_replaces_and_a_list_is_summed(name: str) -> None:  # 1
    kv = kvstore.create(name)
    kv.init(3, full(1))
    assert pulled(kv, 3, full(0)) == [1, 1]
    kv.push(3, full(10))
    assert pulled(kv, 3, full(0)) == [10, 10]
    kv.push(3, [full(2), full(3)])
    assert pulled(kv, 3, full(0)) == [5, 5]
    assert kv.type == name.lower()
    assert (kv.rank, kv.num_workers) == (0, 1)


def test_a_pushed_array_may_be_changed_afterwards() -> None:  # 4
    kv = kvstore.create()
    kv.init("a", full(1))
    pushed = full(5)
    kv.push("a", pushed)
    pushed[:] = 77
    assert pulled(kv, "a", full(0)) == [5, 5]


def test_a_key_given_twice_is_one_push_of_the_sum() -> None:  # 7
    kv = kvstore.create()
    calls = []
    kv.init(3, full(0))
    kv._set_updater(lambda key, value, stored: calls.append((key, value.tolist())))
    kv.push([3, 3], [full(1), full(2)])
    assert calls == [(3, [3, 3])]


def note(calls: list[Any], key: int | str, *arrays: Array) -> None:
    calls.append(key)


def test_the_updater_sees_int_keys_ascending_and_str_keys_as_initialised() -> None:  # 8
    for keys, expected in (([5, 1, 3], [1, 3, 5]), (["a", "m", "z"], ["z", "a", "m"])):
        kv = kvstore.create()
        kv.init(keys if isinstance(keys[0], int) else ["z", "a", "m"], [full(0)] * 3)
        calls: list[Any] = []
        kv._set_updater(partial(note, calls))
        kv.push(keys, [full(1)] * 3)
        assert calls == expected


@pytest.mark.parametrize("n", [2, 3, 4, 5, 6, 9])
@pytest.mark.parametrize("dtype", [np.float32, np.float16])
def test_the_order_of_sums(n: int, dtype: str) -> None:  # 14
    values = [np.random.default_rng(k).normal(size=500).astype(dtype) for k in range(n)]
    left = values[0]
    for v in values[1:]:
        left = left + v
    blocks = values[0]
    for k in range(1, n, 4):
        block = values[k]
        for v in values[k + 1 : k + 4]:
            block = block + v
        blocks = blocks + block
    assert total(values, blocks=False).tobytes() == left.tobytes()
    assert total(values, blocks=True).tobytes() == blocks.tobytes()


def test_bad_keys_and_shapes_are_refused() -> None:  # 6, 9, 12, 13
    kv = kvstore.create()
    kv.init(3, full(1))
    with pytest.raises(NotInitializedError, match="4"):
        kv.push(4, full(1))
    with pytest.raises(NotInitializedError, match="4"):
        kv.pull(4, full(1))
    with pytest.raises(KVStoreError, match="duplicate init"):
        kv.init(3, full(1))
    with pytest.raises(KVStoreError, match="don't mix"):
        kv.push("a", full(1))
    with pytest.raises(AssertionError):
        kv.push([3, "a"], [full(1)] * 2)
    with pytest.raises(AssertionError):
        kv.push(1.5, full(1))  # type: ignore[arg-type]
    with pytest.raises(AssertionError):
        kv.push([3, 3], [full(1)])
    with pytest.raises(AssertionError):
        kv.pull(3)
    with pytest.raises(ValueError, match=r"\(2,\)"):
        kv.pull(3, np.zeros((2, 1), np.float32))


def test_pull_converts_to_the_dtype_of_out() -> None:  # 13
    kv = kvstore.create()
    kv.init(3, full(1.5))
    out = np.zeros(2, np.int32)
    kv.pull(3, [out, wide := np.zeros(2)])
    assert out.tolist() == [1, 1]
    assert wide.tolist() == [1.5, 1.5]


@pytest.mark.parametrize("name", ["no_such_store", "", "dist_snyc"])
def test_unknown_stores_are_refused_with_a_suggestion(name: str) -> None:  # 11
    with pytest.raises(ValueError, match="dist_sync" if "dist" in name else "there is no kvstore"):
        kvstore.create(name)


def test_names_that_are_no_text_or_of_other_libraries() -> None:
    with pytest.raises(TypeError):
        kvstore.create(3)  # type: ignore[call-overload]
    with pytest.raises(KVStoreError, match="device"):
        kvstore.create("nccl")


def test_an_optimizer_updates_and_its_changes_take_effect() -> None:  # 17, 18
    kv = kvstore.create()
    optimizer = mxopt.create("sgd", learning_rate=1.0, momentum=0.5)
    kv.init(3, full(0))
    kv.set_optimizer(optimizer)
    kv.push(3, full(1))
    optimizer.set_learning_rate(0.5)
    kv.push(3, full(1))
    assert pulled(kv, 3, full(0)) == [-2, -2]
    kv.set_optimizer(optimizer)  # the momentum is gone
    kv.push(3, full(1))
    assert pulled(kv, 3, full(0)) == [-2.5, -2.5]
    with pytest.raises(ValueError, match="shape"):
        kv.push(3, full(1, 5))


@pytest.mark.parametrize("dump", [True, False])
def test_states_are_saved_with_their_counts(tmp_path: Path, dump: bool) -> None:  # 20
    def store() -> kvstore.KVStore:
        kv = kvstore.create()
        kv.set_optimizer(mxopt.create("adam", learning_rate=0.1))
        return kv

    first, second = store(), store()
    first.init(0, full(1))
    for k in range(3):
        first.push(0, full(k + 1))
    first.save_optimizer_states(str(tmp_path / "s"), dump)
    second.init(0, np.array(pulled(first, 0, full(0)), np.float32))
    second.load_optimizer_states(str(tmp_path / "s"))
    for kv in (first, second):
        kv.push(0, full(2))
    assert pulled(first, 0, full(0)) == pulled(second, 0, full(0))
    with pytest.raises(AssertionError):
        kvstore.create().save_optimizer_states(str(tmp_path / "t"))


def test_row_sparse_values() -> None:  # 21, 23, 24, 25
    kv = kvstore.create()
    table = np.arange(8, dtype=np.float32).reshape(4, 2)
    kv.init(1, table)
    out = row_sparse_array((np.zeros((1, 2), np.float32), np.array([0])), shape=(4, 2))
    kv.row_sparse_pull(1, out, row_ids=np.array([[3, 1], [1, 9]], float))
    assert out.indices.tolist() == [1, 3]
    assert out.data.tolist() == [[2, 3], [6, 7]]
    kv.pull(1, out)
    assert out.indices.tolist() == [1, 3]
    kv.pull(1, out, ignore_sparse=False)
    assert out.indices.tolist() == [0, 1, 2, 3]
    rows = row_sparse_array((np.ones((2, 2), np.float32), np.array([2, 0])), shape=(4, 2))
    kv.push(1, [rows, rows])
    assert pulled(kv, 1, table) == [[2, 2], [0, 0], [2, 2], [0, 0]]
    kv.set_optimizer(mxopt.create("sgd", learning_rate=1.0, wd=0.5))
    kv.push(1, rows)
    assert pulled(kv, 1, table) == [[0, 0], [0, 0], [0, 0], [0, 0]]


def test_compression_sends_one_step_and_keeps_the_rest() -> None:  # 27, 28, 29
    kv = kvstore.create("device")
    kv.init(0, full(0, 4))
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
    sent = []
    for value in ([-3, 0.5, 0.2, 0.4], [0, 0, 0.2, 0.4], [0, 0, 0.2, 0]):
        kv.push(0, np.array(value, np.float32))
        sent.append(pulled(kv, 0, full(0, 4)))
    assert sent == [[-0.5, 0.5, 0, 0], [-0.5, 0, 0, 0.5], [-0.5, 0, 0.5, 0]]
    with pytest.raises(Exception, match="no gradient compression"):
        kvstore.create("local").set_gradient_compression({"type": "2bit"})
    for params in ({}, {"type": "3bit"}, {"type": "2bit", "threshold": 0}, {"type": "2bit", "threshold": float("nan")}):
        with pytest.raises(ValueError, match=r"compression|type"):
            kv.set_gradient_compression(params)
    with pytest.raises(TypeError, match="the threshold must be a number, got 'x'"):
        kv.set_gradient_compression({"type": "1bit", "threshold": "x"})


def test_stores_of_ones_own() -> None:
    class Mine(KVStoreBase):
        pass

    KVStoreBase.register(Mine)
    try:
        assert isinstance(kvstore.create("mine"), Mine)
        with pytest.warns(UserWarning, match="overriding"):
            KVStoreBase.register(Mine)
        with pytest.raises(NotImplementedError):
            kvstore.create("mine").pushpull(1, full(1))
    finally:
        del KVStoreBase.kv_registry["mine"]


def test_the_test_store() -> None:
    kv = kvstore.create("teststore")
    a, b = full(1), full(2)
    kv.pushpull(1, [a, b])
    assert a.tolist() == b.tolist() == [3, 3]
    kv.broadcast(1, full(9), [a, b])
    assert a.tolist() == [9, 9]
    assert not kv.is_capable("optimizer")
    assert kvstore.create("local").is_capable("optimizer")
    with pytest.raises(ValueError, match="other"):
        kv.is_capable("other")


def test_a_round_is_a_push_of_the_key_as_in_a_job() -> None:
    store = kvstore.create("local")
    store.init(["a", "b"], [np.zeros(2, np.float32)] * 2)
    store.push(["a", "b", "a"], [np.ones(2, np.float32)] * 3)
    store.push("a", np.ones(2, np.float32))
    assert (store.round("a"), store.round("b")) == (2, 1)
    with pytest.raises(NotInitializedError, match="'c' has not been initialised"):
        store.round("c")
    for several in (["a"], ("a", "b"), []):
        with pytest.raises(AssertionError, match=r"round takes one key, .* \[store.round\(key\) for key in keys\]"):
            store.round(several)  # type: ignore[arg-type]
    assert store.round(np.str_("a")) == 2
    store.set_optimizer(mxopt.create("sgd"))
    with pytest.raises(ValueError, match="shape"):
        store.push("b", np.ones(3, np.float32))
    assert store.round("b") == 1


@pytest.mark.parametrize("optimizer", [None, "sgd"])
@pytest.mark.parametrize("wrong", [full(0, 3), np.broadcast_to(np.float32(0), (2,))], ids=["shape", "read-only"])
def test_an_out_that_cannot_be_written_is_refused_before_anything_changes(
    optimizer: str | None, wrong: np.ndarray
) -> None:
    kv, first = kvstore.create("local"), full(0)
    kv.init(["a", "b"], [full(1), full(2)])
    if optimizer is not None:
        kv.set_optimizer(mxopt.create(optimizer))
    with pytest.raises(ValueError, match="key 'b': "):
        kv.pushpull(["a", "b"], [full(7), full(7)], out=[first, wrong])
    with pytest.raises(ValueError, match="key 'b': "):
        kv.pull(["a", "b"], out=[first, wrong])
    assert first.tolist() == [0, 0]
    assert [pulled(kv, key, full(0)) for key in ("a", "b")] == [[1, 1], [2, 2]]
    assert [kv.round(key) for key in ("a", "b")] == [0, 0]


def test_a_value_of_another_shape_is_pulled_in_that_shape() -> None:
    kv, out = kvstore.create("local"), full(0, 3)
    kv.init("w", full(1))
    kv.pushpull("w", full(5, 3), out=out)
    assert out.tolist() == [5, 5, 5]


@pytest.mark.parametrize(
    ("keys", "values"),
    [("w", full(1, 5)), ("w", np.ones(2, np.int32)), (["w", "v"], [full(0.3), full(1, 7)])],
    ids=["shape", "dtype", "another key"],
)
def test_what_compression_has_left_stays_when_a_push_is_refused(keys: str | list[str], values: Array) -> None:
    def store() -> kvstore.KVStore:
        kv = kvstore.create("device")
        kv.set_gradient_compression({"type": "2bit", "threshold": 0.5})
        kv.init(["w", "v"], [full(0), full(0)])
        kv.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
        kv.push("w", full(0.3))
        return kv

    one, other = store(), store()
    with pytest.raises(ArrayError):
        other.push(keys, values)
    for kv in (one, other):
        kv.push("w", full(0.3))
    assert pulled(one, "w", full(0)) == pulled(other, "w", full(0)) == [-0.5, -0.5]


def test_texts_and_numbers_of_other_kinds_are_keys_too() -> None:
    for key, same in ((np.str_("w"), "w"), (b"w", "w"), (np.int64(4), 4), (enum.IntEnum("Key", {"W": 4}).W, 4)):  # type: ignore[attr-defined]
        kv = kvstore.create("local")
        kv.init(key, full(1))  # type: ignore[arg-type]
        kv.push(same, full(2))
        kv.push(key, full(3))  # type: ignore[arg-type]
        assert pulled(kv, same, full(0)) == [3, 3]


def test_every_store_can_be_closed() -> None:
    """A script is the same in one process and in a job."""
    store = kvstore.create()
    store.init("w", np.zeros(2))
    store.push("w", np.ones(2))
    store.close()
    out = np.zeros(2)
    store.pull("w", out)
    assert out.tolist() == [1, 1]
    kvstore.create("teststore").close()
