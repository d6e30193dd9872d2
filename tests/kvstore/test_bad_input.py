"""Bad input to real processes: a clear error that names the key and the server, and everything else
goes on."""

from __future__ import annotations

from pathlib import Path

import zmq
from jobs import SERVE, Job

from mxopt.document import load_document
from mxopt.kvstore import messages as m, sockets, wire


def test_a_key_initialised_with_different_shapes_by_the_workers() -> None:
    with Job(2, 1) as job:
        job.run("bad_input.different_shapes")


def test_calls_that_are_refused_change_nothing() -> None:
    with Job(1, 2) as job:
        job.run("bad_input.refused_calls")


def test_a_checkpoint_that_cannot_be_written_or_does_not_fit(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    folder = str(tmp_path / "saved")
    with Job(2, 1) as job:
        job.run("bad_input.checkpoints", {"file": str(tmp_path / "file"), "folder": folder})
    with Job(2, 1) as job:
        job.run("bad_input.checkpoints_that_do_not_fit", {"folder": folder})


def test_a_key_that_a_servers_snapshot_holds_with_another_shape(tmp_path: Path) -> None:
    arguments = ("--snapshot", str(tmp_path / "server-RANK"))
    with Job(1, 1, arguments) as job:
        job.run("bad_input.first_values", {"shape": [3]})
        assert job.ended() == [0, 0]
    with Job(1, 1, arguments) as job:
        of, differs = "server 0: key 'w' is initialised on server 0 as float32 of shape (3,)", "float32 of shape (4,)"
        job.run("bad_input.first_values", {"shape": [4], "refused": f"{of}, not as {differs}"})


def test_a_worker_before_any_server_is_up() -> None:
    with Job(1, 0, DMLC_NUM_SERVER=1, MXOPT_KVSTORE_JOIN_TIMEOUT=3) as job:
        worker = job.start_worker(0, "sums")
        assert worker.finish() != 0
        assert "0 of 1 servers" in worker.output


def ask(endpoint: str, message: object) -> object:
    context = zmq.Context()
    try:
        socket = sockets.connect(context, endpoint, None)
        socket.send_multipart(m.encode(message))
        assert socket.poll(10_000), f"{endpoint} doesn't answer"
        return m.decode(socket.recv_multipart())
    finally:
        context.destroy(0)


def test_another_protocol_version_is_refused_by_scheduler_and_server_and_the_job_goes_on(tmp_path: Path) -> None:
    with Job(1, 1) as job:
        worker = job.start_worker(0, "restarted", {"go": str(tmp_path / "go")})
        worker.wait_for("HALFWAY")
        version = wire.VERSION + 1
        refused = ask(job.scheduler.endpoint, m.Join(version, "", "worker", -1, 1, 1, "", "stranger", "me"))
        assert isinstance(refused, m.Refused)
        assert f"version {version} came, the scheduler speaks {wire.VERSION}" in refused.text
        refused = ask(job.servers[0].endpoint, m.Hello(version, "", 0, 1, "stranger", 1, "sync", 4))
        assert isinstance(refused, m.Refused)
        assert f"version {version} came, server 0 speaks {wire.VERSION}" in refused.text
        (tmp_path / "go").touch()
        assert worker.finish() == 0, worker.output
        assert "[-1.0, -2.0, -3.0, -4.0]" in worker.output


def test_a_full_disk_under_the_snapshots_leaves_the_last_one_and_the_job_running(tmp_path: Path) -> None:
    path = tmp_path / "server-0"
    limited = ["sh", "-c", 'ulimit -f 100; exec "$@"', "sh", *SERVE]  # files of some 100 kB at most
    with Job(1, 1, ("--snapshot", str(path), "--snapshot-every", "0.05"), serve=limited) as job:
        job.run("bad_input.fills_the_disk", {"snapshot": str(path)})
        assert job.ended() == [0, 0]
        assert f"the snapshot {path} couldn't be written, the last one stays" in job.servers[0].output
    saved = load_document(path.read_bytes())
    assert [entry["key"] for entry in saved["entries"]] == ["small"]
    assert list(tmp_path.iterdir()) == [path]  # nothing half-written


def test_an_update_that_fails_is_told_to_all_workers_of_the_round() -> None:
    with Job(2, 1, ("--import", "raising")) as job:
        job.run("bad_input.failing_update")
