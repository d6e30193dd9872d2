"""Write tests/data/mindspore: what MindSpore 2.10 makes of every case, with PyTorch 2.13 as second
opinion.

    python3.11 -m venv /tmp/mindspore
    /tmp/mindspore/bin/pip install mindspore==2.10.0 "numpy==1.26.4"
    /tmp/mindspore/bin/pip install torch==2.13.0
    GLOG_v=4 /tmp/mindspore/bin/python scripts/reference/mindspore/generate.py tests/data/mindspore

NumPy has to be older than 2: this wheel of MindSpore was built against 1.x, and some comparisons of
a tensor with a number fail under 2.x. A name after the folder (`optim`, `nn`, `lr_scheduler`,
`schedules`, `errors`, `signatures`) limits the run to that collection. The whole run takes about
two minutes on one core.

What is in the files: `format`, and tests/data/README.md. The tables of cases:
`optim_cases`, `nn_cases`, `schedulers`, `schedules`, `errors`.
"""

import argparse
import platform
import warnings

import mindspore as ms
import nn_runs
import numpy as np
import optim_runs
import refusals
import schedulers
import schedules
import signatures
import torch
from format import write

COLLECTIONS = {
    "optim": optim_runs.collect,
    "lr_scheduler": schedulers.collect,
    "nn": nn_runs.collect,
    "schedules": schedules.collect,
    "errors": lambda: (refusals.collect(), None),
    "signatures": lambda: (signatures.collect(), None),
}


def main():
    parser = argparse.ArgumentParser(description="Write MindSpore's reference data.")
    parser.add_argument("folder", help="where the files go")
    parser.add_argument("only", nargs="*", metavar="collection", help=f"any of {', '.join(COLLECTIONS)} (default: all)")
    chosen = parser.parse_args()
    unknown = set(chosen.only) - set(COLLECTIONS)
    if unknown:
        parser.error(f"no such collection: {', '.join(sorted(unknown))}")
    warnings.simplefilter("ignore")
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    torch.set_num_threads(1)
    system = {
        "mindspore": ms.__version__,
        "torch": torch.__version__,
        "numpy": np.__version__,
        "machine": platform.machine(),
    }
    for name in chosen.only or COLLECTIONS:
        document, arrays = COLLECTIONS[name]()
        write(chosen.folder, name, {"system": system, **document}, arrays)


if __name__ == "__main__":
    main()
