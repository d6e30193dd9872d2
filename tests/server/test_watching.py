"""`mxopt-server status --watch` on a terminal, beside a job that runs and ends."""

from __future__ import annotations

import io
import json
import os
import pty
import re
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

import pytest
from jobs import SERVE, Job
from mxopt_server import status

from mxopt.errors import ArgumentError, DeadlineError

pytest.importorskip("rich")


class Terminal:
    """A program on a terminal of its own, and what it has shown so far without the control
    characters."""

    def __init__(self, command: list[str], env: dict[str, str]) -> None:
        master, slave = pty.openpty()
        self.child = subprocess.Popen(
            command, env={**env, "TERM": "xterm", "COLUMNS": "80", "LINES": "50"}, stdin=slave, stdout=slave,
            stderr=slave, start_new_session=True,
        )  # fmt: skip
        os.close(slave)
        self.shown, self._changed = "", threading.Condition()
        self._reader = threading.Thread(target=self._read, args=(master,), daemon=True)
        self._reader.start()

    def _read(self, master: int) -> None:
        try:
            while data := os.read(master, 1 << 16):
                with self._changed:
                    self.shown += re.sub(r"\x1b\[[0-9;?]*[a-zA-Z]", "", data.decode(errors="replace"))
                    self._changed.notify_all()
        except OSError:  # the other end is closed
            pass
        os.close(master)

    def wait_for(self, pattern: str, deadline_s: float = 30) -> re.Match[str]:
        until = time.monotonic() + deadline_s
        with self._changed:
            while (found := re.search(pattern, self.shown)) is None:
                left = until - time.monotonic()
                assert left > 0, f"nothing like {pattern!r} in:\n{self.shown}"
                self._changed.wait(left)
        return found

    def finish(self) -> int:
        code = self.child.wait(30)
        self._reader.join(5)
        return code


def test_watch_shows_the_rounds_as_they_are_made_and_ends_with_the_job(tmp_path: Path) -> None:
    with Job(1, 2) as job:
        worker = job.start_worker(0, "restarted", {"go": str(tmp_path / "go")})
        worker.wait_for("HALFWAY")
        command = [*SERVE, "status", "--scheduler", f"127.0.0.1:{job.port}", "--watch", "0.05"]
        terminal = Terminal(command, job.env)
        try:
            terminal.wait_for("job [0-9a-f]+: running")
            terminal.wait_for(r"worker 0\s+alive")
            terminal.wait_for(r"server 1\s+alive")
            row = r"\s\d\s+1\s+0\.0\s+%d\s+\d+\s[^<]*optimizer of server \d: <[^>]*learning_rate=1 "  # who has the key
            terminal.wait_for(row % 2)
            (tmp_path / "go").touch()
            assert worker.finish() == 0
            assert terminal.finish() == 0, terminal.shown
            assert re.search("finished|the job is over", terminal.shown)
        finally:
            terminal.child.kill()
            terminal.child.wait()


def reports() -> dict[str, Any]:
    """Of a job with large numbers and long names."""
    nodes = [
        {"role": role, "rank": rank, "state": "alive", "age": 9.94, "name": "a-machine-with-a-name, process 1234567"}
        for role in ("server", "worker") for rank in range(12)
    ]  # fmt: skip
    server = {
        "keys": 123_456, "bytes": 2**38, "updates": 10**10, "received": 10**12, "uptime": 1000.0, "pending": 123_456,
        "refused": 123_456, "memory": 2**38, "cpu": 123_456.7, "optimizer": "<Adam learning_rate=0.1>",
    }  # fmt: skip
    return {
        "job": "0123456789abcdef", "state": "running", "text": "", "nodes": nodes,
        "servers": [{**server, "rank": rank} for rank in range(12)],
    }  # fmt: skip


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_a_status_fits_80_columns_with_whole_headings_and_rates(encoding: str) -> None:
    from rich.console import Console

    now, before = reports(), reports()
    for server in before["servers"]:
        server |= {"updates": server["updates"] - 5000, "received": server["received"] - 50 * 2**20, "uptime": 999.5}
    stream = io.TextIOWrapper(io.BytesIO(), encoding=encoding)
    Console(file=stream, width=80).print(status.tables(now, before, 80))
    stream.flush()
    shown = stream.buffer.getvalue().decode(encoding)
    assert max(map(len, shown.splitlines())) <= 80
    assert [name for name in (*status.SERVER, *status.PROCESS) if name not in shown] == []
    for text in ("10000000000", "10000", "100.0", "optimizer of all servers", "server 11", "262144 MiB"):
        assert text in shown
    assert "…" not in shown


def test_every_paragraph_of_a_narrow_status_is_indented() -> None:
    from rich.console import Console

    found = reports()
    found["nodes"][3]["lost"] = 123_456_789
    for server in found["servers"]:
        server["optimizer"] = "<Adam learning_rate=0.00211922 by CosineScheduler num_update=262>"
    stream = io.StringIO()
    Console(file=stream, width=60).print(status.tables(found, found, 60))
    begins = ("job ", "server ", "worker ", "optimizer of ", "  ")
    assert [line for line in stream.getvalue().splitlines() if not line.startswith(begins)] == []


@pytest.mark.parametrize("width", [79, 60, 40])
def test_a_narrower_status_has_a_paragraph_for_each_process(width: int) -> None:
    from rich.console import Console

    stream = io.StringIO()
    Console(file=stream, width=width).print(status.tables(reports(), reports(), width))
    shown = stream.getvalue().splitlines()
    assert max(map(len, shown)) <= width
    words = " ".join(line.strip() for line in shown)
    assert words.count("keys 123456, MiB 262144.0, updates 10000000000, pending 123456, refused 123456") == 12
    assert "server 11, state alive, heard 9.9 s ago, memory 262144 MiB, CPU 123456.7 s, where a-machine" in words


def test_one_look_at_a_job_shows_rates(tmp_path: Path) -> None:
    with Job(1, 1) as job:
        job.start_worker(0, "forever", {"mode": "dist_sync"}).wait_for("RUNNING")
        command = [*SERVE, "status", "--scheduler", f"127.0.0.1:{job.port}"]
        process = job.start(command, PYTHONIOENCODING="ascii", COLUMNS=80)
        assert process.finish() == 0, process.output
        row = next(line for line in process.lines if re.match(r"\|\s+0 \|", line))
        assert int(row.split("|")[5]) > 0


def test_a_look_without_rich_is_json_and_says_why(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(status, "ask_all", lambda *_: {**reports(), "servers": []})
    monkeypatch.setitem(sys.modules, "rich.console", None)  # an import of it fails
    assert status.main(["--scheduler", "127.0.0.1:1"]) == 0
    said = capsys.readouterr()
    assert json.loads(said.out)["state"] == "running"
    assert "pip install rich" in said.err


def test_watching_for_programs_is_a_line_of_json_each_time(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    looks = iter([*({**reports(), "state": state} for state in ("gathering", "running")), None])

    def ask(*_: object) -> dict[str, Any]:
        found = next(looks)
        if found is None:
            raise DeadlineError("no answer")
        return found

    monkeypatch.setattr(status, "ask_all", ask)
    assert status.main(["--scheduler", "127.0.0.1:1", "--json", "--watch", "0.01"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [json.loads(line)["state"] for line in lines] == ["gathering", "running"]


def test_watching_ends_without_an_error_when_its_reader_has_seen_enough(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(status, "ask_all", lambda *_: {**reports(), "state": "running"})  # for ever
    reading, writing = os.pipe()
    os.close(reading)
    with open(writing, "w") as output:
        monkeypatch.setattr(sys, "stdout", output)
        assert status.main(["--scheduler", "127.0.0.1:1", "--json", "--watch", "0.01"]) == 0


@pytest.mark.parametrize("value", ["0", "-1", "nan", "soon"])
def test_looks_are_some_time_apart(value: str) -> None:
    with pytest.raises(ArgumentError, match="needs seconds, more than 0"):
        status.main(["--scheduler", "127.0.0.1:1", f"--watch={value}"])


def test_watching_a_job_that_is_not_there_says_so() -> None:
    with Job(1, 1) as job:
        command = [*SERVE, "status", "--scheduler", "127.0.0.1:1", "--watch"]
        process = job.start(command)
        assert process.finish() == 1
        assert "tcp://127.0.0.1:1 doesn't answer" in process.output
