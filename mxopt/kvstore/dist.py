"""The distributed stores, on the side of a worker."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping
from typing import Any, NoReturn

import numpy as np

from mxopt import settings
from mxopt.errors import ArgumentTypeError, KVStoreError, UsageError, counted
from mxopt.kvstore import first, pulls, rows, sockets, wire
from mxopt.kvstore.base import capable
from mxopt.kvstore.channel import Call
from mxopt.kvstore.compression import GradientCompression
from mxopt.kvstore.cut import Cuts
from mxopt.kvstore.dist_saving import Saving
from mxopt.kvstore.exchange import KeyInfo
from mxopt.kvstore.held import Held
from mxopt.kvstore.network import Network
from mxopt.kvstore.pushes import Pushes
from mxopt.kvstore.transport import Transport
from mxopt.kvstore.values import FirstValues, Key, Keyed, RowIds, with_ids, write_rows
from mxopt.kvstore.worker import Outside, Worker
from mxopt.optimizer import Optimizer
from mxopt.optimizer.grouped import GroupedOptimizer
from mxopt.optimizer.keyed import by_key
from mxopt.sparse import RowSparse
from mxopt.typing import Array, Arrays, Document


class DistKVStore(Saving):
    """Values held by the servers of a job and shared by its workers.

    `dist_sync`: an update takes the sum of what all workers push. `dist_async`: every push is an
    update. `dist_ssp`: the same, but a worker that is too far ahead of the slowest waits. Joins the
    job that the environment names (`settings.Job`).

    Raises KVStoreError if it names none, DeadlineError where the job doesn't come together in
    time.

    Attributes
    ----------
    step : int
        The step of the training that pushes and pulls belong to, from 1 on, 0 where nobody counts;
        a `Trainer` sets it, a script may. In `dist_sync` pushes of different steps are never
        summed, a worker that leaves out a push is told by its next, and checkpoints are made
        between two steps, whichever keys are pushed in them.
    """

    def __init__(self, name: str, transport: Transport | None = None, job: settings.Job | None = None) -> None:
        job = job or settings.job()
        if transport is None and not settings.in_job():
            raise KVStoreError(
                f"this process belongs to no job, which {name} needs: start it by `mxopt-launch -n WORKERS -s SERVERS"
                " COMMAND`, or set DMLC_PS_ROOT_URI and DMLC_PS_ROOT_PORT to where the job's scheduler is"
            )
        self._type = name
        self.step = 0
        self._mode = "async" if "async" in name else "ssp" if "ssp" in name else "sync"
        self._blocks = "device" not in name  # how a worker's values of one key are summed
        self._loads = 0
        self._confirmed = self._mode == "sync"  # whether a push has been taken, so that servers have an optimizer
        if job.role != "worker":
            self._worker: Any = Outside()  # KVStoreServer makes this process what it is
            return
        wire.tune_memory()
        network = transport or Network.of(job)
        self._worker = Worker(network, job, sockets.name_of_process(), self._mode)
        self._connections = self._worker.connections
        self._servers = self._worker.member.welcome.servers
        self._held = Held(self._servers, job.bound)
        cuts = Cuts(self._connections, self._worker.member) if self._mode == "sync" else None
        self._pushes = Pushes(self._worker, self._held, cuts)
        if self._mode != "sync":
            self._connections.session.came_back = self._tell_rounds
            self._worker.last = self._ask_what_is_lost

    def __reduce__(self) -> NoReturn:
        raise ArgumentTypeError(
            f"a {self._type} store holds connections, so it can't be copied or sent to another process: call"
            f" kvstore.create({self._type!r}) in each process of the job"
        )

    # Values.

    def init(self, key: Keyed, value: FirstValues) -> None:
        """Gives keys the first values of rank 0. All workers call it, and return when all have.

        Parameters
        ----------
        key : int, str, or a list of them
        value : array, RowSparse or Table, or a list
            float16, bfloat16, float32 or float64; of the same shape and dtype on all workers. Of a
            table only its description is sent; its rows, and those of a RowSparse, are spread over
            all servers.

        Raises
        ------
        KVStoreError
            A key is initialised already.
        ArrayError
            The workers' arrays differ in shape or dtype.
        ArrayTypeError
            Servers can't hold such an array.
        """
        with self._worker:
            first.give(self._worker, self._held, key, value, self._optimizer)

    def check_new(self, keys: Iterable[int | str]) -> None:
        """Raises KVStoreError if `init` would, for a key that has a value already, or is of the
        other type."""
        self._held.keys.check_new(keys)

    def push(self, key: Keyed, value: Arrays, priority: int = 0) -> None:
        """Sends gradients, and returns without waiting for the round; the arrays may be changed at
        once.

        Parameters
        ----------
        key : int, str, or a list of them
            A key that comes twice counts as one with the values of both.
        value : array or RowSparse, a list of them for a key, or a list of either for a list of keys
            Of the key's shape and dtype. Several values are summed first, as a local store does. Of
            a table without an optimizer the rows that are pushed replace those there; all others
            stay.
        priority : int
            Of the messages that wait for room on a connection, those of the highest priority are
            sent first.

        Raises
        ------
        NotInitializedError
            There is no such key.
        ArrayError
            A value has another shape than its key.
        ArrayTypeError
            It has another dtype.
        KVStoreError
            What went wrong with an earlier push.
        """
        with self._worker:
            values = self._held.sums(key, value, self._blocks)
            call = None if self._confirmed else Call()
            self._pushes.push(values, self.step, None, call, priority)
            if call is not None:
                self._connections.wait(call, "the first push to be taken")
                self._confirmed = True

    def pull(self, key: Keyed, out: Arrays | None = None, priority: int = 0, ignore_sparse: bool = True) -> None:
        """Copies values into `out`, converted to its dtype, once the rounds of the worker's own
        pushes are complete.

        Parameters
        ----------
        key : int, str, or a list of them
        out : array, a list of them for the key, or a list of either for a list of keys
            Of exactly the value's shape. A RowSparse is left as it is.

        Raises
        ------
        KVStoreError
            The value is a table: `row_sparse_pull` gives rows of it.
        """
        if out is None:
            raise UsageError("pull needs out, the array that is to be filled")
        if not ignore_sparse:
            raise KVStoreError(
                "a dist store can't pull row-sparse values with ignore_sparse=False: use row_sparse_pull"
            )
        with self._worker:
            outs = self._held.outs(key, out)
            for name in [name for name in outs if self._held.infos[name].layout.by_rows]:
                rows.fill(self._connections, self._held.infos[name], outs.pop(name), self.step)
            items = self._held.items(tuple(outs))
            pulls.pull(self._connections, items, outs, self.step, priority, f"pull of {_named(outs)}")

    def pushpull(self, key: Keyed, value: Arrays, out: Arrays | None = None, priority: int = 0) -> None:
        """`push` and `pull` in one message each way. Without `out` the values are written into
        `value`."""
        with self._worker:
            values = self._held.sums(key, value, self._blocks)
            outs = self._held.outs(key, value if out is None else out)
            call = Call()
            if outs.keys() != values.keys() or RowSparse in map(type, values.values()) or self._any_by_rows(outs):
                self._pushes.push(values, self.step, None, None, priority)
                self.pull(list(outs), list(outs.values()), priority)
                return
            self._pushes.push(values, self.step, outs, call, priority)
            self._connections.wait(call, f"pushpull of {_named(outs)}")
            self._confirmed = True

    def broadcast(self, key: Keyed, value: Arrays, out: Arrays, priority: int = 0) -> None:
        """`init(key, value)`, then `pull(key, out)`: all workers get rank 0's values."""
        self._held.keys.check_broadcast(key, value)
        self.init(key, value)
        self.pull(key, out, priority)

    def row_sparse_pull(
        self, key: Keyed, out: Arrays | None = None, priority: int = 0, row_ids: RowIds | None = None
    ) -> None:
        """Copies some rows of values into row-sparse `out`, see `KVStore.row_sparse_pull`."""
        with self._worker:
            for name, target, ids in with_ids(self._held.keys, key, out, row_ids):
                info = self._held.infos[name]
                ids = ids[(ids >= 0) & (ids < info.shape[0])]
                write_rows(target, ids, self._rows(info, ids), info.shape[0], name)

    def _rows(self, info: KeyInfo, ids: np.ndarray) -> np.ndarray:
        if info.layout.by_rows or math.prod(info.shape[1:]) == info.layout.unit:
            return rows.pull(self._connections, info, ids, self.step)
        whole = np.empty(info.shape, info.dtype)  # rows larger than a piece
        self.pull(info.key, whole)
        found: np.ndarray = whole[ids]
        return found

    def _any_by_rows(self, keys: Iterable[Key]) -> bool:
        return any(self._held.infos[key].layout.by_rows for key in keys)

    def _tell_rounds(self, server: int) -> None:
        first.tell_rounds(self._connections.session, server, list(self._held.infos.values()))

    def _ask_what_is_lost(self) -> None:
        """Asks the servers whether pushes were lost: a server may have come back from a checkpoint
        since this worker's last request."""
        for server in range(self._servers):
            self._tell_rounds(server)

    def round(self, key: int | str) -> int:
        """How many rounds of a key this worker has taken part in: those of a job or checkpoint that
        it goes on with, and its own pushes since. Raises NotInitializedError for an unknown key."""
        info: KeyInfo = self._held.infos[self._held.keys.one(key, "round")]
        return info.round

    # The optimizer.

    def set_optimizer(self, optimizer: Optimizer | GroupedOptimizer) -> None:
        """Makes the servers update by `optimizer`, with no states. Waits for the servers only.

        The n-th call of every worker is one event, whichever worker's comes first. Later changes of
        `optimizer` (rates, multipliers and so on) reach the servers with the next push. Of an
        optimizer of `mxopt.experimental.optim` or `mxopt.nn` a key is a parameter's name, or its
        position.

        Raises StatesError if the optimizer can't be sent as plain data, KVStoreError where a
        server doesn't know it (`mxopt-server --import`).
        """
        with self._worker:
            self._pushes.set_optimizer(by_key(optimizer))

    def set_gradient_compression(self, compression_params: Document) -> None:
        """Compresses the dense gradients that this worker pushes; what is lost stays for its next
        push."""
        with self._worker:
            self._pushes.compression = GradientCompression(compression_params)

    @property
    def compresses(self) -> bool:
        return self._pushes.compression is not None

    # The rest of the interface.

    @staticmethod
    def is_capable(capability: str) -> bool:
        """True for 'optimizer'; raises ValueError for anything else."""
        return capable(capability, optimizer=True)

    @property
    def type(self) -> str:
        return self._type

    @property
    def rank(self) -> int:
        rank: int = self._worker.member.rank
        return rank

    @property
    def num_workers(self) -> int:
        workers: int = self._worker.member.welcome.workers
        return workers

    def barrier(self) -> None:
        """Returns when all workers have called it, and the servers have taken what they had pushed
        before.

        Raises JobFailedError if one can't come any more; and what went wrong with an earlier
        push.
        """
        with self._worker:
            self._worker.barrier()

    _barrier = barrier

    def from_rank_0(self, payload: Any) -> Any:
        """A barrier that returns rank 0's `payload`, plain values of a few bytes; None where that
        has left a job that goes on without it."""
        with self._worker:
            return self._worker.barrier(payload if self.rank == 0 else None)

    def _set_updater(self, updater: object) -> None:
        """Has no effect, as in MXNet: servers take registered optimizers only, by
        `set_optimizer`."""

    def __repr__(self) -> str:
        if isinstance(self._worker, Outside):
            return f"<{type(self).__name__} {self.type!r} in a process that is no worker>"
        place = f"rank {self.rank} of {counted(self.num_workers, 'worker')}, {counted(self._servers, 'server')}"
        optimizer = f", {self._optimizer!r}" if self._optimizer is not None else ""
        return f"<{type(self).__name__} {self.type!r}: {place}, {counted(len(self._held.infos), 'key')}{optimizer}>"

    def close(self) -> None:
        """Waits until all pushes are taken, and leaves the job. At the end of the process this is
        done anyway."""
        self._worker.close()


def _named(outs: Mapping[Key, Array]) -> str:
    keys = list(outs)
    return f"key {keys[0]!r}" if len(keys) == 1 else counted(len(keys), "key")
