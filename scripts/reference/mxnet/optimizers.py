"""Run the optimizers of the real MXNet 1.9.1 and write down every weight and state after every
step.

    uv venv --python 3.11 mxnet-env
    uv pip install --python mxnet-env "mxnet==1.9.1" "numpy==1.23.5"
    mxnet-env/bin/python scripts/reference/mxnet/optimizers.py

It takes about ten seconds and gives the same bytes every time (SGLD's noise included: it is
seeded). The cases come from `cases.py`; `tests/data/README.md` describes the files, which go to
`tests/data/mxnet/`.
"""

import argparse
import io
import json
from collections import defaultdict
from contextlib import redirect_stdout
from pathlib import Path

import cases
import numpy as np
from adamw import AdamWOperators
from cases import Case
from inputs import gradients, initial_weight, step_gradient
from real_mxnet import mx

HERE = Path(__file__).resolve().parents[3] / "tests" / "data" / "mxnet"
MASTER_LAST = {"sgd", "ccsgd", "nag", "lars"}
STATE_NAMES = {
    **dict.fromkeys(("sgd", "ccsgd", "nag", "signum", "lars", "lbsgd"), "momentum"),
    **{name: ["mean", "variance"] for name in ("adam", "adamw", "lamb", "nadam")},
    **dict.fromkeys(("adagrad", "groupadagrad"), "history"),
    "adamax": ["mean", "infinity_norm"],
    "ftml": ["d", "v", "z"],
    "ftrl": ["z", "n"],
    "adadelta": ["acc_grad", "acc_delta"],
    "dcasgd": ["momentum", "previous_weight"],
    "test": "weight_copy",
    "sgld": None,
}


class Refused(Exception):  # noqa: N818
    """The real MXNet does not run this case."""


class File:
    """The arrays and case descriptions of one optimizer."""

    def __init__(self, optimizer: str):
        self.optimizer = optimizer
        self.arrays: dict[str, np.ndarray] = {}
        self.cases: list[dict] = []
        self.refused: list[dict] = []

    def put(self, key: str, array: np.ndarray) -> str:
        self.arrays[key] = np.ascontiguousarray(array)
        return key

    def write(self, folder: Path, **more) -> None:
        about = {"system": "mxnet 1.9.1", "cases": self.cases, "refused": self.refused, **more}
        np.savez_compressed(folder / f"{self.optimizer}.npz", json=np.array(json.dumps(about)), **self.arrays)


class PackedFile(File):
    """The same for thousands of small cases: equal arrays are kept once, all of a dtype one after
    the other.

    The key of an array is its dtype, its first element's place, and its shape.
    """

    def __init__(self, name: str):
        super().__init__(name)
        self.packed: dict[str, list[np.ndarray]] = defaultdict(list)
        self.sizes: dict[str, int] = defaultdict(int)
        self.known: dict[tuple, str] = {}

    def put(self, key: str, array: np.ndarray) -> str:
        name, shape = array.dtype.name, "x".join(map(str, array.shape))
        known = (name, shape, array.tobytes())
        if known not in self.known:
            self.known[known] = f"{name}/{self.sizes[name]}/{shape}"
            self.packed[name].append(array.reshape(-1))
            self.sizes[name] += array.size
        return self.known[known]

    def write(self, folder: Path, **more) -> None:
        self.arrays = {name: np.concatenate(parts) for name, parts in self.packed.items()}
        super().write(folder, **more)


def snapshot(state):
    """An MXNet state as nested lists of NumPy arrays."""
    if isinstance(state, (tuple, list)):
        return [snapshot(part) for part in state]
    return None if state is None else state.asnumpy().copy()


def state_names(case: Case, dtype: str):
    names = STATE_NAMES.get(case.optimizer)
    if case.optimizer == "rmsprop":
        names = ["n", "g", "delta"] if case.options.get("centered") else ["n"]
    if case.options.get("multi_precision") and dtype == "float16":
        return [names, "master"] if case.optimizer in MASTER_LAST else ["master", names]
    return names


def create(case: Case):
    if case.form == "operator":
        return AdamWOperators("scaled" in case.title, **case.options)
    more = {"param_idx2name": dict(enumerate(case.names))} if case.names else {}
    if case.scheduler:
        name, options = case.scheduler
        more["lr_scheduler"] = getattr(mx.lr_scheduler, name)(**options)
    with redirect_stdout(io.StringIO()):  # "learning rate has been overwritten" is printed
        optimizer = mx.optimizer.create(case.optimizer, **case.options, **more)
    if case.lr_mult:
        optimizer.set_lr_mult(case.lr_mult)
    if case.wd_mult:
        optimizer.set_wd_mult(case.wd_mult)
    return optimizer


def run(case: Case, file: File) -> dict:
    """Step through one case and return its description; its arrays go into the file only if MXNet
    survives it."""
    number = len(file.cases)
    dtypes = [case.dtypes[min(i, len(case.dtypes) - 1)] for i in range(len(case.shapes))]
    optimizer = create(case)
    params, weights, grads, arrays = [], [], [], {}
    for i, (shape, dtype) in enumerate(zip(case.shapes, dtypes, strict=False)):
        weights.append(mx.nd.array(initial_weight(case, i, dtype), dtype=dtype).tostype(case.weight_storage))
        values, rows = gradients(case, i, dtype)
        grads.append((values, rows))
        key = f"grad/{dtype}/{i}/{'x'.join(map(str, shape))}/{case.steps}"
        key += "/rows" * (rows is not None) + "/zero" * case.zero_start
        arrays[key] = values
        params.append({"index": i, "name": case.names[i] if case.names else None, "shape": shape, "dtype": dtype})
        params[-1] |= {"grad": key, "grad_rows": rows, "weight": f"{number}/{i}/weight"}

    history = [[] for _ in weights]
    learning_rates, noise = [], []
    updater = mx.optimizer.get_updater(optimizer) if case.form in ("updater", "list") else None
    states = [optimizer.create_state_multi_precision(i, w) for i, w in enumerate(weights)]
    if updater:
        updater.states = dict(enumerate(states))
        updater.states_synced = dict.fromkeys(updater.states, True)
    mx.random.seed(7)
    mx.optimizer.optimizer.normal = lambda *a, **k: noise.append(mx.nd.random.normal(*a, **k)) or noise[-1]

    def record():
        for i, w in enumerate(weights):
            history[i].append((w.asnumpy().copy(), snapshot(states[i])))

    record()
    for step in range(case.steps):
        gradient = [step_gradient(values, rows, step, w) for (values, rows), w in zip(grads, weights, strict=False)]
        if case.form == "list":
            updater(list(range(len(weights))), gradient, weights)
        else:
            for i, w in enumerate(weights):
                if updater:
                    updater(i, gradient[i], w)
                else:
                    optimizer.update_multi_precision(i, w, gradient[i], states[i])
        record()
        learning_rates.append(optimizer.learning_rate)

    def stacked(key, parts):
        if isinstance(parts[0], list):
            return [stacked(f"{key}.{j}", part) for j, part in enumerate(zip(*parts, strict=False))]
        if parts[0] is None:
            return None
        arrays[key] = np.stack(parts)
        return key

    for i, param in enumerate(params):
        arrays[param["weight"]] = np.stack([w for w, _ in history[i]])
        param["state"] = stacked(f"{number}/{i}/state", [list(s) if isinstance(s, list) else s for _, s in history[i]])
        param["state_names"] = state_names(case, param["dtype"])
        if noise:
            own = [n.asnumpy() for n in noise[i :: len(weights)]]
            param["noise"] = f"{number}/{i}/noise"
            arrays[param["noise"]] = np.stack(own)
    places = {key: file.put(key, array) for key, array in arrays.items()}
    for param in params:
        param |= {name: renamed(param[name], places) for name in ("grad", "weight", "state", "noise") if name in param}
    return (
        describe(case)
        | {"params": params, "learning_rates": learning_rates}
        | ({"operator_calls": optimizer.calls} if case.form == "operator" else {})
    )


def renamed(keys, places: dict[str, str]):
    """The keys under which a file has put arrays, nested alike."""
    if isinstance(keys, list):
        return [renamed(part, places) for part in keys]
    return None if keys is None else places[keys]


def describe(case: Case) -> dict:
    return {
        "optimizer": case.optimizer,
        "title": case.title,
        "kwargs": case.options,
        "scheduler": {"name": case.scheduler[0], "kwargs": case.scheduler[1]} if case.scheduler else None,
        "lr_mult": list(case.lr_mult.items()),
        "wd_mult": list(case.wd_mult.items()),
        "form": case.form,
        "weight_storage": case.weight_storage,
        "grad_storage": case.grad_storage,
        "steps": case.steps,
        "departs": case.departs,
    }


def noise_statistics() -> dict:
    """Mean and variance of what SGLD adds to a weight, over a million draws."""
    optimizer = mx.optimizer.create("sgld", learning_rate=0.25)
    weight = mx.nd.zeros((1000, 1000))
    optimizer.update(0, weight, mx.nd.zeros_like(weight), None)
    drawn = weight.asnumpy().astype("float64")
    return {"learning_rate": 0.25, "draws": drawn.size, "mean": drawn.mean(), "variance": drawn.var()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of the .npz files")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    files = {"row_sparse": PackedFile("row_sparse")}
    reasons = defaultdict(int)
    every = [(case, case.optimizer) for case in cases.cases()]
    for case, name in every + [(case, "row_sparse") for case in cases.row_sparse()]:
        file = files.setdefault(name, File(name))
        try:
            file.cases.append(run(case, file))
        except (mx.base.MXNetError, ValueError, TypeError, AssertionError, AttributeError) as error:
            lines = [line.strip() for line in str(error).splitlines() if "Error:" in line] or [str(error)]
            file.refused.append(describe(case) | {"dtypes": case.dtypes, "error": lines[-1][:200]})
            reasons[case.optimizer, case.title, case.dtypes, lines[-1][:100]] += 1
    for file in files.values():
        file.write(folder, **({"noise": noise_statistics()} if file.optimizer == "sgld" else {}))
    for reason, count in reasons.items():
        print("refused", count, *reason)
    print(
        sum(len(f.cases) for f in files.values()),
        "cases,",
        sum(len(f.refused) for f in files.values()),
        "refused",
    )


if __name__ == "__main__":
    main()
