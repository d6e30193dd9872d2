"""The kinds of stores by name, and `create`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, Literal, get_args, overload

from mxopt.errors import ArgumentTypeError, KVStoreError, UnknownNameError, nearest
from mxopt.kvstore.base import KVStoreBase, TestStore
from mxopt.kvstore.local import KVStore

if TYPE_CHECKING:
    from mxopt.kvstore.dist import DistKVStore

Local = Literal["local", "local_update_cpu", "local_allreduce_cpu", "device", "local_allreduce_device"]
Distributed = Literal[
    "dist", "dist_sync", "dist_device_sync", "dist_sync_device", "dist_async", "dist_device_async", "dist_ssp"
]  # fmt: skip
LOCAL: tuple[str, ...] = get_args(Local)
DISTRIBUTED: tuple[str, ...] = get_args(Distributed)


@overload
def create(name: Local = "local") -> KVStore: ...
@overload
def create(name: Distributed) -> DistKVStore: ...
@overload
def create(name: Literal["teststore"]) -> TestStore: ...
@overload
def create(name: str) -> Any: ...
def create(name: str = "local") -> Any:
    """Makes a key-value store.

    Parameters
    ----------
    name : str
        In any case. `local` and `device` (and MXNet's old names of them) live in this process;
        `dist_sync`, `dist_device_sync`, `dist_async` and `dist_ssp` are shared by the workers of a
        job and held by its servers, which the environment says how to reach (`DMLC_PS_ROOT_URI` and
        so on); or the name of a registered class.

    Raises
    ------
    TypeError
        `name` is no text.
    ValueError
        There is no such store; the message names those like it.
    DeadlineError
        The job's other processes haven't come together in time.
    """
    name = known(name)
    if name in KVStoreBase.kv_registry:
        return KVStoreBase.kv_registry[name]()
    if name in LOCAL:
        return KVStore(name)
    from mxopt.kvstore.dist import DistKVStore  # which brings in ZeroMQ

    return DistKVStore(name)


def known(name: object) -> str:
    """The name of a kind of store, in lower case. Raises what `create` raises for an unknown
    one."""
    if not isinstance(name, str):
        raise ArgumentTypeError(f"the name of a kvstore must be a text, got {name!r}")
    name = name.lower()
    if name in KVStoreBase.kv_registry or name in LOCAL or name in DISTRIBUTED:
        return name
    if "nccl" in name or name in ("horovod", "byteps", "p3"):
        raise KVStoreError(f"mxopt has no kvstore {name!r}: use 'device' in one process, 'dist_sync' in several")
    raise UnknownNameError(
        f"there is no kvstore {name!r}: {nearest(name, (*LOCAL, *DISTRIBUTED, *KVStoreBase.kv_registry))}"
    )
