"""What the workers of `test_nn.py` run; see `workers.py`."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import numpy as np
from experimental import SHAPES, parameters
from workers import caught, same, summed

from mxopt import Parameter, Trainer, kvstore, nn

sys.path.insert(0, str(Path(__file__).parents[1] / "nn"))
from nn_table import MAKE

TABLE = {name: make for name, make in MAKE.items() if name != "LARS"}
WHOLE = {name for name in TABLE if name.partition(",")[0] in ("ASGD", "AdaFactor", "Lamb")}  # never striped


def grouped(name: str, params: list[Parameter]) -> nn.Optimizer:
    """With a group of its own rate, where the optimizer takes such."""
    if name.startswith("FTRL"):
        return TABLE[name](params)
    if name.startswith("AdaFactor"):
        return TABLE[name]([{"params": params[:2]}, {"params": params[2:], "weight_decay": 0.1}])
    return TABLE[name]([{"params": params[:2]}, {"params": params[2:], "lr": 0.07, "weight_decay": 0.1}])


def change_rate(optimizer: nn.Optimizer, params: list[Parameter]) -> None:
    rate = optimizer.get_lr_parameter(params[-1])
    rate.set_data(rate.asnumpy() / 2)


def optimizers(arguments: dict[str, Any]) -> list[str]:
    """Every optimizer on the servers beside one that gets the sum of all workers' gradients;
    returns what differs."""
    store, wrong = kvstore.create(arguments.get("mode", "dist_sync")), []
    dtype = np.dtype(arguments.get("dtype", "float32"))
    for k, name in enumerate(name for name in TABLE if (name in WHOLE) == arguments["whole"]):
        rng = np.random.default_rng(k)
        params = parameters(f"{name} ", rng, dtype)
        local = [Parameter(p.value.copy(), p.name, lr_mult=p.lr_mult, wd_mult=p.wd_mult) for p in params]
        remote, here = grouped(name, params), grouped(name, local)
        store.set_optimizer(remote)
        keys, values = [p.name for p in params], [p.value for p in params]
        store.broadcast(keys, values, values)
        for step in range(4):
            grads = [[rng.normal(size=s).astype(dtype) for s in SHAPES] for _ in range(store.num_workers)]
            if step == 2:
                change_rate(remote, params)
                change_rate(here, local)
            if step == 3:  # one key after the other, as MXNet's scripts do
                for key, grad, value in zip(keys, grads[store.rank], values, strict=True):
                    store.push(key, grad)
                    store.pull(key, out=value)
            else:
                store.pushpull(keys, grads[store.rank], out=values)
            here(tuple(summed(list(each)) for each in zip(*grads, strict=True)))
            wrong += [f"{p.name} step {step}" for p, q in zip(params, local, strict=True) if not same(p.value, q.value)]
        store.barrier()
    return wrong


def train(arguments: dict[str, Any]) -> list[str]:
    """Steps of a Trainer; saves or loads states on the way, as asked. Returns the weights."""
    params = parameters("p", np.random.default_rng(0), np.float32)
    optimizer = grouped(arguments["optimizer"], params)
    trainer = Trainer(params, optimizer, **arguments.get("trainer", {}))
    first = arguments.get("first", 0)
    if "load" in arguments:
        path = Path(arguments["load"])
        for p, saved in zip(params, np.load(path.with_suffix(".npz")).values(), strict=True):
            p.set_data(saved)
        trainer.load_states(str(path))
    for step in range(first, first + arguments["steps"]):
        for n, p in enumerate(params):
            p.grad = np.random.default_rng(100 * step + n).normal(size=p.shape).astype(np.float32)
            p.grad *= np.float32(arguments.get("scale", 1))
        trainer.step(2)
    if "save" in arguments:
        trainer.save_states(arguments["save"])
        np.savez(Path(arguments["save"]).with_suffix(".npz"), *[p.value for p in params])
    return [p.value.tobytes().hex()[:4000] for p in params]


def refused(arguments: Any) -> list[str]:
    """What a distributed store says of that which can't be."""
    store = kvstore.create("dist_sync")
    weight = np.ones(3, np.float32)
    errors = [caught(store.set_optimizer, nn.LARS(nn.SGD([weight])))]

    class Own(nn.SGD):
        def construct(self, gradients: Any) -> bool:
            return True

    errors.append(caught(store.set_optimizer, Own([weight])))

    class Unknown(nn.SGD):
        pass

    errors.append(caught(store.set_optimizer, Unknown([weight])))
    stepped = nn.SGD([weight.copy()])
    stepped((weight,))
    errors.append(caught(store.set_optimizer, stepped))
    store.set_optimizer(nn.SGD([Parameter(weight, name="w")], [0.5, 0.25]))
    store.init("w", weight)
    for _ in range(2):
        store.pushpull("w", np.ones(3, np.float32), out=weight)
    errors.append(caught(store.push, "w", weight))
    store.pull("w", out=weight)
    return [*(f"{type(e).__name__}: {e}" for e in errors), str(weight.tolist())]
