"""The distributed stores in real jobs: the same values as in one process, whatever the number of
servers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest
from jobs import Job

STRIPED: dict[str, Any] = {"MXNET_KVSTORE_BIGARRAY_BOUND": 1000}


@pytest.mark.parametrize(("workers", "servers"), [(1, 1), (1, 3), (2, 2)])
def test_every_elementwise_optimizer_gives_the_bits_of_a_local_updater(workers: int, servers: int) -> None:
    with Job(workers, servers, **STRIPED) as job:
        job.run("optimizers", {"whole": False})
        assert job.ended() == [0] * (1 + servers)


@pytest.mark.parametrize(("workers", "servers"), [(1, 2), (2, 2)])
def test_every_optimizer_that_needs_whole_arrays_gives_the_bits_of_a_local_updater(workers: int, servers: int) -> None:
    with Job(workers, servers, **STRIPED) as job:
        job.run("optimizers", {"whole": True})


def test_asynchronous_with_one_worker_gives_the_bits_of_a_local_updater() -> None:
    with Job(1, 2, **STRIPED) as job:
        job.run("optimizers", {"whole": False, "mode": "dist_async"})


def test_half_precision_is_summed_and_updated_in_float32() -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("half")


def test_row_sparse_gradients_update_lazily_on_striped_tables() -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("sparse")


@pytest.mark.parametrize(
    "params", [{"type": "2bit", "threshold": 0.12345678}, {"type": "1bit"}], ids=lambda p: p["type"]
)
def test_compressed_gradients_arrive_as_the_sender_quantized_them(params: dict[str, object]) -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("compressed", params)


def test_a_store_without_optimizer_sums_rounds_and_refuses_what_cannot_be() -> None:
    with Job(2, 2) as job:
        job.run("sums")


def test_optimizer_states_are_saved_and_loaded_with_another_number_of_servers(tmp_path: Path) -> None:
    path = str(tmp_path / "states")
    with Job(2, 2, **STRIPED) as job:
        saved = job.run("states", {"path": path, "save": True, "load": False})
    with Job(2, 3, **STRIPED) as job:
        assert job.run("states", {"path": path, "save": False, "load": True}) == saved


def test_asynchronous_pushes_need_an_optimizer_and_count_once_each() -> None:
    with Job(2, 1) as job:
        job.run("asynchronous.asynchronous")


def test_stale_synchronous_workers_wait_for_the_slowest() -> None:
    with Job(2, 1, MXOPT_KVSTORE_STALENESS=3) as job:
        job.run("asynchronous.stale")


@pytest.mark.parametrize("size", [5, 700_001], ids=["one piece", "striped pieces"])
def test_dcasgd_compensates_with_the_weight_of_each_workers_own_last_update(size: int) -> None:
    with Job(2, 2, **STRIPED) as job:
        job.run("asynchronous.delay_compensated", {"size": size, "turns": [0, 0, 1, 0, 1, 1, 0]})


def test_many_thousand_named_parameters_are_one_job_like_any_other() -> None:
    with Job(1, 2) as job:  # the optimizer's config has more than 1 MiB
        job.run("many.named", {"count": 4_000})
