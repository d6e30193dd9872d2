"""Readers and writers of other systems' files: parameters and optimizer states."""

from mxopt.migrate.flat import read_npz, read_safetensors, write_npz, write_safetensors
from mxopt.migrate.mindspore import read_mindspore_checkpoint, write_mindspore_checkpoint
from mxopt.migrate.mindspore_states import load_mindspore_states
from mxopt.migrate.mxnet import read_mxnet_states
from mxopt.migrate.ndarrays import read_mxnet_params, write_mxnet_params

__all__ = [
    "load_mindspore_states", "read_mindspore_checkpoint", "read_mxnet_params", "read_mxnet_states", "read_npz",
    "read_safetensors", "write_mindspore_checkpoint", "write_mxnet_params", "write_npz", "write_safetensors",
]  # fmt: skip


def __dir__() -> list[str]:
    return __all__
