"""Where row-sparse updates, schedulers and the base class of the real MXNet 1.9.1 leave the
documentation.

    mxnet-env/bin/python scripts/reference/mxnet/departures_usage.py

`docs/departures-mxnet.md` is written from this; see `departures.py`.
"""

import io
from contextlib import redirect_stdout

import numpy as np
from measure import OPTIMIZERS, WITH_MOMENTUM, Run, apart, create, report, start
from real_mxnet import mx

LR, WD = 0.1, 0.05


def absent_row(name, weight_rows=True, empty=False, dtype="float32", **options):
    """How far row 0 moves under gradients with row 1 alone (or none), after one gradient of every
    row."""
    optimizer = create(name, **options)
    updater = mx.optimizer.get_updater(optimizer)
    weight = mx.nd.array(start((3, 4)), dtype=dtype)
    weight = weight.tostype("row_sparse") if weight_rows else weight
    rows = np.ones((3, 4), dtype)
    updater(0, mx.nd.array(rows, dtype=dtype).tostype("row_sparse"), weight)
    before = weight.asnumpy()[0]
    for _ in range(3):
        one = mx.nd.sparse.row_sparse_array((rows[:1], [1]), shape=(3, 4), dtype=dtype)
        updater(0, mx.nd.sparse.zeros("row_sparse", (3, 4), dtype=dtype) if empty else one, weight)
    return apart(before, weight.asnumpy()[0])


def never_seen(name, weight_rows):
    """How far row 0 moves if no gradient ever named it."""
    weight = mx.nd.array(start((3, 4))).tostype("row_sparse" if weight_rows else "default")
    updater = mx.optimizer.get_updater(create(name))
    for _ in range(2):
        updater(0, mx.nd.sparse.row_sparse_array((np.ones((1, 4), "float32"), [1]), shape=(3, 4)), weight)
    return apart(start((3, 4))[0], weight.asnumpy()[0])


def sparse():
    masters = {"multi_precision": True, "dtype": "float16"}
    for name, more in (("sgd", {}), ("sgd", {"momentum": 0.9}), ("adam", {})):
        for lazy in (True, False):
            options = {"learning_rate": LR, "wd": WD, "lazy_update": lazy, **more}
            report(
                f"{name} {more} lazy_update={lazy}: absent row moves",
                by_rows=absent_row(name, **options),
                dense=absent_row(name, False, **options),
            )
            report(
                "   with a float16 weight and its master",
                by_rows=absent_row(name, **options, **masters),
                dense=absent_row(name, False, **options, **masters),
            )
    report(
        "sgd lazy_update=False, empty gradient",
        moved=absent_row("sgd", empty=True, learning_rate=LR, wd=WD, lazy_update=False),
    )
    for stored in (True, False):
        report(f"ftrl: row never seen, weight by rows: {stored}", moves=never_seen("ftrl", stored))
    for name in ("nag", "lbsgd"):
        options = {"learning_rate": LR, "wd": WD}
        moves = {"by_rows": absent_row(name, **options), "dense": absent_row(name, False, **options)}
        report(f"{name} momentum 0: absent row moves", **moves)
    for name in (*OPTIMIZERS, "groupadagrad"):
        options = {"momentum": 0.9} if name in WITH_MOMENTUM else {}
        if name not in ("adagrad", "groupadagrad"):
            options["wd"] = WD
        if name == "lars":
            options["eta"] = 1.0
        moves = {"by_rows": absent_row(name, **options), "dense": absent_row(name, False, **options)}
        report(f"{name}: absent row moves", **moves)


def schedules():
    s = mx.lr_scheduler
    report("FactorScheduler(2, .5), n = 0..6", rates=list(map(s.FactorScheduler(2, 0.5, base_lr=1.0), range(7))))
    report(
        "MultiFactorScheduler([2, 4], .5)",
        rates=list(map(s.MultiFactorScheduler([2, 4], 0.5, base_lr=1.0), range(7))),
    )
    f = s.FactorScheduler(2, 0.5, base_lr=1.0)
    report("FactorScheduler: n = 9, then n = 1", rates=[f(9), f(1)])
    floor = s.FactorScheduler(2, 0.5, stop_factor_lr=0.01, base_lr=0.001)
    report("FactorScheduler: base_lr .001, stop_factor_lr .01", rates=[floor(1), floor(3)])
    for make in (s.PolyScheduler, s.CosineScheduler):
        p = make(4, base_lr=1.0, final_lr=0.25)
        report(f"{make.__name__}(4, final_lr=.25), n = 0..6", rates=[round(p(n), 4) for n in range(7)])
        report("   first asked at n = 6", rates=[make(4, base_lr=1.0, final_lr=0.25)(6)])
        report(
            "   warmup_steps 2, n = 0..4",
            rates=[round(r, 4) for r in map(make(4, base_lr=1.0, warmup_steps=2), range(5))],
        )
    for name, options in (
        ("sgd", {}),
        ("sgd", {"learning_rate": 0.5}),
        ("ftrl", {"learning_rate": 0.5}),
        ("adam", {}),
        ("adam", {"learning_rate": None}),
    ):
        rates = {}
        for make in (
            s.FactorScheduler(9, base_lr=0.75),
            s.PolyScheduler(9, base_lr=0.75, pwr=0),
            s.FactorScheduler(9, base_lr=0.75, warmup_steps=4),
        ):
            with redirect_stdout(io.StringIO()) as printed:
                optimizer = mx.optimizer.create(name, lr_scheduler=make, **options)
            optimizer.num_update = 2
            rates[f"{type(make).__name__}{'_warm' * bool(make.warmup_steps)}"] = optimizer.learning_rate
        report(f"{name} {options}, base_lr .75: rate", printed=bool(printed.getvalue()), **rates)
    ours = (
        "sgd signum ftml lars lbsgd lamb dcasgd nag sgld adam adagrad rmsprop adadelta ftrl adamax nadam groupadagrad"
    )
    changed = [
        n for n in ours.split() if create(n, lr_scheduler=s.FactorScheduler(9, base_lr=0.75)).learning_rate != 0.75
    ]
    report("overwrite a scheduler though given no rate", optimizers=changed)


def base_class():
    for name in ("sgd", "adam", "nadam", "rmsprop", "ftrl"):
        report(f"{name}: learning_rate=None", rate=str(create(name, learning_rate=None).learning_rate))
    optimizer = Run("adam", steps=1, begin_num_update=5).optimizer
    report("adam: begin_num_update=5, count at the first update", t=optimizer._index_update_count[0])
    optimizer = create("sgd", wd=1.0, param_idx2name={0: "fc_bias"})
    report(
        "wd of fc_bias with idx2name, and of an index without",
        wd=[optimizer._get_wd(0), optimizer._get_wd(1)],
    )
    optimizer.set_wd_mult({"fc_bias": 2.0, 0: 3.0})
    report("   wd_mult by name 2, by index 3", wd=optimizer._get_wd(0))

    class Parameter:
        lr_mult, wd_mult = 1.0, 5.0

    optimizer.param_dict = {0: Parameter}
    report("   and param_dict 5", wd=optimizer._get_wd(0))


def noting(base, method, calls):
    """A subclass whose `method` notes whether it got a list."""

    def noted(self, *args):
        calls.append(isinstance(args[0], (list, tuple)))
        return getattr(base, method)(self, *args)

    return type(base.__name__, (base,), {method: noted})


def overridden():
    kinds = "adadelta adagrad adam adamax dcasgd ftml ftrl lamb lars lbsgd nadam nag rmsprop sgd sgld signum"
    for method in ("update", "update_multi_precision", "_get_lr", "_get_lrs"):
        called = {}
        for name in kinds.split():
            calls = called[name] = []
            updater = mx.optimizer.get_updater(noting(mx.optimizer.Optimizer.opt_registry[name], method, calls)())
            updater([0, 1], [mx.nd.ones(2) for _ in range(2)], [mx.nd.ones(2) for _ in range(2)])
        report(f"a subclass' {method}: an updater calls it", optimizers=[n for n, calls in called.items() if calls])
        report("   and gives it lists", optimizers=[n for n, calls in called.items() if any(calls)])


def main():
    for part in (sparse, schedules, base_class, overridden):
        part()
        print()


if __name__ == "__main__":
    main()
