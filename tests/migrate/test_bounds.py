"""Files made to harm: whatever is in them, readers end soon, with a StatesError, in memory that
follows the file."""

from __future__ import annotations

import contextlib
import io
import json
import pickle
import pickletools
import resource
import struct
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import mxopt
from mxopt.errors import StatesError
from mxopt.migrate import (
    read_mindspore_checkpoint,
    read_mxnet_params,
    read_mxnet_states,
    read_npz,
    read_safetensors,
    write_mindspore_checkpoint,
)
from mxopt.migrate.pickles import read_pickle

DATA = Path(__file__).parent.parent / "data" / "migrate"
FILE = np.load(DATA / "mxnet.npz")
RUNS = {run["name"]: run for run in json.loads(str(FILE["runs"]))}


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def nested(depth: int, item: bytes) -> bytes:
    """Code that leaves a tuple on the stack that has the one before it twice, `depth` times
    over."""
    return item + b"".join(b"q" + bytes([k]) + b"h" + bytes([k]) + b"\x86" for k in range(depth))


TWO = b"\x80\x02"
GLOBAL = b"c_codecs\nencode\n"
BIG = text("x" * 100_000)
HARMFUL = {
    "marks": TWO + b"(" * 200_000 + b"t" * 200_000 + b".",
    "a tuple of tuples as a key": TWO + b"}" + nested(60, b"N") + b"Ns.",
    "a tuple of tuples as a class": TWO.replace(b"\x02", b"\x04") + nested(60, b"N") + text("x") + b"\x93.",
    "a tuple of tuples that is called": TWO + nested(60, b"N") + b")R.",
    "a tuple of tuples as attributes": TWO + b"cx\ny\n)\x81" + nested(60, b"N") + b"b.",
    "a tuple of tuples as a text": TWO + GLOBAL + nested(60, b"N") + b"\x85R.",
    "a state of tuples": TWO + b"}K\x00" + nested(60, b"N") + b"s.",
    "a list in itself": TWO + b"}K\x00]q\x00h\x00as.",
    "a text made bytes many times": TWO
    + BIG
    + b"q\x000]"
    + (GLOBAL + b"h\x00" + text("latin1") + b"\x86Ra") * 30_000
    + b".",
    "an array in many places": TWO
    + b"}"
    + b"".join(
        b"J" + struct.pack("<i", k) + b"cmxnet.ndarray.ndarray\nNDArray\n)\x81}" + text("handle") + b"h\x00sbs"
        for k in range(20_000)
    ).replace(b"h\x00", GLOBAL + BIG + text("latin1") + b"\x86Rq\x00", 1)
    + b".",
    "an optimizer with a tuple of tuples": TWO
    + b"}cmxnet.optimizer.optimizer\nSGD\n)\x81}"
    + text("lr")
    + nested(60, b"N")
    + b"sb\x86.",
    "an optimizer with names that are tuples": TWO
    + b"}cmxnet.optimizer.optimizer\nSGD\n)\x81}"
    + text("idx2name")
    + b"}K\x00"
    + nested(60, b"N")
    + b"ssb\x86.",
    "counts without end": TWO
    + b"}cmxnet.optimizer.optimizer\nSGD\n)\x81}("
    + text("lr_mult")
    + b"}"
    + text("wd_mult")
    + b"}"
    + text("num_update")
    + b"G\x7f\xf0\x00\x00\x00\x00\x00\x00ub\x86.",
}


@pytest.fixture
def little_memory() -> Any:
    """Fails an allocation beyond 1 GiB more than there is now."""
    now = int(Path("/proc/self/statm").read_text().split()[0]) * resource.getpagesize()
    before = resource.getrlimit(resource.RLIMIT_AS)
    resource.setrlimit(resource.RLIMIT_AS, (now + 2**30, before[1]))
    yield
    resource.setrlimit(resource.RLIMIT_AS, before)


@pytest.mark.parametrize("what", HARMFUL)
@pytest.mark.usefixtures("little_memory")
def test_a_pickle_made_to_take_for_ever_is_refused_at_once(what: str, tmp_path: Path) -> None:
    path = tmp_path / "x.states"
    path.write_bytes(HARMFUL[what])
    for optimizer in (None, mxopt.create("sgd")):
        with pytest.raises(StatesError, match=r"x\.states: "):
            read_mxnet_states(path, optimizer)


@pytest.mark.parametrize("protocol", [0, 1])
def test_the_protocols_of_other_programs_are_refused_by_their_beginning(protocol: int, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(pickle.dumps({0: None}, protocol))
    with pytest.raises(StatesError, match="a pickle of protocol 2 or later"):
        read_mxnet_states(tmp_path / "x", mxopt.create("sgd"))


RECORDED = [FILE[f"{name}/states"].tobytes() for name in ("adam", "sgd-half", "lbsgd", "factor", "adam-protocol-2")]
RECORDED.append((DATA / "gluon.states").read_bytes())
PLACES = [[at for _, _, at in pickletools.genops(whole) if at is not None] for whole in RECORDED]


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_states_with_other_opcodes_are_a_states_error_or_other_states(
    data: st.DataObject, tmp_path_factory: Any
) -> None:
    """Opcodes, where damage does more than in the arrays: other ones, fewer, doubled."""
    number = data.draw(st.integers(0, len(RECORDED) - 1))
    whole, places = bytearray(RECORDED[number]), PLACES[number]
    for _ in range(data.draw(st.integers(1, 3))):
        at = data.draw(st.sampled_from(places))
        how = data.draw(st.sampled_from(["other", "gone", "twice", "inserted"]))
        if how == "other" and at < len(whole):
            whole[at] = data.draw(st.integers(0, 255))
        elif how == "gone":
            del whole[at : at + data.draw(st.integers(1, 8))]
        elif how == "twice":
            whole[at:at] = whole[at : at + data.draw(st.integers(1, 40))]
        else:
            whole[at:at] = data.draw(st.binary(min_size=1, max_size=6))
    path = tmp_path_factory.getbasetemp() / "damaged.states"
    path.write_bytes(whole)
    with contextlib.suppress(StatesError):
        read_mxnet_states(path)
    with contextlib.suppress(StatesError):
        read_mxnet_states(path, mxopt.create("adam"))


# Arrays.


def array(shape: tuple[int, ...], flag: int = 0, content: bytes = b"") -> bytes:
    """One of MXNet's, dense."""
    head = struct.pack(f"<Iii{len(shape)}q", 0xF993FAC9, 0, len(shape), *shape)
    return head + struct.pack("<3i", 1, 0, flag) + content


ARRAYS = {
    "larger than the file": array((2**40,)),
    "of no size with a long axis": array((0, 2**62)),
    "of a negative axis": array((-1, 4)),
    "of many axes": struct.pack("<Iii", 0xF993FAC9, 0, 10**6),
    "row-sparse with rows that it has not": struct.pack("<Ii", 0xF993FAC9, 1)
    + struct.pack("<i2q", 2, 1, 2) + struct.pack("<i2q", 2, 3, 2) + struct.pack("<3i", 1, 0, 0)
    + struct.pack("<ii1q", 6, 1, 1) + bytes(8) + struct.pack("<q", 7),
}  # fmt: skip


@pytest.mark.parametrize("what", ARRAYS)
@pytest.mark.usefixtures("little_memory")
def test_an_array_that_cannot_be_is_refused(what: str, tmp_path: Path) -> None:
    (tmp_path / "x.params").write_bytes(struct.pack("<3Q", 0x112, 0, 1) + ARRAYS[what] + struct.pack("<Q", 0))
    with pytest.raises(StatesError, match=r"x\.params: "):
        read_mxnet_params(tmp_path / "x.params")


@pytest.mark.usefixtures("little_memory")
def test_a_checkpoint_with_shapes_that_cannot_be_is_refused(tmp_path: Path) -> None:
    def field(number: int, content: bytes) -> bytes:
        return bytes([number << 3 | 2, *varint(len(content))]) + content

    def varint(n: int) -> bytes:
        return bytes([n & 127 | 128, *varint(n >> 7)]) if n > 127 else bytes([n])

    longest = b"\x08" + varint(2**31 - 1 - 1)
    for dims in (b"\x08\x00" + longest * 4, longest * 200_000, longest * 3):
        tensor = dims + field(2, b"Float32")
        (tmp_path / "x.ckpt").write_bytes(field(1, field(1, b"w") + field(2, tensor)))
        with pytest.raises(StatesError, match=r"x\.ckpt: "):
            read_mindspore_checkpoint(tmp_path / "x.ckpt")
    write_mindspore_checkpoint(tmp_path / "x.ckpt", {"w": np.ones(2)})
    assert read_mindspore_checkpoint(tmp_path / "x.ckpt")["w"].tolist() == [1, 1]


@pytest.mark.usefixtures("little_memory")
@pytest.mark.parametrize("shape", [(2**45,), (2**62, 4), (-1,), (3,)])
def test_an_npz_whose_array_says_another_size_is_refused(shape: tuple[int, ...], tmp_path: Path) -> None:
    head = io.BytesIO()
    np.lib.format.write_array_header_1_0(head, {"descr": "<f4", "fortran_order": False, "shape": shape})
    with zipfile.ZipFile(tmp_path / "x.npz", "w") as file:
        file.writestr("w.npy", head.getvalue() + bytes(8))
    with pytest.raises(StatesError, match=r"x\.npz: "):
        read_npz(tmp_path / "x.npz")


def test_a_dtype_that_numpy_has_not_is_refused(tmp_path: Path) -> None:
    header = json.dumps({"w": {"dtype": "F8_E4M3", "shape": [2], "data_offsets": [0, 2]}}).encode()
    (tmp_path / "x.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + bytes(2))
    with pytest.raises(StatesError, match=r"x\.safetensors: .*float8"):
        read_safetensors(tmp_path / "x.safetensors")


def test_a_pickle_keeps_what_it_holds_as_it_is() -> None:
    content = {
        0: [1, -(2**70), 2.5, None, True, "text", b"bytes"],
        "a": ((), (1,), (1, 2), (1, 2, 3), (1, 2, 3, 4)),
        b"b": {},
    }
    for protocol in range(2, 6):
        assert read_pickle(pickle.dumps(content, protocol)) == content
    with pytest.raises(StatesError, match="a key is a tuple"):
        read_pickle(pickle.dumps({(1, 2): 3}, 4))
