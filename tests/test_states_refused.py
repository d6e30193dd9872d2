"""What can't be saved states is refused, and the updater is as before."""

from __future__ import annotations

import hashlib
import pickle
import struct
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st
from msgpack import ExtType, Timestamp, packb as pack

import mxopt
from mxopt.document import MAGIC, PREFIX, VERSION, dump_document, load_document
from mxopt.errors import StatesError
from mxopt.optimizer.states import load


def sealed(header: bytes, data: bytes = b"", version: int = VERSION) -> bytes:
    """A document whose prefix and checksum are right, whatever is in it."""
    digest = hashlib.sha256(struct.pack("<Q", len(header)) + header + data).digest()
    return PREFIX.pack(MAGIC, version, len(header), digest) + header + data


def assert_refused(document: bytes, match: str | None = None) -> None:
    """`set_states` raises StatesError, and the updater is as before."""
    updater = mxopt.get_updater(mxopt.create("adam"))
    weight = np.ones(3, np.float32)
    updater(0, weight.copy(), weight)
    before = updater.get_states(dump_optimizer=True), updater.optimizer, updater.states[0], dict(updater.states_synced)
    with pytest.raises(StatesError, match=match):
        updater.set_states(document)
    assert updater.get_states(dump_optimizer=True) == before[0]
    assert updater.optimizer is before[1]
    assert updater.states[0] is before[2]
    assert updater.states_synced == before[3]


# The entries of an updater's document without states, as the format writes them.
EMPTY: dict[str, Any] = {
    "states": ["dict", []], "kind": ["dict", []], "parameters": ["dict", []], "complete": False,
    "counts": ["dict", [["num_update", 0], ["devices", ["dict", []]]]], "optimizer": None,
}  # fmt: skip


def small_document(optimizer: bool = True) -> bytes:
    updater = mxopt.get_updater(mxopt.create("sgd", momentum=0.5))
    updater("w", np.ones(2, np.float32), np.ones(2, np.float32))
    return updater.get_states(dump_optimizer=optimizer)


def test_any_truncation() -> None:
    document = small_document()
    for length in range(len(document)):
        assert_refused(document[:length])
    assert_refused(document + b"\0", "damaged")


def test_any_flipped_bit() -> None:
    document = small_document()
    for at in range(len(document)):
        for bit in range(8):
            with pytest.raises(StatesError):
                load(document[:at] + bytes([document[at] ^ 1 << bit]) + document[at + 1 :])
    assert_refused(document[:-1] + bytes([document[-1] ^ 1]), "checksum")


def test_another_version() -> None:
    assert_refused(sealed(b"\x80", version=3), "format version 3, this mxopt reads version 2")
    assert_refused(sealed(b"\x80", version=1), "format version 1, .* the mxopt that wrote them can go on")


def test_a_pickle() -> None:
    says = "looks like a pickle: mxopt.migrate.read_mxnet_states"
    for protocol in range(2, pickle.HIGHEST_PROTOCOL + 1):
        assert_refused(pickle.dumps({0: np.ones(100)}, protocol=protocol), says)


@pytest.mark.parametrize("length", [2**32, 2**63, 2**64 - 1])
def test_a_huge_claimed_header(length: int) -> None:
    assert_refused(PREFIX.pack(MAGIC, VERSION, length, bytes(32)) + b"\x80" * 1000, "cut off")


@pytest.mark.parametrize(
    "described",
    [
        [["float32", [2**30]]],
        [["float32", [2**40, 2**40]]],
        [["float32", [0, 2**70]]],
        [["float32", [-1]]],
        [["float32", [1.5]]],
        [["float32", [1] * 100]],
        [["object", [1]]],
        [["int32", [1]]],
        [[["float32"], [1]]],
        [["float32"]],
        ["float32"],
        [5],
        5,
        {},
    ],
)
def test_impossible_arrays(described: Any) -> None:
    try:
        header = pack({"content": ["dict", []], "arrays": described})
    except OverflowError:
        header = pack({"content": ["dict", []], "arrays": [["float32", [0, 2**63]]]})
    assert_refused(sealed(header, bytes(4)))


@pytest.mark.parametrize("tree", [["bytes", 0], ["array", 1]])
def test_bytes_where_an_array_belongs_and_the_other_way_round(tree: Any) -> None:
    header = pack({"content": ["dict", [["x", tree]]], "arrays": [["float32", [1]], ["uint8", [4]]]})
    assert_refused(sealed(header, bytes(8)), "where")


@pytest.mark.parametrize(
    "content",
    [
        ExtType(5, b"x"), Timestamp(1), None, 5, "text", [], ["dict"],
        ["dict", 5], ["dict", [1]], ["dict", [[["list", []], 1]]], ["set", []],
        ["dict", [["states", 1], ["states", 1]]],
        ["array", 0], ["array", -1], ["array", 10**9], ["array", "x"], {"a": 1}, ["tuple", []],
        ["dict", [["states", 1]]], ["dict", [["states", ExtType(5, b"x")], ["counts", None], ["optimizer", None]]],
        ["dict", [["states", ["dict", []]], ["counts", None], ["optimizer", None]]],
        ["dict", [["states", ["dict", []]], ["counts", ["dict", [["num_update", 1]]]], ["optimizer", None]]],
        ["dict", [["states", ["list", []]], ["counts", ["dict", []]], ["optimizer", None]]],
        *(["dict", [[k, wrong if k == what else v] for k, v in EMPTY.items()]] for what in EMPTY for wrong in (5, "x")
          if what != "complete"),
        *(["dict", [[k, ["dict", [[0, wrong]]] if k == "parameters" else v] for k, v in EMPTY.items()]]
          for wrong in (5, ["tuple", [None, None]], ["tuple", [5, None, None]], ["tuple", [None, "x", None]],
                        ["tuple", [None, None, 5]])),
    ],
)  # fmt: skip
def test_headers_that_mean_nothing(content: Any) -> None:
    assert_refused(sealed(pack({"content": content, "arrays": []})))


def test_message_pack_bombs() -> None:
    """Deep nests and claimed lengths, sealed by somebody who knows the format, take neither memory
    nor time."""
    code = """
import sys; sys.path[:0] = {path!r}
import resource, time
from pathlib import Path
import test_states_refused as t
from mxopt.errors import StatesError
from mxopt.optimizer.states import load
resource.setrlimit(resource.RLIMIT_AS, (6 << 30, 6 << 30))
begin = time.monotonic()
for header in (
    b"\\x91" * 100_000, b"\\x81\\xa1a" * 100_000, b"\\xdd\\xff\\xff\\xff\\xff", b"\\xdf\\xff\\xff\\xff\\xff\\xc0",
    b"\\xdd\\x00\\x0f\\xff\\xff" * 200_000, b"\\xc6\\xff\\xff\\xff\\xff", b"\\xdb\\xff\\xff\\xff\\xff",
):
    try:
        load(t.sealed(header))
    except StatesError:
        continue
    raise SystemExit("not refused")
status = Path("/proc/self/status").read_text() if Path("/proc/self/status").exists() else "VmHWM: 0"
assert int(status.split("VmHWM:")[1].split()[0]) < 700_000  # KiB
assert time.monotonic() - begin < 10
"""
    path = [str(Path(__file__).parent), str(Path(__file__).parent.parent)]
    subprocess.run([sys.executable, "-c", code.format(path=path)], check=True)


@settings(deadline=None, print_blob=True)
@given(st.binary(max_size=300))
def test_random_bytes(document: bytes) -> None:
    with pytest.raises(StatesError):
        load(document)


@settings(deadline=None, print_blob=True)
@given(st.binary(max_size=100), st.binary(max_size=20))
def test_random_bytes_under_a_right_checksum(header: bytes, data: bytes) -> None:
    with pytest.raises(StatesError):
        load(sealed(header, data))


anything = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**64 - 1)
    | st.floats()
    | st.text(max_size=5)
    | st.binary(max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.tuples(st.sampled_from(["dict", "list", "tuple", "array"]), inner).map(list)
        | st.dictionaries(st.text(max_size=5), inner, max_size=3)
    ),
)


@settings(deadline=None, print_blob=True)
@given(anything, anything, st.just(["dict", []]) | anything)
def test_random_counts_and_optimizers_under_a_right_checksum(counts: Any, optimizer: Any, parameters: Any) -> None:
    entries = [["states", ["dict", []]], ["counts", counts], ["optimizer", optimizer], ["complete", True]]
    entries += [["kind", ["dict", [["optimizer", "LARS"]]]], ["parameters", parameters]]
    document = sealed(pack({"content": ["dict", entries], "arrays": []}))
    updater = mxopt.get_updater(mxopt.create("lars", momentum=0.5))
    before = updater.get_states(dump_optimizer=True)
    try:
        updater.set_states(document)
    except StatesError:
        assert updater.get_states(dump_optimizer=True) == before


def test_what_is_nested_too_deep_is_neither_saved_nor_read() -> None:
    deep: Any = 1
    for _ in range(64):
        deep = (deep,)
    assert load_document(dump_document({"x": deep[0]})) == {"x": deep[0]}
    with pytest.raises(StatesError, match="64 deep"):
        dump_document({"x": deep})
    tree: Any = 1
    for _ in range(65):
        tree = ["tuple", [tree]]
    with pytest.raises(StatesError, match="64 deep"):
        load_document(sealed(pack({"content": ["dict", [["x", tree]]], "arrays": []})))
    with pytest.raises(StatesError, match="too deep"):
        load_document(sealed(b"\x91" * 10_000))


@pytest.mark.parametrize(
    ("where", "wrong"),
    [
        (("kind", "rule"), np.ones(2, np.float32)),
        (("counts", "devices"), {0: {0: -1}}),
        (("counts", "num_update"), -1),
        (("optimizer", "arguments", "learning_rate"), "x"),
        (("optimizer", "lr_mult"), [(0, "x")]),
        (("optimizer", "wd_mult"), [(0, None)]),
        (("optimizer", "scheduler", "assigned"), ["x", 0]),
    ],
)
def test_values_that_no_update_could_use_are_refused_at_the_load(where: tuple[str, ...], wrong: Any) -> None:
    schedule = mxopt.lr_scheduler.FactorScheduler(2, 0.5, base_lr=0.1)
    updater = mxopt.get_updater(mxopt.create("sgd", lr_scheduler=schedule))
    updater(0, np.ones(2, np.float32), np.ones(2, np.float32))
    before = updater.get_states(dump_optimizer=True)
    content = inner = load_document(before)
    for key in where[:-1]:
        inner = inner[key]
    inner[where[-1]] = wrong
    with pytest.raises(StatesError):
        updater.set_states(dump_document(content))
    assert updater.get_states(dump_optimizer=True) == before


def test_what_is_no_document_is_no_state_of_the_families_optimizers() -> None:
    weight = np.ones((2, 2), np.float32)
    for optimizer in (
        mxopt.experimental.optim.Adam([weight]), mxopt.nn.Adam([weight]), mxopt.nn.ASGD([weight]),
        mxopt.nn.LARS(mxopt.nn.Momentum([weight], 0.1, 0.9)),
    ):  # fmt: skip
        wrong: Any
        for wrong in (None, 7, "x", [], np.ones(3)):
            with pytest.raises(StatesError):
                optimizer.load_state_dict(wrong)
