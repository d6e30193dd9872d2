"""Give the optimizers of the real MXNet 1.9.1 a NaN or an infinity in one element of each input;
keep what comes out.

    mxnet-env/bin/python scripts/reference/mxnet/not_finite.py

`real_mxnet.py` says how to make the environment; `tests/data/README.md` describes the file,
`tests/data/mxnet/not_finite.npz`.
"""

import argparse
import json
from collections.abc import Iterator
from pathlib import Path

import numpy as np
from cases import DTYPES, FULL, OPTIMIZERS
from optimizers import MASTER_LAST
from real_mxnet import mx

HERE = Path(__file__).resolve().parents[3] / "tests" / "data" / "mxnet"
SHAPE, AT = (3, 2), (1, 0)
POISONS = (np.nan, np.inf, -np.inf)
WEIGHT = np.array([[0.5, -0.75], [1.25, 0.625], [-1.0, 0.375]])
GRADS = (
    np.array([[0.25, -0.5], [0.75, 0.125], [-0.375, 1.0]]),
    np.array([[0.5, 0.25], [-0.25, 0.875], [-0.125, 0.75]]),
)


def options() -> Iterator[tuple[str, dict]]:
    for name, (base, variants) in OPTIMIZERS.items():
        if name in ("ccsgd", "test"):
            continue
        for variant in variants:
            yield name, base | variant
            yield name, base | variant | FULL | ({"wd": 0.0} if name == "groupadagrad" else {})
    yield "lbsgd", {"learning_rate": 0.125, "warmup_strategy": "lars"}


def leaves(state) -> list:
    if state is None:
        return []
    return [leaf for part in state for leaf in leaves(part)] if isinstance(state, (tuple, list)) else [state]


def poison(array, value) -> None:
    host = array.asnumpy()
    host[AT if host.shape == SHAPE else AT[0]] = value  # GroupAdaGrad has one number a row
    new = mx.nd.array(host, dtype=host.dtype)
    (new.tostype("row_sparse") if array.stype == "row_sparse" else new).copyto(array)


def run(name: str, settings: dict, dtype: str, storage: str, target: int, value: float) -> list:
    """One clean update, then one with `value` in weight (0), gradient (1) or a state (2, ...); the
    arrays after it."""
    mx.random.seed(1)
    updater = mx.optimizer.get_updater(mx.optimizer.create(name, **settings))
    weight = mx.nd.array(WEIGHT, dtype=dtype).tostype(storage)
    grads = [mx.nd.array(g, dtype=dtype).tostype(storage) for g in GRADS]
    updater(0, grads[0], weight)
    state, masters = updater.states[0], []
    if settings.get("multi_precision") and dtype == "float16":
        state, master = state if name in MASTER_LAST else reversed(state)
        masters = [master]
    inner = leaves(state)
    if target == 0:
        for each in (weight, *masters):
            poison(each, value)
    else:
        poison(grads[1] if target == 1 else inner[target - 2], value)
    updater(0, grads[1], weight)
    return [a.asnumpy().astype(np.float64) for a in (weight, *inner)]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of not_finite.npz")
    folder = parser.parse_args().out
    cases, found, refused = [], [], []
    for name, settings in options():
        for dtype, masters in DTYPES:
            for storage in ("default", "row_sparse"):
                more = settings | ({"multi_precision": True} if masters else {})
                try:
                    sizes = [a.size for a in run(name, more, dtype, storage, 1, 0.5)]
                    targets = range(1 + len(sizes))
                    runs = [run(name, more, dtype, storage, t, v) for t in targets for v in POISONS]
                except (mx.MXNetError, ValueError, TypeError, AttributeError, AssertionError) as error:
                    refused.append(f"{name} {dtype} {storage}: {type(error).__name__}")
                    continue
                cases.append({"optimizer": name, "kwargs": more, "dtype": dtype, "storage": storage, "sizes": sizes})
                found += [a.ravel() for r in runs for a in r]
    inputs = {"poisons": POISONS, "at": AT, "weight": WEIGHT.tolist(), "grads": [grad.tolist() for grad in GRADS]}
    about = {"system": "mxnet 1.9.1", **inputs, "cases": cases}
    np.savez_compressed(folder / "not_finite.npz", json=np.array(json.dumps(about)), found=np.concatenate(found))
    print(len(cases), "cases; refused:", ", ".join(sorted(set(refused))))


if __name__ == "__main__":
    main()
