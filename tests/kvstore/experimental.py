"""What the workers of `test_experimental.py` run; see `workers.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from workers import caught, same, summed

from mxopt import Parameter, Trainer, kvstore
from mxopt.experimental import optim
from mxopt.sparse import row_sparse_array

sys.path.insert(0, str(Path(__file__).parents[1] / "experimental"))
from optim_table import TABLE

SHAPES = [(30, 7), (5,), (700_001,), (900, 800), ()]


def parameters(prefix: str, rng: np.random.Generator, dtype: Any) -> list[Parameter]:
    """One has multipliers of its own."""
    found = [Parameter(rng.normal(size=s).astype(dtype), name=f"{prefix}{n}") for n, s in enumerate(SHAPES)]
    found[2].lr_mult, found[2].wd_mult = 0.5, 0.0
    return found


def grouped(make: Any, params: list[Parameter], **options: Any) -> optim.Optimizer:
    return make([{"params": params[:2]}, {"params": params[2:], "lr": 0.07}], **options)


def optimizers(arguments: dict[str, Any]) -> list[str]:
    """Every optimizer on the servers beside one that gets the sum of all workers' gradients;
    returns what differs."""
    store = kvstore.create(arguments.get("mode", "dist_sync"))
    half, wrong = arguments.get("half", False), []
    dtype = np.float16 if half else np.float32
    whole = arguments.get("whole", False)  # where a number is handed on from step to step, arrays can't be striped
    table = {name: make for name, make in TABLE.items() if (name in ("ASGD", "NAdam")) == whole}
    for k, (name, make) in enumerate(table.items()):
        rng = np.random.default_rng(k)
        params = parameters(f"{name} ", rng, dtype)
        local = [Parameter(p.value.copy(), p.name, lr_mult=p.lr_mult, wd_mult=p.wd_mult) for p in params]
        remote, here = (grouped(make, ps, multi_precision=half) for ps in (params, local))
        store.set_optimizer(remote)
        keys, values = [p.name for p in params], [p.value for p in params]
        store.broadcast(keys, values, values)
        for step in range(4):
            grads = [[rng.normal(size=s).astype(dtype) for s in SHAPES] for _ in range(store.num_workers)]
            if step == 2:
                for optimizer in (remote, here):
                    optimizer.param_groups[1]["lr"] *= 0.5
            store.pushpull(keys, grads[store.rank], out=values)
            wide = [[g.astype(np.float32) for g in each] for each in grads] if half and len(grads) > 1 else grads
            here([summed(list(each)) for each in zip(*wide, strict=True)])
            wrong += [f"{p.name} step {step}" for p, q in zip(params, local, strict=True) if not same(p.value, q.value)]
        store.barrier()
    return wrong


def train(arguments: dict[str, Any]) -> dict[str, Any]:
    """Steps of a Trainer with a schedule; saves or loads states on the way, as asked."""
    rng = np.random.default_rng(0)
    params = parameters("p", rng, np.float32)
    optimizer = grouped(TABLE[arguments["optimizer"]], params)
    schedule = optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    trainer = Trainer(params, optimizer, **arguments.get("trainer", {}))
    first = arguments.get("first", 0)
    if "load" in arguments:
        path = Path(arguments["load"])
        for p, saved in zip(params, np.load(path.with_suffix(".npz")).values(), strict=True):
            p.set_data(saved)
        trainer.load_states(str(path))
        schedule.last_epoch = first
    for step in range(first, first + arguments["steps"]):
        for n, p in enumerate(params):
            p.grad = np.random.default_rng(100 * step + n).normal(size=p.shape).astype(np.float32)
            p.grad *= np.float32(arguments.get("scale", 1))
        trainer.step(2)
        schedule.step()
    if "save" in arguments and arguments.get("rank", 0) == 0:
        trainer.save_states(arguments["save"])
        np.savez(Path(arguments["save"]).with_suffix(".npz"), *[p.value for p in params])
    return {
        "weights": [p.value.tobytes().hex()[:4000] for p in params],
        "lr": [g["lr"] for g in optimizer.param_groups],
    }


def refused(arguments: Any) -> list[str]:
    """What a distributed store says of that which can't be."""
    store = kvstore.create("dist_sync")
    weight = np.ones(3, np.float32)
    used = optim.SGD([weight.copy()], 0.1)
    used((np.ones(3, np.float32),))
    errors = [caught(store.set_optimizer, used)]

    class Own(optim.Optimizer):
        def construct(self, gradients: Any) -> None:
            pass

    errors.append(caught(store.set_optimizer, Own([weight], {"lr": 1})))

    class Hidden(optim.SGD):
        def __init__(self, params: Any, lr: float, secret: int) -> None:
            super().__init__(params, lr)

    errors.append(caught(store.set_optimizer, Hidden([weight], 0.1, 3)))

    class Unknown(optim.SGD):
        pass

    errors.append(caught(store.set_optimizer, Unknown([weight], 0.1)))
    optimizer = optim.SGD([Parameter(weight, name="w")], 0.1)
    store.set_optimizer(optimizer)
    store.init(["w", "x"], [weight, weight])
    errors.append(caught(store.push, "x", weight))
    store.pushpull("w", np.ones(3, np.float32), out=weight)
    optimizer.param_groups[0]["momentum"] = 0.9
    errors.append(caught(store.push, "w", np.ones(3, np.float32)))
    optimizer.param_groups[0]["momentum"] = 0.0
    store.pushpull("w", np.ones(3, np.float32), out=weight)  # nothing was sent, nothing is lost
    return [*(f"{type(e).__name__}: {e}" for e in errors), str(weight.tolist())]


def sparse(arguments: Any) -> list[str]:
    """Row-sparse gradients of a striped table, beside an optimizer here."""
    store = kvstore.create("dist_sync")
    wrong = []
    for name, options in (("Adam", {"lazy_update": True}), ("SGD plain", {}), ("Adam", {})):
        rng = np.random.default_rng(1)
        here = Parameter(rng.normal(size=(9000, 64)).astype(np.float32), f"{name} {options}")
        there = Parameter(here.value.copy(), here.name)
        local, remote = (TABLE[name]([p], **options) for p in (here, there))
        store.set_optimizer(remote)
        store.broadcast(here.name, there.value, there.value)
        for step in range(4):
            grads = []
            for _ in range(store.num_workers):
                ids = np.sort(rng.choice(9000, 300, replace=False))
                data = rng.normal(size=(300, 64)).astype(np.float32)
                grads.append(row_sparse_array((data, ids), shape=here.shape))
            store.push(here.name, grads[store.rank])
            store.pull(here.name, there.value)
            local((summed(grads),))
            wrong += [f"{here.name} step {step}"] * (not same(here.value, there.value))
    return wrong
