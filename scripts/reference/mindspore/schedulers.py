"""The table of cases for mindspore.experimental.optim.lr_scheduler, and its run on MindSpore and
PyTorch.

A line is (class, label, base rates, options, extra). An optimizer with one group for each base rate
gets the scheduler; the rates are recorded before the first step (row 0) and after each of `STEPS`
steps. Keys of `extra`:

    epochs     what each step is called with, where it is called with an epoch
    metrics    what each step of ReduceLROnPlateau is called with
    children   the schedulers of SequentialLR: [class, options], in the order in which they are built
    departure  MindSpore departs from its documentation, or fails: only the numbers of torch are expected
    alone      no second opinion: PyTorch does something else here on purpose
"""

import mindspore as ms
import mindspore.experimental.optim as ms_optim
import numpy as np
import torch
from format import constant, decode, hyperbola, power
from run import first_line

STEPS = 40
ONE, TWO = [0.05], [0.05, 0.4]
NOISY = [round(1.0 / (1 + 0.3 * step) + 0.05 * ((step * 7) % 5 - 2), 6) for step in range(STEPS)]
FLAT = [1.0, 0.9, 0.9, 0.9, 0.9, 0.9, 0.9, 0.85, 0.85, 0.85] + [0.85] * 12 + [0.5] * 8 + [0.6] * 10
RESUMED = {"alone": "the constructor performs a step, as PyTorch's older releases did"}
SEQUENCE = [["ConstantLR", {"factor": 0.1, "total_iters": 4}], ["ExponentialLR", {"gamma": 0.9}]]
NO_STEP_SIZE = "step(epoch) of MultiStepLR fails"

# fmt: off
CASES = [
    ("StepLR", "default-gamma", TWO, {"step_size": 7}, {}),
    ("StepLR", "gamma", TWO, {"step_size": 4, "gamma": 0.5}, {}),
    ("StepLR", "epochs", ONE, {"step_size": 4, "gamma": 0.5},
     {"epochs": [step * 2 % 37 for step in range(STEPS)]}),
    ("LinearLR", "default", TWO, {}, {}),
    ("LinearLR", "long", TWO, {"start_factor": 0.1, "end_factor": 0.7, "total_iters": 25}, {}),
    ("LinearLR", "down", ONE, {"start_factor": 1.0, "end_factor": 0.2, "total_iters": 12}, {}),
    ("ExponentialLR", "gamma", TWO, {"gamma": 0.9}, {}),
    ("ExponentialLR", "resumed", ONE, {"gamma": 0.9, "last_epoch": 5}, RESUMED),
    ("PolynomialLR", "default", TWO, {}, {}),
    ("PolynomialLR", "square", TWO, {"total_iters": 30, "power": 2.0}, {}),
    ("PolynomialLR", "root", ONE, {"total_iters": 17, "power": 0.5}, {}),
    ("LambdaLR", "one", TWO, {"lr_lambda": power(0.95)}, {}),
    ("LambdaLR", "several", TWO, {"lr_lambda": [power(0.9), hyperbola(0.5)]}, {}),
    ("MultiplicativeLR", "one", TWO, {"lr_lambda": constant(0.95)}, {}),
    ("MultiplicativeLR", "several", TWO, {"lr_lambda": [constant(0.9), hyperbola(0.01)]}, {}),
    ("MultiStepLR", "default-gamma", TWO, {"milestones": [5, 20]}, {}),
    ("MultiStepLR", "repeated", ONE, {"milestones": [8, 3, 8, 30], "gamma": 0.5}, {}),
    ("MultiStepLR", "epoch", ONE, {"milestones": [3, 8], "gamma": 0.5},
     {"epochs": list(range(STEPS)), "departure": NO_STEP_SIZE}),
    ("ConstantLR", "default", TWO, {}, {}),
    ("ConstantLR", "long", TWO, {"factor": 0.25, "total_iters": 15}, {}),
    ("ConstantLR", "resumed", ONE, {"factor": 0.5, "total_iters": 9, "last_epoch": 5}, RESUMED),
    ("CosineAnnealingLR", "short", TWO, {"T_max": 8}, {}),
    ("CosineAnnealingLR", "eta-min", TWO, {"T_max": 25, "eta_min": 0.01}, {}),
    ("CosineAnnealingLR", "resumed", ONE, {"T_max": 10, "eta_min": 0.01, "last_epoch": 3}, RESUMED),
    ("CosineAnnealingWarmRestarts", "plain", TWO, {"T_0": 10}, {}),
    ("CosineAnnealingWarmRestarts", "longer", TWO, {"T_0": 4, "T_mult": 2, "eta_min": 0.01}, {}),
    ("CosineAnnealingWarmRestarts", "thrice", ONE, {"T_0": 3, "T_mult": 3}, {}),
    ("CosineAnnealingWarmRestarts", "epochs", ONE, {"T_0": 5},
     {"epochs": [round(0.5 * s, 1) for s in range(STEPS)]}),
    ("CosineAnnealingWarmRestarts", "epochs-longer", ONE, {"T_0": 5, "T_mult": 2},
     {"epochs": [float(step) for step in range(STEPS)], "departure": "step(epoch) with T_mult > 1 fails"}),
    ("CosineAnnealingWarmRestarts", "resumed", ONE, {"T_0": 4, "last_epoch": 8},
     RESUMED | {"departure": "goes on outside of its cycle"}),
    ("CyclicLR", "triangular", TWO, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5}, {}),
    ("CyclicLR", "uneven", TWO, {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 3, "step_size_down": 8}, {}),
    ("CyclicLR", "triangular2", TWO,
     {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5, "mode": "triangular2"}, {}),
    ("CyclicLR", "exp-range", TWO,
     {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 6, "mode": "exp_range", "gamma": 0.95}, {}),
    ("CyclicLR", "lists", TWO, {"base_lr": [0.01, 0.2], "max_lr": [0.1, 0.9], "step_size_up": 4}, {}),
    ("CyclicLR", "own-scale", ONE,
     {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5, "scale_fn": power(0.8), "scale_mode": "cycle"}, {}),
    ("CyclicLR", "own-scale-iterations", ONE,
     {"base_lr": 0.01, "max_lr": 0.1, "step_size_up": 5, "scale_fn": power(0.97),
         "scale_mode": "iterations"}, {}),
    ("ReduceLROnPlateau", "default", TWO, {}, {"metrics": FLAT}),
    ("ReduceLROnPlateau", "impatient", TWO, {"patience": 2, "factor": 0.5}, {"metrics": FLAT}),
    ("ReduceLROnPlateau", "cooldown", ONE, {"patience": 1, "factor": 0.5, "cooldown": 4}, {"metrics": FLAT}),
    ("ReduceLROnPlateau", "minimum", TWO,
     {"patience": 1, "factor": 0.3, "min_lr": [0.01, 0.02]}, {"metrics": FLAT}),
    ("ReduceLROnPlateau", "max-abs", ONE,
     {"mode": "max", "patience": 2, "factor": 0.5, "threshold": 0.1, "threshold_mode": "abs"},
         {"metrics": NOISY}),
    ("ReduceLROnPlateau", "max-rel", ONE, {"mode": "max", "patience": 3, "factor": 0.7}, {"metrics": NOISY}),
    ("ReduceLROnPlateau", "min-abs", ONE,
     {"patience": 2, "factor": 0.5, "threshold": 0.05, "threshold_mode": "abs"}, {"metrics": NOISY}),
    ("ReduceLROnPlateau", "eps", ONE, {"patience": 0, "factor": 0.5, "eps": 0.01}, {"metrics": FLAT}),
    ("SequentialLR", "two", TWO, {"milestones": [10]}, {"children": SEQUENCE}),
    ("SequentialLR", "three", ONE, {"milestones": [6, 20]},
     {"children": [["LinearLR", {"total_iters": 6}], ["CosineAnnealingLR", {"T_max": 14}],
                   ["StepLR", {"step_size": 5, "gamma": 0.5}]]}),
    ("SequentialLR", "four", ONE, {"milestones": [5, 12, 30]},
     {"children": [["ConstantLR", {"factor": 0.5}], ["PolynomialLR", {"total_iters": 7}],
                   ["LambdaLR", {"lr_lambda": power(0.9)}], ["ExponentialLR", {"gamma": 0.8}]]}),
    ("SequentialLR", "from-zero", ONE, {"milestones": [0]},
     {"children": SEQUENCE, "alone": "PyTorch starts on the second"}),
    ("SequentialLR", "multi-step-second", ONE, {"milestones": [5]},
     {"children": [["ConstantLR", {}], ["MultiStepLR", {"milestones": [3, 9]}]], "departure": NO_STEP_SIZE}),
]
# fmt: on


def run(optimizer, module, name, options, extra, read, tensor=lambda value: value):
    """The rates before the first step and after each, as rows."""
    for group in optimizer.param_groups:
        if options.get("last_epoch", -1) >= 0:
            group["initial_lr"] = group["lr"] if isinstance(group["lr"], float) else group["lr"].value()
    options = decode(options)
    if "children" in extra:
        options["schedulers"] = [getattr(module, child)(optimizer, **decode(kw)) for child, kw in extra["children"]]
    scheduler = getattr(module, name)(optimizer, **options)
    rows = [read(optimizer)]
    for step in range(STEPS):
        if "metrics" in extra:
            scheduler.step(tensor(extra["metrics"][step]))
        elif "epochs" in extra:
            scheduler.step(extra["epochs"][step])
        else:
            scheduler.step()
        rows.append(read(optimizer))
    return np.array(rows)


def on_mindspore(name, rates, options, extra):
    parameters = [ms.Parameter(ms.Tensor(np.ones(2, np.float32)), name=f"p{i}") for i in range(len(rates))]
    groups = [{"params": [item], "lr": lr} for item, lr in zip(parameters, rates, strict=True)]
    optimizer = ms_optim.SGD(groups, lr=1.0)

    def read(optimizer):
        return [np.float32(lr.asnumpy()) for lr in optimizer.lrs]

    def tensor(value):
        return ms.Tensor(value, ms.float32)

    return run(optimizer, ms_optim.lr_scheduler, name, options, extra, read, tensor)


def on_torch(name, rates, options, extra):
    optimizer = torch.optim.SGD([{"params": [torch.ones(2)], "lr": lr} for lr in rates], lr=1.0)
    if name == "CyclicLR":
        options = {**options, "cycle_momentum": False}

    def read(optimizer):
        return [group["lr"] for group in optimizer.param_groups]

    return run(optimizer, torch.optim.lr_scheduler, name, options, extra, read)


def collect():
    """The document and the arrays of collection `lr_scheduler`."""
    cases, arrays = [], {}
    for name, label, rates, options, extra in CASES:
        case = {
            "name": f"{name}-{label}",
            "class": name,
            "base_lrs": rates,
            "options": options,
            "steps": STEPS,
        }
        case |= {key: extra.get(key) for key in ("epochs", "metrics", "children", "departure", "alone")}
        results = {}
        try:
            results["mindspore"] = on_mindspore(name, rates, options, extra)
        except Exception as error:
            case["crash"] = first_line(error)
        if not extra.get("alone"):
            results["torch"] = on_torch(name, rates, options, extra)
        if len(results) == 2:
            case["gap"] = float(f"{np.abs(results['mindspore'] - results['torch']).max():.2g}")
        case["expected"] = {"torch": 1e-7} if "torch" in results else {}
        if "mindspore" in results and not extra.get("departure"):
            case["expected"]["mindspore"] = max(2 * case.get("gap", 0), 1e-6)
        arrays.update({f"{case['name']}/{source}": rows for source, rows in results.items()})
        cases.append(case)
    return {"cases": cases}, arrays
