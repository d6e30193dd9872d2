"""A server's log: nobody else writes its lines, and nobody fills the disk by it."""

from __future__ import annotations

import io
import logging
import re

import pytest
import zmq
from jobs import Job
from mxopt_server import logs

from mxopt.kvstore import messages as m, wire


class Clock:
    now = 0.0

    def __call__(self) -> float:
        return self.now


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def stream() -> io.StringIO:
    return io.StringIO()


@pytest.fixture
def log(clock: Clock, stream: io.StringIO) -> logging.Logger:
    made = logging.Logger("of this test")
    handler = logs.Handler(stream, clock)
    handler.setFormatter(logs.Formatter("%(levelname)s %(message)s"))
    made.addHandler(handler)
    return made


def test_a_record_is_one_line_whatever_is_in_it(log: logging.Logger, stream: io.StringIO) -> None:
    log.warning("%s", "a\nINFO forged\r\x1b[31m\u202e\u2028\x85é")
    assert stream.getvalue() == "WARNING a\\nINFO forged\\r\\x1b[31m\\u202e\\u2028\\x85é\n"


def test_no_line_of_a_traceback_looks_like_a_record(log: logging.Logger, stream: io.StringIO) -> None:
    try:
        raise ValueError("a\nWARNING forged\n" + "x" * 5000)
    except ValueError:
        log.exception("it failed")
    first, *rest = stream.getvalue().splitlines()
    assert first == "ERROR it failed"
    assert all(line.startswith("    ") and len(line) < 2100 for line in rest)


def test_a_line_is_bounded(log: logging.Logger, stream: io.StringIO) -> None:
    log.warning("x" * 100_000)
    assert len(stream.getvalue()) < 2100


def test_lines_are_bounded_over_time_and_what_is_left_out_is_counted(
    log: logging.Logger, stream: io.StringIO, clock: Clock
) -> None:
    for _ in range(20_000):
        log.warning("x" * 50)
    full = len(stream.getvalue())
    assert full <= logs.BURST
    log.error("of another level")
    assert stream.getvalue().endswith("ERROR of another level\n")
    clock.now += 1
    log.warning("again")
    written = stream.getvalue().count("x" * 50)
    assert f"WARNING again ({20_000 - written} lines" in stream.getvalue()
    for _ in range(600):
        clock.now += 1
        for _ in range(100):
            log.warning("x" * 50)
    assert len(stream.getvalue()) < 2 * logs.BURST + 700 * logs.RATE


def test_a_process_that_joins_cannot_forge_a_line() -> None:
    with Job(2, 1) as job:
        with zmq.Context() as context, context.socket(zmq.DEALER) as socket:
            socket.linger = 0
            socket.connect(f"tcp://127.0.0.1:{job.port}")
            name = "me\n2026-01-01 00:00:00 scheduler ERROR forged\x1b[2J"
            join = m.Join(wire.VERSION, "yesterday\nforged", "worker", -1, 0, 0, "", "ab", name)
            socket.send_multipart(m.encode(join))
            assert socket.poll(10_000)
        assert "forged" in job.scheduler.wait_for("refused")
    assert not [line for line in job.scheduler.lines if line.startswith(("2026-01-01", "forged"))]
    assert "\x1b" not in job.scheduler.output


def test_lines_of_a_server_say_its_rank() -> None:
    with Job(1, 2) as job:
        job.start_worker(0, "half")
        assert job.scheduler.wait_for("waiting for").endswith("scheduler INFO waiting for 1 worker and 2 servers")
        for rank, server in enumerate(job.servers):
            assert server.wait_for("for a place").endswith(f"the scheduler at tcp://127.0.0.1:{job.port} for a place")
            assert re.search(rf"^\S+ \S+ server {rank} INFO worker 0 is here$", server.wait_for("worker 0 is here"))
