"""Tables: rows are there once they are stored or updated, take memory then, and begin as
declared."""

from __future__ import annotations

import copy
import pickle
import resource
import subprocess
import sys
import textwrap
import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table import ROWS

import mxopt
from mxopt import kvstore, sparse
from mxopt.errors import ArgumentError, ArgumentTypeError, ArrayError, ArrayTypeError, KVStoreError, UnknownNameError
from mxopt.sparse import RowSparse, row_sparse_array, table, zeros
from mxopt.sparse.index import RowIndex, look_up_slowly
from mxopt.sparse.initial import Initial
from mxopt.sparse.room import room

HUGE = (10**9, 64)
KINDS = {"zeros": {}, "constant": {"scale": 0.25}, "uniform": {"scale": 0.5, "seed": 3}}
LAZY = [row for row in ROWS if row.name in ("sgd", "adam", "adagrad", "ftrl", "groupadagrad", "dcasgd", "rmsprop")]


def grad(shape: tuple[int, ...], ids: Any, seed: int = 0, dtype: str = "float32") -> RowSparse:
    ids = np.sort(np.asarray(ids, np.int64))
    data = np.random.default_rng(seed).standard_normal((len(ids), *shape[1:])).astype(dtype)
    return row_sparse_array((data, ids), shape)


def resident() -> int:
    """The bytes of memory that this process has."""
    return int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize()


def pulled(store: Any, key: Any, shape: tuple[int, ...], ids: Any, dtype: str = "float32") -> np.ndarray:
    out = zeros("row_sparse", shape, dtype)
    store.row_sparse_pull(key, out, row_ids=np.asarray(ids))
    return np.array(out.data)


# The index.


@pytest.mark.parametrize("most", [50, 5000, 10**6, 1 << 62])
def test_the_index_finds_what_a_dict_finds(most: int) -> None:
    rng, index = np.random.default_rng(most), RowIndex(most)
    known: dict[Any, Any] = {}
    for _ in range(60):
        ids = np.unique(rng.integers(0, most, rng.integers(0, 400)) * rng.choice([1, 64]) % most)
        expected = [known.get(i, -1) for i in ids.tolist()]
        assert index.find(ids).tolist() == expected
        for i in ids.tolist():
            known.setdefault(i, len(known))
        assert index.add(ids).tolist() == [known[i] for i in ids.tolist()]
        assert index.count == len(known)
        assert index.ids.tolist() == list(known)
    assert copy.deepcopy(index).find(index.ids).tolist() == list(range(len(known)))


def test_an_index_has_no_more_entries_than_there_can_be_rows() -> None:
    index = RowIndex(5000)
    assert index.add(np.arange(4999)).tolist() == list(range(4999))
    assert len(index._table) == 5001
    nowhere = np.array([-(1 << 63), -1, 4999, 5000, 5001, 1 << 62])
    assert index.find(nowhere).tolist() == [-1] * 6
    assert index.add(nowhere[2:3]).tolist() == [4999]
    assert index.find(nowhere).tolist() == [-1, -1, 4999, -1, -1, -1]


@pytest.mark.parametrize("most", [5000, 10**12])
def test_the_compiled_index_writes_what_the_slow_one_writes(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    ids = np.unique(np.random.default_rng(1).integers(0, most, 6000))
    indices = [RowIndex(most)]
    indices[0].add(ids)
    monkeypatch.setenv("MXOPT_ENGINE", "numpy")
    monkeypatch.setattr("mxopt.sparse.index._look_up", None)
    indices.append(RowIndex(most))
    assert indices[1].add(ids).tolist() == indices[0].find(ids).tolist() == list(range(len(ids)))
    assert np.array_equal(indices[0]._table, indices[1]._table)
    assert look_up_slowly(np.zeros(4, np.uint32), 62, np.zeros(2, np.int64), 0, ids[:0], ids[:0], 1) == 0


def test_an_index_that_grows_keeps_no_memory_but_its_own() -> None:
    """Neither for smaller tables nor for the slots of all its rows, which glibc would keep."""
    index = RowIndex(10**12)
    index.add(np.arange(1))  # which compiles
    tracemalloc.start()
    for first in range(0, 10**6, 10**4):
        index.add(np.arange(first, first + 10**4) * 1000)
    _, most = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert most < 1 << 20
    assert index.count == 10**6


# Room.


def test_an_array_with_room_never_moves_and_takes_what_is_written() -> None:
    array = room(0, HUGE, np.dtype(np.float32))
    before, place = resident(), array.ctypes.data
    for k in range(16):
        array[k * 10_000 : (k + 1) * 10_000] = k
        assert room(160_000, HUGE, array.dtype, array) is array
    assert array.ctypes.data == place
    assert 0.9 < (resident() - before) / (160_000 * 256) < 1.2


def test_rows_move_where_address_space_is_limited() -> None:
    """Under a limit on it they are copied into more room; the numbers are the same."""
    script = """
        import resource
        import numpy as np
        import mxopt
        from mxopt.sparse import row_sparse_array, zeros
        def trained():
            weight, updater = zeros("row_sparse", (10**9, 8)), mxopt.get_updater(mxopt.create("adam"))
            for step in range(30):
                ids = np.unique(np.random.default_rng(step).integers(0, 10**9, 3000))
                updater(0, row_sparse_array((np.ones((len(ids), 8), np.float32), ids), (10**9, 8)), weight)
            return weight
        before = resource.getrlimit(resource.RLIMIT_AS)
        resource.setrlimit(resource.RLIMIT_AS, (4 << 30, before[1]))
        weight = trained()
        resource.setrlimit(resource.RLIMIT_AS, before)
        with_room = trained()
        assert len(weight.memory) < 10**6 < len(with_room.memory)
        assert np.array_equal(weight.indices, with_room.indices)
        assert np.array_equal(weight.data, with_room.data)
    """
    subprocess.run([sys.executable, "-c", textwrap.dedent(script)], check=True)


def test_room_that_is_full_is_copied() -> None:
    array = np.ones((3, 2), np.float32)
    grown = room(4, (9, 2), array.dtype, array, 2)
    assert grown.shape == (9, 2)
    assert grown.tolist() == [[1, 1]] * 2 + [[0, 0]] * 7


# What is declared.


@pytest.mark.parametrize(
    ("arguments", "error", "words"),
    [
        ({"shape": ()}, ArrayError, r"needs a shape of one axis or more, none of them 0, got \(\)"),
        ({"shape": (2**63, 3)}, ArrayError, r"fewer than 2\*\*63, got"),
        ({"shape": (0, 3)}, ArrayError, r"none of them 0, got \(0, 3\)"),
        ({"init": "ones"}, UnknownNameError, "can begin as 'zeros', 'constant', 'uniform', not 'ones'"),
        ({"init": "constant"}, ArgumentError, "init='constant' needs a scale"),
        ({"scale": 0.5}, ArgumentError, "init='zeros' takes no scale"),
        ({"init": "uniform", "scale": np.inf}, ArgumentError, "must be a finite number of float32, got inf"),
        (
            {"init": "constant", "scale": 1e9, "dtype": "float16"},
            ArgumentError,
            "a finite number of float16, got 1e9|1000000000",
        ),
        ({"init": "uniform", "scale": "x"}, ArgumentTypeError, "the scale must be a number, got 'x'"),
        ({"seed": 1.5}, ArgumentTypeError, "the seed must be a whole number, got 1.5"),
        ({"shape": (5.5, 2)}, ArgumentTypeError, "a number of the shape must be a whole number, got 5.5"),
        ({"dtype": "int32"}, ArrayTypeError, "a table is of float16, bfloat16, float32, float64, not int32"),
    ],
)
def test_what_no_table_can_be_is_refused(arguments: dict[str, Any], error: type, words: str) -> None:
    with pytest.raises(error, match=words):
        table(**{"shape": (5, 2), **arguments})


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64"])
def test_rows_begin_as_declared_whoever_asks_first(dtype: str) -> None:
    declared = table((1000, 3, 2), dtype, "uniform", 0.5, seed=7)
    initial, ids = Initial(declared, "w"), np.arange(1000)
    whole = np.empty((1000, 3, 2), declared.dtype)
    initial.write(ids, whole)
    assert float(abs(whole.astype(float)).max()) <= 0.5
    assert abs(float(whole.astype(float).mean())) < 0.02
    assert 0.27 < float(whole.astype(float).std()) < 0.31
    for first in range(3):  # in another order, and in parts
        mine = ids[first::3][::-1]
        part = np.empty((len(mine), 3, 2), declared.dtype)
        initial.write(mine, part)
        assert part.tobytes() == whole[mine].tobytes()
    for other in (Initial(table((1000, 3, 2), dtype, "uniform", 0.5, seed=8), "w"), Initial(declared, "v")):
        elsewhere = np.empty_like(whole)
        other.write(ids, elsewhere)
        assert (elsewhere != whole).mean() > 0.9
    assert Initial.of(initial.plain()) == initial


def test_the_numbers_of_uniform_tables_stay_the_same() -> None:
    """So that a table saved by one version goes on in another."""
    values = np.empty((2, 2), np.float32)
    Initial(table((10, 2), init="uniform", scale=1.0), "w").write(np.array([0, 9]), values)
    assert values.tolist() == FIXED


FIXED = [[0.22140252590179443, 0.8367465734481812], [-0.418620228767395, -0.7712987661361694]]


# Tables in a local store.


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("row", LAZY, ids=str)
@pytest.mark.parametrize(("dtype", "master"), [("float32", False), ("float16", True)])
def test_a_table_is_updated_as_the_dense_rows_are(row: Any, kind: str, dtype: str, master: bool) -> None:
    shape = (500, 4)
    optimizers = [row.make(multi_precision=master, **({"lazy_update": True} if row.takes_lazy_update else {}))] * 2
    store = kvstore.create()
    store.set_optimizer(optimizers[0])
    declared = table(shape, dtype, kind, **KINDS[kind])  # type: ignore[arg-type]
    store.init("w", declared)
    weight = np.empty(shape, declared.dtype)
    Initial(declared, "w").write(np.arange(500), weight)
    dense = mxopt.get_updater(copy.deepcopy(optimizers[1]))
    dense.optimizer.lazy_update = True  # type: ignore[attr-defined]
    for step in range(6):
        ids = np.random.default_rng(step).choice(500, 20, replace=False)
        g = grad(shape, ids, step, dtype)
        store.push("w", g)
        dense("w", g, weight)
        assert pulled(store, "w", shape, np.arange(500), dtype).tobytes() == weight.tobytes()
    held = store._values["w"]
    assert held.row_count < 150  # the rows that were pulled weren't stored
    if step == 5:
        assert repr(held) == f"<RowSparse 500x4 {declared.dtype}, {held.row_count} rows>"


def test_a_table_of_any_size_takes_what_its_rows_take() -> None:
    before = resident()
    store = kvstore.create()
    store.set_optimizer(mxopt.create("adam"))
    store.init("w", table(HUGE, init="uniform", seed=1))
    for step in range(4):
        store.push("w", grad(HUGE, np.random.default_rng(step).choice(HUGE[0], 5000, replace=False)))
    assert store._values["w"].row_count == 20_000
    assert resident() - before < 100 << 20  # with a compiler


def test_a_table_without_an_optimizer_has_rows_replaced() -> None:
    store = kvstore.create()
    store.init("w", table((9, 2), init="constant", scale=1.0))
    store.push("w", [grad((9, 2), [1, 3]), grad((9, 2), [3])])
    expected = np.ones((9, 2), np.float32)
    expected[[1, 3]] = grad((9, 2), [1, 3]).data
    expected[3] += grad((9, 2), [3]).data[0]
    assert pulled(store, "w", (9, 2), range(9)).tolist() == expected.tolist()
    store._set_updater(lambda key, received, value: value.__iadd__(received))
    store.push("w", grad((9, 2), [8]))
    expected[8] += grad((9, 2), [8]).data[0]
    assert pulled(store, "w", (9, 2), range(9)).tolist() == expected.tolist()


def test_what_tables_refuse() -> None:
    store, dense = kvstore.create(), np.zeros((9, 2), np.float32)
    store.set_optimizer(mxopt.create("sgd", momentum=0.9))
    store.init("w", table((9, 2)))
    store.push("w", grad((9, 2), [1]))
    before = pulled(store, "w", (9, 2), range(9)).tolist()
    rows = zeros("row_sparse", (9, 2))
    for call in (
        lambda: store.pull("w", dense),
        lambda: store.pull("w", rows),
        lambda: store.pull("w", rows, ignore_sparse=False),
        lambda: store.pushpull("w", grad((9, 2), [1]), dense),
        lambda: store.broadcast("v", table((9, 2)), dense),  # type: ignore[arg-type]
    ):
        with pytest.raises(KVStoreError, match=r"key '[wv]' is a table, .*: row_sparse_pull\(key, out, row_ids"):
            call()  # type: ignore[no-untyped-call]
    for pushed, words in ((dense, "row-sparse arrays are pushed; got a dense one"), (grad((8, 2), [1]), "shape")):
        with pytest.raises(ArrayError, match=words):
            store.push("w", pushed)
    with pytest.raises(ArrayTypeError, match="a table is what a key is initialised with"):
        store.push("w", table((9, 2)))  # type: ignore[arg-type]
    with pytest.raises(KVStoreError, match="duplicate init"):
        store.init("w", table((9, 2)))
    held = store._values["w"]
    for call in (
        held.asnumpy,
        lambda: held * 2,
        lambda: held + held,
        lambda: dense + held,
        lambda: held[:].assign(1, 2),
    ):
        with pytest.raises(ArrayError, match="is a table, of which only some rows"):
            call()
    with pytest.raises(ValueError, match="read-only"):
        held.data[...] = 1
    assert pulled(store, "w", (9, 2), range(9)).tolist() == before
    store.init("v", dense)  # broadcast has left nothing behind
    for name, options in (("lars", {}), ("adam", {"lazy_update": False}), ("sgld", {})):
        store.set_optimizer(mxopt.create(name, **options))
        with pytest.raises(ArrayError, match="an optimizer that leaves the other rows"):
            store.push("w", grad((9, 2), [1]))
        assert pulled(store, "w", (9, 2), range(9)).tolist() == before


@pytest.mark.parametrize("optimizer", ["adam", "dcasgd"])
def test_states_of_a_table_are_saved_and_loaded(tmp_path: Path, optimizer: str) -> None:
    shape, options = (10**9, 4), {"learning_rate": 0.1, "multi_precision": True}
    stores, lazy = [kvstore.create(), kvstore.create()], {"lazy_update": True} if optimizer == "dcasgd" else {}
    grads = [grad(shape, [k, 10, 10**8 + k], k, "float16") for k in range(6)]
    for store in stores:
        store.set_optimizer(mxopt.create(optimizer, **options, **lazy))
        store.init("w", table(shape, "float16", "uniform", seed=5))
        for g in grads[:3]:
            store.push("w", g)
    stores[0].save_optimizer_states(str(tmp_path / "states"))
    stores[1].load_optimizer_states(str(tmp_path / "states"))
    for g in grads[3:]:
        for store in stores:
            store.push("w", g)
    ids = np.unique(np.concatenate([g.indices for g in grads]))
    mine, theirs = (pulled(store, "w", shape, ids, "float16") for store in stores)
    assert mine.tobytes() == theirs.tobytes()


# Row-sparse weights.


def test_a_row_sparse_weight_grows_without_being_copied() -> None:
    weight, updater = zeros("row_sparse", HUGE), mxopt.get_updater(mxopt.create("adam"))
    updater(0, grad(HUGE, [1, 5]), weight)
    arrays = [x.memory for x in (weight, *updater.states[0])]
    for step in range(5):
        updater(0, grad(HUGE, np.random.default_rng(step).choice(HUGE[0], 1000, replace=False)), weight)
    assert all(x.memory is before for x, before in zip((weight, *updater.states[0]), arrays, strict=True))
    assert weight.row_count == 5002


def test_rows_in_slots_are_read_and_written_as_before() -> None:
    shape = (50, 2)
    weights, updaters = [], []
    for _ in range(2):
        weights.append(row_sparse_array((np.ones((2, 2), np.float32), [4, 40]), shape))
        updaters.append(mxopt.get_updater(mxopt.create("adam", learning_rate=0.1)))
    for step in range(8):
        g = grad(shape, np.random.default_rng(step).choice(50, 5, replace=False), step)
        for weight, updater in zip(weights, updaters, strict=True):
            updater(0, g, weight)
        read = weights[0]
        assert not read.slots or weights[1].slots
        assert np.all(read.indices[1:] > read.indices[:-1])
        read.data[0] += 1  # which reading has put into two arrays
        weights[1] += row_sparse_array((np.ones((1, 2), np.float32), read.indices[:1]), shape)
        assert read.asnumpy().tolist() == weights[1].asnumpy().tolist()
        updaters[0].states[0][0].data[...] *= 1
    copies = [weights[1].copy(), copy.deepcopy(weights[1]), pickle.loads(pickle.dumps(weights[1]))]
    for copied in copies:
        assert copied.asnumpy().tolist() == weights[1].asnumpy().tolist()
        copied.data[...] = 0
    assert weights[1].asnumpy().any()


def test_copies_of_slots_are_of_their_rows_only() -> None:
    weight, updater = zeros("row_sparse", HUGE), mxopt.get_updater(mxopt.create("sgd", momentum=0.9))
    updater(0, grad(HUGE, [1, 5]), weight)
    updater(0, grad(HUGE, [2, 5]), weight)
    assert len(pickle.dumps(weight)) < 10_000
    twin, twin_updater = copy.deepcopy((weight, updater))
    for w, u in ((weight, updater), (twin, twin_updater)):
        u(0, grad(HUGE, [2, 9]), w)
    assert twin.indices.tolist() == weight.indices.tolist() == [1, 2, 5, 9]
    assert np.array_equal(twin.data, weight.data)


def test_a_gradient_that_is_refused_changes_nothing() -> None:
    weight, updater = zeros("row_sparse", (50, 2)), mxopt.get_updater(mxopt.create("adam"))
    updater(0, grad((50, 2), [1]), weight)
    bad = grad((50, 2), [3, 7])
    bad.indices[...] = [7, 3]
    before = weight.asnumpy().tolist()
    for wrong in (bad, grad((50, 2), [1], dtype="float64"), grad((51, 2), [3])):
        with pytest.raises((ArrayError, ArrayTypeError)):
            updater(0, wrong, weight)
        assert weight.asnumpy().tolist() == before
        assert updater.optimizer.num_update == 1


def test_public_names() -> None:
    assert {"Table", "table"} <= set(dir(sparse))
    assert repr(table((5, 2), init="uniform", scale=0.5)) == "<Table 5x2 float32, uniform 0.5, seed 0>"
    assert table((5, 2)) == pickle.loads(pickle.dumps(table((5, 2))))
