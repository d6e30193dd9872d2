"""What the workers of `test_grouped.py` run; see `workers.py`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
from table import GROUPED, Grouped
from workers import refused, same, summed

import mxopt
from mxopt import Parameter, Trainer, kvstore, nn
from mxopt.errors import ArgumentError, ScheduleOverError, StatesError
from mxopt.experimental import optim
from mxopt.sparse import row_sparse_array

SHAPES = [(30, 7), (5,), (7_001,), (900, 300), ()]
STORED = {str(row): row for row in GROUPED if not row.alone}


def drawn(rng: np.random.Generator, dtype: Any = np.float32) -> list[np.ndarray]:
    return [np.asarray(rng.standard_normal(shape, np.float32)).astype(dtype) for shape in SHAPES]


def parameters(prefix: str, rng: np.random.Generator, dtype: Any = np.float32) -> list[Parameter]:
    """One has multipliers of its own."""
    found = [Parameter(value, name=f"{prefix}{n}") for n, value in enumerate(drawn(rng, dtype))]
    found[2].lr_mult, found[2].wd_mult = 0.5, 0.0
    return found


def grouped(row: Grouped, params: list[Parameter], **options: Any) -> Any:
    """With a group of its own rates, where the optimizer takes such."""
    if row.name == "nn.FTRL":
        return row.over(params)
    own = {"lr": 0.07} if row.name != "nn.AdaFactor" else {}
    own |= {"weight_decay": 0.1} if row.name.startswith("nn.") else {}
    return row.over([{"params": params[:2]}, {"params": params[2:], **own}], **options)


def change_rate(optimizer: Any, params: list[Parameter]) -> None:
    """Halves the rate of the last parameters."""
    if isinstance(optimizer, nn.Optimizer):
        rate = optimizer.get_lr_parameter(params[-1])
        rate.set_data(rate.asnumpy() / 2)
    else:
        optimizer.param_groups[1]["lr"] *= 0.5


def optimizers(arguments: dict[str, Any]) -> None:
    """Every optimizer on the servers beside one that gets the sum of all workers' gradients."""
    store = kvstore.create(arguments.get("mode", "dist_sync"))
    half = arguments.get("half", False)
    dtype, options = (np.float16, {"multi_precision": True}) if half else (np.float32, {})
    table = {name: row for name, row in STORED.items() if row.elementwise != arguments.get("whole", False)}
    for k, (name, row) in enumerate(table.items()):
        if half and not name.startswith("experimental."):
            continue
        rng = np.random.default_rng(k)
        params = parameters(f"{name} ", rng, dtype)
        local = [Parameter(p.value.copy(), p.name, lr_mult=p.lr_mult, wd_mult=p.wd_mult) for p in params]
        remote, here = (grouped(row, ps, **options) for ps in (params, local))
        store.set_optimizer(remote)
        keys, values = [p.name for p in params], [p.value for p in params]
        store.broadcast(keys, values, values)
        for step in range(4):
            grads = [drawn(rng, dtype) for _ in range(store.num_workers)]
            if step == 2:
                change_rate(remote, params)
                change_rate(here, local)
            if step == 3:  # one key after the other, as MXNet's scripts do
                for key, grad, value in zip(keys, grads[store.rank], values, strict=True):
                    store.push(key, grad)
                    store.pull(key, out=value)
            else:
                store.pushpull(keys, grads[store.rank], out=values)
            wide = [[g.astype(np.float32) for g in each] for each in grads] if half and len(grads) > 1 else grads
            here(tuple(summed(list(each)) for each in zip(*wide, strict=True)))
            for p, q in zip(params, local, strict=True):
                assert same(p.value, q.value), f"{p.name} step {step}"
        store.barrier()


def train(arguments: dict[str, Any]) -> dict[str, Any]:
    """Steps of a Trainer, with a schedule where the optimizer has groups of its own rates; saves or
    loads states on the way, as asked."""
    params = parameters("p", np.random.default_rng(0))
    optimizer = grouped(STORED[arguments["optimizer"]], params)
    schedule = None if isinstance(optimizer, nn.Optimizer) else optim.lr_scheduler.StepLR(optimizer, 2, 0.5)
    trainer = Trainer(params, optimizer, **arguments.get("trainer", {}))
    first = arguments.get("first", 0)
    if "load" in arguments:
        path = Path(arguments["load"])
        for p, saved in zip(params, np.load(path.with_suffix(".npz")).values(), strict=True):
            p.set_data(saved)
        trainer.load_states(str(path))
        if schedule is not None:
            schedule.last_epoch = first
    for step in range(first, first + arguments["steps"]):
        for p, grad in zip(params, drawn(np.random.default_rng(step)), strict=True):
            grad *= np.float32(arguments.get("scale", 1))
            p.grad = grad
        trainer.step(2)
        if schedule is not None:
            schedule.step()
    if "save" in arguments:
        trainer.save_states(arguments["save"])
        np.savez(Path(arguments["save"]).with_suffix(".npz"), *[p.value for p in params])
    rates = [] if schedule is None else [group["lr"] for group in optimizer.param_groups]
    return {"weights": [p.value.tobytes().hex()[:4000] for p in params], "lr": rates}


def never_possible(arguments: Any) -> None:
    """What a distributed store says of optimizers that can't be, in each family."""
    store, weight = kvstore.create("dist_sync"), np.ones(3, np.float32)

    class Own(optim.Optimizer):
        def construct(self, gradients: Any) -> None:
            pass

    class Hidden(optim.SGD):
        def __init__(self, params: Any, lr: float, secret: int) -> None:
            super().__init__(params, lr)

    class Unknown(optim.SGD):
        pass

    class OwnNn(nn.SGD):
        def construct(self, gradients: Any) -> bool:
            return True

    class UnknownNn(nn.SGD):
        pass

    used = optim.SGD([weight.copy()], 0.1), nn.SGD([weight.copy()])
    for optimizer in used:
        optimizer((weight,))
    for kind, words, given in (
        (ArgumentError, "made 1 step already", used[0]),
        (ArgumentError, "Own defines construct", Own([weight], {"lr": 1})),
        (ArgumentError, "'secret'", Hidden([weight], 0.1, 3)),
        (StatesError, "experimental optimizer is 'Unknown'", Unknown([weight], 0.1)),
        (ArgumentError, "the SGD has made 1 step already", used[1]),
        (ArgumentError, "OwnNn defines construct", OwnNn([weight])),
        (ArgumentError, "LARS defines construct", nn.LARS(nn.SGD([weight]))),
        (StatesError, "server 0: the saved optimizer of mxopt.nn is 'UnknownNn'", UnknownNn([weight])),
    ):
        refused(kind, words, store.set_optimizer, given)


def refused_pushes(arguments: Any) -> None:
    """Refused pushes send nothing and lose nothing."""
    store, weight, ones = kvstore.create("dist_sync"), np.ones(3, np.float32), np.ones(3, np.float32)
    optimizer = optim.SGD([Parameter(weight, name="w")], 0.1)
    store.set_optimizer(optimizer)
    store.init(["w", "x"], [weight, weight])
    refused(ArgumentError, "key 'x' is no parameter", store.push, "x", weight)
    store.pushpull("w", ones, out=weight)
    optimizer.param_groups[0]["momentum"] = 0.9
    refused(ArgumentError, "other states", store.push, "w", ones)
    optimizer.param_groups[0]["momentum"] = 0.0
    store.pushpull("w", ones, out=weight)
    step = np.float32(0.1)
    assert weight.tolist() == [1 - step - step] * 3
    store.pull("w", out=weight)
    assert weight.tolist() == [1 - step - step] * 3


def refused_after_the_schedule(arguments: Any) -> None:
    """The same of an optimizer whose list of rates is over."""
    store, weight, ones = kvstore.create("dist_sync"), np.ones(3, np.float32), np.ones(3, np.float32)
    store.set_optimizer(nn.SGD([Parameter(weight, name="w")], [0.5, 0.25]))
    store.init("w", weight)
    for _ in range(2):
        store.pushpull("w", ones, out=weight)
    over = "SGD: learning_rate lists 2 values, there is none for step 2"
    refused(ScheduleOverError, over, store.push, "w", ones)
    store.pull("w", out=weight)
    assert weight.tolist() == [0.25] * 3


def sparse(arguments: Any) -> None:
    """Row-sparse gradients of a striped table, beside an optimizer here."""
    store = kvstore.create("dist_sync")
    for row in STORED.values():
        if not row.elementwise:
            continue
        for options in [{}, {"lazy_update": True}] if row.takes_lazy_update else [{}]:
            rng = np.random.default_rng(1)
            name = f"{row} {options}"
            here = Parameter(rng.standard_normal((9000, 16), np.float32), name)
            there = Parameter(here.value.copy(), name)
            local, remote = (row.over([p], **options) for p in (here, there))
            store.set_optimizer(remote)
            store.broadcast(name, there.value, there.value)
            for step in range(4):
                grads = []
                for _ in range(store.num_workers):
                    ids = np.sort(rng.choice(9000, 300, replace=False))
                    grads.append(row_sparse_array((rng.standard_normal((300, 16), np.float32), ids), shape=here.shape))
                store.push(name, grads[store.rank])
                store.pull(name, there.value)
                local((summed(grads),))
                assert same(here.value, there.value), f"{name} step {step}"


def odd_shapes(arguments: dict[str, Any]) -> None:
    """States that have as many elements as their weight, in another shape, go to a file and
    back."""
    store, local = kvstore.create("dist_sync"), kvstore.create()
    wholes: list[Any] = [row.over for row in STORED.values() if not row.elementwise]
    wholes.append(lambda params: mxopt.create("adafactor"))
    shapes = [(), (1,), (1, 1), (7, 1), (1, 7), (2, 1, 3), (0, 3)]
    for k, over in enumerate(wholes):
        for n, shape in enumerate(shapes):
            key, rng, ends = f"{k} {n}", np.random.default_rng(k), []
            weight, *grads = (np.asarray(rng.standard_normal(shape, np.float32)) for _ in range(4))
            for each in (store, local):
                each.set_optimizer(over([Parameter(weight.copy(), name=key)]))
                each.init(key, weight)
                path, out = Path(arguments["folder"], "states"), np.zeros_like(weight)
                for number, grad in enumerate(grads):
                    if number == 2:
                        each.save_optimizer_states(path)
                        each.load_optimizer_states(path)
                    each.pushpull(key, grad, out=out)
                ends.append(out)
            assert same(*ends), (k, shape)
