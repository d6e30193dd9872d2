"""Row-sparse values in a local store: kept as such, updated lazily, pulled by rows."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import kvstore
from mxopt.errors import ArrayError
from mxopt.sparse import RowSparse, row_sparse_array, zeros
from mxopt.typing import Array


def pulled(kv: kvstore.KVStore, key: Any, like: np.ndarray) -> Any:
    out = np.zeros_like(like)
    kv.pull(key, out)
    return out.tolist()


def test_row_ids_for_each_key_and_each_out() -> None:
    kv, table = kvstore.create(), np.arange(8, dtype=np.float32).reshape(4, 2)
    kv.init(["a", "b"], [table, -table])

    def pulled_rows(key: str | list[str], outs: Sequence[int], ids: Any) -> list[list[list[float]]]:
        out = [[zeros("row_sparse", (4, 2)) for _ in range(n)] for n in outs]
        kv.row_sparse_pull(key, out[0] if isinstance(key, str) else out, row_ids=ids)
        return [[o.data[:, 0].tolist() for o in each] for each in out]

    one, two, three = (np.array([n]) for n in (1, 2, 3))
    nested = [[one, two], [three]]
    assert pulled_rows(["a", "b"], (2, 1), nested) == [[[2], [4]], [[-6]]]
    assert pulled_rows(["b", "a", "b"], (1, 1, 1), [one, two, [three]]) == [[[-2]], [[4]], [[-6]]]
    assert pulled_rows("a", (2,), [one, two]) == pulled_rows(["a"], (2,), [[one, two]]) == [[[2], [4]]]
    for same in (one, [one], [1]):
        assert pulled_rows("a", (2,), same) == [[[2], [2]]]
    for key, outs, ids in (
        ("a", (2,), [one] * 3),
        (["a", "b"], (2, 1), [[one], [two, three]]),
        (["a", "b"], (1, 1), [one] * 3),
    ):
        with pytest.raises(AssertionError, match="row_sparse_pull"):
            pulled_rows(key, outs, ids)


def stored(kind: str) -> Array:
    """First values of a (5, 2) key, by how they are stored."""
    return {  # type: ignore[no-untyped-call]
        "dense": lambda: np.ones((5, 2), np.float32),
        "all rows": lambda: rows_of(0.5, range(5)),
        "some rows": lambda: rows_of(1, (0, 3)),
        "no rows": lambda: zeros("row_sparse", (5, 2)),
    }[kind]()


def rows_of(value: float, rows: Sequence[int]) -> RowSparse:
    return row_sparse_array((np.full((len(rows), 2), value, np.float32), list(rows)), shape=(5, 2))


PUSHED: dict[str, Callable[[], Any]] = {
    "dense": lambda: [np.ones((5, 2), np.float32)],
    "rows": lambda: [rows_of(2, (3, 4))],
    "no rows": lambda: [zeros("row_sparse", (5, 2))],
    "rows twice": lambda: [rows_of(1, (0, 3)), rows_of(2, (3, 4))],
    "dense and rows": lambda: [np.ones((5, 2), np.float32), rows_of(2, (3, 4))],
}
UPDATES: dict[
    str, tuple[Callable[..., Any], Callable[..., Any]]
] = {  # how the value changes by the sum of what was pushed
    "replaced": (lambda kv: None, lambda value, total: total),
    "added": (lambda kv: kv._set_updater(added), lambda value, total: value + total),
    "scaled": (lambda kv: kv._set_updater(scaled), lambda value, total: value + 2 * total),
    "sgd": (
        lambda kv: kv.set_optimizer(mxopt.create("sgd", learning_rate=0.5)),
        lambda value, total: value - total / 2,
    ),
}


def added(key: object, received: Array, value: Array) -> None:
    value += received


def scaled(key: object, received: Array, value: Array) -> None:
    value += received * 2


@pytest.mark.parametrize("kind", ["dense", "all rows", "some rows", "no rows"])
@pytest.mark.parametrize("pushed", PUSHED)
@pytest.mark.parametrize("update", UPDATES)
def test_every_storage_of_value_and_push(kind: str, pushed: str, update: str) -> None:
    """As MXNet's local store, with the numbers of dense arrays."""
    kv, (install, expected) = kvstore.create(), UPDATES[update]
    install(kv)
    kv.init("w", stored(kind))
    value = np.asarray(stored(kind))
    for _ in range(2):
        kv.push("w", PUSHED[pushed]())
        value = expected(value, sum(np.asarray(x) for x in PUSHED[pushed]()))
    assert pulled(kv, "w", value) == value.tolist()
    out = zeros("row_sparse", (5, 2))
    kv.pull("w", out)
    assert not len(out.indices)
    kv.row_sparse_pull("w", out, row_ids=np.array([3, 0, 1]))
    assert out.indices.tolist() == [0, 1, 3]
    assert np.array_equal(out.data, value[[0, 1, 3]])
    kv.pull("w", out, ignore_sparse=False)
    assert np.array_equal(out.asnumpy(), value)


@pytest.mark.parametrize("name", ["sgd", "adam", "adagrad", "groupadagrad", "ftrl"])
def test_a_row_sparse_key_is_updated_lazily(name: str) -> None:
    kv = kvstore.create()
    kv.set_optimizer(mxopt.create(name))
    kv.init("w", rows_of(0.5, range(5)))
    kv.push("w", rows_of(1, (1,)))
    value = np.array(pulled(kv, "w", np.zeros((5, 2), np.float32)))
    assert (value[[0, 2, 3, 4]] == 0.5).all()
    assert (value[1] != 0.5).all()


def test_a_row_sparse_key_stays_row_sparse() -> None:
    """A dense value of this shape would take 25 GB."""
    kv, shape = kvstore.create(), (100_000_000, 64)
    kv.set_optimizer(mxopt.create("adam", learning_rate=0.5))
    kv.init("w", zeros("row_sparse", shape))
    for _ in range(2):
        kv.push("w", row_sparse_array((np.ones((2, 64), np.float32), [5, 99_999_999]), shape))
    out = zeros("row_sparse", shape)
    kv.row_sparse_pull("w", out, row_ids=np.array([7, 5]))
    assert out.indices.tolist() == [5, 7]
    assert np.allclose(out.data, [[-1.0] * 64, [0.0] * 64], atol=1e-5)


def test_shapes_of_row_sparse_outs() -> None:
    kv = kvstore.create()
    kv.init("w", rows_of(1, (1,)))
    for call in (
        lambda out: kv.row_sparse_pull("w", out, row_ids=np.array([4])),
        lambda out: kv.pull("w", out, ignore_sparse=False),
    ):
        with pytest.raises(ArrayError, match=r"key 'w': the store holds shape \(5, 2\), out has \(4, 2\)"):
            call(zeros("row_sparse", (4, 2)))  # type: ignore[no-untyped-call]
    with pytest.raises(ArrayError, match="different shapes"):
        kv.push("w", [rows_of(1, (1,)), row_sparse_array((4, 2))])


@pytest.mark.parametrize("store", [None, "local", kvstore.create])
def test_a_row_sparse_parameter_is_trained(store: bool) -> None:
    for grad in (rows_of(1, (3, 4)), np.ones((5, 2), np.float32)):
        parameter = mxopt.Parameter(rows_of(1, (0, 3)), name="table")
        parameter.grad = grad
        trainer = mxopt.Trainer(
            [parameter],
            "sgd",
            {"learning_rate": 0.5},
            kvstore=store() if callable(store) else store,  # type: ignore[arg-type]
        )
        for _ in range(2):
            trainer.step(1)
        assert np.array_equal(parameter.value.asnumpy(), rows_of(1, (0, 3)).asnumpy() - np.asarray(grad))
