"""Records what the kvstore of the real MXNet 1.9.1 does:
`python scripts/reference/mxnet/kvstore.py OUT.json`.

Values in one process, then in a distributed job on loopback (ps-lite), one server and two workers.
The tests repeat the same calls on mxopt and compare with what is recorded.
"""

import json
import os
import socket
import subprocess
import sys

os.environ.setdefault("DMLC_ROLE", "worker")
import numpy as np

np.bool = bool  # MXNet 1.9.1 reads this alias, which NumPy has dropped


def values(n, dtype, seed):
    rng = np.random.default_rng(seed)
    return [rng.normal(size=40).astype(dtype) for _ in range(n)]


def local():
    import mxnet as mx

    found = {"sums": {}, "compressed": [], "momentum": []}
    for kind in ("local", "device"):
        for n in (1, 2, 3, 4, 5, 6, 9):
            for dtype in ("float32", "float16"):
                kv = mx.kv.create(kind)
                kv.init(0, mx.nd.zeros((40,), dtype=dtype))
                kv.push(0, [mx.nd.array(v, dtype=dtype) for v in values(n, dtype, n)])
                out = mx.nd.zeros((40,), dtype=dtype)
                kv.pull(0, out)
                found["sums"][f"{kind} {n} {dtype}"] = out.asnumpy().tobytes().hex()
    kv = mx.kv.create("device")
    kv.init(0, mx.nd.zeros((6,)))
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.3})
    out = mx.nd.zeros((6,))
    for step in range(6):
        kv.push(0, mx.nd.array(np.linspace(-1, 1, 6) * (step % 3)))
        kv.pull(0, out)
        found["compressed"].append(out.asnumpy().tolist())
    kv = mx.kv.create("local")
    kv.set_optimizer(mx.optimizer.create("sgd", learning_rate=0.1, momentum=0.9, wd=0.01))
    kv.init(0, mx.nd.ones((4,)))
    out = mx.nd.zeros((4,))
    for step in range(4):
        kv.push(0, [mx.nd.full((4,), step + 1), mx.nd.full((4,), 0.5)])
        kv.pull(0, out)
        found["momentum"].append(out.asnumpy().tolist())
    return found


def worker():
    import mxnet as mx

    kv = mx.kv.create("dist_sync")
    rank = kv.rank
    found = {"rounds": [], "adam": []}
    kv.init(0, mx.nd.ones((4,)))
    out = mx.nd.zeros((4,))
    for step in (1, 2, 3):
        kv.push(0, mx.nd.full((4,), (rank + 1) * step))
        kv.pull(0, out)
        found["rounds"].append(out.asnumpy().tolist())
    kv._barrier()
    kv.set_optimizer(mx.optimizer.create("adam", learning_rate=0.1, wd=0.01))
    kv._barrier()
    kv.init(1, mx.nd.ones((4,)))
    for step in range(4):
        kv.push(1, mx.nd.array(np.array([1, -2, 0.5, 3]) * (rank + 1 + step)))
        kv.pull(1, out)
        found["adam"].append(out.asnumpy().tolist())
    kv._barrier()
    if rank == 0:
        print("RESULT " + json.dumps(found), flush=True)


def distributed():
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    env = dict(
        os.environ, DMLC_PS_ROOT_URI="127.0.0.1", DMLC_PS_ROOT_PORT=str(port), DMLC_NUM_WORKER="2", DMLC_NUM_SERVER="1"
    )
    command = [sys.executable, __file__, "--worker"]
    processes = [
        subprocess.Popen(command, env={**env, "DMLC_ROLE": role}, stdout=subprocess.PIPE, text=True)
        for role in ("scheduler", "server", "worker", "worker")
    ]
    lines = [line for p in processes for line in p.communicate(timeout=100)[0].splitlines()]
    return next(json.loads(line.removeprefix("RESULT ")) for line in lines if line.startswith("RESULT "))


if sys.argv[1] == "--worker":
    worker()
else:
    record = {"mxnet": "1.9.1", "local": local(), "distributed": distributed()}
    with open(sys.argv[1], "w") as file:
        json.dump(record, file, indent=1)
