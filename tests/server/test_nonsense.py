"""Options and variables with values that can't be: each is told in one line, by exit code 2, and
nothing is started or waited for."""

from __future__ import annotations

import shutil
import sys
import time
from pathlib import Path

import pytest
from jobs import SERVE, Process, environment
from mxopt_server import cli, launch

NAMELESS = "no.such.host.invalid"
SCHEDULER, SERVER = ["--role", "scheduler"], ["--role", "server"]
SOON_S = 10.0  # and not the 30 s in which a job may come together

SERVERS = [
    ([*SCHEDULER, "--bind", "::1"], "IPv6"),
    ([*SCHEDULER, "--bind", NAMELESS], "resolved"),
    ([*SCHEDULER, "--bind", "10.255.255.1"], "--keys"),
    ([*SCHEDULER, "--workers", "99999999999"], "65536"),
    ([*SCHEDULER, "--servers", "x"], "'x'"),
    ([*SERVER, "--bind", NAMELESS], "resolved"),
    ([*SERVER, "--advertise", "a:b"], "'a:b'"),
    ([*SERVER, "--advertise", "localhost:99999"], "65535"),
    ([*SERVER, "--advertise", NAMELESS], "resolved"),
    ([*SERVER, "--rank", "-5"], "'-5'"),
    ([*SERVER, "--rank", "x"], "'x'"),
    ([*SERVER, "--keys", "no-such-file"], "no-such-file"),
    ([*SERVER, "--keys", "empty"], "no keys"),
    ([*SERVER, "--threads", "0"], "'0'"),
    ([*SERVER, "--threads", "999999999"], "65536"),
    ([*SERVER, "--snapshot", "no-such-folder/file"], "no-such-folder"),
    ([*SERVER, "--snapshot", "file", "--durability", "snapshot", "--state-dir", "state"], "--snapshot FILE"),
    ([*SERVER, "--snapshot-every", "nan"], "'nan'"),
    ([*SERVER, "--durability", "maybe"], "'maybe'"),
    ([*SERVER, "--durability", "journal"], "--state-dir"),
    ([*SERVER, "--state-dir", ""], "needs a folder"),
    ([*SERVER, "--fsync"], "--fsync"),
    ([*SERVER, "--metrics-port", "1+X"], "'X'"),
    ([*SERVER, "--metrics-port", "9999", "--metrics-host", NAMELESS], "--metrics-"),
    ([*SERVER, "evict"], "evict"),
    ([""], "unrecognized"),
    ([*SERVER, "--log-level", "loud"], "'LOUD'"),
    ([], "--role"),
    (["status", "--watch", "0"], "'0'"),
    (["status", "--scheduler", "[::1]:9091"], "IPv6"),
    (["status", "--keys", "no-such-file"], "no-such-file"),
    (["status", "twice"], "twice"),
    (["keygen", "no-such-folder/key"], "no-such-folder"),
    (["keygen", "empty"], "never overwritten"),
]


def told(process: Process, text: str) -> None:
    began = time.monotonic()
    try:
        assert process.finish(SOON_S) == 2, process.output
    finally:
        process.kill()
    assert time.monotonic() - began < SOON_S
    errors = [line for line in process.lines if " INFO " not in line]
    assert len(errors) == 1, process.output
    assert text in errors[0]
    assert errors[0].startswith("mxopt-server: ")


@pytest.fixture(autouse=True)
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The folder that the commands are called in."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").touch(0o600)
    return tmp_path


def name(value: object) -> str:
    return " ".join(value[-4:]) if isinstance(value, list) else ""


@pytest.mark.parametrize(("arguments", "text"), SERVERS, ids=name)
def test_a_scheduler_or_server_is_told_what_can_not_be(arguments: list[str], text: str) -> None:
    told(Process([*SERVE, *arguments], environment(DMLC_ROLE="worker"), forked=True), text)


VARIABLES = [
    ("DMLC_ROLE", "boss"), ("DMLC_PS_ROOT_URI", NAMELESS), ("DMLC_PS_ROOT_URI", "::1"),
    ("DMLC_PS_ROOT_URI", "ipc://here"), ("DMLC_PS_ROOT_PORT", "99999"), ("DMLC_PS_ROOT_PORT", "http"),
    ("DMLC_NUM_WORKER", "0"), ("DMLC_NUM_SERVER", "two"), ("DMLC_SERVER_ID", "first"), ("DMLC_NODE_HOST", "a b"),
    ("DMLC_NODE_HOST", "::1"), ("MXNET_KVSTORE_BIGARRAY_BOUND", "1e6"), ("MXNET_UPDATE_ON_KVSTORE", "maybe"),
    ("MXNET_OPTIMIZER_AGGREGATION_SIZE", "all"), ("MXOPT_KVSTORE_TIMEOUT", "soon"), ("MXOPT_KVSTORE_TIMEOUT", "nan"),
    ("MXOPT_KVSTORE_JOIN_TIMEOUT", "-1"), ("MXOPT_KVSTORE_HEARTBEAT", "0"), ("MXOPT_KVSTORE_HEARTBEAT", "9"),
    ("MXOPT_KVSTORE_DEAD_AFTER", "never"), ("MXOPT_KVSTORE_STALENESS", "-1"), ("MXOPT_KVSTORE_KEYS", "no-such-file"),
    ("MXOPT_ENGINE", "lvm"), ("MXOPT_NUM_THREADS", "many"), ("MXOPT_BECOME_ROLE", "no"),
]  # fmt: skip


@pytest.mark.parametrize(("variable", "value"), VARIABLES)
def test_a_server_is_told_of_a_variable_that_can_not_be(variable: str, value: str) -> None:
    env = environment(**{"DMLC_ROLE": "server", "MXOPT_BECOME_ROLE": "0", variable: value})
    text = value if variable in ("DMLC_PS_ROOT_URI", "DMLC_NODE_HOST", "MXOPT_KVSTORE_KEYS") else variable
    told(Process(SERVE, env, forked=True), text)


LAUNCHES = [
    (["-n", "99999999999"], "65536"),
    (["-s", "0"], "'0'"),
    (["--launcher", "pbs"], "'pbs'"),
    (["-H", "port"], "65535"),
    (["-H", "nameless"], NAMELESS),
    (["-H", "dash"], "-oProxyCommand=x"),
    (["-H", "empty"], "names no host"),
    (["--launcher", "mpi", "-H", "nameless"], NAMELESS),
    (["--launcher", "ssh", "-H", "hosts", "--host", NAMELESS], "resolved"),
    (["--launcher", "ssh", "-H", "hosts", "--host", "::1"], "IPv6"),
    (["--username", "-x"], "--username"),
    (["--env", "=x"], "'=x'"),
    (["--env", "MXOPT_KVSTORE_TIMEOUT=soon"], "MXOPT_KVSTORE_TIMEOUT='soon'"),
    (["--env-server", "MXOPT_KVSTORE_STALENESS=x"], "MXOPT_KVSTORE_STALENESS='x'"),
    (["--env-worker", "MXOPT_NUM_THREADS=x"], "MXOPT_NUM_THREADS='x'"),
    (["--server-args=--log-level LOUD"], "--server-args '--log-level LOUD': argument --log-level"),
    (["--server-args=--threads x"], "'x'"),
    (["--server-args=--no-such"], "--no-such"),
    (["--server-args=--durability journal --state-dir x"], "--durability is for mxopt-launch"),
    (["--server-args=--rank 0"], "--rank is for mxopt-launch"),
    (["--metrics-port", "65535"], "65536"),
    (["--metrics-port", "9999", "--metrics-host", NAMELESS], "--metrics-host"),
    (["--keys", "no-such-file"], "no-such-file"),
    (["--keys", "empty"], "no keys"),
    (["--keys", "-"], "--keys -"),
    (["--durability", "x"], "'x'"),
    (["--durability", "none", "--state-dir", "x"], "--state-dir"),
    (["--durability", "none", "--restarts", "2"], "--restarts 2"),
    (["--snapshot-every", "0"], "'0'"),
    (["--fsync"], "--fsync"),
    (["--restarts", "-1"], "'-1'"),
    (["--resume", "no-such-folder"], "no-such-folder"),
    (["--resume", "x", "--state-dir", "y"], "--resume"),
]
INSECURE = [(arguments, text) for arguments, text in LAUNCHES if "--keys" not in arguments]
NOW = [  # which a line to be pasted elsewhere may name
    (["--python", "/no/such/python"], "/no/such/python"),
    (["--state-dir", "empty"], "empty"),
    (["--run-dir", "empty"], "empty"),
]


@pytest.mark.parametrize("more", [[], ["--dry-run"]], ids=["", "dry"])
@pytest.mark.parametrize(("arguments", "text"), [*LAUNCHES, *NOW, ([], "--keys (")], ids=name)
def test_a_launcher_tells_what_can_not_be_before_it_starts_anything(
    arguments: list[str], text: str, more: list[str], folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if more and (arguments, text) in NOW:
        return
    files = {"port": "localhost:99999", "nameless": f"localhost\n{NAMELESS}", "dash": "-oProxyCommand=x",
             "hosts": "localhost"}  # fmt: skip
    for path, lines in files.items():
        (folder / path).write_text(lines)
    if any(host in files for host in arguments) and shutil.which("ssh") is None:
        pytest.skip("there is no ssh here, which says what it takes a host for")
    given = ["-n", "1", "-s", "1", *arguments, *(["--insecure"] if (arguments, text) in INSECURE else [])]
    given += [] if arguments else ["--launcher", "ssh", "-H", "hosts"]  # without keys
    assert launch.main([*given, *more, sys.executable, "-c", "0"]) == 2
    out, error = capsys.readouterr()
    assert out == ""
    assert error.startswith("mxopt-launch: ")
    assert error.count("\n") == 1
    assert text in error
    assert (arguments, text) in NOW or not (folder / "runs").exists()


@pytest.mark.parametrize(("variable", "value"), [v for v in VARIABLES if v[0][:5] != "DMLC_" and v[1] != "no"])
def test_a_launcher_tells_of_a_variable_that_its_processes_would_not_take(
    variable: str, value: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MXOPT_KVSTORE_DEAD_AFTER", "10")
    monkeypatch.setenv(variable, value)
    assert launch.main(["-n", "1", "-s", "1", sys.executable, "-c", "0"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("mxopt-launch: ")
    assert (value if variable == "MXOPT_KVSTORE_KEYS" else f"{variable}=") in error
    assert error.count("\n") == 1


def test_every_option_has_a_value_here_that_can_not_be() -> None:
    """But those whose value may be anything: a text, or a switch."""
    anything = {"--help", "--version", "--job", "--import", "--insecure", "--dry-run", "--sync-dst-dir"}
    for made, table in ((cli.parser(), SERVERS), (launch.parser(), [*LAUNCHES, *NOW])):
        tried = {word.partition("=")[0] for arguments, _ in table for word in arguments}
        elsewhere = {"--scheduler", "--role", "--port", "-n", "--num-workers"}  # in the page of commands' words
        for action in made._actions:
            names = {*action.option_strings}
            assert not names or names & (tried | anything | elsewhere), names
