"""Saved states: the format, and what comes back."""

# mypy: disable-error-code="arg-type"

from __future__ import annotations

import os
import stat
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from bitwise import Run, array, assert_same, flat
from table import CROSSED, ROWS, Row, crossed_id

import mxopt
from mxopt import plain
from mxopt.document import PREFIX, dump_document, load_document, write_file
from mxopt.errors import StatesError
from mxopt.optimizer.states import load

pytestmark = pytest.mark.filterwarnings("ignore:b?float16 weights without")


# The format.


def test_a_small_document_byte_by_byte() -> None:
    document = dump_document({"w": (np.array([1.0, -2.0], np.float32), None)})
    header = bytes.fromhex(
        "82"  # a map of two
        "a7636f6e74656e74"  # "content":
        "92a46469637491"  # ["dict", [
        "92a177"  # ["w",
        "92a57475706c6592"  # ["tuple", [
        "92a5617272617900"  # ["array", 0],
        "c0"  # None]]]]
        "a6617272617973"  # "arrays":
        "9192a7666c6f61743332" + "9102"  # [["float32", [2]]]
    )
    assert document[:20] == b"mxopt\r\n\x1a" + struct.pack("<IQ", 2, len(header))
    assert document[52:] == header + struct.pack("<2f", 1.0, -2.0)
    assert document[20:52].hex() == "257e8fd9beaf6a1cf99ce47f7e0d04fc702d75cfdc6822d10d78665777ec487b"


@pytest.mark.parametrize("dtype", ["float16", "bfloat16", "float32", "float64", "int64"])
@pytest.mark.parametrize("shape", [(), (0,), (3, 0, 2), (5,), (2, 3, 4)])
def test_arrays_come_back_as_they_were(dtype: str, shape: tuple[int, ...]) -> None:
    x = array(np.random.default_rng(0), shape, dtype, special=dtype != "int64")
    for given_array in (x, x.copy(order="F"), np.stack([x, x], -1)[..., 0]):
        back = load_document(dump_document({"x": given_array}))["x"]
        assert (back.dtype, back.shape) == (x.dtype, shape)
        assert back.tobytes() == x.tobytes()
        assert back.flags.writeable
        assert back.flags.c_contiguous


def test_everything_else_comes_back_as_it_was() -> None:
    content: Any = {1: None, "a": [True, -5, 2**64 - 1, -(2**63), 1e300, "text", b"\x00"], -2: {"nested": ((), [], {})}}
    assert load_document(dump_document(content)) == content
    scalar = load_document(dump_document({"x": np.float32(0.5), "n": np.int64(3)}))
    assert scalar == {"x": 0.5, "n": 3}


def test_bytes_that_messagepack_has_no_room_for_stand_among_the_arrays(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("mxopt.document.LONG", 8)
    content = {"states": b"as long as that", "more": [(b"123456789", b"short")], "x": 1}
    document = dump_document(content)
    assert load_document(document) == content
    assert len(plain.unpack(document[PREFIX.size :][: PREFIX.unpack_from(document)[2]])["arrays"]) == 2


@pytest.mark.parametrize(
    "bad", [object(), {1, 2}, 2**70, np.array([1j]), np.zeros(2, np.uint8), np.array([object()]), lambda: 0]
)
def test_what_the_format_cannot_hold_is_refused(bad: Any) -> None:
    with pytest.raises(StatesError):
        dump_document({"x": bad})


def small_document() -> bytes:
    updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.5))
    updater("w", np.ones(2, np.float32), np.ones(2, np.float32))
    return updater.get_states(dump_optimizer=True)


def test_documents_of_the_same_run_are_the_same_bytes() -> None:
    assert small_document() == small_document()


# What comes back.


@pytest.mark.parametrize(("row", "dtype", "master"), CROSSED, ids=crossed_id)
@pytest.mark.parametrize("with_optimizer", [True, False], ids=["optimizer", "states"])
def test_a_run_goes_on_from_saved_states(row: Row, dtype: str, master: bool, with_optimizer: bool) -> None:
    rng = np.random.default_rng(7)
    shapes = [(17,), (5, 7), (1,)]
    grads = [[array(rng, shape, dtype) for shape in shapes] for _ in range(6)]
    run = Run(row.make(multi_precision=master), [array(rng, shape, dtype) for shape in shapes])
    for step in range(3):
        run.step(grads[step])
    other = mxopt.create("test") if with_optimizer else row.make(multi_precision=master)
    resumed = Run(other, [w.copy() for w in run.weights], as_list=True)
    resumed.updater.set_states(run.updater.get_states(dump_optimizer=with_optimizer))
    assert resumed.updater.states_synced == {0: False, 1: False, 2: False}
    assert type(resumed.updater.optimizer) is type(run.updater.optimizer)
    for step in range(3, 6):
        run.step(grads[step])
        resumed.step(grads[step])
    assert_same(resumed.arrays, run.arrays)
    assert resumed.updater.get_states(True) == run.updater.get_states(True)


def schedules() -> list[mxopt.lr_scheduler.LRScheduler]:
    s = mxopt.lr_scheduler
    warm = {"warmup_steps": 2, "warmup_begin_lr": 0.125}
    return [
        s.FactorScheduler(2, 0.5, base_lr=0.5, **warm),
        s.MultiFactorScheduler([2, 4], 0.5, base_lr=0.5, warmup_mode="constant", **warm),
        s.PolyScheduler(9, 0.5, pwr=3, **warm),
        s.CosineScheduler(9, 0.5, final_lr=0.25, **warm),
    ]


@pytest.mark.parametrize("row", ROWS, ids=str)
def test_optimizers_come_back_with_schedule_and_multipliers(row: Row) -> None:
    for schedule in schedules():
        names = {0: "a_weight", 1: "a_bias", 2: "a_gamma"}
        optimizer = row.make(lr_scheduler=schedule, param_idx2name=names, begin_num_update=2)
        optimizer.set_lr_mult({"a_weight": 0.5, 1: 2.0})
        optimizer.set_wd_mult({"a_gamma": 0.25})
        schedule.base_lr = 0.75
        run = Run(optimizer, [np.ones(4, np.float32) for _ in names])
        grads = [np.full(4, 0.5, np.float32)] * 3
        run.step(grads)
        resumed = Run(mxopt.create("sgd"), [w.copy() for w in run.weights])
        resumed.updater.set_states(run.updater.get_states(dump_optimizer=True))
        back = resumed.updater.optimizer
        assert (back.lr_mult, back.wd_mult, back.idx2name) == (optimizer.lr_mult, optimizer.wd_mult, names)
        assert type(back.lr_scheduler) is type(schedule)
        assert vars(back.lr_scheduler).keys() == vars(schedule).keys()
        assert [back.lr_scheduler(n) for n in range(12)] == [schedule(n) for n in range(12)]
        for _ in range(4):
            run.step(grads)
            resumed.step(grads)
        assert back.num_update == optimizer.num_update
        assert_same(resumed.arrays, run.arrays)


def test_a_run_goes_on_in_a_fresh_process(tmp_path: Path) -> None:
    rng = np.random.default_rng(8)
    runs = [Run(row.make(), [array(rng, (40,), "float32")]) for row in ROWS]
    for k, run in enumerate(runs):
        run.step([array(rng, (40,), "float32")])
        write_file(tmp_path / f"{k}.states", run.updater.get_states(dump_optimizer=True))
    np.savez(tmp_path / "before.npz", *[run.weights[0] for run in runs])
    code = f"""
import pathlib, numpy as np, mxopt
folder, after = pathlib.Path({str(tmp_path)!r}), []
for k, weight in enumerate(np.load(folder / "before.npz").values()):
    updater = mxopt.get_updater(mxopt.create("sgd"))
    updater.set_states((folder / f"{{k}}.states").read_bytes())
    for _ in range(3):
        updater(0, np.full(40, 0.25, np.float32), weight)
    after.append(weight)
np.savez(folder / "after.npz", *after)
"""
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(__file__).parent.parent)
    theirs = list(np.load(tmp_path / "after.npz").values())
    for run in runs:
        for _ in range(3):
            run.step([np.full(40, 0.25, np.float32)])
    assert_same(theirs, [run.weights[0] for run in runs])


def test_states_of_bfloat16_and_without_updates() -> None:
    updater = mxopt.get_updater(mxopt.create("adam"))
    assert load(updater.get_states()).states == {}
    weight = np.ones(3, ml_dtypes.bfloat16)
    updater("w", weight.copy(), weight)
    loaded = load(updater.get_states()).states["w"]
    assert_same(flat(loaded), flat(updater.states["w"]))


def test_an_optimizer_that_is_not_plain_data_is_not_saved() -> None:
    class Unregistered(mxopt.optimizer.SGD):
        """Not known by name."""

    with pytest.raises(StatesError, match="not registered"):
        mxopt.get_updater(Unregistered()).get_states(dump_optimizer=True)
    odd = mxopt.create("sgd")
    odd.wd = object()  # type: ignore[assignment]
    with pytest.raises(StatesError, match="wd"):
        mxopt.get_updater(odd).get_states(dump_optimizer=True)
    scheduled = mxopt.create("sgd")
    scheduled.lr_scheduler = lambda n: 0.1
    with pytest.raises(StatesError, match="schedule"):
        mxopt.get_updater(scheduled).get_states(dump_optimizer=True)


def test_a_schedule_of_ones_own_comes_back() -> None:
    class Halving(mxopt.lr_scheduler.LRScheduler):
        """Takes no base_lr."""

        def __init__(self, every: int) -> None:
            super().__init__(base_lr=1.0)
            self.every = every

        def after_warmup(self, num_update: int) -> Any:
            return self.base_lr / 2 ** (num_update // self.every)

    updater, back = (
        mxopt.get_updater(mxopt.create("sgd", lr_scheduler=Halving(3))),
        mxopt.get_updater(mxopt.create("sgd")),
    )
    back.set_states(updater.get_states(dump_optimizer=True))
    assert back.optimizer.lr_scheduler(7) == 0.25


# Files.


def test_a_file_is_written_whole_or_not_at_all(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model.states"
    write_file(path, b"old")
    for function in ("fsync", "replace"):
        with monkeypatch.context() as broken:

            def fail(*_: Any) -> None:
                raise OSError("the disk is full")

            broken.setattr(os, function, fail)
            with pytest.raises(OSError, match="full"):
                write_file(path, b"new")
        assert path.read_bytes() == b"old"
        assert list(tmp_path.iterdir()) == [path]
    write_file(str(path), b"new")
    assert path.read_bytes() == b"new"


def mode_of(path: Path) -> int:
    return path.stat().st_mode & 0o7777


def test_a_new_file_has_the_umasks_mode_and_an_old_one_keeps_its_own(tmp_path: Path) -> None:
    before = os.umask(0o027)
    try:
        write_file(tmp_path / "new", b"new")
        assert mode_of(tmp_path / "new") == 0o640
        for mode in (0o600, 0o664, 0o666, 0o755):
            (tmp_path / "old").write_bytes(b"old")
            (tmp_path / "old").chmod(mode)
            write_file(tmp_path / "old", b"new")
            assert (mode_of(tmp_path / "old"), (tmp_path / "old").read_bytes()) == (mode, b"new")
    finally:
        os.umask(before)


def test_a_link_stays_a_link_and_its_file_is_written(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    file, link, chain = tmp_path / "elsewhere" / "model", tmp_path / "link", tmp_path / "chain"
    link.symlink_to("elsewhere/model")  # of a file that isn't there yet
    chain.symlink_to(link)
    for path in (link, chain, link):
        write_file(path, str(path).encode())
        assert file.read_bytes() == str(path).encode()
        assert not file.is_symlink()
        assert link.is_symlink()
        assert chain.is_symlink()
    assert [p.name for p in (tmp_path / "elsewhere").iterdir()] == ["model"]


def test_a_name_as_long_as_names_may_be(tmp_path: Path) -> None:
    for name in ("n" * 250, "ö" * 127 + "o"):
        write_file(tmp_path / name, b"once")
        write_file(tmp_path / name, b"twice")
        assert (tmp_path / name).read_bytes() == b"twice"
    assert len(list(tmp_path.iterdir())) == 2


def test_what_is_no_regular_file_is_written_into(tmp_path: Path) -> None:
    write_file(os.devnull, b"gone")
    assert stat.S_ISCHR(os.stat(os.devnull).st_mode)
    (tmp_path / "folder").mkdir()
    with pytest.raises(IsADirectoryError):
        write_file(tmp_path / "folder", b"")
    with pytest.raises(FileNotFoundError):
        write_file(tmp_path / "nowhere" / "file", b"")


def test_a_file_that_may_not_be_written_is_left_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "model"
    path.write_bytes(b"old")
    monkeypatch.setattr(os, "access", lambda *_: False)  # the superuser may write everything
    with pytest.raises(PermissionError, match="model"):
        write_file(path, b"new")
    assert [p.read_bytes() for p in tmp_path.iterdir()] == [b"old"]


def test_what_killed_writers_left_is_swept_and_nothing_else(tmp_path: Path) -> None:
    left, written, new = (tmp_path / f".mxopt.{name}" for name in ("left", "written", "new"))
    other = tmp_path / "other"
    for path in (left, written, new, other):
        path.write_bytes(b"half")
    for path in (left, written, other):
        os.utime(path, (1, 1))
    hold = f"import fcntl; f = open({str(written)!r}); fcntl.flock(f, fcntl.LOCK_EX); print(flush=True); input()"
    holder = subprocess.Popen(
        [sys.executable, "-c", hold],
        stdin=subprocess.PIPE, stdout=subprocess.PIPE,
    )  # fmt: skip
    with holder:
        assert holder.stdout is not None
        holder.stdout.readline()
        write_file(tmp_path / "states", b"whole")
        assert {path.name for path in tmp_path.iterdir()} == {".mxopt.written", ".mxopt.new", "other", "states"}
        holder.communicate(b"\n")
    write_file(tmp_path / "states", b"whole")
    assert not written.exists()


def test_a_writer_that_is_killed_leaves_the_old_file_and_the_next_one_tidies_up(tmp_path: Path) -> None:
    script = (
        "import os, sys; from mxopt.document import write_file\n"
        "def write(file): file.write(b'half'); file.flush(); os.kill(os.getpid(), 9)\n"
        "write_file(sys.argv[1], write)"
    )
    path = tmp_path / "states"
    path.write_bytes(b"old")
    assert subprocess.run([sys.executable, "-c", script, path]).returncode == -9
    assert path.read_bytes() == b"old"
    (left,) = (each for each in tmp_path.iterdir() if each != path)
    os.utime(left, (1, 1))
    write_file(path, b"new")
    assert [each.name for each in tmp_path.iterdir()] == ["states"]
