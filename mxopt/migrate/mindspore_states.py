"""Loads the states of MindSpore's optimizers into those of `mxopt.nn` and
`mxopt.experimental.optim`."""

from __future__ import annotations

from collections.abc import Mapping

import numpy as np

from mxopt import nn
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.optimizer.grouped import Step
from mxopt.parameter import Parameter
from mxopt.typing import Plain

# MindSpore's name of a state is a prefix and the parameter's name. The prefix is mxopt's name of
# the state and a dot, except here.
NN = {
    "RMSProp": {"ms": "mean_square.", "mg": "mean_grad."},
    "AdamWeightDecay": {"moments1": "adam_m.", "moments2": "adam_v."},
    "Lamb": {"moments1": "lamb_m.", "moments2": "lamb_v."},
    "ASGD": {"ax": "ax_."},
    "AdaFactor": {name: f"{name}_" for name in ("exp_avg_sq_row", "exp_avg_sq_col", "exp_avg_sq")},
}
ADAM = {"mean": "exp_avg.", "var": "exp_avg_sq.", "largest": "max_exp_avg_sq."}
EXPERIMENTAL = {
    **dict.fromkeys(("Adam", "AdamW", "NAdam", "RAdam"), ADAM),
    "Adamax": ADAM | {"largest": "exp_inf."},
    "SGD": {"velocity": "accum."},
    "Adadelta": {"mean_square": "accum.", "mean_square_step": "accum_update."},
    "Adagrad": {"history": "accum."},
    "ASGD": {"average": "ax."},
    "RMSprop": {"mean": "mean_grad.", "velocity": "moment."},
    "Rprop": {"previous": "prev."},
}
STEPS = ("state_step", "step_t")


def load_mindspore_states(optimizer: nn.Optimizer | optim.Optimizer, values: Mapping[str, np.ndarray]) -> None:
    """Goes on from the states that `mindspore.save_checkpoint(optimizer, file)` wrote.

    Parameters
    ----------
    optimizer : Optimizer
        Of `mxopt.nn` or `mxopt.experimental.optim`, with the class, the options and the parameter
        names of the saved one. Its states are changed, and learning rates if it is `mxopt.nn`'s;
        its parameters are not.
    values : dict of str to array
        From `read_mindspore_checkpoint`. MindSpore doesn't count the steps of `experimental`'s SGD,
        Adadelta and RMSprop: these continue as if after one step.

    Raises
    ------
    StatesError
        A state is missing, or doesn't fit; nothing has been changed then.
    """
    if isinstance(optimizer, nn.Optimizer):
        optimizer.load_state_dict(_of_nn(optimizer, values))
    else:
        optimizer.load_state_dict(_of_experimental(optimizer, values))


def _take(values: Mapping[str, np.ndarray], name: str) -> np.ndarray:
    if name not in values:
        raise StatesError(f"the checkpoint has no {name!r}: it is of another optimizer, or of a network alone")
    return values[name]


def _of_nn(optimizer: nn.Optimizer, values: Mapping[str, np.ndarray]) -> Plain:
    document = optimizer.state_dict()
    kind = document["optimizer"]
    prefixes = NN.get(kind, {})
    for state, by_parameter in document["states"].items():
        for name in by_parameter:
            by_parameter[name] = _take(values, prefixes.get(state, f"{state}.") + name)
    if kind == "RMSProp" and "mg" in document["states"]:  # MindSpore's centred rule has the opposite sign
        document["states"]["moment"] = {name: -move for name, move in document["states"]["moment"].items()}
    if "eta" in document:
        document["eta"] = [float(_take(values, f"eta_{p.name}")) for p in optimizer.parameters]
    rates = optimizer.get_lr_parameter(list(optimizer.parameters))
    fixed = {id(rate): rate for rate in rates if isinstance(rate, Parameter)}
    document["learning_rates"] = [float(_take(values, str(rate.name))) for rate in fixed.values()]
    document["global_step"] = int(_take(values, "global_step")[0])
    return document


def _of_experimental(optimizer: optim.Optimizer, values: Mapping[str, np.ndarray]) -> Plain:
    document, kind = optimizer.state_dict(), type(optimizer).__name__
    prefixes = EXPERIMENTAL.get(kind, {})
    steps = next((int(values[name]) for name in STEPS if name in values), 1)
    document["state"] = {}
    for group, saved in zip(optimizer.param_groups, document["param_groups"], strict=True):
        for name in saved["params"]:
            kept: Plain = {"step": steps}
            for state in optimizer.rule(group).states:
                kept[state] = _take(values, prefixes.get(state, f"{state}.") + name)
            if optimizer.carried:
                kept[optimizer.carried] = _carried(optimizer, group, steps)
            document["state"][name] = kept
    return document


def _carried(optimizer: optim.Optimizer, group: Plain, steps: int) -> float:
    """The number that each step hands on to the next, after these steps: MindSpore doesn't save
    it."""
    carry = optimizer.first_carry
    for t in range(1, steps + 1):
        carry = optimizer.hand_on(Step(group, group["lr"], group.get("weight_decay", 0.0), t, carry, np.float32))
    return carry
