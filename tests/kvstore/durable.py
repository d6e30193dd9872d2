"""What workers of the durability tests run, as commands of a launched job:
`python durable.py ROUNDS FOLDER [MODE [OPTIMIZER]]`."""

from __future__ import annotations

import hashlib
import os
import signal
import sys
from pathlib import Path

import crashing  # noqa: F401 an optimizer
import numpy as np
from mxopt_server.durability import Durability
from mxopt_server.kept import cuts_of

import mxopt
from mxopt import kvstore, sparse
from mxopt.document import load_document
from mxopt.kvstore.base import KVStoreBase
from mxopt.sparse import RowSparse

TABLE = sparse.table((500, 4), init="uniform", seed=1)
SHAPES = {"w": (300, 5), "b": (7,), "v": (11,)}


def gradient(key: str, round: int, rank: int) -> np.ndarray:
    """What a worker pushes of a key in a round: of nothing else, so that a job that goes on pushes
    the same."""
    seed = [round, rank, *key.encode()]
    return np.random.default_rng(seed).normal(size=SHAPES[key]).astype(np.float32)


def rows(round: int, rank: int) -> RowSparse:
    """The same of a table."""
    rng = np.random.default_rng([round, rank])
    ids = np.unique(rng.integers(0, TABLE.shape[0], 20))
    return sparse.row_sparse_array((rng.normal(size=(len(ids), TABLE.shape[1])).astype(np.float32), ids), TABLE.shape)


def rows_of(store: KVStoreBase) -> bytes:
    """All rows of the table."""
    out = sparse.zeros("row_sparse", TABLE.shape)
    store.row_sparse_pull("t", out, row_ids=np.arange(TABLE.shape[0]))  # type: ignore[attr-defined]
    return bytes(out.data.tobytes())


def main(rounds: int, folder: Path, mode: str = "dist_sync", optimizer: str = "adam") -> None:
    """Trains to round `rounds`. A file `kill-ROUND-WHO` in `folder` says who is killed then;
    `kill-kept-WHO`: when there is something to go on from in its `state`, and then `reached` has
    the round. A pipe `pause-ROUND` is read then, to its end."""
    store = kvstore.create(mode)
    store.set_optimizer(mxopt.create(optimizer, learning_rate=0.01))
    values = {key: np.ones(shape, np.float32) for key, shape in SHAPES.items()}
    for key, value in values.items():
        store.init(key, value)
    store.init("t", TABLE)
    first = store.round("w")
    for round in range(first, rounds):
        if store.rank == 0:
            for path in folder.glob("kill-*"):
                _, when, victim = path.name.split("-")
                if when == str(round) or (when == "kept" and round % 10 == 0 and kept(folder / "state")):
                    path.unlink()
                    (folder / "reached").write_text(str(round))
                    os.kill(process(victim), signal.SIGKILL)
            if (pause := folder / f"pause-{round}").exists():
                print("PAUSED", flush=True)
                pause.read_bytes()
        for key in SHAPES:
            store.push(key, gradient(key, round, store.rank))
        store.push("t", rows(round, store.rank))
        for key, value in values.items():
            store.pull(key, out=value)
    store.barrier()
    digest = hashlib.sha256(b"".join([*(value.tobytes() for value in values.values()), rows_of(store)])).hexdigest()
    if store.rank == 0:
        print(f"ENDED {digest} {first}", flush=True)


def kept(state: Path) -> bool:
    """Whether a job can be resumed from there, not only begun anew."""
    notes = max((state / "scheduler").glob("*/notes"))
    if load_document(notes.read_bytes()).get("checkpoint"):
        return True
    return all(cuts_of(Durability("journal", state), rank) for rank in (0, 1))


def process(name: str) -> int:
    """The process id of a member of this job: `self`, or a role and a rank; `actor0` is that of
    Ray's which started server 0."""
    if name == "self":
        return os.getpid()
    if name.startswith("actor"):
        status = Path(f"/proc/{process(f'server{name[-1]}')}/status").read_text()
        return int(status.partition("PPid:")[2].split()[0])
    role, rank = name[:-1], name[-1]
    for path in Path("/proc").iterdir():
        if path.name.isdecimal():
            try:
                found = (path / "environ").read_bytes().split(b"\0")
                state = (path / "stat").read_text().rpartition(")")[2].split()[0]
            except OSError:
                continue
            wanted = {
                f"MXOPT_JOB_ID={os.environ['MXOPT_JOB_ID']}".encode(),
                f"DMLC_ROLE={role}".encode(),
                *([f"DMLC_SERVER_ID={rank}".encode()] if role == "server" else []),
            }
            if wanted <= set(found) and state != "Z":
                return int(path.name)
    raise SystemExit(f"there is no {name}")


if __name__ == "__main__":
    main(int(sys.argv[1]), Path(sys.argv[2]), *sys.argv[3:])
