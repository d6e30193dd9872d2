"""What outlives a job's processes, as the command lines say it: defaults, and what doesn't go
together."""

from __future__ import annotations

import os
from pathlib import Path
from unittest import mock

import pytest
from jobs import SERVE, Process, environment
from mxopt_server import cli, launch
from mxopt_server.durability import Restarts
from mxopt_server.epoch_folder import Folder
from mxopt_server.job_state import JobState
from mxopt_server.notes import Notes

from mxopt.errors import ArgumentError


def state(tmp_path: Path, *options: str, workers: int = 2) -> JobState:
    given = ["-n", str(workers), "-s", "1", "--launcher", "local", *options, "true"]
    return JobState(launch.parser().parse_args(given), "new", tmp_path / "run")


def test_a_job_has_snapshots_in_the_folder_of_its_run_and_its_servers_come_back_three_times(tmp_path: Path) -> None:
    made = state(tmp_path)
    assert made.durability.arguments == (
        "--durability", "snapshot", "--state-dir", str(tmp_path / "run" / "state"), "--snapshot-every", "60",
    )  # fmt: skip
    assert (made.job, made.restarts) == ("new", Restarts(3, elastic=True))


def test_without_durability_nothing_is_kept_and_nobody_comes_back(tmp_path: Path) -> None:
    made = state(tmp_path, "--durability", "none")
    assert (made.durability.root, made.restarts) == (None, Restarts(0, elastic=True))
    with made.held():
        assert list(tmp_path.iterdir()) == []
    assert state(tmp_path, "--server-args=--snapshot=x").durability.kind == "none"  # of their own


def test_everything_said_reaches_servers(tmp_path: Path) -> None:
    folder = tmp_path / "s"
    made = state(tmp_path, "--durability", "journal", "--fsync", "--snapshot-every", "5", "--state-dir", str(folder))
    assert made.durability.arguments == (
        "--durability", "journal", "--state-dir", str(folder), "--snapshot-every", "5", "--fsync",
    )  # fmt: skip
    assert cli.parser().parse_args(["--role", "server", *made.durability.arguments]).fsync


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--fsync",), "--fsync is for --durability journal, not snapshot"),
        (("--durability", "none", "--restarts", "1"), "--restarts 1 can't be: without --durability"),
        (("--durability", "none", "--state-dir", "x"), "--state-dir is for --durability snapshot or journal"),
        (("--server-args=--snapshot x", "--state-dir", "x"), "--state-dir is for --durability snapshot or journal"),
        (("--launcher", "mpi", "--restarts", "1"), "--launcher mpi runs all servers by one command"),
        (("--resume", "nowhere"), "there is no job to resume in nowhere"),
        (("--resume", "x", "--state-dir", "y"), "--state-dir is for a new job"),
    ],
)
def test_what_does_not_go_together_is_refused(options: tuple[str, ...], why: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=why):
        state(tmp_path, *options)


@pytest.mark.parametrize("option", ["--state-dir", "--resume"])
def test_a_folder_has_a_name(option: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match=f"argument {option}: needs a folder"):
        state(tmp_path, option, "")


@pytest.mark.parametrize("value", ["0", "-1", "x", "nan", "inf"])
def test_snapshots_are_some_time_apart(value: str, tmp_path: Path) -> None:
    with pytest.raises(ArgumentError, match="needs seconds, more than 0"):
        state(tmp_path, "--snapshot-every", value)


def test_a_folder_is_of_one_job_and_of_one_launcher(tmp_path: Path) -> None:
    first = state(tmp_path)
    with first.held(), pytest.raises(ArgumentError, match="in use by a job that runs"), first.held():
        pass
    folder = str(tmp_path / "run" / "state")
    with pytest.raises(ArgumentError, match="go on with it by --resume"), state(tmp_path, "--state-dir", folder).held():
        pass
    assert state(tmp_path).durability.root == tmp_path / "run" / "state-new"
    with pytest.raises(ArgumentError, match="what scheduler had kept isn't there"):
        state(tmp_path, "--resume", folder)
    Notes(Path(folder) / "scheduler")
    with pytest.raises(ArgumentError, match="what server-0 had kept isn't there"):
        state(tmp_path, "--resume", folder)
    Folder(Path(folder) / "server-0", 1).take_over()
    again = state(tmp_path, "--resume", folder)
    assert (again.job, again.durability) == ("new", first.durability)
    with again.held():
        assert os.listdir(folder)
    with pytest.raises(ArgumentError, match="has workers 2, not 3"):
        state(tmp_path, "--resume", folder, workers=3)
    with pytest.raises(ArgumentError, match="has durability snapshot, not journal"):
        state(tmp_path, "--resume", folder, "--durability", "journal")


@pytest.mark.parametrize(
    ("options", "why"),
    [
        (("--durability", "journal"), "--durability journal needs --state-dir"),
        (("--snapshot", "x", "--state-dir", "y"), "--snapshot FILE is for a server without --durability snapshot"),
        (("--fsync",), "--fsync is for --durability journal, not none"),
    ],
)
def test_a_server_by_hand_is_told_what_it_lacks(
    options: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with mock.patch.dict(os.environ):  # a process takes its role down there, for what it starts
        assert cli.main(["--role", "server", "--scheduler", "127.0.0.1:9", *options]) == 2
    assert why in capsys.readouterr().err


def test_a_scheduler_by_hand_is_refused_what_another_jobs_servers_would_drop(tmp_path: Path) -> None:
    """As one without the --durability of before: its servers would begin anew."""
    command = [*SERVE, "--role", "scheduler", "--port", "0", "--servers", "1", "--state-dir", str(tmp_path)]
    journal = ["--durability", "journal", "--workers", "2"]
    first = Process([*command, *journal], environment())
    assert first.endpoint
    second = Process([*command, *journal], environment())
    assert second.finish() == 2
    assert "in use by a job that runs" in second.output
    first.kill()
    first.finish()
    for options, why in ((["--workers", "2"], "has durability journal, not snapshot"),
                         (["--workers", "3", *journal[:2]], "has workers 2, not 3")):  # fmt: skip
        refused = Process([*command, *options], environment())
        assert refused.finish() == 2
        assert why in refused.output
    again = Process([*command, *journal], environment())
    assert again.endpoint
    again.kill()
    again.finish()


def test_what_the_scheduler_notes_is_there_after_it(tmp_path: Path) -> None:
    notes = Notes(tmp_path / "scheduler")
    notes["checkpoint"] = 3
    again = Notes(tmp_path / "scheduler")
    assert dict(again) == {"checkpoint": 3}
    again["checkpoint"] = 4
    notes["checkpoint"] = 9  # of one that has been replaced
    assert dict(Notes(tmp_path / "scheduler")) == {"checkpoint": 4}
