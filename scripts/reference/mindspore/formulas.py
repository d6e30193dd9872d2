"""The formulas of mindspore.nn's optimizers in double precision, as documented: a second opinion.

`FORMULAS[class](state, p, g, lr, wd, t, o)` is one step for one parameter: `state` is a dictionary
that starts out empty, `t` counts from 1, `wd` is what an optimizer with decoupled decay applies (0
for the others: their decay is in `g` already) and `o` holds the options, defaults included. It
gives the new parameter.
"""

import numpy as np


def moments(state, g, o):
    m = state["m"] = o["beta1"] * state.get("m", 0.0) + (1 - o["beta1"]) * g
    v = state["v"] = o["beta2"] * state.get("v", 0.0) + (1 - o["beta2"]) * g * g
    return m, v


def sgd(state, p, g, lr, wd, t, o):
    first = "v" not in state
    v = state["v"] = g if first else o["momentum"] * state["v"] + (1 - o["dampening"]) * g
    if o["momentum"] == 0:
        return p - lr * g
    return p - lr * (g + o["momentum"] * v if o["nesterov"] else v)


def momentum(state, p, g, lr, wd, t, o):
    v = state["v"] = o["momentum"] * state.get("v", 0.0) + g
    return p - lr * (g + o["momentum"] * v if o["use_nesterov"] else v)


def adam(state, p, g, lr, wd, t, o):
    m, v = moments(state, g, o)
    if o.get("use_amsgrad"):
        v = state["vhat"] = np.maximum(state.get("vhat", 0.0), v)
    if o["use_nesterov"]:
        m = o["beta1"] * m + (1 - o["beta1"]) * g
    return p - lr * m / (1 - o["beta1"] ** t) / (np.sqrt(v / (1 - o["beta2"] ** t)) + o["eps"])


def adam_offload(state, p, g, lr, wd, t, o):
    """Here the documentation has epsilon beside the uncorrected second moment."""
    return adam(state, p, g, lr, wd, t, {**o, "eps": o["eps"] / np.sqrt(1 - o["beta2"] ** t)})


def adam_weight_decay(state, p, g, lr, wd, t, o):
    m, v = moments(state, g, o)
    return p - lr * (m / (np.sqrt(v) + o["eps"]) + wd * p)


def lamb(state, p, g, lr, wd, t, o):
    m, v = moments(state, g, o)
    r = m / (1 - o["beta1"] ** t) / (np.sqrt(v / (1 - o["beta2"] ** t)) + o["eps"]) + wd * p
    return p - lr * np.linalg.norm(p) / np.linalg.norm(r) * r


def adamax(state, p, g, lr, wd, t, o):
    m = state["m"] = o["beta1"] * state.get("m", 0.0) + (1 - o["beta1"]) * g
    u = state["u"] = np.maximum(o["beta2"] * state.get("u", 0.0), np.abs(g))
    return p - lr / (1 - o["beta1"] ** t) * m / (u + o["eps"])


def adagrad(state, p, g, lr, wd, t, o):
    accum = state.get("accum", o["accum"])
    if o["update_slots"]:
        accum = state["accum"] = accum + g * g
    return p - lr * g / np.sqrt(accum)


def proximal_adagrad(state, p, g, lr, wd, t, o):
    accum = state["accum"] = state.get("accum", o["accum"]) + g * g
    rate = lr / np.sqrt(accum)
    prox = p - rate * g
    return np.sign(prox) / (1 + rate * o["l2"]) * np.maximum(np.abs(prox) - rate * o["l1"], 0)


def adadelta(state, p, g, lr, wd, t, o):
    accum = state["accum"] = o["rho"] * state.get("accum", 0.0) + (1 - o["rho"]) * g * g
    update = np.sqrt(state.get("update", 0.0) + o["epsilon"]) * g / np.sqrt(accum + o["epsilon"])
    state["update"] = o["rho"] * state.get("update", 0.0) + (1 - o["rho"]) * update**2
    return p - lr * update


def rmsprop(state, p, g, lr, wd, t, o):
    s = state["s"] = o["decay"] * state.get("s", 1.0) + (1 - o["decay"]) * g * g
    mean = state["mean"] = o["decay"] * state.get("mean", 0.0) + (1 - o["decay"]) * g
    s = s - mean**2 if o["centered"] else s
    m = state["m"] = o["momentum"] * state.get("m", 0.0) + lr * g / np.sqrt(s + o["epsilon"])
    return p - m


def ftrl(state, p, g, lr, wd, t, o):
    old = state.get("accum", o["initial_accum"])
    new = state["accum"] = old + g * g
    grown = new ** -o["lr_power"]
    z = state["z"] = state.get("z", 0.0) + g - (grown - old ** -o["lr_power"]) / lr * p
    return np.where(np.abs(z) > o["l1"], (np.sign(z) * o["l1"] - z) / (grown / lr + 2 * o["l2"]), 0.0)


def asgd(state, p, g, lr, wd, t, o):
    eta = state.get("eta", lr)
    state["eta"] = lr / (1 + o["lambd"] * lr * t) ** o["alpha"]
    return p * (1 - o["lambd"] * eta) - eta * g


def rprop(state, p, g, lr, wd, t, o):
    agreement = np.sign(g * state.get("prev", 0.0))
    factor = np.where(agreement > 0, o["etas"][1], np.where(agreement < 0, o["etas"][0], 1.0))
    size = state["size"] = np.clip(state.get("size", lr) * factor, *o["step_sizes"])
    g = state["prev"] = np.where(agreement < 0, 0.0, g)
    return p - np.sign(g) * size


def rms(x):
    return np.sqrt(np.mean(x * x))


def adafactor(state, p, g, lr, wd, t, o):
    if o["relative_step"]:
        lr = min(1e-6 * t if o["warmup_init"] else 1e-2, 1 / np.sqrt(t))
    if o["scale_parameter"]:
        lr = lr * max(o["eps"][1], rms(p))
    keep = 1 - t ** -o["decay_rate"]
    square = g * g + o["eps"][0]
    if p.ndim > 1:
        row = state["row"] = keep * state.get("row", 0.0) + (1 - keep) * square.mean(-1)
        col = state["col"] = keep * state.get("col", 0.0) + (1 - keep) * square.mean(-2)
        v = row[..., None] * col[..., None, :] / row.mean(-1)[..., None, None]
    else:
        v = state["v"] = keep * state.get("v", 0.0) + (1 - keep) * square
    update = g / np.sqrt(v)
    update = lr * update / max(1.0, rms(update) / o["clip_threshold"])
    if o["beta1"]:
        update = state["m"] = o["beta1"] * state.get("m", 0.0) + (1 - o["beta1"]) * update
    return p - wd * lr * p - update


def lars(p, g, lr, wd, o):
    """The gradient that LARS hands to the optimizer inside it."""
    size = np.linalg.norm(p)
    trust = o["coefficient"] * size / (np.linalg.norm(g) + wd * size + o["epsilon"])
    if o["use_clip"]:
        trust = min(trust / lr, 1.0)
    return trust * (g + wd * p)


FORMULAS = {
    "SGD": sgd,
    "Momentum": momentum,
    "Adam": adam,
    "LazyAdam": adam,
    "AdamOffload": adam_offload,
    "AdamWeightDecay": adam_weight_decay,
    "Lamb": lamb,
    "AdaMax": adamax,
    "Adagrad": adagrad,
    "ProximalAdagrad": proximal_adagrad,
    "Adadelta": adadelta,
    "RMSProp": rmsprop,
    "FTRL": ftrl,
    "ASGD": asgd,
    "Rprop": rprop,
    "AdaFactor": adafactor,
}

#: Their weight decay is their own business: it is not added to the gradient.
DECOUPLED = {"AdamWeightDecay", "Lamb", "AdaFactor"}
