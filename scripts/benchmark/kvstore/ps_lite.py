"""Any process of an MXNet job, run by the Python that has MXNet 1.9.1; rank 0 prints the medians of
its rounds."""

import json
import os
import statistics
import sys
import time

import numpy as np

vars(np)["bool"] = bool
import mxnet as mx  # noqa: E402

store = mx.kv.create(os.environ["BENCH_STORE"])
store.set_optimizer(mx.optimizer.create("sgd", learning_rate=0.01))
first = 0
for name, (shapes, rounds, draw) in json.loads(sys.argv[1]).items():
    if draw:
        continue  # below, after all dense values
    keys = list(range(first, first + len(shapes)))
    first += len(shapes)
    weights = [mx.nd.zeros(tuple(shape)) for shape in shapes]
    grads = [mx.nd.full(tuple(shape), 0.5) for shape in shapes]
    store.init(keys, weights)
    store.pull(keys, out=weights)
    mx.nd.waitall()
    times = []
    for _ in range(rounds):
        start = time.perf_counter()
        store.push(keys, grads)
        store.pull(keys, out=weights)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    if store.rank == 0:
        print("RESULT " + json.dumps({"case": name, "mxnet_ms": 1e3 * statistics.median(times)}), flush=True)
for name, (shapes, rounds, draw) in json.loads(sys.argv[1]).items():
    if not draw:
        continue
    (shape,) = map(tuple, shapes)
    store.init(first, mx.nd.ones(shape).tostype("row_sparse"))
    rng = np.random.default_rng(store.rank)
    ids = np.sort(rng.choice(shape[0], draw, replace=False))
    grad = mx.nd.sparse.row_sparse_array((np.full((draw, *shape[1:]), 0.5, np.float32), ids), shape=shape)
    out, row_ids, times = mx.nd.sparse.zeros("row_sparse", shape), mx.nd.array(ids, dtype=np.int64), []
    for _ in range(rounds):
        start = time.perf_counter()
        store.push(first, grad)
        store.row_sparse_pull(first, out=out, row_ids=row_ids)
        mx.nd.waitall()
        times.append(time.perf_counter() - start)
    if store.rank == 0:
        print("RESULT " + json.dumps({"case": name, "mxnet_ms": 1e3 * statistics.median(times)}), flush=True)
    first += 1
