"""Runs the cases of `nn_cases` on MindSpore and on the formulas, and collects the numbers.

Row-sparse gradients exist inside compiled graphs only, so those cases run in GRAPH_MODE, all others
in PYNATIVE_MODE.
"""

import mindspore as ms
import numpy as np
from format import decode
from formulas import DECOUPLED, FORMULAS, lars
from mindspore import nn
from mindspore.common.sparse_tensor import RowTensorInner
from nn_cases import CASES
from problems import Problem
from run import Recorder, first_line, ms_parameters, ms_states, significant
from schedules import exact_schedule
from signatures import defaults


class SparseStep(nn.Cell):
    """A compiled step that makes a row-sparse gradient of its inputs and hands it to the
    optimizer."""

    def __init__(self, optimizer, shape):
        super().__init__(auto_prefix=False)
        self.optimizer = optimizer
        self.shape = shape

    def construct(self, rows, values):
        return self.optimizer((RowTensorInner(rows, values, self.shape),))


def order_of(problem, extra):
    for group in extra.get("groups", ()):
        if "order_params" in group:
            return group["order_params"]
    return [index for group in extra.get("groups", ()) for index in group["params"]] or list(range(len(problem.shapes)))


def build(name, options, extra, parameters):
    groups = []
    for group in extra.get("groups", ()):
        made = decode(group, ms.Tensor, nn)
        for key in ("params", "order_params"):
            if key in group:
                made[key] = [parameters[index] for index in group[key]]
        groups.append(made)
    if "inner" in extra:
        inner, inner_options = extra["inner"]
        return nn.LARS(getattr(nn, inner)(parameters, **decode(inner_options, ms.Tensor, nn)), **options)
    optimizer = getattr(nn, name)(groups or parameters, **decode(options, ms.Tensor, nn))
    if "target" in extra:
        optimizer.target = extra["target"]
    return optimizer


def on_mindspore(name, options, extra):
    problem = Problem(extra.get("problem", "dense"))
    parameters, order, recorder = ms_parameters(problem), order_of(problem, extra), Recorder()
    ms.set_context(mode=ms.GRAPH_MODE if problem.sparse else ms.PYNATIVE_MODE)
    try:
        optimizer = build(name, options, extra, parameters)
        compiled = SparseStep(optimizer, problem.shapes[0]) if problem.sparse else None
        for step in range(problem.steps):
            if problem.sparse:
                compiled(ms.Tensor(problem.rows[step]), ms.Tensor(problem.values(step)))
            else:
                grads = problem.grads(step)
                optimizer(tuple(ms.Tensor(grads[index]) for index in order))
            recorder.add([parameter.asnumpy() for parameter in parameters], ms_states(optimizer, order))
    finally:
        ms.set_context(mode=ms.PYNATIVE_MODE)
    return recorder


def at(value, step):
    """A learning rate or weight decay in a step, counted from 0."""
    if isinstance(value, dict):
        return (
            exact_schedule(value["$schedule"], value["options"], step)
            if "$schedule" in value
            else value["$array"][step]
        )
    return value[step] if isinstance(value, list) else value


def centralized(g):
    return g - g.mean(axis=tuple(range(1, g.ndim)), keepdims=True) if g.ndim > 1 else g


def rounded(value):
    """Options as single precision has them."""
    if isinstance(value, tuple):
        return tuple(rounded(item) for item in value)
    return float(np.float32(value)) if isinstance(value, float) else value


def on_formula(name, options, extra, dtype=np.float64):
    """What the documentation promises, in double precision (or in single, to see what that
    loses)."""
    problem = Problem(extra.get("problem", "dense"))
    weights = [weight.astype(dtype) for weight in problem.weights()]
    states, recorder = [{} for _ in weights], Recorder()
    outer = {**defaults(nn.LARS), **options} if "inner" in extra else None
    if outer:
        name, options = extra["inner"]
    full = {**defaults(getattr(nn, name)), **options}
    plain = decode({key: value for key, value in full.items() if key not in ("learning_rate", "weight_decay")})
    if dtype != np.float64:
        plain = {key: rounded(value) for key, value in plain.items()}
    for step in range(problem.steps):
        for index, g in enumerate(problem.grads(step)):
            group = next((g for g in extra.get("groups", ()) if index in g.get("params", ())), {})
            rows = slice(None) if not problem.sparse else np.unique(problem.rows[step])
            p, g = weights[index], g.astype(dtype)
            lr = at(group.get("lr", full["learning_rate"]), step)
            wd = at(group.get("weight_decay", full["weight_decay"]), step)
            title = problem.names[index]
            if not group and ("beta" in title or "gamma" in title) and name not in ("FTRL", "AdaFactor"):
                wd = 0.0
            scale = full.get("loss_scale", 1.0)
            if outer:
                if "LayerNorm" not in title and "bias" not in title:
                    g = lars(p, g / scale, lr, wd, outer)
            elif name not in DECOUPLED:
                g[rows] += wd * scale * p[rows]
            if group.get("grad_centralization"):
                g = centralized(g)
            if not outer:
                g = g / scale
            before = {key: np.array(value) for key, value in states[index].items()}
            weights[index] = FORMULAS[name](states[index], p, g, lr, wd, step + 1, plain).astype(dtype)
            if problem.sparse and (name not in ("Adam", "AdamOffload") or full.get("use_lazy")):
                keep_other_rows(rows, p, weights[index], before, states[index], plain)
        recorder.add([weight.astype(np.float32) for weight in weights], {})
    return recorder


def keep_other_rows(rows, p, new, before, state, options):
    """Undo a step for the rows that a lazy optimizer doesn't touch."""
    others = np.setdiff1d(np.arange(len(p)), rows)
    new[others] = p[others]
    for key, value in state.items():
        start = options.get("accum", options.get("initial_accum", 0.0)) if key == "accum" else 0.0
        value[others] = before[key][others] if key in before else start


def collect():
    """The document and the arrays of collection `nn`."""
    cases, arrays, problems = [], {}, {}
    for name, label, options, extra in CASES:
        title = f"{name}-{label}"
        problem = Problem(extra.get("problem", "dense"))
        problems[problem.name] = problem.describe()
        arrays.update(problem.arrays())
        case = {"name": title, "class": name, "problem": problem.name, "options": options}
        case |= {key: extra.get(key) for key in ("groups", "inner", "target", "departure")}
        results = {"formula": on_formula(name, options, extra)}
        try:
            results["mindspore"] = on_mindspore(name, options, extra)
        except Exception as error:
            case["crash"] = first_line(error)
        exact = results["formula"].weights().astype(np.float64)
        lost = np.abs(on_formula(name, options, extra, np.float32).weights() - exact).max()
        floor = significant(0.01 if problem.dtype == "float16" else 4 * lost + 1e-6)
        case["expected"] = {"formula": floor}
        if "mindspore" in results:
            gap = np.abs(results["mindspore"].weights().astype(np.float64) - exact).max()
            case["gap"] = significant(gap)
            if problem.dtype == "float16" and not extra.get("departure"):
                case["expected"]["formula"] = significant(floor + gap)
            if not extra.get("departure"):
                case["expected"]["mindspore"] = significant(floor + 2 * gap)
            case["states"] = {"mindspore": results["mindspore"].shapes()}
        for source, result in results.items():
            arrays.update(result.arrays(f"{title}/{source}"))
        cases.append(case)
    return {"problems": problems, "cases": cases}, arrays
