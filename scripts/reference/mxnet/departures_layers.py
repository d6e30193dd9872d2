"""Measure where the layer-wise rules of the real MXNet 1.9.1, and its precision, depart from the
documentation.

    mxnet-env/bin/python scripts/reference/mxnet/departures_layers.py

`docs/departures-mxnet.md` is written from this; see `departures.py`.
"""

import math

import numpy as np
from measure import (
    OPTIMIZERS,
    WITH_MOMENTUM,
    Run,
    apart,
    by_formula,
    create,
    gradients,
    outcome,
    report,
    start,
)
from real_mxnet import mx

LR, WD, RESCALE, CLIP = 0.1, 0.05, 0.5, 0.3


def several(name, count, steps=3, together=False, shape=(3, 4), names=None, **options):
    """`count` equal parameters on equal gradients; their final weights."""
    optimizer = create(name, **options)
    updater = mx.optimizer.get_updater(optimizer)
    weights = [mx.nd.array(start(shape)) for _ in range(count)]
    for grad in gradients(shape, steps):
        grads = [mx.nd.array(grad) for _ in weights]
        if together:
            updater(list(range(count)), grads, weights)
        else:
            for i in range(count):
                updater(i, grads[i], weights[i])
    return [w.asnumpy() for w in weights]


def layer_wise():
    pair = several("nadam", 2, learning_rate=LR)
    alone = several("nadam", 1, learning_rate=LR)
    report("nadam: equal parameters", apart=apart(*pair), first_from_alone=apart(pair[0], alone[0]))

    def lbsgd(factor):
        def rule(w, g, s, t):
            s["m"] = 0.9 * s.get("m", 0) + LR * g + factor * WD * w
            return w - s["m"]

        return rule

    run = Run("lbsgd", momentum=0.9, learning_rate=LR, wd=WD)
    rules = {"documented": lbsgd(1), "measured": lbsgd(LR)}
    report("lbsgd: wd", **{k: apart(run.end, by_formula(r)) for k, r in rules.items()})

    def lbsgd_lars(squared, prepare):
        def rule(w, g, s, t):
            a, b = (w * w).sum(), (prepare(g) ** 2).sum()
            ratio = math.sqrt(a / (b + WD * a)) if squared else math.sqrt(a) / (math.sqrt(b) + WD * math.sqrt(a))
            return w - LR * ratio * (np.clip(RESCALE * g, -CLIP, CLIP) + WD * w)

        return rule

    options = {"learning_rate": LR, "wd": WD, "rescale_grad": RESCALE, "clip_gradient": CLIP}
    run = Run("lbsgd", warmup_strategy="lars", **options)
    rules = {
        "usual_lars": lbsgd_lars(False, lambda g: RESCALE * g),
        "measured": lbsgd_lars(True, lambda g: g),
    }
    report("lbsgd: strategy lars", **{k: apart(run.end, by_formula(r)) for k, r in rules.items()})
    ones = [np.ones((3, 4))] * 6
    run = Run("lbsgd", grads=ones, weight=np.zeros((3, 4)), learning_rate=1.0, batch_scale=3, warmup_epochs=1)
    report("lbsgd: weight at each of 6 calls, batch_scale 3", weight=[round(p[0, 0], 4) for p in run.path])
    for begin in (0, 1):
        run = Run("lbsgd", grads=ones, weight=np.zeros((3, 4)), learning_rate=1.0, batch_scale=4, begin_epoch=begin)
        report(
            f"lbsgd: the same, batch_scale 4, begin_epoch {begin}",
            weight=[round(p[0, 0], 4) for p in run.path],
        )
    seen = {}
    for name in ("lbsgd", "sgd"):
        schedule = mx.lr_scheduler.FactorScheduler(1, 0.5, base_lr=1.0)
        run = Run(name, grads=ones, weight=np.zeros((3, 4)), lr_scheduler=schedule)
        seen[name] = [round(a[0, 0] - b[0, 0], 4) for a, b in zip(run.path, run.path[1:], strict=False)]
    report("lbsgd: steps under a schedule that halves", **seen)

    def lars(prepare):
        def rule(w, g, s, t):
            ratio = 0.1 * np.linalg.norm(w) / (np.linalg.norm(prepare(g)) + WD * np.linalg.norm(w))
            return w - LR * ratio * (np.clip(RESCALE * g, -CLIP, CLIP) + WD * w)

        return rule

    run = Run("lars", eta=0.1, **options)
    rules = {
        "clipped_norm": lars(lambda g: np.clip(RESCALE * g, -CLIP, CLIP)),
        "measured": lars(lambda g: RESCALE * g),
    }
    report("lars: norm of the gradient", **{k: apart(run.end, by_formula(r)) for k, r in rules.items()})
    names = ("a_weight", "mygamma", "x_gamma", "xbeta", "bias", "other")
    for kind in ("sgd", "lars"):
        optimizer = create(kind, param_idx2name=dict(enumerate(names)), wd=1.0)
        report(f"{kind}: wd of {names}", wd=[optimizer._get_wd(i) for i in range(6)])
    plain = [apart(w, several("sgd", 1, learning_rate=LR)[0]) for w in several_named("lars", names, learning_rate=LR)]
    report("lars: takes the plain lr", names=[n for n, d in zip(names, plain, strict=False) if d < 1e-7])
    report("lars: option lars_eta", outcome=outcome(create, "lars", lars_eta=1.0))

    halve = mx.lr_scheduler.FactorScheduler
    six = several("lars", 6, 4, True, lr_scheduler=halve(1, 0.5, base_lr=1.0), momentum=0.9, eta=0.1)
    report("lars: six equal parameters in a list", p0_p3=apart(six[0], six[3]), p0_p4=apart(six[0], six[4]))
    two = several("lars", 2, 4, False, lr_scheduler=halve(1, 0.5, base_lr=1.0), momentum=0.9, eta=0.1)
    report("lars: two equal parameters, one after the other", p0_p1=apart(*two))

    def lamb(bound):
        def rule(w, g, s, t):
            s["m"], s["v"] = 0.9 * s.get("m", 0) + 0.1 * g, 0.999 * s.get("v", 0) + 0.001 * g * g
            step = s["m"] / (1 - 0.9**t) / (np.sqrt(s["v"] / (1 - 0.999**t)) + 1e-6)
            w_norm, norm = np.linalg.norm(w), np.linalg.norm(step)
            ratio = max(w_norm, 7.0) / norm if bound == "norm" else max(w_norm / norm, 7.0)
            return w - LR * ratio * step

        return rule

    run = Run("lamb", single=True, learning_rate=LR, lower_bound=7.0)
    rules = {"of_the_ratio": lamb("ratio"), "measured_of_weight_norm": lamb("norm")}
    report("lamb: lower_bound 7", **{k: apart(run.end, by_formula(r)) for k, r in rules.items()})
    moved = Run("lamb", weight=np.zeros((3, 4)), steps=1, learning_rate=LR).end
    report("lamb: zero weight, largest step at lr 0.1", moved=apart(moved, 0))
    for dtype in ("float64", "float16"):
        single = Run("lamb", dtype, single=True, learning_rate=LR, wd=WD)
        report(
            f"lamb {dtype}: updater against single calls",
            apart=apart(single.end, Run("lamb", dtype, learning_rate=LR, wd=WD).end),
        )


def several_named(name, names, **options):
    return several(name, len(names), param_idx2name=dict(enumerate(names)), **options)


def precision():
    rates = {"double": 0.1, "float32": float(np.float32(0.1))}
    rules = {
        "sgd": lambda lr: lambda w, g, s, t: w - lr * g,
        "adamax": lambda lr: lambda w, g, s, t: adamax(w, g, s, t, lr),
    }
    for name, rule in rules.items():
        run = Run(name, "float64", learning_rate=0.1)
        numbers = {k: apart(run.end, by_formula(rule(lr), dtype="float64")) for k, lr in rates.items()}
        report(f"{name} float64: learning rate taken as", **numbers)
    for dtype in ("float32", "float16"):
        variance = Run("adam", dtype, weight=np.zeros((1, 1)), grads=[np.ones((1, 1))]).states()[1][0, 0]
        report(f"adam {dtype}: 1 - beta2 for beta2 0.999", value=f"{variance:.9g}")
    report(
        "adam float16: zero gradient, epsilon 1e-8",
        weight=str(Run("adam", "float16", grads=[np.zeros((1, 1))], weight=np.ones((1, 1))).end[0, 0]),
    )
    for name in OPTIMIZERS:
        more = {"momentum": 0.9} if name in WITH_MOMENTUM else {}
        state = create(name, multi_precision=True, **more).create_state_multi_precision(
            0, mx.nd.ones((2,), dtype="float16")
        )
        parts = ["master" if _is_ones(part) else "state" for part in state]
        report(f"  {name}: state with a master copy", order=parts)


def adamax(w, g, s, t, lr):
    s["m"], s["u"] = 0.9 * s.get("m", 0) + (1 - 0.9) * g, np.maximum(0.999 * s.get("u", 0), abs(g))
    return w - lr / (1 - 0.9**t) * s["m"] / s["u"]


def _is_ones(part):
    return isinstance(part, mx.nd.NDArray) and part.dtype == np.float32 and bool((part.asnumpy() == 1).all())


def main():
    for part in (layer_wise, precision):
        part()
        print()


if __name__ == "__main__":
    main()
