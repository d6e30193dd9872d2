"""Write tests/data/migrate: files that MXNet 1.9.1 saved in the middle of a run, and how the run
went on.

    python3.11 -m venv /tmp/mxnet
    /tmp/mxnet/bin/pip install mxnet==1.9.1 numpy==1.23.5
    /tmp/mxnet/bin/python scripts/reference/mxnet/files.py tests/data/migrate

`mxnet.npz` holds, for each run NAME, the saved states (NAME/states, as bytes), the weights then
(NAME/weight/K), the gradients of the next ten steps (NAME/grad/STEP/K) and the weights after each
(NAME/after/STEP/K); "runs" says in JSON how each was made. `mlp.params` and `list.params` are what
`mxnet.nd.save` wrote, `gluon.states` and `gluon.params` come from a Trainer.
"""

import argparse
import json
import pickle
import warnings
from pathlib import Path

import numpy as np

np.bool = bool  # MXNet 1.9 still asks for it
import mxnet as mx  # noqa: E402

BEFORE, AFTER = 4, 10
SHAPES = ((3, 2), (5,))
# name of the run, optimizer, options, what else
RUNS = [
    ("sgd", "sgd", {"learning_rate": 0.1}, {}),
    ("sgd-momentum", "sgd", {"learning_rate": 0.1, "momentum": 0.9, "wd": 0.01}, {}),
    ("sgd-half", "sgd", {"learning_rate": 0.1, "momentum": 0.9, "multi_precision": True}, {"dtype": "float16"}),
    ("nag", "nag", {"learning_rate": 0.1, "momentum": 0.9}, {}),
    ("signum", "signum", {"learning_rate": 0.01, "momentum": 0.9, "wd_lh": 0.01}, {}),
    ("adam", "adam", {"learning_rate": 0.01}, {}),
    ("adam-protocol-2", "adam", {"learning_rate": 0.01}, {"protocol": 2}),
    ("adam-protocol-3", "adam", {"learning_rate": 0.01}, {"protocol": 3}),
    ("adam-protocol-5", "adam", {"learning_rate": 0.01}, {"protocol": 5}),
    ("adam-half", "adam", {"learning_rate": 0.01, "multi_precision": True}, {"dtype": "float16"}),
    ("adam-alone", "adam", {"learning_rate": 0.01}, {"alone": True}),
    ("adam-multipliers", "adam", {"learning_rate": 0.01, "wd": 0.1, "param_idx2name": {0: "a_weight", 1: "b_bias"}},
     {"lr_mult": {"a_weight": 0.5}}),
    ("adamax", "adamax", {"learning_rate": 0.01}, {}),
    ("nadam-one", "nadam", {"learning_rate": 0.01}, {"shapes": SHAPES[:1]}),
    ("ftml", "ftml", {"learning_rate": 0.01}, {}),
    ("ftrl", "ftrl", {"learning_rate": 0.1, "lamda1": 0.02}, {}),
    ("adagrad", "adagrad", {"learning_rate": 0.1, "eps": 1e-4}, {}),
    ("adadelta", "adadelta", {}, {}),
    ("rmsprop", "rmsprop", {"learning_rate": 0.01}, {}),
    ("rmsprop-centered", "rmsprop", {"learning_rate": 0.01, "centered": True}, {}),
    ("groupadagrad", "groupadagrad", {"learning_rate": 0.1}, {"shapes": SHAPES[:1]}),
    ("dcasgd", "dcasgd", {"learning_rate": 0.1}, {}),  # with momentum MXNet fails
    ("lamb", "lamb", {"learning_rate": 0.01}, {}),
    ("lars", "lars", {"learning_rate": 0.1, "momentum": 0.9},
     {"scheduler": ("PolyScheduler", {"max_update": 30, "base_lr": 0.1, "pwr": 1}), "shapes": SHAPES[:1]}),
    ("lbsgd", "lbsgd", {"learning_rate": 0.01, "momentum": 0.9, "batch_scale": 3, "updates_per_epoch": 4}, {}),
    ("lbsgd-plain", "lbsgd", {"learning_rate": 0.01, "batch_scale": 2, "updates_per_epoch": 4}, {}),
    ("factor", "sgd", {"momentum": 0.9},
     {"scheduler": ("FactorScheduler", {"step": 3, "factor": 0.5, "base_lr": 0.1})}),
    ("multi-factor", "sgd", {},
     {"scheduler": ("MultiFactorScheduler", {"step": [2, 6], "factor": 0.1, "base_lr": 0.1})}),
    ("cosine-warm-up", "sgd", {},
     {"scheduler": ("CosineScheduler", {"max_update": 12, "base_lr": 0.1, "final_lr": 0.01, "warmup_steps": 6})}),
    *[(f"{name}-half", name, {"learning_rate": 0.05, "multi_precision": True, **options}, {"dtype": "float16", **more})
      for name, options, more in (
          ("nag", {"momentum": 0.9}, {}), ("signum", {"momentum": 0.9}, {}), ("adamax", {}, {}), ("ftml", {}, {}),
          ("ftrl", {}, {}), ("adagrad", {}, {}), ("adadelta", {}, {}), ("rmsprop", {"centered": True}, {}),
          ("dcasgd", {}, {}), ("lamb", {}, {}), ("lars", {"momentum": 0.9}, {"shapes": SHAPES[:1]}),
          ("nadam", {}, {"shapes": SHAPES[:1]}), ("groupadagrad", {}, {"shapes": SHAPES[:1]}), ("ccsgd", {}, {}),
      )],
    ("adam-poly", "adam", {}, {"scheduler": ("PolyScheduler", {"max_update": 12, "base_lr": 0.1, "warmup_steps": 2})}),
    ("lamb-factor", "lamb", {"bias_correction": False, "lower_bound": 0.1, "upper_bound": 2.0},
     {"scheduler": ("FactorScheduler", {"step": 3, "factor": 0.5, "base_lr": 0.1})}),
    ("lbsgd-lars", "lbsgd", {"momentum": 0.9, "warmup_strategy": "lars", "batch_scale": 1, "updates_per_epoch": 4}, {}),
    # Saved within the warm-up, or as it ends, when Adam's own rate has overwritten the schedule's.
    *[(f"adam-{kind}-warm-up-{steps}", "adam", {},
       {"scheduler": (kind, {"step": step, "factor": 0.5, "base_lr": 0.1, "warmup_steps": steps})})
      for kind, step in (("FactorScheduler", 3), ("MultiFactorScheduler", [2, 9])) for steps in (4, 6)],
    ("adam-poly-warm-up-6", "adam", {},
     {"scheduler": ("PolyScheduler", {"max_update": 12, "base_lr": 0.1, "warmup_steps": 6})}),
    ("lbsgd-alone", "lbsgd", {"learning_rate": 0.01, "momentum": 0.9, "batch_scale": 2, "updates_per_epoch": 4},
     {"alone": True}),
    ("adam-alike-protocol-2", "adam", {"learning_rate": 0.01},
     {"protocol": 2, "still": True, "shapes": SHAPES[:1] * 2}),
]  # fmt: skip


def run(name, optimizer, options, extra, generator):
    options, shapes = dict(options), extra.get("shapes", SHAPES)
    if "scheduler" in extra:
        kind, arguments = extra["scheduler"]
        options["lr_scheduler"] = getattr(mx.lr_scheduler, kind)(**arguments)
    made = mx.optimizer.create(optimizer, **options)
    if "lr_mult" in extra:
        made.set_lr_mult(extra["lr_mult"])
    updater, dtype = mx.optimizer.get_updater(made), extra.get("dtype", "float32")
    weights = [mx.nd.array(generator.standard_normal(shape), dtype=dtype) for shape in shapes]
    arrays = {}

    def step(record=None):
        for k, weight in enumerate(weights):
            moves = record is not None or "still" not in extra
            grad = generator.standard_normal(shapes[k]).astype(dtype) * moves
            updater(k, mx.nd.array(grad, dtype=dtype), weight)
            if record is not None:
                arrays[f"{name}/grad/{record}/{k}"] = grad
                arrays[f"{name}/after/{record}/{k}"] = weight.asnumpy()

    for _ in range(BEFORE):
        step()
    for k, weight in enumerate(weights):
        arrays[f"{name}/weight/{k}"] = weight.asnumpy()
    content = updater.states if extra.get("alone") else (updater.states, updater.optimizer)
    saved = pickle.dumps(content, extra.get("protocol", 4))
    arrays[f"{name}/states"] = np.frombuffer(saved, np.uint8)
    if extra.get("alone"):  # the run goes on as MXNet's own does that loads such a file: with counts that begin again
        updater = mx.optimizer.get_updater(mx.optimizer.create(optimizer, **options))
        updater.set_states(saved)
    for record in range(AFTER):
        step(record)
    return arrays


def gluon(folder):
    net = mx.gluon.nn.Dense(2, in_units=3, prefix="dense_")
    net.initialize(mx.init.Uniform(0.5))
    trainer = mx.gluon.Trainer(net.collect_params(), "adam", {"learning_rate": 0.1, "wd": 0.01})
    inputs, arrays = mx.nd.array([[1, 2, 3], [0.5, -1, 0.25]]), {}

    def step(record=None):
        with mx.autograd.record():
            loss = (net(inputs) ** 2).sum()
        loss.backward()
        for p in net.collect_params().values():
            if record is not None:
                arrays[f"gluon/grad/{record}/{p.name}"] = p.grad().asnumpy()
        trainer.step(2)
        for p in net.collect_params().values():
            if record is not None:
                arrays[f"gluon/after/{record}/{p.name}"] = p.data().asnumpy()

    for _ in range(BEFORE):
        step()
    trainer.save_states(str(folder / "gluon.states"))
    net.save_parameters(str(folder / "gluon.params"))
    for record in range(AFTER):
        step(record)
    return arrays


def main():
    parser = argparse.ArgumentParser(description="Write files of MXNet's.")
    parser.add_argument("folder", type=Path, help="where the files go")
    folder = parser.parse_args().folder
    warnings.simplefilter("ignore")
    mx.random.seed(3)
    generator, arrays = np.random.default_rng(7), {}
    for name, optimizer, options, extra in RUNS:
        arrays.update(run(name, optimizer, options, extra, generator))
    arrays.update(gluon(folder))
    runs = [
        {"name": name, "optimizer": optimizer, "options": options, **extra} for name, optimizer, options, extra in RUNS
    ]
    np.savez_compressed(folder / "mxnet.npz", runs=json.dumps(runs), **arrays)
    named = {
        "arg:fc_weight": mx.nd.arange(6).reshape((2, 3)),
        "arg:half": mx.nd.ones(3, dtype="float16") / 3,
        "aux:count": mx.nd.arange(3, dtype="int64"),
        "rows": mx.nd.sparse.row_sparse_array((np.ones((2, 2)) / 4, [1, 3]), shape=(5, 2)),
    }
    mx.nd.save(str(folder / "mlp.params"), named)
    mx.nd.save(str(folder / "list.params"), [mx.nd.ones((2, 3)), mx.nd.zeros(4)])
    mx.nd.save(str(folder / "csr.params"), {"c": mx.nd.array(np.eye(3)).tostype("csr")})


if __name__ == "__main__":
    main()
