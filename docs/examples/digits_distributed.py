"""The classifier of `digits.py`, trained by several workers through parameter servers.

Every worker takes its share of each batch, the servers sum the gradients and update the weights. At
the end worker 0 saves weights and states, and every worker prints a fingerprint of its weights:
they are the same.

    mxopt-launch -n 2 -s 2 python docs/examples/digits_distributed.py [--save FOLDER]

Needs scikit-learn and rich: pip install '.[examples]'
"""

from __future__ import annotations

import argparse
import tempfile
from pathlib import Path

import numpy as np
from digits import BATCH, RATES, accuracy, fingerprint, gradients, load_data, new_weights

import mxopt
from mxopt.document import dump_document, write_file

EPOCHS = 30


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0] if __doc__ else None)
    parser.add_argument("--save", type=Path, help="where weights and states go (a new temporary folder)")
    folder = parser.parse_args().save

    images, labels, *test = load_data()
    weights = new_weights()
    params = {name: mxopt.Parameter(value, name=name) for name, value in weights.items()}
    store = mxopt.kvstore.create("dist_sync")
    steps = EPOCHS * -(-len(images) // BATCH)
    schedule = mxopt.lr_scheduler.CosineScheduler(steps, base_lr=RATES["adam"], final_lr=1e-5, warmup_steps=steps // 20)
    optimizer = {"learning_rate": RATES["adam"], "lr_scheduler": schedule, "wd": 1e-4}
    trainer = mxopt.Trainer(params, "adam", optimizer, kvstore=store)
    first = store.rank == 0

    for epoch in range(EPOCHS):
        order = np.random.default_rng(epoch).permutation(len(images))  # the same in every worker
        for start in range(0, len(order), BATCH):
            batch = order[start : start + BATCH]
            mine = batch[store.rank :: store.num_workers]
            loss, grads = gradients(weights, images[mine], labels[mine])
            for name, grad in grads.items():
                params[name].grad = grad * (len(mine) / len(batch))  # the sum over workers is the batch's mean
            trainer.step(1)
        if first:
            share = "#" * (epoch + 1) + "." * (EPOCHS - epoch - 1)
            print(f"epoch {epoch + 1:2} {share} loss {loss:.4f}  test accuracy {accuracy(weights, *test):.2%}")

    if first:
        folder = folder or Path(tempfile.mkdtemp(prefix="mxopt-"))
        folder.mkdir(parents=True, exist_ok=True)
        write_file(folder / "weights.mxopt", dump_document({"weights": weights}))
        trainer.save_states(str(folder / "states.mxopt"))
        sizes = ", ".join(f"{p.name} ({p.stat().st_size:,} bytes)" for p in sorted(folder.iterdir()))
        reached = accuracy(weights, *test)
        print(f"test accuracy {reached:.2%}, weights {fingerprint(weights)}; saved {sizes} in {folder}")
        if reached < 0.97:
            raise SystemExit("the test accuracy is below 97 %")
    store.barrier()
    print(f"worker {store.rank} of {store.num_workers} ends with weights {fingerprint(weights)}")


if __name__ == "__main__":
    main()
