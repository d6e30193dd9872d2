"""Launched jobs whose processes are killed, and that are resumed: the same bits as of those that
nobody disturbs."""

from __future__ import annotations

import hashlib
import os
import re
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from durable import SHAPES, TABLE, gradient, rows, rows_of
from jobs import LAUNCH, Process, environment

import mxopt
from mxopt import kvstore
from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.kvstore import checkpoint
from mxopt.sparse.initial import Initial
from mxopt.sparse.making import of_table

JOB = Path(__file__).with_name("durable.py")
ROUNDS = 45


@cache
def expected(rounds: int = ROUNDS) -> str:
    """What the weights of an undisturbed job are."""
    updater = mxopt.get_updater(mxopt.create("adam", learning_rate=0.01))
    values = {key: np.ones(shape, np.float32) for key, shape in SHAPES.items()}
    for round in range(rounds):
        for key, value in values.items():
            updater(key, gradient(key, round, 0) + gradient(key, round, 1), value)
    store = kvstore.create()
    store.set_optimizer(mxopt.create("adam", learning_rate=0.01))
    store.init("t", TABLE)
    for round in range(rounds):
        store.push("t", rows(round, 0) + rows(round, 1))
    return hashlib.sha256(b"".join([*(value.tobytes() for value in values.values()), rows_of(store)])).hexdigest()


Launched = Callable[..., Process]


@pytest.fixture
def launched(tmp_path: Path) -> Iterator[Launched]:
    """Starts `mxopt-launch` with two workers and two servers, whose victims are named as
    `kill-ROUND-WHO`."""
    started: list[Process] = []

    def start(
        *options: str, kills: tuple[str, ...] = (), rounds: int = ROUNDS, mode: str = "dist_sync", **env: Any
    ) -> Process:
        for kill in kills:
            (tmp_path / f"kill-{kill}").touch()
        command = [*LAUNCH, "-n", "2", "-s", "2", "--run-dir", str(tmp_path / f"run{len(started)}"), *options]
        command += [sys.executable, str(JOB), str(rounds), str(tmp_path), mode]
        if "CRASHING" in env:
            command[len(LAUNCH) : len(LAUNCH)] = ["--server-args", "--import crashing"]
            command.append("crashing")
        started.append(Process(command, environment(MXOPT_KVSTORE_DEAD_AFTER=10, **env)))
        return started[-1]

    yield start
    for process in started:
        process.kill()
        process.finish()


def ended(process: Process) -> tuple[str, int]:
    """The digest with which a job has ended, and the round from which it went on."""
    assert process.finish() == 0, process.output
    found = re.search(r"ENDED (\w+) (\d+)", process.output)
    assert found, process.output
    return found[1], int(found[2])


def test_servers_that_are_killed_at_any_time_lose_nothing_under_a_journal(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    kills = ("7-server0", "8-server1", "20-server0", "41-server1")
    process = launched("--durability", "journal", "--restarts", "9", kills=kills)
    assert ended(process) == (expected(), 0)
    assert process.output.count("killed by SIGKILL; it is started again") == 4
    assert list(tmp_path.glob("kill-*")) == []


def test_a_server_that_is_killed_more_often_than_it_may_be_started_ends_the_job_at_once_with_a_message(
    launched: Callable[..., Process],
) -> None:
    kills, patient = ("7-server0", "12-server0"), {"MXOPT_KVSTORE_TIMEOUT": 600}
    process = launched("--durability", "journal", "--restarts", "1", kills=kills, rounds=100_000, **patient)
    assert process.finish() == 1
    used = "server-0 failed: killed by SIGKILL after 1 restart, as many as it may have (--restarts)"
    assert process.lines[-1].startswith(f"mxopt-launch: {used}")
    assert any("the job has failed: server 0" in line and used in line for line in process.lines), process.output


def test_a_journal_on_the_disk_loses_nothing_either(launched: Callable[..., Process]) -> None:
    process = launched("--durability", "journal", "--fsync", kills=("9-server0",), rounds=15)
    assert ended(process) == (expected(15), 0)


def test_an_asynchronous_job_under_a_journal_applies_each_push_once(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    process = launched("--durability", "journal", kills=("7-server0", "20-server1"), rounds=30, mode="dist_async")
    ended(process)
    assert list(tmp_path.glob("kill-*")) == []


def test_an_asynchronous_job_goes_on_when_a_server_comes_back_from_its_checkpoint(
    launched: Callable[..., Process],
) -> None:
    process = launched("--snapshot-every", "0.2", kills=("100-server0",), rounds=200, mode="dist_async")
    ended(process)
    assert "it is started again" in process.output


@pytest.mark.parametrize(("victim", "durability"), [("self", "journal"), ("scheduler0", "snapshot")])
def test_a_job_that_a_death_has_ended_is_resumed_with_the_same_bits(
    victim: str, durability: str, launched: Callable[..., Process], tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    options = ("--durability", durability, "--snapshot-every", "0.1", "--state-dir", state)
    process = launched(*options, kills=(f"kept-{victim}",), rounds=100_000)
    assert process.finish() != 0
    reached = int((tmp_path / "reached").read_text())
    digest, first = ended(launched("--resume", state, rounds=reached + 10))
    assert 0 < first <= reached
    assert digest == expected(reached + 10)


CRASHES = {"PYTHONPATH": os.pathsep.join([environment()["PYTHONPATH"], str(JOB.parent)])}
FAILS = r"server 1 .*server 1 has failed 2 times at the update of key 'w' in round \d+, the last time by: Fatal Python"


def test_an_update_that_crashes_a_server_once_is_made_when_it_is_back(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    (tmp_path / "once").touch()
    process = launched("--durability", "journal", rounds=15, **CRASHES, CRASHING=tmp_path / "once")
    assert ended(process) == (expected(15), 0)
    assert "server-1 ended: killed by SIGSEGV; it is started again" in process.output


def test_an_update_that_crashes_a_server_twice_ends_the_job_by_name_and_can_be_resumed_without_it(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    options = ("--durability", "journal", "--state-dir", state, "--restarts", "9")
    process = launched(*options, rounds=40, **CRASHES, CRASHING=tmp_path)
    assert process.finish() != 0
    assert process.output.count("killed by SIGSEGV; it is started again") == 2
    assert re.search(FAILS + r" error: Segmentation fault; mxopt-launch --resume", process.output), process.output
    assert ended(launched("--resume", state, rounds=15, **CRASHES, CRASHING="")) == (expected(15), 0)


def test_an_asynchronous_job_is_resumed_without_the_update_that_crashed_a_server_twice(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    options = ("--durability", "journal", "--state-dir", state)
    process = launched(*options, rounds=15, mode="dist_async", **CRASHES, CRASHING=tmp_path)
    assert process.finish() != 0
    assert re.search(FAILS, process.output), process.output
    for _ in range(2):
        process = launched("--resume", state, rounds=20, mode="dist_async", **CRASHES, CRASHING="")
        ended(process)


def test_a_synchronous_job_without_a_journal_ends_with_a_server_and_names_what_to_go_on_from(
    launched: Callable[..., Process], tmp_path: Path
) -> None:
    state = str(tmp_path / "state")
    options = ("--snapshot-every", "0.1", "--state-dir", state)
    process = launched(*options, kills=("kept-server0",), rounds=100_000)
    assert process.finish() == 1
    assert "it is started again" not in process.output
    how = r"server-0 failed: killed by SIGKILL; its log is .*; mxopt-launch --resume goes on from checkpoint (\d+)"
    named = re.search(how, process.lines[-1])
    assert named, process.output
    reached = int((tmp_path / "reached").read_text())
    assert ended(launched("--resume", state, rounds=reached + 10)) == (expected(reached + 10), int(named[1]))


def test_a_checkpoint_of_a_script_is_loaded_by_a_job_with_other_servers_and_goes_on_with_the_same_bits(
    tmp_path: Path,
) -> None:
    script = str(Path(__file__).with_name("checkpointed.py"))
    for servers, rounds, how, first in ((2, 7, "save", 0), (3, 15, "load", 7)):
        command = [*LAUNCH, "-n", "2", "-s", str(servers), "--run-dir", str(tmp_path / how), "--durability", "none"]
        process = Process([*command, sys.executable, script, str(tmp_path / "saved"), str(rounds), how], environment())
        assert ended(process) == (expected(rounds), first)


def test_a_checkpoint_has_states_of_any_size(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxopt.document.LONG", 8)  # where MessagePack's own limit is 4 GiB
    checkpoint.write(tmp_path, checkpoint.Checkpoint({"w": np.ones(2)}, {"w": 3}, b"as long as that"))
    assert checkpoint.read(tmp_path).states == b"as long as that"


def test_what_is_no_checkpoint_is_refused(tmp_path: Path) -> None:
    folder = tmp_path / "saved"
    checkpoint.write(folder, made := checkpoint.Checkpoint({"w": np.ones(2)}, {"w": 3}, b"states"))
    assert checkpoint.read(folder).rounds == made.rounds
    of_another = of_table(TABLE, Initial(TABLE, "another key"))
    of_other_bits = of_table(replace(TABLE, dtype=np.dtype("float16")), Initial(TABLE, "w"))
    spoilt: tuple[dict[str, Any], ...] = (
        {"weights": {"w": of_another}}, {"weights": {"w": of_other_bits}}, {"kind": "else"},
        {"weights": {"w": 1}}, {"rounds": {}}, {"rounds": {"w": -1}}, {"rounds": {"w": 1.0}},
        {"states": "text"}, {"weights": None}, {"rounds": [1]},
    )  # fmt: skip
    for wrong in spoilt:
        content = load_document((folder / "checkpoint").read_bytes()) | wrong
        (tmp_path / "checkpoint").write_bytes(dump_document(content))
        with pytest.raises(StatesError, match="no checkpoint of a store"):
            checkpoint.read(tmp_path)
