"""Key-value stores as `mxnet.kvstore`: push gradients, pull weights, in one process or through parameter servers."""

from mxopt.kvstore.base import KVStoreBase, TestStore, create
from mxopt.kvstore.local import KVStore

__all__ = ["KVStore", "KVStoreBase", "TestStore", "create"]
