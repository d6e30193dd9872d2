"""The real MXNet 1.9.1, imported so that it runs on today's Python, for the scripts beside this
file.

uv venv --python 3.11 mxnet-env
uv pip install --python mxnet-env "mxnet==1.9.1" "numpy==1.23.5"
"""

import os
import warnings

import numpy as np

os.environ["MXNET_ENGINE_TYPE"] = "NaiveEngine"  # one operator after the other: an error comes where it is made
os.environ["MXNET_STORAGE_FALLBACK_LOG_VERBOSE"] = "0"
np.bool = bool  # MXNet 1.9.1 reads this alias, which NumPy has dropped

import mxnet as mx  # noqa: E402

assert mx.__version__ == "1.9.1", f"this data is defined by MXNet 1.9.1, not by {mx.__version__}"
warnings.filterwarnings("ignore", message="Accumulating with float16")

__all__ = ["mx"]
