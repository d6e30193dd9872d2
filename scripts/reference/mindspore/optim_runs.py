"""Runs the cases of `optim_cases` on MindSpore and on PyTorch, and collects the numbers."""

import mindspore as ms
import mindspore.experimental.optim as ms_optim
import numpy as np
import torch
from format import decode
from mindspore import ops
from optim_cases import CASES
from problems import Problem
from run import Recorder, first_line, ms_parameters, ms_states, tolerances


def groups_of(problem, extra):
    return extra.get("groups") or [{"params": list(range(len(problem.shapes)))}]


def run(problem, extra, optimizer, parameters, step, assign, scheduler, record):
    """Every step of a case, with its events and its scheduler: what both frameworks have in
    common."""
    order = [index for group in groups_of(problem, extra) for index in group["params"]]
    for number in range(problem.steps):
        for event in extra.get("events", ()):
            if event["step"] != number:
                continue
            if "add" in event:
                group = event["add"]
                optimizer.add_param_group({**group, "params": [parameters[i] for i in group["params"]]})
                order += group["params"]
            elif "set" in event:
                optimizer.param_groups[event["group"]]["lr"] = event["set"]
            else:
                assign(optimizer.param_groups[event["group"]], event["assign"])
        step(optimizer, problem.grads(number), order)
        if scheduler:
            scheduler.step()
        record(optimizer, order)


def build(module, name, options, problem, extra, parameters, schedulers):
    groups = [
        {**decode(group), "params": [parameters[index] for index in group["params"]]}
        for group in groups_of(problem, extra)
    ]
    optimizer = getattr(module, name)(groups if "groups" in extra else parameters, **decode(options))
    scheduler = None
    if "scheduler" in extra:
        spec = extra["scheduler"]
        scheduler = getattr(schedulers, spec["class"])(optimizer, **decode(spec["options"]))
    return optimizer, scheduler


def on_mindspore(name, options, extra):
    problem = Problem(extra.get("problem", "dense"))
    parameters = ms_parameters(problem)
    recorder = Recorder()

    def step(optimizer, grads, order):
        optimizer(tuple(ms.Tensor(grads[index]) for index in order))

    def record(optimizer, order):
        recorder.add([parameter.asnumpy() for parameter in parameters], ms_states(optimizer, order))

    def assign(group, lr):
        ops.assign(group["lr"], ms.Tensor(lr, ms.float32))

    optimizer, scheduler = build(ms_optim, name, options, problem, extra, parameters, ms_optim.lr_scheduler)
    run(problem, extra, optimizer, parameters, step, assign, scheduler, record)
    return recorder


def on_torch(name, options, extra, dtype=torch.float64):
    problem = Problem(extra.get("problem", "dense"))
    parameters = [torch.tensor(weight.astype(np.float64), dtype=dtype) for weight in problem.weights()]
    recorder = Recorder()

    def step(optimizer, grads, order):
        for index in order:
            parameters[index].grad = torch.tensor(grads[index].astype(np.float64), dtype=dtype)
        optimizer.step()

    def record(optimizer, order):
        states = {}
        for parameter in parameters:
            for key, value in optimizer.state.get(parameter, {}).items():
                if key != "step" and isinstance(value, torch.Tensor):
                    states.setdefault(key, []).append(value.numpy().astype(np.float32))
        full = {key: arrays for key, arrays in states.items() if len(arrays) == len(parameters)}
        recorder.add([parameter.numpy().astype(np.float32) for parameter in parameters], full)

    def assign(group, lr):
        group["lr"] = lr

    optimizer, scheduler = build(torch.optim, name, options, problem, extra, parameters, torch.optim.lr_scheduler)
    run(problem, extra, optimizer, parameters, step, assign, scheduler, record)
    return recorder


def collect():
    """The document and the arrays of collection `optim`."""
    cases, arrays, problems = [], {}, {}
    for name, label, options, extra in CASES:
        title = f"{name}-{label}"
        problem = Problem(extra.get("problem", "dense"))
        problems[problem.name] = problem.describe()
        arrays.update(problem.arrays())
        case = {"name": title, "class": name, "problem": problem.name, "groups": groups_of(problem, extra)}
        case |= {"options": options, "events": extra.get("events", []), "scheduler": extra.get("scheduler")}
        case["departure"] = extra.get("departure")
        results = {"torch": on_torch(name, options, extra)}
        try:
            results["mindspore"] = on_mindspore(name, options, extra)
        except Exception as error:
            case["crash"] = first_line(error)
        single = on_torch(name, options, extra, torch.float32)
        case["expected"] = tolerances(results, single, problem.dtype, bool(extra.get("departure")))
        stateful = {source for source in results if source == "mindspore" or extra.get("departure")}
        case["states"] = {source: results[source].shapes() for source in sorted(stateful)}
        for source, result in results.items():
            arrays.update(result.arrays(f"{title}/{source}", states=source in stateful))
        if "mindspore" in results:
            gap = results["mindspore"].weights().astype(np.float64) - results["torch"].weights()
            case["gap"] = float(f"{np.abs(gap).max():.2g}")
        cases.append(case)
    return {"problems": problems, "cases": cases}, arrays
