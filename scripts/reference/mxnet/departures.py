"""Measure where the update rules of the real MXNet 1.9.1 depart from their documented formulas.

    mxnet-env/bin/python scripts/reference/mxnet/departures.py

`real_mxnet.py` says how to make the environment. Each line compares MXNet's float32 weights after
three steps with a formula in doubles, as the largest difference: "documented" is the docstring's
formula, "measured" the one that MXNet turns out to follow. `docs/departures-mxnet.md` is written
from this and from its neighbours `departures_layers.py` and `departures_usage.py`.
"""

import numpy as np
from measure import OPTIMIZERS, WITH_MOMENTUM, Run, apart, by_formula, gradients, report

LR, WD, RESCALE, CLIP, MOM = 0.1, 0.05, 0.5, 0.3, 0.9
ALL = {"learning_rate": LR, "wd": WD, "rescale_grad": RESCALE, "clip_gradient": CLIP}
DECAY = {"learning_rate": LR, "wd": WD}


def clip(x, c=CLIP):
    return np.clip(x, -c, c)


def compare(label, run, **rules):
    report(label, **{name: apart(run.end, by_formula(rule)) for name, rule in rules.items()})


def moment(s, name, decay, value):
    s[name] = decay * s.get(name, 0) + (1 - decay) * value
    return s[name]


def gradient_preparation():
    def sgd(prepare):
        return lambda w, g, s, t: w - LR * (prepare(g) + WD * w)

    documented, measured = sgd(lambda g: RESCALE * clip(g)), sgd(lambda g: clip(RESCALE * g))
    for name in ("sgd", "lbsgd"):
        compare(f"{name}: clip and rescale_grad", Run(name, **ALL), documented=documented, measured=measured)

    def signum(prepare):
        return lambda w, g, s, t: w - LR * np.sign(moment(s, "m", MOM, prepare(g) + WD * w))

    documented, measured = signum(lambda g: RESCALE * clip(g)), signum(lambda g: clip(RESCALE * g))
    run = Run("signum", momentum=MOM, **ALL)
    compare("signum: clip and rescale_grad", run, documented=documented, measured=measured)
    bare = sgd(lambda g: RESCALE * g)
    for value in (0, -0.3):
        options = {**ALL, "clip_gradient": value}
        report(f"sgd: clip_gradient={value}", no_clipping=apart(Run("sgd", **options).end, by_formula(bare)))
    print("clip_gradient=0: how far the weight moves in 3 steps (0: the gradient was clipped to nothing)")
    for name in (*OPTIMIZERS, "groupadagrad"):
        run = Run(name, clip_gradient=0)
        report(f"  {name}", moved=apart(run.end, run.path[0]))


def where_wd_goes():
    """Gradients far beyond the clip: if wd changes the step, it was not clipped; a state shows
    whether it was in."""
    print("wd under a saturated clip, one step: does wd change the weight, and the states?")
    big = [100 * np.sign(g) for g in [np.random.default_rng(3).standard_normal((3, 4))]]
    for name in OPTIMIZERS:
        more = {"momentum": MOM} if name in WITH_MOMENTUM else {}
        more |= {"eta": 1.0} if name == "lars" else {}
        options = {"learning_rate": 1.0, "clip_gradient": 0.5, **more}
        runs = [Run(name, grads=big, wd=wd, **options) for wd in (0.0, 0.2)]
        changed = [apart(a, b) > 1e-6 for a, b in zip(runs[0].states(), runs[1].states(), strict=False)]
        report(f"  {name}", weight=apart(runs[0].end, runs[1].end) > 1e-6, states=changed)


def adams():
    def adam(correction):
        def rule(w, g, s, t):
            m, v = moment(s, "m", 0.9, g), moment(s, "v", 0.999, g * g)
            return w - LR * correction(t) * m / (np.sqrt(v) + 1e-8)

        return rule

    def paper(w, g, s, t):
        m, v = moment(s, "m", 0.9, g) / (1 - 0.9**t), moment(s, "v", 0.999, g * g) / (1 - 0.999**t)
        return w - LR * m / (np.sqrt(v) + 0.01)

    swapped = adam(lambda t: np.sqrt(1 - 0.9**t) / (1 - 0.999**t))
    usual = adam(lambda t: np.sqrt(1 - 0.999**t) / (1 - 0.9**t))
    compare("adam: bias correction", Run("adam", learning_rate=LR), documented=swapped, measured=usual)

    def usual_epsilon(w, g, s, t):
        m, v = moment(s, "m", 0.9, g), moment(s, "v", 0.999, g * g)
        return w - LR * np.sqrt(1 - 0.999**t) / (1 - 0.9**t) * m / (np.sqrt(v) + 0.01)

    compare("adam: epsilon 0.01", Run("adam", learning_rate=LR, epsilon=0.01), paper=paper, measured=usual_epsilon)

    def ftml(outside):
        def rule(w, g, s, t):
            v = moment(s, "v", 0.999, g * g)
            root = np.sqrt(v / (1 - 0.999**t))
            d = (1 - 0.6**t) / LR * root + 0.5 if outside else (1 - 0.6**t) / LR * (root + 0.5)
            s["z"] = 0.6 * s.get("z", 0) + 0.4 * g - (d - 0.6 * s.get("d", 0)) * w
            s["d"] = d
            return -s["z"] / d

        return rule

    run = Run("ftml", learning_rate=LR, epsilon=0.5)
    compare("ftml: epsilon 0.5", run, outside=ftml(True), measured_inside=ftml(False))

    def lamb(decoupled):
        def rule(w, g, s, t):
            g = g if decoupled else g + WD * w
            m, v = moment(s, "m", 0.9, g) / (1 - 0.9**t), moment(s, "v", 0.999, g * g) / (1 - 0.999**t)
            step = m / (np.sqrt(v) + 1e-6) + (WD * w if decoupled else 0)
            return w - LR * np.linalg.norm(w) / np.linalg.norm(step) * step

        return rule

    compare("lamb: wd", Run("lamb", single=True, **DECAY), in_gradient=lamb(False), measured=lamb(True))


def momenta():
    def documented(w, g, s, t):
        s["m"] = MOM * s.get("m", 0) + g + WD * w
        return w - LR * (g + MOM * s["m"])

    def nag(decay_after):
        def rule(w, g, s, t):
            m = MOM * s.get("m", 0)
            new = w - m + (MOM + 1) * (m - LR * (g + WD * w))
            s["m"] = m - LR * (g + WD * (new if decay_after else w))
            return new

        return rule

    run = Run("nag", momentum=MOM, **DECAY)
    compare("nag: wd", run, documented=documented, wd_of_old_weight=nag(False), measured=nag(True))

    def state_sign(w, g, s, t):
        return w - LR * np.sign(moment(s, "m", MOM, g + WD * w))

    run, state = Run("signum", momentum=MOM, **DECAY), {}
    compare("signum: weights", run, documented=state_sign)
    weight = run.path[0]
    for t, grad in enumerate(gradients(), 1):
        weight = state_sign(weight, grad, state, t)
    report(
        "signum: state",
        documented=apart(run.states()[0], state["m"]),
        negated=apart(run.states()[0], -state["m"]),
    )
    compare(
        "signum, momentum 0: wd",
        Run("signum", momentum=0.0, learning_rate=LR, wd=2.0),
        documented=lambda w, g, s, t: w - LR * np.sign(g + 2.0 * w),
        measured=lambda w, g, s, t: (1 - LR * 2.0) * w - LR * np.sign(g),
    )
    nothing = apart(
        Run("signum", momentum=0.0, clip_gradient=0.1, rescale_grad=0.01).end, Run("signum", momentum=0.0).end
    )
    report("signum, momentum 0: rescale_grad and clip", change_made=nothing)
    compare("dcasgd: paper, momentum 0", Run("dcasgd", learning_rate=LR, wd=WD), paper=dcasgd)
    one = Run("sgld", learning_rate=LR, weight=np.zeros((1000, 1000)), grads=[np.zeros((1000, 1000))]).end
    report(f"sgld: noise at lr {LR}", mean=float(one.mean()), variance=float(one.var()))
    run = Run("test")
    report("test: state equals the new weight", difference=apart(run.states()[0], run.end))


def dcasgd(w, g, s, t):
    new = w - LR * (g + WD * w + 0.04 * g * g * (w - s.get("previous", w)))
    s["previous"] = w
    return new


def adaptive():
    def rmsprop(inside, centered):
        def rule(w, g, s, t):
            n, mean = moment(s, "n", 0.9, g * g), moment(s, "g", 0.9, g)
            v = n - mean**2 if centered else n
            step = g / np.sqrt(v + 0.01) if inside else g / (np.sqrt(v) + 0.01)
            s["delta"] = 0.9 * s.get("delta", 0) - LR * step
            return w + s["delta"] if centered else w - LR * step

        return rule

    for centered in (False, True):
        run = Run("rmsprop", learning_rate=LR, epsilon=0.01, centered=centered)
        rules = {"outside": rmsprop(False, centered), "measured_inside": rmsprop(True, centered)}
        compare(f"rmsprop, centered={centered}: epsilon 0.01", run, **rules)
    report(
        "rmsprop: gamma2 0.9 or 0.1, not centered",
        difference=apart(Run("rmsprop").end, Run("rmsprop", gamma2=0.1).end),
    )

    def adadelta(in_gradient):
        def rule(w, g, s, t):
            g = g + WD * w if in_gradient else g
            a = moment(s, "a", 0.9, g * g)
            delta = np.sqrt(s.get("d", 0) + 1e-5) / np.sqrt(a + 1e-5) * g
            moment(s, "d", 0.9, delta * delta)
            return w - (delta + WD * w)

        return rule

    compare("adadelta: wd", Run("adadelta", wd=WD), documented=adadelta(True), measured=adadelta(False))
    report(
        "adadelta: learning_rate 0.1 or 9",
        difference=apart(Run("adadelta", learning_rate=0.1).end, Run("adadelta", learning_rate=9.0).end),
    )

    def adagrad(first, eps, coupled):
        def rule(w, g, s, t):
            g = g + WD * w if coupled else g
            s["h"] = s.get("h", first) + g * g
            return w - LR * (g / np.sqrt(s["h"] + eps) + (0 if coupled else WD * w))

        return rule

    compare(
        "adagrad: wd",
        Run("adagrad", **DECAY),
        in_gradient=adagrad(0, 1e-7, True),
        measured=adagrad(0, 1e-7, False),
    )
    run = Run("adagrad", eps=0.5, grads=[np.zeros((3, 4))])
    report("adagrad: history after a zero gradient, eps 0.5", value=float(run.states()[0].max()))

    def group(w, g, s, t):
        s["h"] = s.get("h", 0) + (g * g).mean(axis=1, keepdims=True)
        return w - LR * g / np.sqrt(s["h"] + 1e-5)

    compare("groupadagrad", Run("groupadagrad", learning_rate=LR), documented=group)

    def ftrl(w, g, s, t):
        n = s.get("n", 0)
        s["z"] = s.get("z", 0) + g - (np.sqrt(n + g * g) - np.sqrt(n)) * w / LR
        s["n"] = n + g * g
        return (np.sign(s["z"]) * 0.01 - s["z"]) / ((1 + np.sqrt(s["n"])) / LR + WD) * (abs(s["z"]) > 0.01)

    compare("ftrl", Run("ftrl", **DECAY), documented=ftrl)
    report("ftrl: weight after one zero gradient", value=apart(Run("ftrl", grads=[np.zeros((3, 4))]).end, 0))


def main():
    for part in (gradient_preparation, where_wd_goes, adams, momenta, adaptive):
        part()
        print()


if __name__ == "__main__":
    main()
