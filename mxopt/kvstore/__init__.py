"""Key-value stores as `mxnet.kvstore`: push gradients, pull weights, in one process or through
parameter servers."""

from mxopt.kvstore.base import KVStoreBase, TestStore
from mxopt.kvstore.kinds import create
from mxopt.kvstore.local import KVStore
from mxopt.kvstore.server import KVStoreServer

__all__ = ["KVStore", "KVStoreBase", "KVStoreServer", "TestStore", "create"]


def __dir__() -> list[str]:
    return __all__
