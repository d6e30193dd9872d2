"""`KVStoreServer`, by which a script that is started for every role becomes a server or the
scheduler."""

from __future__ import annotations

import runpy

from mxopt.kvstore.base import KVStoreBase


class KVStoreServer:
    """As `mxnet.kvstore_server.KVStoreServer`: `run` makes this process the server (or scheduler)
    of its job.

    Parameters
    ----------
    kvstore : the store `create` returned in this process; not used
    """

    def __init__(self, kvstore: KVStoreBase | None = None) -> None:
        self.kvstore = kvstore

    def run(self) -> None:
        """Runs `mxopt-server` in this process, by the environment (`DMLC_ROLE`), until the job is
        over; then exits."""
        import sys

        sys.argv = ["mxopt-server"]
        runpy.run_module("mxopt_server", run_name="__main__")

    def __repr__(self) -> str:
        return f"<{type(self).__name__} of {self.kvstore!r}>"
