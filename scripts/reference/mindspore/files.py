"""Write tests/data/migrate/mindspore.npz: checkpoints that MindSpore 2.10 saved in mid-run, and
what followed.

    python3.11 -m venv /tmp/mindspore
    /tmp/mindspore/bin/pip install mindspore==2.10.0
    GLOG_v=4 /tmp/mindspore/bin/python scripts/reference/mindspore/files.py tests/data/migrate

For each run NAME: the file of `save_checkpoint(optimizer, ...)` (NAME/ckpt, as bytes), the
gradients of the next ten steps (NAME/grad/STEP/K) and the parameters after each
(NAME/after/STEP/K); "runs" says in JSON how each was made. Amsgrad is left out: MindSpore's Adam
ignores it.
"""

import argparse
import json
import tempfile
from pathlib import Path

import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor, nn
from mindspore.experimental import optim

BEFORE, AFTER = 4, 10
SHAPES = {"fc.w": (3, 2), "fc.b": (5,)}
# name of the run, family, class, options
RUNS = [
    ("nn-momentum", "nn", "Momentum", {"learning_rate": 0.1, "momentum": 0.9, "weight_decay": 0.01}),
    ("nn-sgd", "nn", "SGD", {"learning_rate": 0.1, "momentum": 0.9}),
    ("nn-adam", "nn", "Adam", {"learning_rate": 0.01}),
    ("nn-lazy-adam", "nn", "LazyAdam", {"learning_rate": 0.01}),
    ("nn-adam-weight-decay", "nn", "AdamWeightDecay", {"learning_rate": 0.01, "weight_decay": 0.1}),
    ("nn-adamax", "nn", "AdaMax", {"learning_rate": 0.01}),
    ("nn-rmsprop", "nn", "RMSProp", {"learning_rate": 0.01, "momentum": 0.9}),
    ("nn-rmsprop-centered", "nn", "RMSProp", {"learning_rate": 0.01, "momentum": 0.9, "centered": True}),
    ("nn-adagrad", "nn", "Adagrad", {"learning_rate": 0.1}),
    ("nn-adadelta", "nn", "Adadelta", {"learning_rate": 1.0}),
    ("nn-ftrl", "nn", "FTRL", {"learning_rate": 0.1}),
    ("nn-proximal", "nn", "ProximalAdagrad", {"learning_rate": 0.1}),
    ("nn-asgd", "nn", "ASGD", {"learning_rate": 0.1}),
    ("nn-rprop", "nn", "Rprop", {"learning_rate": 0.1}),
    ("nn-adafactor", "nn", "AdaFactor",
     {"learning_rate": 0.1, "scale_parameter": False, "relative_step": False, "beta1": 0.9}),
    ("sgd", "experimental", "SGD", {"lr": 0.1, "momentum": 0.9}),
    ("adam", "experimental", "Adam", {"lr": 0.01}),
    ("adamw", "experimental", "AdamW", {"lr": 0.01}),
    ("adamax", "experimental", "Adamax", {"lr": 0.01}),
    ("nadam", "experimental", "NAdam", {"lr": 0.01}),
    ("radam", "experimental", "RAdam", {"lr": 0.01}),
    ("adadelta", "experimental", "Adadelta", {"lr": 1.0}),
    ("adagrad", "experimental", "Adagrad", {"lr": 0.1}),
    ("asgd", "experimental", "ASGD", {"lr": 0.1}),
    ("rmsprop", "experimental", "RMSprop", {"lr": 0.01, "momentum": 0.9, "centered": True}),
    ("rprop", "experimental", "Rprop", {"lr": 0.1}),
]  # fmt: skip


def run(name, family, kind, options, generator):
    module = nn if family == "nn" else optim
    parameters = [Parameter(Tensor(generator.standard_normal(s).astype("f")), name=n) for n, s in SHAPES.items()]
    optimizer, arrays = getattr(module, kind)(parameters, **options), {}

    def step(record=None):
        grads = [generator.standard_normal(shape).astype("f") for shape in SHAPES.values()]
        optimizer(tuple(map(Tensor, grads)))
        if record is not None:
            for k, grad in enumerate(grads):
                arrays[f"{name}/grad/{record}/{k}"] = grad
                arrays[f"{name}/after/{record}/{k}"] = parameters[k].asnumpy().copy()

    for _ in range(BEFORE):
        step()
    with tempfile.TemporaryDirectory() as folder:
        ms.save_checkpoint(optimizer, f"{folder}/x.ckpt")
        arrays[f"{name}/ckpt"] = np.frombuffer(Path(folder, "x.ckpt").read_bytes(), np.uint8)
    for record in range(AFTER):
        step(record)
    return arrays


def main():
    parser = argparse.ArgumentParser(description="Write checkpoints of MindSpore's.")
    parser.add_argument("folder", type=Path, help="where the file goes")
    folder = parser.parse_args().folder
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    generator, arrays = np.random.default_rng(11), {}
    for one in RUNS:
        arrays.update(run(*one, generator))
    runs = [dict(zip(("name", "family", "kind", "options"), one, strict=True)) for one in RUNS]
    np.savez_compressed(folder / "mindspore.npz", runs=json.dumps(runs), **arrays)


if __name__ == "__main__":
    main()
