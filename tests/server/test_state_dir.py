"""What a job keeps on the disk: segments of records, and folders that only one epoch of a process
writes to."""

from __future__ import annotations

import contextlib
import os
import random
import resource
from pathlib import Path
from typing import Any

import pytest
from mxopt_server import segments, state_dir
from mxopt_server.epoch_folder import CHECKPOINT, SEGMENT, Folder, epochs, name, numbers
from mxopt_server.notes import Notes
from mxopt_server.segments import START, Writer, read, valid_length

from mxopt.document import dump_document
from mxopt.errors import ArgumentError, StatesError

BODIES: list[list[Any]] = [[b"one"], [b"tw", memoryview(b"o")], [b""], [bytes(5000)] * 600]


def written(path: Path, bodies: list[list[Any]] = BODIES) -> Path:
    """A segment with these records."""
    writer = Writer(path)
    for body in bodies:
        writer.append(body)
    writer.sync()
    writer.close()
    return path


def records(path: Path, length: int | None = None) -> list[bytes]:
    return [bytes(body) for _, body in read(path, length)]


def test_records_are_read_as_they_were_appended(tmp_path: Path) -> None:
    path = written(tmp_path / "a")
    assert records(path) == [b"".join(body) for body in BODIES]
    assert records(path, path.stat().st_size) == records(path)
    assert valid_length(path) == path.stat().st_size


def test_a_tail_that_is_torn_anywhere_ends_the_segment(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [[b"first"], [b"second"], [b"x" * 40]])
    content, ends = path.read_bytes(), [START.size, *(end for end, _ in read(path))]
    for size in range(len(content)):
        path.write_bytes(content[:size])
        there = [end for end in ends if end <= size]
        assert len(records(path)) == max(0, len(there) - 1)
        assert valid_length(path) == max([0, *there])
        path.write_bytes(content[:size] + bytes(len(content) - size))  # its blocks were made, not filled
        if size >= START.size:
            assert valid_length(path) == max(there)


def test_a_damaged_byte_within_the_sealed_length_is_an_error_and_at_the_end_a_torn_tail(tmp_path: Path) -> None:
    path = written(tmp_path / "a", [[b"first"], [b"second"]])
    content = path.read_bytes()
    for at in range(START.size, len(content)):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        with pytest.raises(StatesError, match="damaged at byte"):
            records(path, len(content))
        assert records(path) in ([], [b"first"])
    for at in range(START.size):
        path.write_bytes(content[:at] + bytes([content[at] ^ 16]) + content[at + 1 :])
        with pytest.raises(StatesError, match="no journal of this version"):
            records(path)
    path.write_bytes(content[:-1])
    with pytest.raises(StatesError, match="damaged at byte"):
        records(path, len(content))


def test_any_bytes_are_a_segment_or_refused(tmp_path: Path) -> None:
    path, seed = tmp_path / "a", random.randrange(1 << 30)
    draw = random.Random(seed)
    for _ in range(300):
        path.write_bytes(START.pack(segments.MAGIC, segments.VERSION)[: draw.choice((5, 12))] + draw.randbytes(60))
        with contextlib.suppress(StatesError):
            assert valid_length(path) <= 72, seed


def test_a_full_disk_leaves_what_was_there(tmp_path: Path) -> None:
    writer = Writer(tmp_path / "a")
    writer.append([b"kept"])
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (4096, limits[1]))
    try:
        with pytest.raises(OSError, match="File too large"):
            writer.append([bytes(10_000)])
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert (tmp_path / "a").stat().st_size == 4096
    assert records(tmp_path / "a") == [b"kept"]


def test_a_write_that_the_system_takes_in_part_goes_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    real = os.writev
    monkeypatch.setattr(
        os, "writev", lambda fd, parts: os.write(fd, bytes(parts[0])[:3]) if parts[0] else real(fd, parts)
    )
    written(tmp_path / "a", [[b"first", b"", b"second"], [b"third"]])
    assert records(tmp_path / "a") == [b"firstsecond", b"third"]


def opened(home: Path, epoch: int, **more: object) -> Folder:
    folder = Folder(home, epoch)
    folder.take_over(**more)  # type: ignore[arg-type]
    return folder


def filled(folder: Folder, *bodies: bytes) -> Writer:
    """The folder's next segment, with these records."""
    writer = Writer(folder.path / name(folder.next_segment(), SEGMENT))
    for body in bodies:
        writer.append([body])
    return writer


def bodies(folder: Folder, first: int = 0) -> list[bytes]:
    return [bytes(body) for _, body in folder.read(first)]


def test_a_successor_reads_all_that_was_kept_before(tmp_path: Path) -> None:
    for epoch in (1, 2, 5):
        folder = opened(tmp_path, epoch)
        filled(folder, b"a%d" % epoch, b"b%d" % epoch)
        filled(folder, b"c%d" % epoch)
    assert bodies(opened(tmp_path, 6)) == [b"%s%d" % (x, n) for n in (1, 2, 5) for x in (b"a", b"b", b"c")]
    assert [path.name for path in epochs(tmp_path)] == ["00000006"]


def test_what_a_replaced_process_appends_later_does_not_exist(tmp_path: Path) -> None:
    writer = filled(opened(tmp_path, 1), b"kept")
    second = opened(tmp_path, 2)
    writer.append([b"late"])
    assert bodies(second) == [b"kept"]
    assert bodies(opened(tmp_path, 3)) == [b"kept"]


def test_a_replaced_process_can_make_no_file(tmp_path: Path) -> None:
    first = opened(tmp_path, 1)
    opened(tmp_path, 2)
    with pytest.raises(FileNotFoundError):
        filled(first, b"late")


def test_an_epoch_comes_once(tmp_path: Path) -> None:
    opened(tmp_path, 1)
    with pytest.raises(StatesError, match="a process of this epoch before"):
        opened(tmp_path, 1)


def test_a_process_that_was_killed_while_it_took_over_is_passed_over(tmp_path: Path) -> None:
    filled(opened(tmp_path, 1), b"kept")
    Folder(tmp_path, 2)
    assert bodies(opened(tmp_path, 3)) == [b"kept"]


def test_a_process_that_was_stopped_while_it_took_over_and_wakes_harms_none(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = opened(tmp_path, 1)
    filled(first, b"one")
    filled(first, b"two")
    slow, real = Folder(tmp_path, 2), os.link
    woken: list[Any] = []

    def link(source: Path, target: Path) -> None:
        if not woken and source.name == name(2, SEGMENT):  # in the middle of epoch 3's
            woken.append(True)
            slow.take_over()
        real(source, target)

    monkeypatch.setattr(os, "link", link)
    third = opened(tmp_path, 3)
    assert woken
    assert bodies(third) == [b"one", b"two"]
    assert bodies(opened(tmp_path, 4)) == [b"one", b"two"]


def test_a_torn_tail_is_sealed_off_and_damage_before_it_is_an_error(
    tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    first = opened(tmp_path, 1)
    filled(first, b"one")
    path = filled(first, b"two").path
    os.truncate(path, path.stat().st_size - 1)
    second = opened(tmp_path, 2)
    assert "2.journal has 38 bytes, of which those behind byte 12 are no record in full" in caplog.text
    filled(second, b"three")
    assert bodies(second) == [b"one"]
    third = opened(tmp_path, 3)
    assert bodies(third) == [b"one", b"three"]
    filled(third, b"four")
    filled(third, b"five")
    path = third.path / name(4, SEGMENT)
    path.write_bytes(path.read_bytes()[:-1] + b"!")
    with pytest.raises(StatesError, match="damaged at byte 12"):
        opened(tmp_path, 4)


def test_a_checkpoint_replaces_what_was_before(tmp_path: Path) -> None:
    folder = opened(tmp_path, 1)
    filled(folder, b"one")
    filled(folder, b"two")
    for number in (3, 7):
        (folder.path / name(number, CHECKPOINT)).write_bytes(b"checkpoint")
    folder.drop(7, 2)
    second = opened(tmp_path, 2)
    assert numbers(second.path, CHECKPOINT) == [7]
    assert bodies(second, 2) == [b"two"]
    with pytest.raises(StatesError, match="lacks a segment from number 1 on"):
        list(second.read(1))


def test_going_on_from_a_record_leaves_out_what_follows_for_ever(tmp_path: Path) -> None:
    first = opened(tmp_path, 1)
    filled(first, b"a", b"cut", b"b")
    filled(first, b"c")
    second = opened(tmp_path, 2, is_last=lambda body: body == b"cut")
    assert bodies(second) == [b"a", b"cut"]
    filled(second, b"d")
    assert bodies(opened(tmp_path, 3)) == [b"a", b"cut", b"d"]
    with pytest.raises(StatesError, match="the cut to go on from isn't in the journal"):
        opened(tmp_path, 4, is_last=lambda body: body == b"c")


def test_what_a_job_goes_on_from_has_to_be_there_or_nothing_is_touched(tmp_path: Path) -> None:
    folder = opened(tmp_path, 1)
    filled(folder, b"one")
    (folder.path / name(3, CHECKPOINT)).write_bytes(b"checkpoint")
    before = sorted(folder.path.iterdir())
    for epoch, more in ((2, {"last": 4}), (3, {"last": 3, "is_last": lambda body: body == b"cut"})):
        with pytest.raises(StatesError, match=r"isn't there|isn't in the journal"):
            opened(tmp_path, epoch, **more)
    for epoch, more in ((1, {"last": 4}), (2, {"last": 3, "is_last": lambda body: body == b"cut"})):
        with pytest.raises(StatesError, match=r"another/?.*: (checkpoint 4, from which|the cut to go on from)"):
            opened(tmp_path / "another", epoch, **more)
    assert sorted(folder.path.iterdir()) == before
    assert bodies(opened(tmp_path, 4, last=3)) == [b"one"]


def test_a_journal_without_its_first_segment_is_an_error(tmp_path: Path) -> None:
    folder = opened(tmp_path, 1)
    filled(folder, b"one")
    filled(folder, b"two")
    (folder.path / name(1, SEGMENT)).unlink()
    with pytest.raises(StatesError, match=r"lacks a segment from number 1 on, there are \[2\]"):
        bodies(opened(tmp_path, 2))


def test_what_another_process_has_kept_is_refused(tmp_path: Path) -> None:
    Folder(tmp_path, 1, "server 0 of job a").take_over()
    for whose in ("server 1 of job a", "server 0 of job b"):
        with pytest.raises(StatesError, match=f"00000001 has what server 0 of job a has kept, and this is {whose}"):
            Folder(tmp_path, 1 + len(list(tmp_path.iterdir())), whose).take_over()
    Folder(tmp_path, 9, "server 0 of job a").take_over()


def test_a_file_of_another_kind_is_named(tmp_path: Path) -> None:
    folder = opened(tmp_path, 1)
    for content in (dump_document({"job": "j"}), b"damaged"):
        (folder.path / "sealed").write_bytes(content)
        with pytest.raises(StatesError, match="00000001/sealed"):
            Folder(tmp_path, 2 + len(epochs(tmp_path))).take_over()
    notes = Notes(tmp_path / "scheduler")
    notes["checkpoint"] = 3
    (tmp_path / "scheduler" / "00000001" / "notes").write_bytes(b"damaged")
    with pytest.raises(StatesError, match="scheduler/00000001/notes"):
        Notes(tmp_path / "scheduler")


def test_what_cannot_be_written_down_is_not_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    notes = Notes(tmp_path / "scheduler")
    with monkeypatch.context() as patch:
        patch.setattr("mxopt_server.notes.write_file", full_disk)
        patch.setattr("mxopt_server.state_dir.write_file", full_disk)
        for _ in range(2):
            with pytest.raises(OSError, match="No space"):
                notes["checkpoint"] = 3
        with pytest.raises(ArgumentError, match=r"state can't be used: .*No space"):
            state_dir.begin(tmp_path / "state", FACTS)
    assert "checkpoint" not in notes
    notes["checkpoint"] = 3
    assert Notes(tmp_path / "scheduler")["checkpoint"] == 3


def full_disk(*_: object) -> None:
    raise OSError(28, "No space left on device")


FACTS = {"job": "j", "workers": 2, "servers": 1, "durability": "journal"}


def test_a_job_is_resumed_as_what_it_was(tmp_path: Path) -> None:
    held = state_dir.lock(tmp_path / "state")
    with pytest.raises(ArgumentError, match="in use by a job that runs"):
        state_dir.lock(tmp_path / "state")
    with pytest.raises(ArgumentError, match="no job to resume"):
        state_dir.resume(tmp_path / "state", {})
    state_dir.begin(tmp_path / "state", FACTS)
    os.close(held)
    os.close(state_dir.lock(tmp_path / "state"))
    with pytest.raises(ArgumentError, match="go on with it by --resume"):
        state_dir.begin(tmp_path / "state", FACTS)
    assert state_dir.resume(tmp_path / "state", {"workers": 2})["job"] == "j"
    with pytest.raises(ArgumentError, match="has workers 2, not 3"):
        state_dir.resume(tmp_path / "state", {"workers": 3})
    with pytest.raises(ArgumentError, match="can't be resumed: what server-0 had kept isn't there"):
        state_dir.resume(tmp_path / "state", {}, ["server-0"])
    opened(tmp_path / "state" / "server-0", 1)
    Notes(tmp_path / "state" / "scheduler")
    assert state_dir.resume(tmp_path / "state", {}, ["scheduler", "server-0"])["servers"] == 1
    for foreign in (b"x", dump_document({"workers": 2})):
        (tmp_path / "state" / "job").write_bytes(foreign)
        with pytest.raises(ArgumentError, match=r"can't be resumed: .*state/job"):
            state_dir.resume(tmp_path / "state", {})


def test_a_folder_is_of_one_job_who_ever_starts_its_processes(tmp_path: Path) -> None:
    held = state_dir.lock(tmp_path / "scheduler")
    with pytest.raises(ArgumentError, match="scheduler is in use by a job that runs"):
        state_dir.lock(tmp_path / "scheduler")
    os.close(held)
    facts = {"workers": 2, "servers": 1, "durability": "journal"}
    job = state_dir.job_in(tmp_path, facts)
    assert [state_dir.job_in(tmp_path, facts, said) for said in ("", job)] == [job, job]
    for fact, other in {"workers": 3, "servers": 2, "durability": "snapshot"}.items():
        with pytest.raises(ArgumentError, match=f"the job in .* has {fact} {facts[fact]}, not {other}"):
            state_dir.job_in(tmp_path, {**facts, fact: other})
    with pytest.raises(ArgumentError, match=f"has job {job}, not another"):
        state_dir.job_in(tmp_path, facts, "another")
    (tmp_path / "second").mkdir()
    assert state_dir.job_in(tmp_path / "second", facts, "named") == "named"


def test_damage_in_the_bulk_of_a_large_record_shows(tmp_path: Path) -> None:
    seed = random.randrange(1 << 30)
    draw, size = random.Random(seed), 3 * segments.BULK + 77
    path = written(tmp_path / "a", [[b"head", draw.randbytes(size)]])
    content = path.read_bytes()
    assert records(path)[0][4:] == content[-size:]
    first = len(content) - size
    blocks = [first + k * segments.BLOCK for k in draw.sample(range(size // segments.BLOCK), 2)]
    parts = [content[at : at + segments.BLOCK] for at in blocks]

    def with_blocks(a: bytes, b: bytes) -> bytes:
        found = bytearray(content)
        for at, block in zip(blocks, (a, b), strict=True):
            found[at : at + segments.BLOCK] = block
        return bytes(found)

    damaged = [with_blocks(parts[1], parts[0]), with_blocks(parts[0], bytes(segments.BLOCK))]
    for _ in range(200):
        at = draw.randrange(START.size, len(content))
        damaged.append(content[:at] + bytes([content[at] ^ (1 << draw.randrange(8))]) + content[at + 1 :])
    for wrong in damaged:
        path.write_bytes(wrong)
        assert records(path) == [], seed
        with pytest.raises(StatesError, match="damaged at byte"):
            records(path, len(content))
