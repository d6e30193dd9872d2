"""What the workers of test jobs run: `python workers.py FUNCTION ARGUMENT`, the result printed as
JSON."""

from __future__ import annotations

import importlib
import json
import sys
from typing import Any

import numpy as np
from table import ROWS, Row

import mxopt
from mxopt import kvstore
from mxopt.errors import ArrayError, ArrayTypeError, KVStoreError, NotInitializedError
from mxopt.sparse import RowSparse, row_sparse_array

SHAPES = {"a": (30, 7), "b": (5,), "c": (700_001,), "d": (900, 800), "e": ()}


LAZY: list[tuple[str, dict[str, Any]]] = [("sgd", {"momentum": 0.9}), ("adam", {"lazy_update": True}), ("adagrad", {})]


def make(name: str, kwargs: dict[str, Any]) -> mxopt.Optimizer:
    made: mxopt.Optimizer = Row(name, **kwargs).make()
    return made


def same(a: np.ndarray, b: np.ndarray) -> bool:
    return a.dtype == b.dtype and a.tobytes() == b.tobytes()


def optimizers(arguments: dict[str, Any]) -> None:
    """Every optimizer on the servers beside a local updater of the sum of all workers'
    gradients."""
    store = kvstore.create(arguments.get("mode", "dist_sync"))
    rows = [row for row in ROWS if row.elementwise != arguments["whole"]]
    for k, row in enumerate(rows):
        optimizer, local = row.make(), mxopt.get_updater(row.make())
        store.set_optimizer(optimizer)
        keys = [f"{n}{k}" for n in SHAPES]
        rng = np.random.default_rng(k)
        shapes = [shape or (1,) if row.name == "groupadagrad" else shape for shape in SHAPES.values()]
        weights = [np.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]
        expected = [w.copy() for w in weights]
        store.broadcast(keys, weights, weights)
        for step in range(4):
            grads = [
                [np.asarray(rng.standard_normal(shape, np.float32)) for shape in shapes]
                for _ in range(store.num_workers)
            ]
            if step == 2 and row.name != "lars":
                optimizer.lr *= 0.5
                local.optimizer.lr *= 0.5
            store.pushpull(keys, grads[store.rank], out=weights)
            local(keys, [summed(list(each)) for each in zip(*grads, strict=True)], expected)
            for key, w, e in zip(keys, weights, expected, strict=True):
                assert same(w, e), f"{row} key {key} step {step}: {np.abs(w - e).max()}"


def half(arguments: Any) -> None:
    """float16 weights with a float32 master, striped, beside a local updater of the float32 sum."""
    store = kvstore.create("dist_sync")
    kwargs = {"learning_rate": 0.1, "momentum": 0.9, "multi_precision": True}
    store.set_optimizer(make("sgd", kwargs))
    local = mxopt.get_updater(make("sgd", kwargs))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=(3000, 11)).astype(np.float16)
    expected = weight.copy()
    store.init("w", weight)
    for step in range(3):
        grads = [rng.normal(size=weight.shape).astype(np.float16) for _ in range(store.num_workers)]
        store.pushpull("w", grads[store.rank], out=weight)
        total = grads[0].astype(np.float32)
        for g in grads[1:]:
            total += g.astype(np.float32)
        local("w", total, expected)
        assert same(weight, expected), f"step {step}"


def sums(arguments: Any) -> None:
    """What a store without an optimizer gives two workers, and what it refuses."""
    store = kvstore.create("dist_sync")
    rank = store.rank
    store.init([3, 5], [np.ones(2, np.float32), np.zeros((4, 2), np.float32)])
    assert repr(store) == f"<DistKVStore 'dist_sync': rank {rank} of 2 workers, 2 servers, 2 keys>"
    out = np.zeros(2, np.float32)
    store.pull(3, out)
    assert out.tolist() == [1, 1]
    for scale in (1, 2):
        mine = np.full(2, (rank + 1) * scale, np.float32)
        store.push(3, mine)
        mine[:] = 77  # the store has its own
        store.pull(3, out)
        assert out.tolist() == [3 * scale] * 2
    store.push([3, 3], [np.ones(2, np.float32), np.ones(2, np.float32)])
    wide: list[Any] = [np.zeros(2), np.zeros(2, np.int32)]
    store.pull(3, wide)
    assert [w.tolist() for w in wide] == [[4, 4], [4, 4]]
    for error, function, *values in (
        (NotInitializedError, store.push, 9, out), (KVStoreError, store.push, "x", out),
        (ArrayError, store.push, 3, np.ones(3, np.float32)), (ArrayTypeError, store.push, 3, np.ones(2)),
        (KVStoreError, store.init, 3, out), (ArrayError, store.pull, 3, np.ones(3)),
        (ArrayTypeError, store.init, 99, np.ones(2, np.int32)),
    ):  # fmt: skip
        assert isinstance(caught(function, *values), error)
    # A second push of a key before the round is complete belongs to the next round.
    if rank == 0:
        store.push(3, np.full(2, 10, np.float32))
        store.push(3, np.full(2, 100, np.float32))
    else:
        store.push(3, np.full(2, 1, np.float32))
        store.pull(3, out)
        assert out.tolist() == [11, 11]
        store.push(3, np.full(2, 2, np.float32))
    store.pull(3, out)
    assert out.tolist() == [102, 102]
    # Row-sparse without an optimizer.
    rows = row_sparse_array((np.full((2, 2), rank + 1.0, np.float32), np.array([rank, 3])), shape=(4, 2))
    store.push(5, rows)
    table = np.zeros((4, 2), np.float32)
    store.pull(5, table)
    assert table.tolist() == [[1, 1], [2, 2], [0, 0], [3, 3]]
    part = row_sparse_array((np.zeros((1, 2), np.float32), np.array([0])), shape=(4, 2))
    store.row_sparse_pull(5, part, row_ids=np.array([3, 0, 3, 9]))
    assert (part.indices.tolist(), part.data.tolist()) == ([0, 3], [[1, 1], [3, 3]])
    store.row_sparse_pull(5, part, row_ids=np.array([]))
    assert (part.indices.tolist(), part.data.shape) == ([], (0, 2))
    store.barrier()


def caught(function: Any, *arguments: Any) -> Exception | None:
    try:
        function(*arguments)
    except Exception as error:
        return error
    return None


def refused(kind: type[Exception], words: str, function: Any, *arguments: Any) -> None:
    """Asserts that a call raises an error of just this kind, with these words."""
    error = caught(function, *arguments)
    found, said = type(error), str(error)
    del error  # and with it what its frames hold, as a Trainer that couldn't be made
    assert found is kind, said
    assert words in said


def sparse(arguments: Any) -> None:
    """Lazy row-sparse updates mixed with dense ones on a striped table, beside a local updater."""
    store = kvstore.create("dist_sync")
    for k, (name, kwargs) in enumerate(LAZY):
        store.set_optimizer(make(name, {"learning_rate": 0.1, "wd": 0.01, **kwargs}))
        local = mxopt.get_updater(make(name, {"learning_rate": 0.1, "wd": 0.01, **kwargs}))
        rng = np.random.default_rng(k)
        weight = rng.normal(size=(9000, 64)).astype(np.float32)
        expected = weight.copy()
        store.init(k, weight)
        for step in range(5):
            grads: list[Any] = []
            for _ in range(store.num_workers):
                if step == 2:
                    grads.append(rng.normal(size=weight.shape).astype(np.float32))
                else:
                    ids = np.sort(rng.choice(9000, 300, replace=False))
                    grads.append(
                        row_sparse_array((rng.normal(size=(300, 64)).astype(np.float32), ids), shape=weight.shape)
                    )
            store.push(k, grads[store.rank])
            store.pull(k, weight)
            local(k, summed(grads), expected)
            assert same(weight, expected), f"{name} step {step}: {np.abs(weight - expected).max()}"


def summed(grads: list[Any]) -> Any:
    if isinstance(grads[0], RowSparse):
        data, ids = np.concatenate([g.data for g in grads]), np.concatenate([g.indices for g in grads])
        return row_sparse_array((data, ids), shape=grads[0].shape)
    total = grads[0].copy()
    for g in grads[1:]:
        total += g
    return total


def compressed(params: Any) -> None:
    """Compression over the wire beside the same rule in this process."""
    from mxopt.kvstore.compression import GradientCompression

    store = kvstore.create("dist_sync")
    store.set_gradient_compression(params)
    references = [GradientCompression(params) for _ in range(store.num_workers)]
    rng = np.random.default_rng(0)
    shapes = {"s": (7,), "t": (3, 3), "u": (700, 1000)}
    store.init(list(shapes), [np.zeros(s, np.float32) for s in shapes.values()])
    for step in range(3):
        grads = [{k: rng.normal(size=s).astype(np.float32) for k, s in shapes.items()} for _ in references]
        outs = [np.zeros(s, np.float32) for s in shapes.values()]
        store.pushpull(list(shapes), list(grads[store.rank].values()), out=outs)
        for (key, _), out in zip(shapes.items(), outs, strict=True):
            total: Any = 0
            for reference, each in zip(references, grads, strict=True):
                sent, reference.residuals[key] = reference.quantize(key, each[key])
                total = total + sent
            assert same(out, total), f"{key} step {step}"


def states(arguments: dict[str, Any]) -> list[Any]:
    """Trains, saves or loads, trains; returns the weights' bytes as a digest."""
    import hashlib

    store = kvstore.create("dist_sync")
    optimizer = make("adam", {"learning_rate": 0.01, "lr_scheduler": mxopt.lr_scheduler.FactorScheduler(2, 0.5)})
    store.set_optimizer(optimizer)
    rng = np.random.default_rng(1)
    weights = [rng.normal(size=s).astype(np.float32) for s in ((40, 5), (700_000,))]
    if arguments["load"]:
        weights = [np.load(f"{arguments['path']}.{k}.npy") for k in range(2)]
    store.broadcast([0, 1], weights, weights)
    if arguments["load"]:
        store.load_optimizer_states(arguments["path"])
    for step in range(3):
        grads = [
            np.random.default_rng(100 * store.rank + step + 3 * arguments["load"]).normal(size=w.shape) for w in weights
        ]
        store.pushpull([0, 1], [g.astype(np.float32) for g in grads], out=weights)
    if arguments["save"]:
        if store.rank == 0:
            store.save_optimizer_states(arguments["path"], dump_optimizer=True)
            for k, w in enumerate(weights):
                np.save(f"{arguments['path']}.{k}.npy", w)
        store.barrier()
        for step in range(3):
            grads = [np.random.default_rng(100 * store.rank + step + 3).normal(size=w.shape) for w in weights]
            store.pushpull([0, 1], [g.astype(np.float32) for g in grads], out=weights)
    return [hashlib.sha256(w.tobytes()).hexdigest() for w in weights]


def forever(arguments: Any) -> None:
    """Rounds until something fails; says when the first is done."""
    store = kvstore.create(arguments["mode"])
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    out = np.zeros(1000, np.float32)
    store.init("w", out)
    for n in range(10**9):
        store.pushpull("w", np.ones(1000, np.float32), out=out)
        if n == 3:
            print("RUNNING", flush=True)
            if arguments.get("raise") == store.rank:
                raise ValueError("this worker raises")
            if arguments.get("end") == store.rank:
                return


def snapshots(arguments: dict[str, Any]) -> None:
    """Some rounds, with a momentum that begins anew, as in MXNet; servers carry on from `first`."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0, "momentum": 0.5}))
    out = np.zeros(4, np.float32)
    store.broadcast("w", np.zeros(4, np.float32), out)
    assert out.tolist() == [arguments["first"]] * 4
    for sum_of_steps in (-2, -5, -8.5):
        store.pushpull("w", np.ones(4, np.float32), out=out)
        assert out.tolist() == [arguments["first"] + sum_of_steps] * 4


def restarted(arguments: Any) -> list[float]:
    """Rounds with a server restarted in between; waits for a line on the standard input before it
    goes on."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    out = np.zeros(4, np.float32)
    store.broadcast("w", out, out)
    found = []
    for n in range(4):
        store.pushpull("w", np.ones(4, np.float32), out=out)
        found.append(float(out[0]))
        if n == 1:
            print("HALFWAY", flush=True)
            import pathlib

            while not pathlib.Path(arguments["go"]).exists():
                store._worker.member.check()
    return found


def sent_twice(arguments: Any) -> None:
    """Pushes of which some travel twice on one connection, as where a question is answered late;
    worker 1 is ahead by four rounds."""
    store = kvstore.create("dist_sync")
    session: Any = store._connections.session
    dispatch = session._dispatch

    def twice(channel: Any, request: Any) -> None:
        dispatch(channel, request)
        if request.message.seq % 3 == 0:
            channel.post(request.frames, True)

    session._dispatch = twice
    base = np.arange(600_000, dtype=np.float32) % 97
    total, out = np.zeros_like(base), np.empty_like(base)
    store.init("w", total)
    store.set_optimizer(make("sgd", {"learning_rate": 1, "wd": 0}))
    for block in range(3):
        if store.rank == 0:
            store.barrier()  # until the other's are taken
        for step in range(4 * block, 4 * block + 4):
            store.push("w", np.roll(base, 3 * step + store.rank))
            total -= np.roll(base, 3 * step) + np.roll(base, 3 * step + 1)
        if store.rank == 1:
            store.barrier()
        store.pull("w", out)
        assert same(out, total), f"block {block}: {np.flatnonzero(out != total)}"


def broken(arguments: Any) -> None:
    """Rounds over connections that break, beside a local updater."""
    store = kvstore.create("dist_async")
    store.set_optimizer(make("sgd", {"learning_rate": 0.1, "momentum": 0.9}))
    local = mxopt.get_updater(make("sgd", {"learning_rate": 0.1, "momentum": 0.9}))
    rng = np.random.default_rng(0)
    weight = rng.normal(size=300_000).astype(np.float32)
    expected = weight.copy()
    store.init(0, weight)
    for step in range(6):
        grad = rng.normal(size=weight.shape).astype(np.float32)
        if step % 2:
            store.push(0, grad)
            store.pull(0, weight)
        else:
            store.pushpull(0, grad, out=weight)
        local(0, grad, expected)
        assert same(weight, expected), f"step {step}"


def recorded(arguments: Any) -> dict[str, Any]:
    """What scripts/reference/mxnet/kvstore.py records of the real kvstore."""
    store = kvstore.create("dist_sync")
    found: dict[str, Any] = {"rounds": [], "adam": []}
    out = np.zeros(4, np.float32)
    store.init(0, np.ones(4, np.float32))
    for step in (1, 2, 3):
        store.push(0, np.full(4, (store.rank + 1) * step, np.float32))
        store.pull(0, out)
        found["rounds"].append(out.tolist())
    store.barrier()
    store.set_optimizer(make("adam", {"learning_rate": 0.1, "wd": 0.01}))
    store.barrier()
    store.init(1, np.ones(4, np.float32))
    for step in range(4):
        store.push(1, np.array([1, -2, 0.5, 3], np.float32) * np.float32(store.rank + 1 + step))
        store.pull(1, out)
        found["adam"].append(out.tolist())
    return found


if __name__ == "__main__":
    module, _, function = sys.argv[1].rpartition(".")
    result = getattr(importlib.import_module(module or "__main__"), function)(json.loads(sys.argv[2]))
    print("RESULT " + json.dumps(result), flush=True)
