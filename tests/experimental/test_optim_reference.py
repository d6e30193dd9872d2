"""Every recorded run of MindSpore's experimental optimizers and of PyTorch's, repeated: parameters
and states after every step, on both engines."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from recorded import arrays, decode, document, split

import mxopt
from mxopt.engine.choice import EngineName
from mxopt.experimental import optim

CASES = document("optim")["cases"]
# What MindSpore and PyTorch call the states that rules keep.
STATES = {
    "Adadelta": {"accum": "mean_square", "accum_update": "mean_square_step"},
    "Adagrad": {"accum": "history", "sum": "history"},
    "Adam": {"exp_avg": "mean", "exp_avg_sq": "var", "max_exp_avg_sq": "largest"},
    "AdamW": {"exp_avg": "mean", "exp_avg_sq": "var", "max_exp_avg_sq": "largest"},
    "Adamax": {"exp_avg": "mean", "exp_inf": "largest"},
    "ASGD": {"ax": "average", "eta": "eta"},
    "NAdam": {"exp_avg": "mean", "exp_avg_sq": "var", "mu_product": "mu_product"},
    "RAdam": {"exp_avg": "mean", "exp_avg_sq": "var"},
    "RMSprop": {"mean_square": "mean_square", "mean_grad": "mean", "moment": "velocity"},
    "Rprop": {"prev": "previous", "step_size": "step_size"},
    "SGD": {"accum": "velocity"},
}


class Run:
    """One case, repeated with mxopt step by step."""

    def __init__(self, case: dict[str, Any]) -> None:
        self.case = case
        self.problem = document("optim")["problems"][case["problem"]]
        key, shapes = f"problem/{case['problem']}", self.problem["shapes"]
        self.weights = [w.copy() for w in split(arrays("optim")[f"{key}/weights"], shapes)]
        self.grads = [split(g, shapes) for g in arrays("optim")[f"{key}/grads"]]
        self.order = [i for group in case["groups"] for i in group["params"]]
        groups = [self.group(group) for group in case["groups"]]
        self.optimizer = getattr(optim, case["class"])(groups, **decode(case["options"]))
        self.scheduler = None
        if case["scheduler"]:
            schedule = getattr(optim.lr_scheduler, case["scheduler"]["class"])
            self.scheduler = schedule(self.optimizer, **decode(case["scheduler"]["options"]))

    def group(self, group: dict[str, Any]) -> dict[str, Any]:
        named = [mxopt.parameter.Parameter(self.weights[i], self.problem["names"][i]) for i in group["params"]]
        return {**decode(group), "params": named}

    def step(self, number: int) -> None:
        for event in self.case["events"]:
            if event["step"] == number and "add" in event:
                self.optimizer.add_param_group(self.group(event["add"]))
                self.order += event["add"]["params"]
            elif event["step"] == number:
                self.optimizer.param_groups[event["group"]]["lr"] = event.get("set", event.get("assign"))
        self.optimizer(tuple(self.grads[number][i] for i in self.order))
        if self.scheduler:
            self.scheduler.step()

    def states(self, ours: str) -> list[Any]:
        state = self.optimizer.state_dict()["state"]
        return [state.get(name, {}).get(ours) for name in self.problem["names"]]


@pytest.mark.parametrize("case", CASES, ids=[case["name"] for case in CASES])
@pytest.mark.parametrize("engine", ["llvm", "numpy"])
def test_parameters_and_states_are_the_recorded_ones_after_every_step(case: dict[str, Any], engine: EngineName) -> None:
    run = Run(case)
    with mxopt.use_engine(engine):
        for number in range(run.problem["steps"]):
            run.step(number)
            flat = np.concatenate([w.ravel() for w in run.weights]).astype(np.float64)
            for source, tolerance in case["expected"].items():
                theirs = arrays("optim")[f"{case['name']}/{source}"][number]
                np.testing.assert_allclose(flat, theirs, rtol=0, atol=tolerance, err_msg=f"{source}, step {number}")
                compare_states(run, source, number, tolerance)


def compare_states(run: Run, source: str, number: int, tolerance: float) -> None:
    for name, shapes in run.case["states"].get(source, {}).items():
        ours = STATES[run.case["class"]].get(name)
        if ours is None:
            continue
        theirs = split(arrays("optim")[f"{run.case['name']}/{source}/{name}"][number], shapes)
        for mine, recorded in zip(run.states(ours), theirs, strict=True):
            if mine is not None:
                where = f"{source}, {name}, step {number}"
                mine = np.asarray(mine, np.float64)
                np.testing.assert_allclose(mine, recorded, rtol=tolerance, atol=tolerance, err_msg=where)
