"""What a member can make a server or the scheduler keep: bounded in bytes, whatever it sends, and
never reads."""

from __future__ import annotations

import tracemalloc
from collections.abc import Callable, Iterator
from functools import partial

import numpy as np
import pytest
from mxopt_server.scheduler import Scheduler
from peer import Peer, note, with_sgd

from mxopt.kvstore import messages as m, wire

MIB = 1 << 20
CEILING = 48 * MIB  # above what the server holds anyway
ONE_PIECE = bytes(wire.PIECE_BYTES)


@pytest.fixture
def grown() -> Iterator[object]:
    """The peak of what was allocated since the test began."""
    tracemalloc.start()
    yield lambda: tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()


def with_pieces(count: int, workers: int = 1, mode: str = "sync") -> Peer:
    """A server with a key of `count` pieces; the next request of worker 0 is number 3 + `count`."""
    peer, size = with_sgd(Peer(workers, mode)), count * (wire.PIECE_BYTES // 4)
    for piece in range(count):
        assert isinstance(
            peer.ask(0, m.Init(3 + piece, ["big"], "float32", [[size]], [[size]], 0, piece, 0, [ONE_PIECE])), m.Done
        )
    return peer


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_answers_that_are_never_read(mode: str) -> None:
    peer = with_pieces(2, mode=mode)
    sent = 0
    for seq in range(5, 1205):
        answer = peer.ask(0, m.Pull(seq, ["big"], seq % 2, 0))
        sent += len(answer.data[0]) if isinstance(answer, m.Values) else 0
    assert sent <= 2 * wire.WINDOW + wire.PIECE_BYTES
    # A worker that has read them, and asks again, is served.
    ready = peer.ask(0, m.Hello(wire.VERSION, "job", 0, 1, "token", 1, mode, 1, 0, sent))
    assert isinstance(peer.ask(0, m.Pull(ready.expects, ["big"], 0, 0, 0, sent)), m.Values)


def test_a_worker_that_reads_is_never_held_up() -> None:
    peer, read = with_pieces(2), 0
    for seq in range(5, 205):
        read += len(peer.ask(0, m.Pull(seq, ["big"], seq % 2, 0, 0, read)).data[0])
    assert read == 200 * wire.PIECE_BYTES


def test_what_a_worker_has_read_of_a_server_that_died_is_none_of_its_successors_answers() -> None:
    peer = with_pieces(2)
    before = peer.server.epoch - 1
    ready = peer.ask(0, m.Hello(wire.VERSION, "job", 0, 1, "token", 1, "sync", 1, before, 100 * MIB))
    read = 0
    for seq in range(ready.expects, ready.expects + 200):
        answer = peer.ask(0, m.Pull(seq, ["big"], seq % 2, 0, 0, read))
        assert isinstance(answer, m.Values)
        read += len(answer.data[0])


def test_what_is_asked_for_at_once_and_is_larger_than_a_message(grown: Callable[[], int]) -> None:
    peer = with_pieces(1)
    assert isinstance(peer.ask(0, m.Pull(4, ["big"] * 4, 0, 0)), m.Values)
    answer = peer.ask(0, m.Pull(5, ["big"] * 400, 0, 0, 0, 4 * MIB))
    assert isinstance(answer, m.Refused)
    assert f"{400 * MIB} bytes are asked for at once" in answer.text
    table = m.InitTable(6, "t", "float32", [1 << 40, 1 << 18], 1, True, "zeros", 0.0, 0, 0, 0, 0, [b"", b""])
    assert isinstance(peer.ask(0, table), m.Done)
    for seq, rows in ((7, np.arange(300)), (8, np.zeros(300, np.int64))):
        assert isinstance(peer.ask(0, m.PullRows(seq, "t", 0, 0, [rows.tobytes()])), m.Refused)
    assert isinstance(peer.ask(0, m.PullRows(9, "t", 0, 0, [np.arange(4).tobytes()])), m.Values)
    assert grown() < CEILING


def test_pushes_for_rounds_that_others_never_join(grown: Callable[[], int]) -> None:
    peer = with_pieces(2, workers=2)
    for seq in range(5, 605):
        peer.ask(0, m.Push(seq, False, ["big"], seq % 2, 0, 0, 0, 0.0, 0, 0, False, [ONE_PIECE]))
    assert grown() < CEILING


def test_rows_without_an_end(grown: Callable[[], int]) -> None:
    peer, rows = with_pieces(4), np.arange(0, 1000)
    peer.ask(0, m.Init(7, ["e"], "float32", [[2000, 64]], [[2000, 64]], 0, 0, 0, [bytes(2000 * 256)]))
    data = [rows.astype(np.int64).tobytes(), bytes(len(rows) * 256)]
    refused = 0
    for seq in range(8, 608):
        answer = peer.ask(0, m.PushRows(seq, "e", 0, 0, 1000 * (seq - 8), 1 << 40, 0, 0, data))
        refused += isinstance(answer, m.Refused)
    assert refused == 600
    assert grown() < CEILING


def test_what_a_few_bits_stand_for_is_no_more_than_a_message_brings(grown: Callable[[], int]) -> None:
    peer = with_pieces(0)
    keys: list[int | str] = [f"key{k}" for k in range(20)]
    for k, key in enumerate(keys):
        init = m.Init(3 + k, [key], "float32", [[1 << 18]], [[1 << 18]], 0, 0, 0, [ONE_PIECE])
        assert isinstance(peer.ask(0, init), m.Done)
    before = grown()
    bits = [bytes(len(keys) << 15)]
    answer = peer.ask(0, m.Push(23, False, keys, 0, 1, 0, 2, 0.0, 0, 0, False, bits))
    assert "5242880 elements in a push" in answer.text
    assert grown() - before < MIB


def test_states_without_an_end(grown: Callable[[], int]) -> None:
    peer = with_sgd(Peer())
    for k in range(200):
        answer = peer.ask(0, m.StoreStates(3 + k, 1, "w", k * wire.CHUNK_BYTES, 1 << 40, [bytes(wire.CHUNK_BYTES)]))
        assert isinstance(answer, m.Refused)
    assert grown() < CEILING


def test_a_config_without_an_end(grown: Callable[[], int]) -> None:
    peer = with_sgd(Peer())
    for k in range(200):
        at, part = k * wire.CHUNK_BYTES, [bytes(wire.CHUNK_BYTES)]
        peer.ask(0, m.Config(3 + k, 1, 1, False, 0, False, at, wire.MAX_CONFIG, part))
    assert grown() < 2 * wire.MAX_CONFIG + CEILING


def test_first_values_take_memory_only_as_they_come(grown: Callable[[], int]) -> None:
    peer = with_sgd(Peer())
    for k, size in enumerate((1 << 20, 1 << 22, 1 << 40)):
        answer = peer.ask(0, m.Init(3 + k, [f"bomb{k}"], "float32", [[size]], [[size]], 0, 0, 0, [bytes(4)]))
        assert isinstance(answer, m.Refused)
    assert isinstance(
        peer.ask(0, m.Init(6, ["large"], "float32", [[1 << 28]], [[1 << 28]], 0, 0, 0, [ONE_PIECE])), m.Done
    )
    assert len(peer.server.values.entries["large"].parts) == 1
    entry = peer.server.values.entries["large"]
    assert grown() - entry.weight.nbytes < CEILING  # of the array, pages that nobody has written don't exist


def test_barriers_of_one_worker_at_the_scheduler(grown: Callable[[], int]) -> None:
    sent: list[object] = []
    scheduler = Scheduler(partial(note, sent), 2, 0, "job", token=lambda: "token")
    for rank in (0, 1):
        scheduler.handle(
            b"%d" % rank, m.encode(m.Join(wire.VERSION, "job", "worker", rank, 2, 0, "", f"i{rank}", "me"))
        )
    assert scheduler.course.state == "running"
    payload = bytes(900 << 10)
    for number in range(1, 600):
        scheduler.handle(b"0", [bytes(f) for f in m.encode(m.Barrier("job", 0, "token", number, payload))])
    assert grown() < CEILING
    scheduler.handle(b"1", m.encode(m.Barrier("job", 1, "token", 1, None)))
    assert sum(isinstance(message, m.Passed) for message in sent) == 2


def test_a_frame_that_is_larger_than_any_message_is_not_taken() -> None:
    assert max(wire.PIECE_BYTES, wire.CHUNK_BYTES, wire.MAX_HEADER) <= wire.MAX_FRAME
