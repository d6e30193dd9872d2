"""Saving and loading of a distributed store: the optimizer's states, and checkpoints of a job."""

from __future__ import annotations

import logging
import os
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from mxopt.document import write_file
from mxopt.errors import KVStoreError, UsageError
from mxopt.kvstore import checkpoint, dist_states, first, rows
from mxopt.kvstore.base import KVStoreBase
from mxopt.optimizer.states import Loaded, described, fit, load

if TYPE_CHECKING:
    from mxopt.kvstore.connection import Connections
    from mxopt.kvstore.exchange import KeyInfo
    from mxopt.kvstore.held import Held
    from mxopt.kvstore.pushes import Pushes
    from mxopt.kvstore.wire import Key
    from mxopt.optimizer import Optimizer
    from mxopt.sparse import RowSparse


log: logging.Logger = logging.getLogger("mxopt.kvstore")

WRITTEN = True  # what worker 0 says of a checkpoint
LOADS = 16  # bits for the loads of a script's states in a round


class Saving(KVStoreBase):
    """The methods of `DistKVStore` that save and load."""

    _worker: Any
    _connections: Connections
    _held: Held
    _pushes: Pushes
    step: int
    _loads: int
    _mode: str
    pull: Callable[..., None]
    round: Callable[[Key], int]
    barrier: Callable[[], None]

    @property
    def _optimizer(self) -> Optimizer | None:
        followed = self._pushes.followed
        return None if followed is None else followed.optimizer

    def save_checkpoint(self, folder: str | os.PathLike[str]) -> None:
        """Writes all that the job has trained to the file `checkpoint` in a folder: weights,
        states, update counts and rounds; for keys that are stored by rows, the rows that exist. All
        workers call it and wait for each other; rank 0 writes, and holds everything in memory
        meanwhile.

        Raises OSError if the file can't be written, and KVStoreError then on the other workers.
        """
        with self._worker:
            self.barrier()
            failed: Exception | None = None
            if self.rank == 0:
                try:
                    checkpoint.write(folder, self._checkpoint())
                except KVStoreError:  # the servers don't answer: nor would they at a barrier
                    raise
                except Exception as error:
                    failed = error
            told = self._worker.barrier(f"{type(failed).__name__}: {failed}" if failed else WRITTEN)
            if failed is not None:
                raise failed
            if told is None:
                raise KVStoreError("save_checkpoint: worker 0, which writes it, hasn't called it: all workers have to")
            if told != WRITTEN:
                raise KVStoreError(f"save_checkpoint: worker 0 couldn't write it: {told}")

    def _checkpoint(self) -> checkpoint.Checkpoint:
        infos = self._held.infos
        weights = {key: self._room_or_rows(info) for key, info in infos.items()}
        dense = {key: weight for key, weight in weights.items() if isinstance(weight, np.ndarray)}
        if dense:
            self.pull(list(dense), list(dense.values()))
        states = None
        if self._optimizer is not None:
            states = dist_states.save(self._connections, infos, self._optimizer, True)
        return checkpoint.Checkpoint(weights, {key: self.round(key) for key in infos}, states)

    def _room_or_rows(self, info: KeyInfo) -> np.ndarray | RowSparse:
        """Room for the weight of a key; for one that is stored by rows, its rows."""
        by_rows = info.layout.by_rows
        return rows.there(self._connections, info, self.step) if by_rows else np.empty(info.shape, info.dtype)

    def load_checkpoint(self, folder: str | os.PathLike[str]) -> None:
        """Begins with a checkpoint, in a job with any number of servers: its keys are initialised
        with its weights, and the servers get its states and counts; `round` counts on from its
        rounds. All workers call it, after `set_optimizer` if the checkpoint has states. As with
        `init`, in a job that has gone on already (a resumed one, or one that a worker joins later)
        what the servers have counts. Keys that such a job doesn't have yet begin with the
        checkpoint's weights and states; in `dist_async` and `dist_ssp` without states, and the log
        says so.

        Raises StatesError if it is no checkpoint or doesn't fit the optimizer, KVStoreError
        where a key has been initialised before, OSError where it can't be read; no key has been
        initialised then. Raises KVStoreError where all workers update together, and rank 0 has
        read another checkpoint.
        """
        with self._worker:
            found = checkpoint.read(folder)
            states = None
            if found.states is not None:
                if self._optimizer is None:
                    raise UsageError("the checkpoint has an optimizer's states: call set_optimizer first")
                states = fit(load(found.states), self._optimizer, {k: described(w) for k, w in found.weights.items()})
            self._held.keys.check_new(found.weights)
            for key, weight in found.weights.items():
                first.give(self._worker, self._held, key, weight, self._optimizer, found.rounds[key])
            begun = [key for key, number in found.rounds.items() if self.round(key) == number]
            goes_on = len(begun) < len(found.rounds)
            told = self._worker.barrier([found.checksum, goes_on] if self.rank == 0 else None)
            if told is None:  # an asynchronous job waits for its living workers only
                raise KVStoreError("load_checkpoint: worker 0 has ended before it said which it begins with")
            checksum, gone_on = told
            if checksum != found.checksum and not gone_on and self._mode == "sync":
                raise KVStoreError(f"load_checkpoint: worker {self.rank} has read another checkpoint than worker 0")
            if states is None:
                return
            number = self._next_load()  # a load it is, of all workers, whether or not the servers need it
            if checksum == found.checksum:
                self._begin(begun, *states, number, gone_on or goes_on)

    def _begin(self, keys: list[Key], loaded: Loaded, made: Optimizer | None, number: int, goes_on: bool) -> None:
        """Gives the servers a checkpoint's states of `keys`, which have just begun with its
        weights; where the job hasn't gone on, the optimizer goes on as it was then."""
        followed = self._pushes.followed
        assert followed is not None
        if goes_on and self._mode != "sync":  # others may have pushed them
            if names := ", ".join(map(repr, keys[: first.SHOWN])):
                log.warning("the job has gone on already: the checkpoint's states of %s are left out", names)
            return
        if made is not None and not goes_on:
            followed.take_over(made)
        infos = {key: self._held.infos[key] for key in keys}
        dist_states.load(self._connections, infos, followed.optimizer, loaded, number)
        if goes_on:
            followed.also({key: loaded.key_counts[key] for key in keys if key in loaded.key_counts})
        else:
            followed.restore(loaded.key_counts)
            followed.optimizer.set_counts(loaded.counts)

    # States.

    def save_optimizer_states(self, fname: str | os.PathLike[str], dump_optimizer: bool = False) -> None:
        """Gathers the optimizer's states from the servers and writes them, with their update
        counts, to the file `fname`.

        The file is the one a local store writes: it can be loaded by either, with any number of
        servers.
        """
        with self._worker:
            if self._optimizer is None:
                raise UsageError("there are no states to save: this worker has not called set_optimizer")
            document = dist_states.save(self._connections, self._held.infos, self._optimizer, dump_optimizer)
            write_file(fname, document)

    def load_optimizer_states(self, fname: str | os.PathLike[str]) -> None:
        """Gives the servers the states, and the optimizer if there is one, from the file `fname`;
        all workers call it, which counts as one event."""
        with self._worker:
            self._worker.changes("load_optimizer_states")
            if self._optimizer is None:
                raise UsageError("there is nothing to load the states into: call set_optimizer first")
            document = load(Path(fname).read_bytes())
            loaded, made = fit(document, self._optimizer, dist_states.known(self._held.infos))
            if self._pushes.first and self._worker.member.welcome.goes_on > 0:
                log.info("the job goes on from its own states: those of %s are left alone", fname)
                self._announce(made)
                return
            self._take_states(loaded, made)

    def _take_states(self, loaded: Loaded, made: Optimizer | None) -> None:
        assert self._optimizer is not None
        infos = self._held.infos
        dist_states.check(loaded, infos, made)
        self._announce(made)
        dist_states.load(self._connections, infos, self._optimizer, loaded, self._next_load())
        assert self._pushes.followed is not None
        self._pushes.followed.restore(loaded.key_counts)
        if made is not None:
            self._optimizer.set_counts(loaded.counts)
        elif "seed" in loaded.counts:
            self._optimizer.seed = loaded.counts["seed"]

    def _announce(self, made: Optimizer | None) -> None:
        """Gives the servers the optimizer of saved states, if there is one."""
        if made is not None:
            assert self._optimizer is not None
            self._optimizer.take_over(made)
            self.set_optimizer(self._optimizer)

    def _next_load(self) -> int:
        """The number of a load of states, the same on all workers. Where these update together it
        rises with the rounds too: a script that goes on with a job counts its loads anew."""
        self._loads += 1
        rounds = max((info.round for info in self._held.infos.values()), default=0) if self._mode == "sync" else 0
        return (rounds << LOADS) + self._loads
