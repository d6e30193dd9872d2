"""Measure what the kvstore of the real MXNet 1.9.1 does where mxopt does something else.

    mxnet-env/bin/python scripts/reference/mxnet/kvstore_departures.py [NAME...]

`real_mxnet.py` says how to make the environment. Every function below is one measurement: those
that take `kv` run in the workers of a job on loopback (ps-lite), the others in a process of their
own. What doesn't end is stopped after `LIMIT_S`. `docs/departures-kvstore.md` is written from what
this prints.
"""

import json
import os
import signal
import socket
import subprocess
import sys
import tempfile
import time

LIMIT_S = 15
JOBS = {}  # name: (workers, servers, kind of store, environment)


def job(workers=2, servers=1, kind="dist_sync", **env):
    def add(function):
        JOBS[function.__name__] = (workers, servers, kind, env)
        return function

    return add


def full(n, value, dtype="float32"):
    return mx.nd.full((n,), value, dtype=dtype)


def pulled(kv, key, n=2, dtype="float32"):
    out = mx.nd.zeros((n,), dtype=dtype)
    kv.pull(key, out)
    return out.asnumpy().tolist()


def said(function, *args, **kwargs):
    """What a call ends in."""
    try:
        return function(*args, **kwargs)
    except BaseException as error:
        lines = [line for line in str(error).splitlines() if line.strip() and "Stack trace" not in line]
        return f"{type(error).__name__}: {(lines or [''])[-1].strip()[:120]}"


def sgd(**options):
    return mx.optimizer.create("sgd", **{"learning_rate": 1.0, **options})


def net(contexts=1, **multipliers):
    """One parameter of two ones."""
    found = mx.gluon.Parameter("w", shape=(2,), **multipliers)
    found.initialize(mx.init.One(), ctx=[mx.cpu(k) for k in range(contexts)])
    return found


def step(trainer, param, batch_size=1):
    """A step with gradients of one."""
    with mx.autograd.record():
        losses = [data.sum() for data in param.list_data()]
    mx.autograd.backward(losses)
    return said(trainer.step, batch_size)


def weight_of(param):
    return param.list_data()[0].asnumpy().tolist()


# One process.


def unknown_store_names():
    return mx.kv.create("no_such_store").type


def one_bit_compression():
    return said(mx.kv.create("device").set_gradient_compression, {"type": "1bit"})


def more_values_than_before():
    kv = mx.kv.create("local")
    kv.init(0, full(2, 0))
    kv.push(0, [full(2, 1)] * 2)
    kv.push(0, [full(2, 1)] * 3)
    return pulled(kv, 0)


def a_pushed_array_is_changed_afterwards():
    kv, pushed = mx.kv.create("local"), full(2, 1)
    kv.init(0, full(2, 0))
    kv.push(0, pushed)
    pushed[:] = 77
    return pulled(kv, 0)


def a_pushed_array_of_another_shape():
    kv = mx.kv.create("local")
    kv.init(0, full(2, 0))
    return said(kv.push, 0, full(3, 1)), said(pulled, kv, 0, 3)


def keys_of_an_updaters_function():
    kv, seen = mx.kv.create("local"), []
    kv._set_updater(lambda key, grad, weight: seen.append(repr(key)))
    kv.init("w", full(2, 0))
    kv.push("w", full(2, 1))
    return seen


def states_saved_without_the_optimizer():
    """Adam goes on for two steps from saved states; the distance to an uninterrupted run."""
    ends = {}
    for how in ("not interrupted", "without the optimizer", "with it"):
        kv = mx.kv.create("local")
        kv.set_optimizer(mx.optimizer.create("adam", learning_rate=0.1))
        kv.init(0, full(2, 1))
        for step in range(4):
            if step == 2 and how != "not interrupted":
                with tempfile.NamedTemporaryFile() as file:
                    kv.save_optimizer_states(file.name, dump_optimizer=how == "with it")
                    weight = pulled(kv, 0)
                    kv = mx.kv.create("local")
                    kv.set_optimizer(mx.optimizer.create("adam", learning_rate=0.1))
                    kv.init(0, mx.nd.array(weight))
                    kv.load_optimizer_states(file.name)
            kv.push(0, full(2, (1, -2, 3, 1)[step]))
        ends[how] = pulled(kv, 0)[0]
    return {how: abs(end - ends["not interrupted"]) for how, end in ends.items()}


def set_data():
    """A weight is set to 5 between steps of sgd, momentum 0.5: 5 - (1 + 0.5) if that is kept."""
    found = {}
    for how in ("one device", "two devices", "a store object"):
        param = net(2 if how == "two devices" else 1)
        store = mx.kv.create("local") if how == "a store object" else "device"
        trainer = mx.gluon.Trainer([param], "sgd", {"learning_rate": 1.0, "momentum": 0.5}, kvstore=store)
        step(trainer, param, len(param.list_grad()))
        param.set_data(full(2, 5))
        found[how] = step(trainer, param, len(param.list_grad())) or weight_of(param)
    return found


# Jobs. Workers print what their function returns.


@job(3)
def order_of_workers(kv):
    """Rank 0 pushes 1, the others 1e8 and -1e8: 0 in the order of ranks, 1 if rank 0 comes last."""
    kv.init(0, full(2, 0))
    if kv.rank == 0:
        time.sleep(2)
    kv.push(0, full(2, (1, 1e8, -1e8)[kv.rank]))
    return pulled(kv, 0)


@job(3)
def sums_of_16_bits(kv):
    """2048, 1 and 1: 2050 in float32, 2048 if rounded each time. Also 1, 2048, 1; also updates."""
    seen = []
    for key, values in enumerate([(2048, 1, 1), (1, 2048, 1)]):
        kv.init(key, full(2, 0, "float16"))
        kv._barrier()
        time.sleep(kv.rank)
        kv.push(key, full(2, values[kv.rank], "float16"))
        seen.append(pulled(kv, key, dtype="float16")[0])
        kv._barrier()
        if kv.rank == 0 and key == 0:
            kv.set_optimizer(sgd())
        kv._barrier()
    return seen


@job()
def unknown_keys(kv):
    """Rank 0 pushes 7, later rank 1 pushes 8, of a key that nobody has initialised; both pull."""
    time.sleep(2 * kv.rank)
    kv.push(5, full(2, 7 + kv.rank))
    print("SAW", pulled(kv, 5), flush=True)


@job()
def two_pushes_of_a_fast_worker(kv):
    """Rank 0 pushes 10 and 100 while rank 1 sleeps; 11 is the first complete round."""
    kv.init(0, full(2, 0))
    if kv.rank == 0:
        kv.push(0, full(2, 10))
        kv.push(0, full(2, 100))
        return pulled(kv, 0)
    time.sleep(3)
    kv.push(0, full(2, 1))
    kv.push(0, full(2, 2))
    return pulled(kv, 0)


@job(1, kind="dist_async")
def async_without_optimizer(kv):
    kv.init(0, full(2, 0))
    kv.push(0, full(2, 1))
    return pulled(kv, 0)


@job(1)
def changed_hyper_parameters(kv):
    """Steps of 1; the rate becomes 0.5, then rescale_grad 0: -1, -1.5, -1.5 if changes arrive."""
    optimizer, seen = sgd(), []
    kv.set_optimizer(optimizer)
    kv.init(0, full(2, 0))
    for step in range(3):
        if step == 1:
            optimizer.lr = 0.5
        if step == 2:
            optimizer.rescale_grad = 0.0
        kv.push(0, full(2, 1))
        seen.append(pulled(kv, 0)[0])
    return seen


@job(1)
def multipliers_in_a_trainer(kv):
    """lr_mult 0.5: the weight goes from 1 to 0.5."""
    param = net(lr_mult=0.5)
    step(mx.gluon.Trainer([param], "sgd", {"learning_rate": 1.0}, kvstore=kv, update_on_kvstore=True), param)
    return weight_of(param)


@job()
def set_optimizer_by_all_workers(kv):
    """Momentum 1; rank 1 calls set_optimizer after a round of twos: -2, then -6 if it is kept."""
    if kv.rank == 0:
        kv.set_optimizer(sgd(momentum=1.0))
    kv.init(0, full(2, 0))
    kv._barrier()
    seen = []
    for step in range(2):
        kv.push(0, full(2, 1))
        seen.append(pulled(kv, 0)[0])
        kv._barrier()
        if step == 0 and kv.rank == 1:
            kv.set_optimizer(sgd(momentum=1.0))
        kv._barrier()
    return seen


@job(1)
def saving_states(kv):
    kv.set_optimizer(sgd(momentum=0.9))
    return said(kv.save_optimizer_states, "states")


@job(1, 2, MXNET_KVSTORE_BIGARRAY_BOUND="10")
def norms_of_striped_arrays(kv):
    """LAMB on 1..100 with gradients that grow too; largest difference to an updater here."""
    optimizer = {"learning_rate": 0.1, "wd": 0.1}
    kv.set_optimizer(mx.optimizer.create("lamb", **optimizer))
    local = mx.optimizer.get_updater(mx.optimizer.create("lamb", **optimizer))
    weight, grad = mx.nd.arange(1, 101), mx.nd.arange(1, 101) ** 2 * 0.01
    kv.init(0, weight)
    kv.push(0, grad)
    local(0, grad, weight)
    return max(abs(a - b) for a, b in zip(pulled(kv, 0, 100), weight.asnumpy().tolist(), strict=True))


@job()
def row_sparse_push_without_optimizer(kv):
    """Each of two workers pushes rows 1, 3 and 5 of six, as 1, 3 and 5, where all were 9."""
    kv.init(0, mx.nd.full((6, 2), 9).tostype("row_sparse"))
    rows = mx.nd.array([1, 3, 5])
    kv.push(0, mx.nd.sparse.row_sparse_array((mx.nd.stack(rows, rows, axis=1), rows), shape=(6, 2)))
    kv._barrier()
    out = mx.nd.sparse.zeros("row_sparse", (6, 2))
    kv.row_sparse_pull(0, out=out, row_ids=mx.nd.arange(6))
    return out.tostype("default").asnumpy()[:, 0].tolist()


@job()
def pull_returns_at_once(kv):
    """Seconds that rank 0's calls take, and the reading, while rank 1 sleeps for 2."""
    kv.init(0, full(2, 0))
    if kv.rank == 1:
        time.sleep(2)
    out, start = mx.nd.zeros((2,)), time.monotonic()
    kv.push(0, full(2, 1))
    kv.pull(0, out)
    called = time.monotonic() - start
    out.asnumpy()
    return round(called, 1), round(time.monotonic() - start, 1)


@job()
def opposite_priorities(kv):
    """Two keys in opposite orders and with opposite priorities on the workers: 3 and 30."""
    kv.init([0, 1], [full(2, 0)] * 2)
    for key in (0, 1) if kv.rank == 0 else (1, 0):
        kv.push(key, full(2, 10**key * (kv.rank + 1)), priority=5 - 10 * kv.rank)
    return [pulled(kv, key)[0] for key in (0, 1)]


@job(1)
def integer_values(kv):
    kv.init(0, mx.nd.ones((2,), dtype="int32"))
    return pulled(kv, 0, dtype="int32")


@job(1)
def a_changed_batch_size(kv):
    param = net()
    trainer = mx.gluon.Trainer([param], "sgd", {"learning_rate": 1.0}, kvstore=kv, update_on_kvstore=True)
    return step(trainer, param), step(trainer, param, 2), weight_of(param)


@job(1)
def set_data_in_a_job(kv):
    param = net()
    trainer = mx.gluon.Trainer([param], "sgd", {"learning_rate": 1.0}, kvstore=kv, update_on_kvstore=True)
    return step(trainer, param), said(param.set_data, full(2, 5)), step(trainer, param), weight_of(param)


@job(1)
def compression_and_pushpull(kv):
    kv.set_gradient_compression({"type": "2bit"})
    kv.init(0, full(2, 0))
    return said(kv.pushpull, 0, full(2, 1), out=full(2, 0))


@job()
def thresholds(kv):
    """Gradients of 0.7; thresholds 0.12345678 and 0.5: 0.62345678 if each is decoded by its own."""
    kv.set_gradient_compression({"type": "2bit", "threshold": (0.12345678, 0.5)[kv.rank]})
    kv.init(0, full(2, 0))
    kv.push(0, full(2, 0.7))
    return pulled(kv, 0)


@job()
def a_worker_is_killed(kv):
    kv.init(0, full(2, 0))
    if kv.rank == 1:
        os.kill(os.getpid(), signal.SIGKILL)
    kv.push(0, full(2, 1))
    return pulled(kv, 0)


@job()
def a_worker_ends_early(kv):
    kv.init(0, full(2, 0))
    if kv.rank == 0:
        kv.push(0, full(2, 1))
        return pulled(kv, 0)


# Running them.


def run(name):
    workers, servers, kind, env = JOBS.get(name, (1, 0, "", {}))
    roles = ["worker"] * workers + (["scheduler"] + ["server"] * servers if servers else [])
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        env = {**os.environ, **env, "DMLC_PS_ROOT_URI": "127.0.0.1", "DMLC_PS_ROOT_PORT": str(free.getsockname()[1])}
    env |= {"DMLC_NUM_WORKER": str(workers), "DMLC_NUM_SERVER": str(servers)}
    command, output = [sys.executable, __file__, "--run", name, kind], subprocess.PIPE
    processes = [
        subprocess.Popen(command, env={**env, "DMLC_ROLE": role}, stdout=output, stderr=subprocess.DEVNULL, text=True)
        for role in roles
    ]
    until = time.monotonic() + LIMIT_S
    print(name.replace("_", " "))
    for role, process in zip(roles, processes, strict=True):
        end = ""
        try:
            end = f"exit code {code}" if (code := process.wait(max(0, until - time.monotonic()))) else ""
        except subprocess.TimeoutExpired:
            end = "hangs"
            process.kill()
        found = [line for line in process.communicate()[0].splitlines() if line.startswith(("RESULT", "SAW"))]
        if end or role == "worker":
            print(f"  {role}:", *(line.partition(" ")[2] for line in found), end, flush=True)


if __name__ == "__main__":
    if sys.argv[1:2] == ["--run"]:
        import numpy as np

        np.bool = bool  # MXNet 1.9.1 reads this alias, which NumPy has dropped
        import mxnet as mx

        name, kind = sys.argv[2:]
        arguments = [mx.kv.create(kind)] if kind else []
        print("RESULT " + json.dumps(globals()[name](*arguments)), flush=True)
    else:
        mine = [n for n, f in list(globals().items()) if getattr(f, "__module__", "") == "__main__"]
        helpers = ("job", "full", "pulled", "said", "sgd", "net", "weight_of", "step", "run")
        for each in sys.argv[1:] or [n for n in mine if n not in helpers]:
            run(each)
