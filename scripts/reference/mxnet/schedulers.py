"""Ask the learning rate schedulers of the real MXNet 1.9.1, alone and inside an optimizer, and keep
the answers.

    uv venv --python 3.11 mxnet-env
    uv pip install --python mxnet-env "mxnet==1.9.1" "numpy==1.23.5"
    mxnet-env/bin/python scripts/reference/mxnet/schedulers.py

`tests/data/README.md` describes the file, `tests/data/mxnet/schedulers.npz`.
"""

import argparse
import io
import json
from contextlib import redirect_stdout
from pathlib import Path

import cases
import numpy as np
from real_mxnet import mx

HERE = Path(__file__).resolve().parents[3] / "tests" / "data" / "mxnet"
LINEAR = {"warmup_steps": 10, "warmup_begin_lr": 0.125}
CONSTANT = {"warmup_steps": 7, "warmup_begin_lr": 0.05, "warmup_mode": "constant"}
WARMUPS = ({}, {"warmup_steps": 5}, LINEAR, CONSTANT)

SCHEDULES = {
    "FactorScheduler": [
        {"step": 1},
        {"step": 2, "factor": 0.5},
        {"step": 7, "factor": 0.9},
        {"step": 4, "factor": 0.3, "stop_factor_lr": 0.01},
        {"step": 4, "factor": 0.5, "stop_factor_lr": 0.9},
        {"step": 100, "factor": 0.5},
        {"step": 3, "factor": 0.0},
    ],
    "MultiFactorScheduler": [
        {"step": [2, 4], "factor": 0.5},
        {"step": [1, 2, 3, 20, 40], "factor": 0.7},
        {"step": [10], "factor": 0.1},
        {"step": [5, 60, 70], "factor": 0.1},
        {"step": [15, 30]},
    ],
    "PolyScheduler": [
        {"max_update": 40},
        {"max_update": 60, "pwr": 1},
        {"max_update": 30, "pwr": 0.5, "final_lr": 0.0625},
        {"max_update": 100, "pwr": 3, "final_lr": 0.1},
    ],
    "CosineScheduler": [
        {"max_update": 40},
        {"max_update": 60, "final_lr": 0.1},
        {"max_update": 30, "final_lr": 0.0625},
        {"max_update": 100},
    ],
}
COUNTS = (range(61), (0, 1, 6, 12, 13, 21, 40, 41, 60))
BEYOND = (70, 75, 80)
SKIPPED_END = "first asked beyond max_update, MXNet answers the last rate it computed, not final_lr"

# Optimizer, its options, scheduler, its options; eight updates each.
HALVES = ("FactorScheduler", {"step": 2, "factor": 0.5, "base_lr": 0.75})
STEPS = ("MultiFactorScheduler", {"step": [2, 5], "factor": 0.5, "base_lr": 0.75})
POLY = ("PolyScheduler", {"max_update": 6, "base_lr": 0.75})
COSINE = ("CosineScheduler", {"max_update": 6, "base_lr": 0.75, "final_lr": 0.125})
WARM = {"warmup_steps": 3, "warmup_begin_lr": 0.25}
ATTACHED = [
    (optimizer, options, (name, settings | warmup))
    for optimizer in ("sgd", "adam", "ftrl")
    for options in ({}, {"learning_rate": 0.5})
    for name, settings in (HALVES, STEPS, POLY, COSINE)
    for warmup in ({}, WARM)
] + [
    (optimizer, {}, HALVES)
    for optimizer in (
        "adamax",
        "nadam",
        "lamb",
        "rmsprop",
        "signum",
        "nag",
        "ftml",
        "lars",
        "adagrad",
        "adadelta",
    )
]
ATTACHED += [
    ("lbsgd", {"warmup_epochs": 0}, HALVES),
    ("sgd", {"begin_num_update": 4}, HALVES),
    ("sgd", {"learning_rate": 0.75}, HALVES),
    ("adam", {"learning_rate": None}, HALVES),
]
# Optimizers, and what is assigned to `base_lr` before which update; nine updates each.
TRAINED = [
    *((name, {}) for name in cases.OPTIMIZERS if name not in ("lbsgd", "sgld", "test")),
    ("lbsgd", {"warmup_epochs": 0}),
    ("sgd", {"begin_num_update": 3}),
]
EVENTS = [[[4, 0.25]], [[2, 0.25], [6, "0.5"]], [[8, 0.125]]]


def alone(arrays: dict) -> list[dict]:
    found = []
    for name, schedules in SCHEDULES.items():
        for settings in schedules:
            for warmup in WARMUPS:
                for counts in (*COUNTS, BEYOND) if "max_update" in settings else COUNTS:
                    options = {"base_lr": 0.75, **settings, **warmup}
                    number, departs = len(found), None
                    if "max_update" in settings and settings["max_update"] not in counts:
                        late = [i for i, n in enumerate(counts) if n > settings["max_update"]]
                        departs = [late[0], SKIPPED_END] if late else None
                    scheduler = getattr(mx.lr_scheduler, name)(**options)
                    arrays[f"{number}/values"] = np.array([scheduler(n) for n in counts], dtype=np.float64)
                    arrays[f"counts/{len(counts)}"] = np.array(counts)
                    found.append(
                        {
                            "scheduler": name,
                            "kwargs": options,
                            "num_updates": f"counts/{len(counts)}",
                            "values": f"{number}/values",
                            "departs": departs,
                        }
                    )
    return found


def attached(arrays: dict) -> list[dict]:
    found = []
    for number, (name, options, (scheduler_name, settings)) in enumerate(ATTACHED):
        scheduler = getattr(mx.lr_scheduler, scheduler_name)(**settings)
        with redirect_stdout(io.StringIO()) as printed:
            optimizer = mx.optimizer.create(name, lr_scheduler=scheduler, **options)
        base_lr = scheduler.base_lr
        weight = mx.nd.ones((2, 3))
        updater = mx.optimizer.get_updater(optimizer)
        rates = [optimizer.learning_rate]
        for _ in range(8):
            updater(0, mx.nd.ones((2, 3)), weight)
            rates.append(optimizer.learning_rate)
        key = f"attached/{number}/learning_rates"
        arrays[key] = np.array(rates, dtype=np.float64)
        found.append(
            {
                "optimizer": name,
                "kwargs": options,
                "scheduler": scheduler_name,
                "scheduler_kwargs": settings,
                "base_lr": base_lr,
                "learning_rates": key,
                "printed": bool(printed.getvalue()),
            }
        )
    return found


def assigned(arrays: dict) -> list[dict]:
    """`base_lr` assigned in mid-training: before update `at`, to a number or (a text) to that many
    times itself."""
    found, all_rates, all_counts = [], [], []
    for name, options in TRAINED:
        for scheduler_name, settings in (HALVES, STEPS, POLY, COSINE):
            for warmup in ({}, WARM):
                for events in EVENTS:
                    scheduler = getattr(mx.lr_scheduler, scheduler_name)(**settings, **warmup)
                    with redirect_stdout(io.StringIO()):
                        optimizer = mx.optimizer.create(name, lr_scheduler=scheduler, **options)
                    updater, weight = mx.optimizer.get_updater(optimizer), mx.nd.ones((2, 3))
                    rates, read, counts = [], [], []
                    for update in range(1, 10):
                        for at, value in events:
                            if at == update:
                                scheduler.base_lr = (
                                    scheduler.base_lr * float(value) if isinstance(value, str) else value
                                )
                        updater(0, mx.nd.ones((2, 3)), weight)
                        rates.append(optimizer.learning_rate)
                        read.append(scheduler.base_lr)
                        counts.append(getattr(scheduler, "count", 0))
                    all_rates.append([rates, read])
                    all_counts.append(counts)
                    found.append(
                        {
                            "optimizer": name,
                            "kwargs": options,
                            "scheduler": scheduler_name,
                            "scheduler_kwargs": settings | warmup,
                            "events": events,
                        }
                    )
    arrays["assigned/rates"] = np.array(all_rates, dtype=np.float64)
    arrays["assigned/counts"] = np.array(all_counts)
    return found


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=HERE, help="folder of schedulers.npz")
    folder = parser.parse_args().out
    folder.mkdir(parents=True, exist_ok=True)
    arrays: dict[str, np.ndarray] = {}
    about = {"system": "mxnet 1.9.1", "cases": alone(arrays), "attached": attached(arrays)}
    about["assigned"] = assigned(arrays)
    np.savez_compressed(folder / "schedulers.npz", json=np.array(json.dumps(about)), **arrays)
    print(len(about["cases"]), "schedules,", len(about["attached"]), "attached,", len(about["assigned"]), "assigned to")


if __name__ == "__main__":
    main()
