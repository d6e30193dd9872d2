"""Keys that are stored by rows, on servers: the bits of a local store, whatever the number of
servers."""

from __future__ import annotations

from pathlib import Path

import pytest
import table_jobs
from jobs import Job

import mxopt
from mxopt import kvstore
from mxopt.kvstore import checkpoint


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (1, 3), (2, 2)])
def test_rows_on_servers_have_the_bits_of_a_local_store(workers: int, servers: int) -> None:
    with Job(workers, servers) as job:
        job.run("table_jobs.optimizers", {})
        assert job.ended() == [0] * (1 + servers)


def test_asynchronous_with_one_worker_too() -> None:
    with Job(1, 2) as job:
        job.run("table_jobs.optimizers", {"mode": "dist_async"})


def test_states_of_rows_are_saved_as_a_local_store_saves_them(tmp_path: Path) -> None:
    with Job(1, 3) as job:
        job.run("table_jobs.saved", {"folder": str(tmp_path)})


def test_what_tables_and_row_sparse_values_give_and_refuse() -> None:
    with Job(2, 2) as job:
        job.run("table_jobs.kept")


@pytest.mark.parametrize(("before", "after"), [(1, 2), (3, 1)])
def test_states_go_to_another_number_of_servers(tmp_path: Path, before: int, after: int) -> None:
    path = str(tmp_path / "states")
    with Job(2, before) as job:
        job.run("table_jobs.train", {"first": 0, "steps": 3, "save": path})
    with Job(1, after) as job:
        (there,) = job.run("table_jobs.train", {"first": 3, "steps": 3, "load": path})
    assert there == table_jobs.train({"first": 3, "steps": 3, "load": path, "store": "local"})


@pytest.mark.parametrize(("mode", "before", "after"), [("dist_sync", 2, 3), ("dist_async", 3, 1)])
def test_a_checkpoint_has_the_rows_that_there_are_for_another_number_of_servers(
    tmp_path: Path, mode: str, before: int, after: int
) -> None:
    path, workers = str(tmp_path), 2 if mode == "dist_sync" else 1
    with Job(workers, before) as job:
        job.run("table_jobs.checkpointed", {"mode": mode, "first": 0, "last": 3, "save": path})
    counts = {key: rows.row_count for key, rows in checkpoint.read(path).weights.items()}  # type: ignore[union-attr]
    assert counts.pop("untouched") == 0
    assert all(200 <= count <= 500 + 3 * 200 for count in counts.values())
    with Job(workers, after) as job:
        found = job.run("table_jobs.checkpointed", {"mode": mode, "first": 3, "last": 6, "load": path})
    local = kvstore.create()
    local.set_optimizer(mxopt.create("adam", learning_rate=0.1, multi_precision=True))
    assert found == [[table_jobs.trained(local, 0, 6, True), 6]] * workers
