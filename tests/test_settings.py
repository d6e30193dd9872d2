"""The variables of a job, as `mxopt.settings` reads them."""

from __future__ import annotations

import pytest

from mxopt import settings


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("DMLC_WORKER_ID", "one"), ("DMLC_WORKER_ID", "-2"), ("DMLC_NUM_WORKER", "0"), ("DMLC_PS_ROOT_PORT", "99999"),
        ("MXOPT_KVSTORE_HEARTBEAT", "6"),
    ],
)  # fmt: skip
def test_a_variable_of_a_job_that_cannot_be_is_named(name: str, value: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, value)
    with pytest.raises(ValueError, match=f"{name}=.?{value}"):
        settings.job()


def test_heartbeats_are_as_close_as_deaths_are_noticed_fast(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MXOPT_KVSTORE_DEAD_AFTER", "0.5")
    assert settings.job().heartbeat == 0.25


@pytest.mark.parametrize(("value", "rank"), [("", -1), ("-1", -1), (" 3 ", 3)])
def test_the_rank_that_a_worker_wishes_for(value: str, rank: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("DMLC_WORKER_ID", value)
    assert settings.job().rank == rank
