"""Keys that are stored by rows: what a server takes, refuses, and has after a restart."""

from __future__ import annotations

import itertools
import re
import threading
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mxopt_server import attached, moment, snapshot
from mxopt_server.records import Optimizer
from peer import Disk, Peer, with_sgd
from test_snapshot import Held

import mxopt
from mxopt.document import dump_document, load_document
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.optimizer.config import optimizer_config


def rows(seq: int, offset: int, total: int, numbers: list[int]) -> m.PushRows:
    data = np.ones((len(numbers), 1), np.float32).tobytes()
    return m.PushRows(seq, "e", 0, 0, offset, total, 0, 0, [np.array(numbers, np.int64).tobytes(), data])


def first_rows(
    seq: int, offset: int, total: int, ids: Any, data: Any = None, key: str = "e", **about: Any
) -> m.InitTable:
    """Some of the first rows of a key of four rows, each of one element; without, of a table."""
    data = np.zeros((len(ids), 1), np.float32) if data is None else data
    fields: dict[str, Any] = {
        "servers": 1,
        "declared": False,
        "init": "zeros",
        "scale": 0.0,
        "seed": 0,
        "whole": [4, 1],
        "round": 0,
    } | about
    frames = [np.array(ids, np.int64).tobytes(), data.tobytes()]
    return m.InitTable(seq=seq, key=key, dtype="float32", offset=offset, total=total, data=frames, **fields)


def pulled_rows(peer: Peer, seq: int, ids: Any, key: str = "e") -> Any:
    answer = peer.ask(0, m.PullRows(seq, key, 0, 0, [np.array(ids, np.int64).tobytes()]))
    return np.frombuffer(answer.data[0], np.float32).tolist()


def restart(peer: Peer, folder: Path | None, number: int) -> None:
    """Goes on with a new server, for which the worker's next request is this one."""
    peer.restart(folder)
    peer.server.sessions[0].expects = number


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
def test_first_rows_come_in_parts_over_a_restart(tmp_path: Path, durability: str) -> None:
    peer = with_sgd(Peer(journal=Disk() if durability == "journal" else None))
    folder = tmp_path if durability == "snapshot" else None
    assert isinstance(peer.ask(0, first_rows(3, 0, 3, [0, 1], np.array([[5], [6]], np.float32))), m.Done)
    assert "has not been initialised" in peer.ask(0, rows(4, 0, 1, [1])).text
    restart(peer, folder, 5)
    assert isinstance(peer.ask(0, first_rows(5, 0, 3, [0, 1])), m.Done)  # what is here counts
    assert isinstance(peer.ask(0, first_rows(6, 2, 3, [3], np.array([[7]], np.float32))), m.Done)
    assert isinstance(peer.ask(0, rows(7, 0, 1, [3])), m.Done)
    assert pulled_rows(peer, 8, [0, 1, 2, 3]) == [5, 6, 0, 6]


@pytest.mark.parametrize("durability", ["snapshot", "journal"])
def test_a_table_goes_on_over_a_restart(tmp_path: Path, durability: str) -> None:
    journal = Disk() if durability == "journal" else None
    peer, folder = Peer(journal=journal), None if journal else tmp_path
    peer.server.machine.enter(Optimizer(1, optimizer_config(mxopt.create("adam", learning_rate=0.5))))
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, 0)), m.Done)
    about: dict[str, Any] = {"declared": True, "init": "uniform", "scale": 1.0, "seed": 3, "whole": [10**9, 1]}
    for k in range(2):  # of a worker that begins again
        assert isinstance(peer.ask(0, first_rows(2 + k, 0, 0, [], **about)), m.Done)
    before = pulled_rows(peer, 4, [10**9 - 1, 7])
    assert isinstance(peer.ask(0, rows(5, 0, 2, [7, 9])), m.Done)
    for seq in (6, 8):
        after = pulled_rows(peer, seq, [10**9 - 1, 7, 9])
        assert after[0] == before[0] != after[1] != before[1]
        restart(peer, folder, seq + 1)
        assert pulled_rows(peer, seq + 1, [10**9 - 1, 7, 9]) == after
    entry = peer.server.values.entries["e"]
    assert entry.weight.row_count == 2
    assert entry.nbytes == 8


@pytest.mark.parametrize(
    ("message", "words"),
    [
        (
            first_rows(4, 0, 4, [0, 1, 2, 3], servers=2),
            "on server 0 as float32 .* stored by rows, not as",
        ),
        (
            m.Init(4, ["e"], "float32", [[4, 1]], [[4, 1]], 0, 0, 0, [bytes(16)]),
            "stored by rows, not as float32 of shape",
        ),
        (first_rows(4, 0, 1, [0], key="f", servers=0), r"no table has the shape \[4, 1\] on 0 servers"),
        (first_rows(4, 0, 1, [0], key="f", whole=[4, 0]), r"no table has the shape \[4, 0\]"),
        (first_rows(4, 0, 0, [], key="f", whole=[4, 1 << 21]), "rows of 8388608 bytes, at most 4194304"),
        (first_rows(4, 0, 0, [], key="f", whole=[1 << 62, 1 << 62]), "rows of .* bytes, at most 4194304"),
        (first_rows(4, 0, 0, [], key="f", init="uniform", scale=1e300), "the scale must be a finite number"),
        (first_rows(4, 0, 0, [], key="f", round=wire.LARGEST), "begins with number"),
        (first_rows(4, 0, 5, [0, 1], key="f"), "5 first rows of 4"),
        (first_rows(4, 0, 1, [4], key="f"), "within 0 to 3"),
        (first_rows(4, 0, 2, [1, 1], key="f"), "must ascend"),
        (first_rows(4, 0, 2, [0, 1], key="f", servers=2), "rows of another server than number 0 of 2"),
        (first_rows(4, 0, 2, [1, 3], key="f", servers=2), "rows of another server than number 0 of 2"),
        (first_rows(4, 1, 2, [0], key="f"), "1 row after 1 of 2, 0 are here"),
        (first_rows(4, 0, 1, [0, 1], key="f"), "2 rows after 0 of 1"),
        (first_rows(4, 0, 2, [], key="f"), "0 rows after 0 of 2"),
        (
            m.Push(4, False, ["e"], 0, 1, 0, 0, 0.0, 0, 0, False, [bytes(16)]),
            "stored by rows, which are pushed and pulled",
        ),
        (m.Pull(4, ["e"], 0, 0), "stored by rows"),
        (rows(4, 0, 1, [4]), "within 0 to 3"),
        (rows(4, 0, 1 << 40, [1]), "in one push, at most 4"),
        (m.PullRows(4, "e", 0, 0, [np.array([-1]).tobytes()]), "within 0 to 3"),
    ],
)
def test_what_cant_be_of_a_key_that_is_stored_by_rows(message: Message, words: str) -> None:
    peer = with_sgd(Peer())
    assert isinstance(peer.ask(0, first_rows(3, 0, 2, [0, 1])), m.Done)
    assert re.search(words, peer.ask(0, message).text)
    assert "f" not in peer.server.values.entries
    assert pulled_rows(peer, 5, [0, 1, 2]) == [0, 0, 0]


def test_which_rows_there_are_is_told_in_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(wire, "CHUNK_BYTES", 16)
    peer, seqs = with_sgd(Peer()), itertools.count(3)
    about: dict[str, Any] = {"declared": True, "whole": [100, 1]}
    assert isinstance(peer.ask(0, first_rows(next(seqs), 0, 0, [], **about)), m.Done)
    answer = peer.ask(0, m.ListRows(next(seqs), "e", 0, 0))
    assert (answer.total, bytes(answer.data[0])) == (0, b"")
    for ids in ([7, 90], [3]):
        assert isinstance(peer.ask(0, rows(next(seqs), 0, len(ids), ids)), m.Done)
    pulled_rows(peer, next(seqs), [50])  # makes none
    parts = [peer.ask(0, m.ListRows(next(seqs), "e", 0, offset)) for offset in (0, 16)]
    assert [part.total for part in parts] == [24, 24]
    assert [np.frombuffer(part.data[0], np.int64).tolist() for part in parts] == [[7, 90], [3]]
    dense = m.Init(next(seqs), ["d"], "float32", [[1]], [[1]], 0, 0, 0, [bytes(4)])
    assert isinstance(peer.ask(0, dense), m.Done)
    assert "isn't stored by rows" in peer.ask(0, m.ListRows(next(seqs), "d", 0, 0)).text


@pytest.mark.parametrize("sparse", [True, False])
def test_ftrl_leaves_the_other_rows_of_a_row_sparse_key_alone(sparse: bool, tmp_path: Path) -> None:
    """As in MXNet; a dense key is updated in all rows, and one that no gradient ever named
    becomes 0."""
    peer, half = Peer(), np.full((4, 1), 0.5, np.float32)
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, 0)), m.Done)
    peer.server.served.install(optimizer_config(mxopt.create("ftrl")))
    init: Message = m.Init(2, ["e"], "float32", [[4, 1]], [[4, 1]], 0, 0, 0, [half.tobytes()])
    if sparse:
        init = first_rows(2, 0, 4, range(4), half)
    assert isinstance(peer.ask(0, init), m.Done)
    for seq in (3, 5):
        assert isinstance(peer.ask(0, rows(seq, 0, 1, [1])), m.Done)
        weight = pulled_rows(peer, seq + 1, range(4))
        assert weight[1] not in (0, 0.5)
        assert weight[0] == weight[2] == weight[3] == (0.5 if sparse else 0)
        restart(peer, tmp_path, seq + 2)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("name", ["adam", "dcasgd"])
def test_rows_that_change_while_a_snapshot_is_written_are_in_it_as_they_were(
    name: str, mode: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(moment, "PART_BYTES", 8)  # two rows
    make = snapshot.moment
    for pieces in range(8):
        peer, seqs = Peer(2, mode), [0, 0]
        options = {"lazy_update": True, "momentum": 0.9} if name == "dcasgd" else {}
        peer.server.machine.enter(Optimizer(1, optimizer_config(mxopt.create(name, learning_rate=0.5, **options))))

        def ask(rank: int, message: Any, peer: Peer = peer, seqs: list[int] = seqs) -> Any:
            seqs[rank] += 1
            message.seq = seqs[rank]
            return peer.ask(rank, message)

        about: dict[str, Any] = {"declared": True, "init": "uniform", "scale": 1.0, "whole": [100, 1]}
        assert isinstance(ask(0, first_rows(0, 0, 0, [], **about)), m.Done)
        for ids in ([1, 50, 60], [7, 50, 99]):
            for rank in (0, 1):
                assert isinstance(ask(rank, rows(0, 0, 3, ids)), m.Done)
        expected = load_document(dump_document(snapshot.record(peer.server)))
        reached, go = threading.Event(), threading.Event()
        monkeypatch.setattr(snapshot, "moment", lambda s, n=pieces, r=reached, g=go: Held(make(s), n, r, g))
        attending = attached.Attached(peer.server, tmp_path / f"s{pieces}", 0.0)
        attending.save()
        assert reached.wait(30)
        for ids in ([7, 50, 60], [2, 7, 98]):
            for rank in (0, 1):
                assert isinstance(ask(rank, rows(0, 0, 3, ids)), m.Done)
        go.set()
        attending.wait()
        written = load_document((tmp_path / f"s{pieces}").read_bytes())
        assert str(written["optimizer"]) == str(expected["optimizer"])
        (was,), (now,) = expected["entries"], written["entries"]
        pairs = [(was["weight"], now["weight"]), *zip(was["state"], now["state"], strict=True)]
        for before, after in pairs:
            if before is not None:
                assert before.indices.tolist() == after.indices.tolist() == [1, 7, 50, 60, 99]
                assert before.data.tobytes() == after.data.tobytes()
