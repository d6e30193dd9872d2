"""The wire protocol: golden frames, and what is no message."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.plain import pack

ONES = np.ones(2, np.float32).tobytes()
LARGE = b"\xab" * wire.SMALL  # a frame of its own

GOLDEN = [
    (m.Join(1, "j", "worker", -1, 2, 1, "", "ab", "me"),
     ["9d0101a16aa6776f726b6572ff0201a0a26162a26d65a0a46e6f6e6590"]),
    (m.Hello(1, "j", 0, 3, "ab", 2, "sync", 4), ["9b1401a16a0003a2616202a473796e63040000"]),
    (m.Init(2, "w", "float32", [2], [2], 0, 0, [ONES]),
     ["9a1602a177a7666c6f617433329102910200" + "00" + "91c4080000803f0000803f" + "00"]),
    (m.InitTable(2, "t", "float32", [9, 1], 2, True, "uniform", 0.5, 3, 0, 2, [bytes(16), ONES]),
     ["9e2502a174a7666c6f6174333292090102c3" + "a7756e69666f726d" + "cb3fe0000000000000" + "030002"
      + "92c41000000000000000000000000000000000c4080000803f0000803f" + "00"]),
    (m.Push(3, True, [7, 8], 0, 5, 6, 0, 0.5, 0, 0, [ONES]),
     ["9d1803c39207080005" + "0600cb3fe00000000000000000" + "91c4080000803f0000803f" + "00"]),
    (m.Pull(4, ["w"], 1, 5, 6), ["97190491a17701050600"]),
    (m.Rounds(4, ["w"], [3]), ["95220491a177910300"]),
    (m.Present(4, [5], 6), ["942304910506"]),
    (m.Values(4, [ONES]), ["931a04" + "91c4080000803f0000803f"]),
    (m.Values(4, [LARGE]), ["931a04" + "01", "ab" * 32768]),
    (m.PushRows(4, "w", 5, 6, 0, 2, 0, 0, [LARGE, ONES]),
     ["9b1b04a177050600020000" + "0200", "ab" * 32768, "0000803f0000803f"]),
    (m.ListRows(4, "t", 5, 16, 6), ["972604a17405100600"]),
    (m.Done(5), ["93170500"]),
    (m.Refused(5, "KVStoreError", "no", "w"), ["950a05ac4b5653746f72654572726f72a26e6fa177"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "frames"), GOLDEN, ids=lambda x: type(x).__name__ if not isinstance(x, list) else ""
)
def test_golden_frames(message: m.Message, frames: list[bytes]) -> None:
    assert [bytes(f).hex() for f in m.encode(message)] == frames
    assert m.decode([bytes.fromhex(f) for f in frames]) == message


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "without a header"),
        ([b"\xc1"], "malformed"),
        ([b"\x81\x01\x02"], "begins with no message's number"),
        ([pack([99])], "no message's number"),
        ([pack([True])], "no message's number"),
        ([pack([25, 1, [1]])], "length 5, got 3"),
        ([pack([25, 1, [1], 0, 0, 0, 0, 0])], "at most length"),
        ([pack([25, -1, [1], 0, 1])], r">= 0 - at `\$\[1\]"),
        ([pack([25, 2**63, [1], 0, 1])], r"<= 9223372036854775807 - at `\$\[1\]"),
        ([pack([25, 1, [], 0, 1])], r"length >= 1 - at `\$\[2\]"),
        ([pack([25, 1, [1.5], 0, 1])], "Expected `int | str`"),
        ([pack([25, 1, ["x" * 4097], 0, 1])], "length <= 4096"),
        ([pack([24, 1, True, [1], 0, 1, 0, 1, float("nan"), 0, None, [b""]])], "Expected `float`"),
        ([pack([24, 1, True, [1], 0, 1, 0, 1, float("inf"), 0, None, [b""]])], "Expected `float`"),
        ([pack([25, 1, [1], 0, 1]), b""], "announced 0 frames, 1 came"),
        ([pack([26, 1, 1])], "has 1 array, 0 came"),
        ([pack([26, 1, 2]), b"", b""], "has 1 array, 2 came"),
        ([pack([26, 1, [b"", b""]])], "has 1 array, 2 came"),
        ([pack([22, 1, 1, "object", [1], [1], 0, 1, 0, [b""]])], "Invalid enum value 'object'"),
        ([pack([22, 1, 1, "float32", [-1], [1], 0, 1, 0, [b""]])], ">= 0"),
        ([b"\xdd\xff\xff\xff\xff"], "exceeds"),
        ([b"\x92\x0c" + b"\x91" * 9999], "too deep"),
        ([b"\x92\x0c\x81\xa1x" + b"\x91" * 9999], "too deep"),
        ([b"\x92\x0c\x81\xa1x" + b"\x91" * 16 + b"\x00"], "more than 16 deep"),
        ([b"\x92\x0c\xc7\x01\x05x"], "max_ext_len"),
        ([b"\x92\x0c\xd6\xff\x00\x00\x00\x00"], "max_ext_len"),
        ([pack([26, 1, ["QUJD"]])], "Values has bytes as arrays"),
        ([b"\x96\x06\xa0\x00\xa0\x01\x81\xc2\x01"], "type bool as a map's key"),
        ([b"x" * (wire.MAX_HEADER + 1)], "limit"),
    ],
)
def test_what_is_no_message_is_refused(frames: list[bytes], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        m.decode(frames)


PLAIN = st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats() | st.text(max_size=3) | st.binary(max_size=9)
ANY = st.recursive(PLAIN, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=2))
HEADERS = st.binary(max_size=60) | st.builds(
    lambda kind, fields: pack([kind, *fields]), st.integers(0, 35), st.lists(ANY, max_size=11)
)


@given(HEADERS, st.lists(st.binary(max_size=9), max_size=3))
@settings(max_examples=500, deadline=None)
def test_decoding_is_total(header: list[object], frames: list[bytes]) -> None:
    with contextlib.suppress(ProtocolError):
        message = m.decode([header, *frames])
        assert m.decode(m.encode(message)) == message
