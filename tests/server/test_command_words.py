"""What the commands say: mistakes in one line and at once, versions, lines that can be pasted."""

from __future__ import annotations

import json
import os
import shlex
import subprocess
import sys
import time
from pathlib import Path

import pytest
from jobs import LAUNCH, SERVE, WORKERS, Job, Process, environment

import mxopt

WORKER = [sys.executable, "-c", "from mxopt import kvstore; kvstore.create('dist_sync')"]
JOB = ["-n", "1", "-s", "1"]
NAMELESS = "no.such.host.invalid"

MISTAKES = [
    ([*SERVE, "--role", "server", "--scheduler", "localhost"], "HOST:PORT"),
    ([*SERVE, "--role", "server", "--scheduler", "localhost:http"], "HOST:PORT"),
    ([*SERVE, "--role", "server", "--scheduler", "localhost:70000"], "65535"),
    ([*SERVE, "--role", "server", "--scheduler", f"{NAMELESS}:9091"], "resolved"),
    ([*SERVE, "--role", "server", "--scheduler", "[::1]:9091"], "IPv6"),
    ([*SERVE, "--role", "server", "--import", "no_such_module_x"], "no_such_module_x"),
    ([*SERVE, "--role", "server", "--import", "json.no_such"], "json.no_such"),
    ([*SERVE, "--role", "scheduler", "--log-level", "chatty"], "'CHATTY'"),
    ([*SERVE, "--role", "scheduler", "--port", "65536"], "65535"),
    ([*SERVE, "--role", "scheduler", "--port", "a"], "'a'"),
    ([*SERVE, "--role", "scheduler", "--workers", "0"], "from 1 to"),
    ([*SERVE, "--role", "scheduler", "--state-dir", WORKERS.name], WORKERS.name),
    ([*SERVE, "--role", "waiter"], "waiter"),
    ([*SERVE, "--no-such-option"], "--no-such-option"),
    ([*SERVE, "status", "--scheduler", f"{NAMELESS}:9091"], "resolved"),
    ([*SERVE, "keygen"], "file"),
    ([*SERVE, "keygen", "workers.py"], "never overwritten"),
    ([*SERVE, "status", "--scheduler", "127.0.0.1:1"], "mxopt-launch prints"),
    ([*SERVE, "--role", "scheduler", "--metrics-port", "70000"], "65535"),
    ([*LAUNCH, *JOB, "--metrics-port", "a", "true"], "'a'"),
    ([*LAUNCH, *JOB, "no_such_command_x"], "no_such_command_x"),
    ([*LAUNCH, *JOB, WORKERS.name], f"python {WORKERS.name}"),
    ([*LAUNCH, *JOB], "command"),
    ([*LAUNCH, "-n", "0", "true"], "from 1 to"),
    ([*LAUNCH, "true"], "--num-workers"),
    ([*LAUNCH, *JOB, "--env", "a b", "true"], "NAME=VALUE"),
    ([*LAUNCH, *JOB, "--env", "MXOPT_TEST_NOT_SET", "true"], "MXOPT_TEST_NOT_SET"),
    ([*LAUNCH, *JOB, "--server-args", "'", "true"], "--server-args"),
    ([*LAUNCH, *JOB, "--server-args", "--fsync", "true"], "joined to it: --server-args=-"),
    ([*LAUNCH, *JOB, "--run-dir", "/dev/null/logs", "true"], "logs"),
    ([*LAUNCH, *JOB, "--launcher", "ssh", "true"], "--hostfile"),
    ([*LAUNCH, *JOB, "--launcher", "ssh", "-H", "no-such-file", "true"], "no-such-file"),
    ([*LAUNCH, *JOB, "--launcher", "mpi", "--host", NAMELESS, "true"], "resolved"),
    ([*LAUNCH, *JOB, "--launcher", "slurm", "--insecure", "true"], "srun"),
]


@pytest.mark.parametrize(("command", "text"), MISTAKES, ids=lambda x: " ".join(x[-3:]) if isinstance(x, list) else "")
def test_a_mistake_on_the_command_line_is_said_in_one_line_at_once(
    command: list[str], text: str, tmp_path: Path
) -> None:
    env = {**environment(), "PATH": "/usr/bin:/bin"}
    start = time.monotonic()
    found = subprocess.run(command, env=env, cwd=WORKERS.parent, capture_output=True, text=True, timeout=60)
    errors = [line for line in found.stderr.splitlines() if " INFO " not in line]
    assert found.returncode != 0
    assert len(errors) == 1, found.stderr
    assert text in errors[0]
    assert errors[0].startswith("mxopt-")
    assert time.monotonic() - start < 15  # and not the 30 s in which a job may come together


@pytest.mark.parametrize(
    ("variables", "text"),
    [
        ({"DMLC_PS_ROOT_URI": NAMELESS}, "resolved"),
        ({"DMLC_PS_ROOT_PORT": "99999"}, "65535"),
        ({"DMLC_PS_ROOT_URI": "::1"}, "IPv6"),
        ({}, "mxopt-launch"),
    ],
)
def test_a_worker_whose_environment_cannot_work_is_told_at_once(variables: dict[str, str], text: str) -> None:
    start = time.monotonic()
    found = subprocess.run(WORKER, env=environment(**variables), capture_output=True, text=True, timeout=60)
    assert found.returncode != 0
    assert text in found.stderr.splitlines()[-1]
    assert time.monotonic() - start < 15


@pytest.mark.parametrize("command", [SERVE, LAUNCH, [*SERVE, "status"]])
def test_every_command_tells_its_version(command: list[str]) -> None:
    found = subprocess.run([*command, "--version"], env=environment(), capture_output=True, text=True, check=True)
    assert found.stdout.split()[-1] == mxopt.__version__


def test_what_a_dry_run_prints_can_be_pasted(tmp_path: Path) -> None:
    script = "import os, sys; from mxopt import kvstore; s = kvstore.create('dist_sync'); print('SAW', sys.argv[1:], os.environ['ODD'])"  # noqa: E501
    odd = """it's "odd", $HOME & `id`; a\\b*"""
    command = [*LAUNCH, "-n", "2", "-s", "1", "--dry-run", "--env", f"ODD={odd}", sys.executable, "-c", script, odd]
    found = subprocess.run(command, env=environment(), capture_output=True, text=True, check=True)
    processes = [Process(["sh", "-c", line], environment()) for line in found.stdout.splitlines()]
    try:
        assert [p.finish() for p in processes] == [0] * 4, "\n".join(p.output for p in processes)
    finally:
        for p in processes:
            p.kill()
    assert [p.lines for p in processes[2:]] == [[f"SAW {[odd]} {odd}"]] * 2


@pytest.mark.parametrize("terminal", [{"PYTHONIOENCODING": "ascii"}, {"LC_ALL": "C", "PYTHONCOERCECLOCALE": "0"}])
def test_words_of_a_dry_run_are_the_bytes_that_were_given_whatever_the_terminals_encoding_lacks(
    tmp_path: Path, terminal: dict[str, str]
) -> None:
    (tmp_path / "hosts").write_text("# Büro\nlocalhost\n", encoding="utf-8")
    command = [*LAUNCH, "-n", "1", "--insecure", "--launcher", "ssh", "-H", str(tmp_path / "hosts"), "--dry-run", "tür"]
    found = subprocess.run(command, env={**environment(), **terminal}, capture_output=True, check=True)
    assert "tür".encode() in found.stdout


def test_variables_are_set_and_handed_on_as_with_mxnet(tmp_path: Path) -> None:
    script = "import os; print([os.environ.get(n) for n in ('GIVEN', 'HANDED', 'MINE', 'THEIRS', 'BOTH')])"
    options = ["--env", "GIVEN=a=b", "--env", "HANDED", "--env-worker", "MINE:1:2", "--env-server", "THEIRS:3"]
    options += ["--env", "BOTH=all", "--env-worker", "BOTH=worker", "--dry-run", "--python", "/other/python"]
    command = [*LAUNCH, *JOB, *options, sys.executable, "-c", script]
    found = subprocess.run(command, env=environment(HANDED="on"), capture_output=True, text=True, check=True)
    scheduler, server, worker = map(shlex.split, found.stdout.splitlines())
    assert {"GIVEN=a=b", "HANDED=on", "BOTH=all"} <= set(scheduler)
    assert {"GIVEN=a=b", "HANDED=on", "THEIRS=3", "BOTH=all", "/other/python"} <= set(server)
    assert {"GIVEN=a=b", "HANDED=on", "MINE=1:2", "BOTH=worker"} <= set(worker)
    assert not {w for w in server if w.startswith("MINE")} | {w for w in worker if w.startswith("THEIRS")}


def test_the_error_of_an_unknown_optimizer_says_how_a_server_learns_it() -> None:
    with Job(1, 1) as job:
        script = (
            "import mxopt\n@mxopt.register\nclass OfMyOwn(mxopt.Optimizer): pass\n"
            "mxopt.kvstore.create('dist_sync').set_optimizer(OfMyOwn())"
        )
        worker = job.start([sys.executable, "-c", script], DMLC_ROLE="worker")
        assert worker.finish() != 0
    assert "ofmyown" in worker.output
    assert "--import" in worker.output


def test_a_worker_killed_by_a_signal_is_said_to_be_by_its_name(tmp_path: Path) -> None:
    script = "import os, mxopt; mxopt.kvstore.create('dist_sync'); os.kill(os.getpid(), 9)"
    process = Process([*LAUNCH, *JOB, "--run-dir", str(tmp_path / "run"), sys.executable, "-c", script], environment())
    assert process.finish(30) == 1
    assert "worker-0 failed: killed by SIGKILL" in process.output


class TestRoles:
    """A script that is started for every role, as MXNet's are."""

    SCRIPT = "import sys; print('BEFORE', flush=True); import mxopt; print('AFTER', mxopt.__version__, flush=True)"

    @pytest.mark.parametrize("role", ["server", "scheduler"])
    def test_importing_mxopt_makes_a_process_what_its_role_says(self, role: str) -> None:
        env = environment(DMLC_ROLE=role, DMLC_PS_ROOT_PORT=1, MXOPT_KVSTORE_JOIN_TIMEOUT=1)
        process = Process([sys.executable, "-c", self.SCRIPT], env)
        assert process.finish() == 1
        assert process.lines[0] == "BEFORE"
        assert not any("AFTER" in line for line in process.lines)
        assert any("listening on" in line or "bind" in line for line in process.lines), process.output

    def test_a_worker_or_who_forbids_it_stays_what_it_is(self) -> None:
        for more in ({"DMLC_ROLE": "worker"}, {"DMLC_ROLE": "server", "MXOPT_BECOME_ROLE": "0"}):
            command = [sys.executable, "-c", self.SCRIPT]
            found = subprocess.run(command, env=environment(**more), capture_output=True, text=True, check=True)
            assert "AFTER" in found.stdout

    def test_commands_stay_what_they_are(self, tmp_path: Path) -> None:
        env = environment(DMLC_ROLE="server", DMLC_NUM_WORKER=1)
        for command in ([*SERVE, "--version"], [*SERVE, "keygen", "k"], [*LAUNCH, "--version"]):
            assert subprocess.run(command, env=env, cwd=tmp_path, timeout=60, capture_output=True).returncode == 0
        (tmp_path / "mxopt").write_text("import mxopt; print(mxopt.__version__)")  # the command of that name
        command = [sys.executable, str(tmp_path / "mxopt")]
        assert subprocess.run(command, env=env, capture_output=True, text=True).stdout == f"{mxopt.__version__}\n"

    def test_what_servers_start_stays_and_what_workers_start_may_become_a_server(self, tmp_path: Path) -> None:
        (tmp_path / "starts.py").write_text(
            "import os, subprocess, sys\n"
            "print('CHILD', subprocess.run([sys.executable, '-c', 'import mxopt; print(mxopt)'],"
            " capture_output=True).returncode, file=sys.stderr)\n"
        )
        script = "import os, json; from mxopt import kvstore; kvstore.create('dist_sync'); print(json.dumps(dict(os.environ)))"  # noqa: E501
        options = ["--run-dir", str(tmp_path / "run"), "--server-args", "--import starts"]
        env = environment(MXOPT_BECOME_ROLE="0")
        env["PYTHONPATH"] += os.pathsep + str(tmp_path)
        process = Process([*LAUNCH, *JOB, *options, sys.executable, "-c", script], env)
        assert process.finish() == 0, process.output
        assert "[server-0] CHILD 0" in process.lines
        found = json.loads(next(line for line in process.lines if "{" in line).partition(" ")[2])
        assert "MXOPT_BECOME_ROLE" not in found


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="this system has no /dev/full")
def test_a_dry_run_whose_lines_cannot_be_written_says_so_in_one_line(tmp_path: Path) -> None:
    command = [*LAUNCH, *JOB, "--dry-run", "true"]
    with open("/dev/full", "w") as full:
        done = subprocess.run(command, stdout=full, stderr=subprocess.PIPE, text=True, cwd=tmp_path, timeout=60)
    assert (done.returncode, done.stderr) == (1, "mxopt-launch: [Errno 28] No space left on device\n")
