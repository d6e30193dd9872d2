"""Show the outright bugs of the real MXNet 1.9.1's optimizers: what crashes, what is silently not
done.

    mxnet-env/bin/python scripts/reference/mxnet/bugs.py

`docs/departures-mxnet.md` lists them, with what mxopt does instead; `real_mxnet.py` says how to
make the environment.
"""

import copy
import warnings

import numpy as np
from measure import OPTIMIZERS, Run, apart, create, gradients, outcome, report, start
from real_mxnet import mx

EVERY = (*OPTIMIZERS, "groupadagrad", "test")


def refusals():
    report("dcasgd momentum 0.9, (3, 4)", outcome=outcome(Run, "dcasgd", momentum=0.9))
    one = {"weight": np.ones((1,)), "grads": [np.ones((1,))]}
    report("dcasgd momentum 0.9, (1,)", outcome=outcome(Run, "dcasgd", momentum=0.9, **one))
    report("signum momentum 0, wd_lh", outcome=outcome(Run, "signum", momentum=0.0, wd_lh=0.1))
    for name in EVERY:
        tried = {dtype: outcome(Run, name, dtype) for dtype in ("float64", "float16")}
        tried["float16_with_master"] = outcome(Run, name, "float16", multi_precision=True)
        report(f"{name}: dtypes", **tried)
    report("adagrad, row_sparse, wd", outcome=outcome(by_rows, "adagrad", wd=0.1))
    report("groupadagrad, wd", outcome=outcome(Run, "groupadagrad", wd=0.1))
    report("test, row_sparse weight", outcome=outcome(by_rows, "test"))
    for make in (mx.lr_scheduler.PolyScheduler, mx.lr_scheduler.CosineScheduler):
        schedule = make(5, base_lr=1.0, warmup_steps=5)
        report(f"{make.__name__}(5, warmup_steps=5)(5)", outcome=outcome(schedule, 5))
    scheduled = create("sgd", lr_scheduler=mx.lr_scheduler.FactorScheduler(1))
    report("set_learning_rate under a scheduler", outcome=outcome(scheduled.set_learning_rate, 1.0))
    report("set_lr_scale", outcome=outcome(scheduled.set_lr_scale, {}))
    report("ftrl learning_rate=None", outcome=outcome(Run, "ftrl", learning_rate=None))
    mx.util.set_np_shape(True)
    for shape in ((), (0, 3)):
        names = [n for n in EVERY if n != "groupadagrad"]
        bad = [n for n in names if outcome(Run, n, weight=np.ones(shape), steps=1) != "ran"]
        report(f"refuse a weight of shape {shape} under np_shape", names=bad)
    mx.util.set_np_shape(False)


def by_rows(name, **options):
    weight = mx.nd.array(start()).tostype("row_sparse")
    updater = mx.optimizer.get_updater(create(name, **options))
    updater(0, mx.nd.array(start()).tostype("row_sparse"), weight)
    return weight.asnumpy()


def silent():
    grads, master = gradients(steps=4), {"multi_precision": True, "learning_rate": 0.1}
    for single in (True, False):
        run = Run("lamb", "float16", grads=grads, single=single, **master)
        how = "single calls" if single else "updater"
        moved = apart(run.state[0].asnumpy(), run.path[0])
        report(f"lamb with master, 4 steps, {how}", master_moved=moved, weight_moved=apart(run.end, run.path[0]))

    buffer, weight = mx.nd.ones((1,)), mx.nd.zeros((1,))
    updater = mx.optimizer.get_updater(create("lbsgd", learning_rate=2.0, batch_scale=2, warmup_epochs=0))
    for value in (1.0, 5.0):
        buffer[:] = value
        updater(0, buffer, weight)
    report(
        "lbsgd: gradients 1 and 5 in one buffer, weight",
        weight=float(weight.asscalar()),
        expected=-2.0 * 2 * (1 + 5) / 2,
    )
    nan = Run("lbsgd", batch_scale=4, grads=[np.full((3, 4), np.nan)]).end
    report("lbsgd: one NaN gradient of a macro batch of 4", weight=str(nan[0, 0]))

    grad = mx.nd.ones((2,))
    mx.optimizer.get_updater(create("adadelta", rescale_grad=0.5))(0, grad, mx.nd.ones((2,)))
    report("adadelta: the caller's gradient 1 after the update", value=float(grad.asnumpy()[0]))

    moved = {"dense": apart(Run("adagrad", clip_gradient=0).end, start())}
    moved["by_rows"] = apart(by_rows("adagrad", clip_gradient=0), start())
    report("adagrad clip_gradient=0: weight moved", **moved)
    for kept in (False, True):
        report(f"adam: resumed from get_states(dump_optimizer={kept})", off=resumed("adam", kept))
    run = Run("ftml", learning_rate=0.0)
    report("ftml: learning rate 0", weight=str(run.end[0, 0]))
    run = Run("adamax", grads=[np.zeros((3, 4))])
    report("adamax: first gradient 0", weight=str(run.end[0, 0]))
    run = Run("sgd", momentum=-0.5)
    report("sgd momentum -0.5", differs_from_momentum_0=apart(run.end, Run("sgd").end), state=len(run.states()))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        create("sgd", learning_rate=0.5, lr_scheduler=mx.lr_scheduler.FactorScheduler(1))
    report("overwritten learning rate: warnings given", count=len(caught))


def row_sparse_weights():
    for name in EVERY:
        report(f"{name}: a row-sparse weight that lacks a row", outcome=outcome(in_missing_row, name))
    store = mx.kv.create("local")
    store.set_optimizer(create("sgd", learning_rate=0.5))
    store.init("w", rows([1.0], [0]))
    store.push("w", rows([2.0, 2.0], [0, 2]))
    out = rows([0.0] * 4, range(4))
    store.row_sparse_pull("w", out=out, row_ids=mx.nd.arange(4))
    report("sgd in a store, row 0 is 1, gradients 2 of rows 0, 2", weight=out.asnumpy()[:, 0].tolist())
    options = {"momentum": 0.9, "wd": 0.1, "learning_rate": 0.1}
    report("nag, row-sparse weight from the dense", off=apart(nag_by_rows(**options), Run("nag", **options).end))


def rows(values, numbers):
    data = np.repeat(np.float32(values)[:, None], 2, axis=1)
    return mx.nd.sparse.row_sparse_array((data, np.array(list(numbers))), shape=(4, 2))


def in_missing_row(name):
    weight = rows([1.0], [0])
    mx.optimizer.get_updater(create(name))(0, rows([2.0], [2]), weight)
    return weight.asnumpy()


def nag_by_rows(**options):
    weight = mx.nd.array(start()).tostype("row_sparse")
    updater = mx.optimizer.get_updater(create("nag", **options))
    for grad in gradients():
        updater(0, mx.nd.array(grad).tostype("row_sparse"), weight)
    return weight.asnumpy()


def taken():
    """What is accepted without a word, and what becomes of it."""
    adam = create("adam", param_idx2name={0: "w_weight"})
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        adam.set_lr_mult({"no_such_name": 2.0})
        create("sgd", learning_rate=-1.0)
        mx.lr_scheduler.CosineScheduler(10, warmup_steps=100)
    report("a stranger's multiplier, a rate below 0, a short max_update: warnings", count=len(caught))
    schedules = mx.lr_scheduler
    for warmup in (0, 2):
        for make in (schedules.FactorScheduler, schedules.PolyScheduler, schedules.CosineScheduler):
            schedule, label = make(5, warmup_steps=warmup), f"{make.__name__}, warmup_steps={warmup}: -1 updates"
            said = outcome(schedule, -1)
            report(label, **({"rate": schedule(-1)} if said == "ran" else {"outcome": said}))
    rising = schedules.PolyScheduler(5, base_lr=1.0, pwr=-1)
    report("PolyScheduler, pwr=-1", rates=[round(rising(n), 2) for n in range(5)], at_the_end=outcome(rising, 5))
    for begin in (-1, 0.5):
        for name in OPTIMIZERS:
            label = f"{name}, begin_num_update={begin}"
            said = outcome(Run, name, steps=1, begin_num_update=begin)
            if said != "ran":
                report(label, outcome=said)
            else:
                report(label, moved=apart(*Run(name, steps=1, begin_num_update=begin).path))


def behind():
    print("six equal parameters in one list, the last two a step ahead, and a rate that halves at each update:")
    for name in ("sgd", "nag", "signum"):
        schedule = mx.lr_scheduler.FactorScheduler(1, factor=0.5, base_lr=1.0)
        options = {"learning_rate": 1.0} | ({} if name == "sgd" else {"momentum": 0.0})
        updater = mx.optimizer.get_updater(create(name, lr_scheduler=schedule, **options))
        weights, grad = [mx.nd.zeros(1) for _ in range(6)], mx.nd.ones(1)
        for ahead in (4, 5):
            updater(ahead, grad, weights[ahead])
        before = [float(w.asscalar()) for w in weights]
        updater(list(range(6)), [grad] * 6, weights)
        moved = [round(b - float(w.asscalar()), 4) for b, w in zip(before, weights, strict=True)]
        report(f"  {name}", rates=moved)


def resumed(name, dump_optimizer):
    grads = [mx.nd.array(g) for g in gradients(steps=6)]
    weights = [mx.nd.array(start()), mx.nd.array(start())]
    updaters = [mx.optimizer.get_updater(create(name, learning_rate=0.1)) for _ in weights]
    for step, grad in enumerate(grads):
        if step == 3:
            saved = updaters[1].get_states(dump_optimizer)
            updaters[1] = mx.optimizer.get_updater(create(name, learning_rate=0.1))
            updaters[1].set_states(saved)
        for updater, weight in zip(updaters, weights, strict=False):
            updater(0, grad, weight)
    return apart(weights[0].asnumpy(), weights[1].asnumpy())


def turned_and_copied():
    row, grad = np.array([[1.0, 2.0]]), [np.array([[0.125, 0.25]])]
    for scale in (1.0, -1.0, 0.0):
        ends = {
            wd: Run("lars", weight=row, grads=grad, wd=wd, rescale_grad=scale, learning_rate=1.0) for wd in (0.0, 0.125)
        }
        report(
            f"lars rescale_grad {scale}: weight 1 with gradient 0.125",
            **{f"wd_{wd}": str(r.end[0, 0]) for wd, r in ends.items()},
        )
    optimizer = create("sgd", learning_rate=1.0, param_dict={0: mx.gluon.Parameter("w", shape=(1,), lr_mult=0.5)})
    rates = {"itself": optimizer._get_lr(0), "copy": copy.deepcopy(optimizer)._get_lr(0)}
    report("an optimizer with a param_dict, lr_mult 0.5: rates", **rates)


def forgotten():
    optimizer, weight, one = create("sgd", learning_rate=1.0), mx.nd.zeros(1), mx.nd.ones(1)
    updater = mx.optimizer.get_updater(optimizer)
    updater(0, one, weight)
    updater.set_states(updater.get_states(dump_optimizer=True))
    optimizer.lr = 0.0
    updater(0, one, weight)
    report("the rate is set to 0 after states with the optimizer were loaded", moved=-1.0 - float(weight.asscalar()))
    for make in (mx.lr_scheduler.PolyScheduler, mx.lr_scheduler.CosineScheduler):
        seen = {}
        for asked in (False, True):
            schedule = make(4, base_lr=1.0)
            for count in range(5):
                schedule(count)
            schedule.base_lr = 0.5
            if asked:
                schedule(4)
            seen["asked" if asked else "not_asked"] = [schedule(count) for count in (5, 6)]
        report(f"{make.__name__}(4): 0.5 assigned at 4, then asked for 4, or not", **seen)


def not_numbers():
    print("one element's gradient is NaN, Inf, or Inf with clip_gradient=0.5: that element, and do others suffer?")
    for name in EVERY:
        shown = {}
        for label, value, more in (
            ("nan", np.nan, {}),
            ("inf", np.inf, {}),
            ("inf_clipped", np.inf, {"clip_gradient": 0.5}),
        ):
            grad = np.ones((3, 4))
            grad[0, 0] = value
            run = Run(name, weight=np.full((3, 4), 0.44), grads=[grad], **more)
            spread = "" if np.isfinite(run.end.flat[1:]).all() else " spreads"
            shown[label] = f"{run.end[0, 0]:.3g}{spread}"
        report(f"  {name}", **shown)


def main():
    for part in (refusals, silent, row_sparse_weights, taken, behind, turned_and_copied, forgotten, not_numbers):
        part()
        print()


if __name__ == "__main__":
    main()
