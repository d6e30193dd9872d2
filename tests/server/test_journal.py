"""A server's journal: every record comes back as it was, and a server that reads them has the same
bits."""

from __future__ import annotations

import os
import re
import resource
from pathlib import Path

import numpy as np
import pytest
from kept_peer import Served, trained
from mxopt_server import journal as journals, records as r, segments
from mxopt_server.epoch_folder import CHECKPOINT, SEGMENT, Folder, numbers
from mxopt_server.journal import Journal, Unkept, decode, encode
from mxopt_server.records import Record, described
from peer import config, init, push
from table import ROWS, Row

import mxopt
from mxopt.errors import KVStoreError, StatesError
from mxopt.kvstore import messages as m, wire
from mxopt.optimizer.config import optimizer_config
from mxopt.sparse import RowSparse

VALUE = np.arange(6, dtype=np.float32)


SPARSE = RowSparse(VALUE.reshape(2, 3), np.array([1, 4]), (9, 3))


RECORDS: list[r.Record] = [
    r.Mode("ssp", 3),
    r.Member(1, 5, [0]),
    r.First("w", "float32", [2, 3], [4, 3], 2, 7, 1, VALUE),
    r.FirstRows("t", {"shape": [9, 3], "init": "zeros"}, True, 2, 7, 5, np.array([1, 4]), VALUE),
    r.Update((("w", 1),), -1, 7, VALUE, 2, None),
    r.Update((None, 3), 1, 2, SPARSE, 0, None),
    r.Update(("a", "b"), 0, 1, None, 0, KVStoreError("no")),
    r.Optimizer(1, optimizer_config(mxopt.create("adam"))),
    r.Optimizer(2, None),
    r.Changed(optimizer_config(mxopt.create("sgd", learning_rate=0.5)), 1),
    r.Loaded(1, "w", b"document"),
    r.Cut(9),
    r.Refusal("no"),
]


def plain(x: object) -> object:
    """Something comparable that stands for a field."""
    if isinstance(x, RowSparse):
        return x.data.tolist(), x.indices.tolist(), x.shape
    return x.tolist() if isinstance(x, np.ndarray) else repr(x)


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_a_record_comes_back_as_it_was(record: Record) -> None:
    body = b"".join(encode(record))
    again = decode(memoryview(body))
    assert type(again) is type(record)
    assert [plain(getattr(again, name)) for name in again.__slots__] == [
        plain(getattr(record, name)) for name in record.__slots__
    ]
    for size in range(len(body)):
        with pytest.raises(StatesError):
            decode(memoryview(body[:size]))


def test_states_of_any_size_are_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxopt.document.LONG", 8)  # from which a record's header has no room for them
    parts = encode(r.Loaded(1, "w", b"a long document"))
    assert bytes(parts[-1]) == b"a long document"
    assert decode(memoryview(b"".join(parts))).document == b"a long document"  # type: ignore[union-attr]


def test_there_is_a_case_for_every_kind_of_record() -> None:
    assert {type(record).__name__ for record in RECORDS} == set(journals.KINDS)


@pytest.mark.parametrize("mode", ["sync", "async"])
@pytest.mark.parametrize("row", ROWS, ids=str)
def test_a_server_that_reads_its_journal_has_the_same_bits(row: Row, mode: str, tmp_path: Path) -> None:
    peer = trained(tmp_path, row, mode)
    before, held = peer.content(), peer.weight()
    peer.again()
    assert peer.content() == before
    peer.again()
    assert peer.content() == before
    assert peer.weight() == held != [0.0, 0.0]


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_checkpoint_takes_the_place_of_the_journal_before_it(mode: str, tmp_path: Path) -> None:
    peer = trained(tmp_path, mode=mode)
    peer.kept.large = 0
    assert peer.kept.full
    if mode == "sync":
        for rank in (0, 1):
            peer.ask(rank, m.Cut(6 - 3 * rank, 2, True))
        peer.kept._writer.wait()
        peer.kept.tick(0)
        assert numbers(peer.kept.folder.path, SEGMENT) == [1, 2]
        peer.kept.tick(2)
    else:
        peer.kept.tick(0)
        peer.kept._writer.wait()
        peer.kept.large = 1 << 30
        peer.kept.tick(0)
    assert numbers(peer.kept.folder.path, SEGMENT) == [2]
    peer.ask(0, push(7, False, 5, number=3))
    peer.ask(1, push(4, False, 5, number=3))
    before = peer.content()
    for _ in range(2):
        peer.again()
        assert peer.content() == before
    assert numbers(peer.kept.folder.path, CHECKPOINT) == [2 if mode == "sync" else 1]


def test_without_a_journal_a_checkpoint_is_all_there_is(tmp_path: Path) -> None:
    peer = trained(tmp_path, kind="snapshot")
    for rank in (0, 1):
        peer.ask(rank, m.Cut(6 - 3 * rank, 2, True))
    before = peer.content()
    peer.kept._writer.wait()
    for rank in (0, 1):
        peer.ask(rank, push(7 - 3 * rank, False, number=3))
    peer.again(2)
    assert peer.content() == before
    assert peer.kept.written == 2


def test_an_asynchronous_server_writes_checkpoints_by_itself(tmp_path: Path) -> None:
    peer = trained(tmp_path, mode="async", kind="snapshot")
    for number in (1, 2, 3):
        peer.kept.tick(0)
        peer.kept._writer.wait()
        peer.kept.every = 1e9
        peer.kept.tick(0)
        peer.kept.every = 0.0
        assert numbers(peer.kept.folder.path, CHECKPOINT) == [number]
    before = peer.content()
    peer.again()
    assert peer.content() == before


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_keys_that_are_pushed_together_have_the_journal_behind_a_checkpoint_with_a_round_that_failed(
    mode: str, tmp_path: Path
) -> None:
    peer, keys = Served(tmp_path, 2, mode), ("w", "v")
    assert isinstance(peer.ask(0, config(1, 1, mxopt.create("sgd"))), m.Done)
    assert isinstance(peer.ask(0, m.SetOptimizer(2, 1, 1)), m.Done)
    for seq, key in enumerate(keys, 3):
        assert isinstance(peer.ask(0, init(seq, key)), m.Done)
    group = peer.server.values.group(keys, peer.server.values.parts(list(keys), 0))
    assert group is not None
    wrong = KVStoreError("it failed")
    for rank in (0, 1) if mode == "async" else (-1,):
        peer.server.machine.enter(r.Update(keys, rank, 1, None, 0, wrong))
    peer.kept.checkpoint(1)
    peer.kept._writer.wait()
    for rank in (0, 1):
        peer.ask(rank, push(5 - 4 * rank, False, keys=keys, number=2))
    before = peer.content()
    for _ in range(2):
        peer.again()
        assert peer.content() == before


def test_the_size_of_a_journal_is_what_a_checkpoint_that_is_there_lacks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = trained(tmp_path, mode="async")
    peer.kept.large, peer.kept.every = peer.journal.nbytes() - 1, 1e9
    with monkeypatch.context() as patch:
        patch.setattr("mxopt.document.os.fsync", full_disk)
        peer.kept.tick(0)
        peer.kept._writer.wait()
    for _ in range(3):  # it isn't tried again at once
        peer.kept.tick(0)
        assert (peer.kept.full, peer.kept.written, peer.kept._writer.busy) == (True, 0, False)
    peer.kept.every = 0.0
    peer.kept.tick(0)
    peer.kept._writer.wait()
    peer.kept.every = 1e9
    peer.kept.tick(0)
    assert (peer.kept.full, numbers(peer.kept.folder.path, CHECKPOINT)) == (False, [2])
    assert peer.journal.nbytes() == segments.START.size
    peer.again()
    peer.kept.large = 0
    assert not peer.kept.full


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


def test_checkpoints_that_another_server_never_has_are_few(tmp_path: Path) -> None:
    peer = trained(tmp_path, kind="snapshot")
    for number in range(1, 8):
        peer.kept.checkpoint(number)
        peer.kept._writer.wait()
        peer.kept.tick(1 if number > 1 else 0)
        assert peer.kept.written == number
        assert numbers(peer.kept.folder.path, CHECKPOINT) == sorted({1, max(1, number - 1), number})
    peer.kept.tick(6)
    assert numbers(peer.kept.folder.path, CHECKPOINT) == [6, 7]
    peer.again(6)
    assert numbers(peer.kept.folder.path, CHECKPOINT) == [6]


def test_a_push_that_a_checkpoint_has_is_not_applied_again_though_its_answer_was_lost(tmp_path: Path) -> None:
    peer = trained(tmp_path, mode="async")
    peer.kept.large = 0
    peer.kept.tick(0)
    peer.kept._writer.wait()
    peer.kept.large = 1 << 30
    peer.kept.tick(0)
    before = peer.weight()
    peer.again()
    assert isinstance(peer.ask(1, push(1, False, 2, number=2)), m.Done)
    assert peer.weight() == before


def test_an_asynchronous_server_without_a_journal_counts_what_it_has_lost(tmp_path: Path) -> None:
    peer = trained(tmp_path, mode="async", kind="snapshot")
    peer.kept.tick(0)
    peer.kept._writer.wait()
    for number in (3, 4):
        peer.ask(1, push(number, False, number=number))
    peer.again()
    assert isinstance(peer.ask(1, m.Pull(1, ["w"], 0, 4)), m.Values)
    assert isinstance(peer.ask(1, push(2, False, number=5)), m.Done)
    assert isinstance(peer.ask(0, push(1, False, number=3)), m.Done)
    assert peer.server.members.lost == 2
    assert "what it has pushed in between is missing" in peer.ask(1, push(3, False, number=9)).text


def test_a_worker_that_pushes_no_more_tells_what_it_had_pushed(tmp_path: Path) -> None:
    peer = trained(tmp_path, mode="async", kind="snapshot")
    peer.kept.tick(0)
    peer.kept._writer.wait()
    peer.ask(0, init(6, "v"))
    for number in (3, 4):
        peer.ask(1, push(number, False, number=number))
    peer.again()
    for _ in range(2):  # it asks again
        assert peer.ask(1, m.Rounds(1, ["w"], [4])) == m.Present(1, [4], 2)
    assert isinstance(peer.ask(1, push(2, False, number=5)), m.Done)
    assert peer.server.members.lost == 2
    assert peer.ask(0, m.Rounds(1, ["w"])) == m.Present(1, [2], 2)  # a new process
    assert isinstance(peer.ask(0, m.Rounds(2, ["v"], [1])), m.Refused)
    peer.ask(0, init(3, "v"))
    assert peer.ask(0, m.Rounds(4, ["v"], [7])) == m.Present(4, [7], 2 + 7)
    last = wire.LARGEST  # what is lost stays a number that messages can name, whatever a worker says
    assert peer.ask(1, m.Rounds(3, ["v"], [last])) == m.Present(3, [last], last)


NONSENSE = {**optimizer_config(mxopt.create("sgd")), "name": "nonsense"}


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_what_was_refused_is_refused_again_and_does_not_keep_a_server_from_coming_back(
    mode: str, tmp_path: Path
) -> None:
    peer = trained(tmp_path, mode=mode)
    refused = [
        peer.ask(0, m.StoreStates(6, 1, "w", 0, 1, [b"x"])),
        peer.ask(0, config(7, 2, NONSENSE, event=2)) and peer.ask(0, m.SetOptimizer(8, 2, 2)),
    ]
    assert [type(answer) for answer in refused] == [m.Refused] * 2
    before = peer.content()
    peer.again()
    assert peer.content() == before
    peer.ask(0, config(1, 1, mxopt.create("sgd"), event=3))
    assert isinstance(peer.ask(0, m.SetOptimizer(2, 3, 1)), m.Done)
    before = peer.content()
    peer.again()
    assert peer.content() == before


def test_a_server_killed_between_a_record_and_its_refusal_comes_back_as_often_as_it_has_to(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    peer = trained(tmp_path)
    append = peer.journal.append
    monkeypatch.setattr(peer.journal, "append", lambda record: isinstance(record, r.Refusal) or append(record))
    peer.ask(0, m.StoreStates(6, 1, "w", 0, 1, [b"x"]))
    before = peer.content()
    for _ in range(3):
        peer.again()
        peer.ask(0, init(1, f"key {peer.epochs}"))
    for key in [key for key in peer.server.values.entries if key != "w"]:
        del peer.server.values.entries[key]
    assert peer.content() == before


def test_a_server_without_the_optimizer_of_its_journal_does_not_go_on(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As one that was started again without the --import of before."""
    peer = trained(tmp_path)
    monkeypatch.delitem(mxopt.Optimizer.registry._classes, "adam")
    with pytest.raises(StatesError, match=r"server 0 lacks what its journal rests on: .*'adam', which isn't.*--import"):
        peer.again()
    monkeypatch.undo()
    peer.again()
    assert peer.weight() != [0.0, 0.0]


@pytest.mark.parametrize("record", RECORDS, ids=lambda record: type(record).__name__)
def test_every_record_has_words(record: Record) -> None:
    assert re.fullmatch(r"the (update|record \w+) ?.{0,40}", described(record))
    assert described(RECORDS[6]) == "the update of key 'a' and 1 more in round 1"


def test_answers_leave_when_what_they_rest_on_is_on_the_disk(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    peer = Served(tmp_path)
    peer.journal.fsync = peer.journal.together = True
    real = os.fdatasync
    events: list[object] = []
    progress = peer.server.applier.progress
    monkeypatch.setattr(os, "fdatasync", lambda file: (events.append(progress.doing), real(file)))  # type: ignore[func-returns-value]
    peer.server.answers._post = lambda route, message: events.append(type(message).__name__)
    for message in (init(1), init(2, "v"), m.Rounds(3, ["w"])):
        peer.server.handle(b"route0", m.encode(message))
    assert events == []
    peer.server.answers.flush()
    assert events == ["a sync of the journal of server 0", "Done", "Done", "Present"]
    assert progress.doing == ""
    peer.server.handle(b"route0", m.encode(m.Pull(4, ["w"], 0, 0)))
    peer.server.answers.flush()
    assert events[4:] == ["Values"]


def test_a_full_disk_ends_the_server_before_anybody_hears_of_what_it_lost(tmp_path: Path) -> None:
    peer = trained(tmp_path)
    before = peer.content()
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (peer.journal._writer.size + 10, hard))
    try:
        with pytest.raises(Unkept, match=r"the journal .*000000000001\.journal can't be written: .*File too large"):
            peer.ask(0, init(6, "other"))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    assert peer.sent == []
    peer.again()
    assert peer.content() == before


def test_segments_follow_one_another(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(segments, "SIZE", 200)
    folder = Folder(tmp_path, 1)
    folder.take_over()
    journal = Journal(folder, True)
    for number in range(50):
        journal.append(r.Cut(number))
    journal.close()
    assert len(numbers(folder.path, SEGMENT)) > 5
    assert journal.nbytes() > 50 * 20
    second = Folder(tmp_path, 2)
    second.take_over()
    assert [decode(body).number for _, body in second.read(0)] == list(range(50))  # type: ignore[union-attr]
    assert Journal(second, True).nbytes() >= journal.nbytes()  # all of it is to be read again
    assert Journal(Folder(tmp_path, 3), True).nbytes(5) < journal.nbytes(5) < journal.nbytes()
