"""The wire protocol: golden frames, and what is no message."""

from __future__ import annotations

import contextlib
import re
from pathlib import Path

import pytest
from golden import GOLDEN
from hypothesis import given, settings, strategies as st

from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.message import Message
from mxopt.plain import pack


@pytest.mark.parametrize(
    ("message", "frames"), GOLDEN, ids=lambda x: type(x).__name__ if not isinstance(x, list) else ""
)
def test_golden_frames(message: Message, frames: list[str]) -> None:
    assert [bytes(f).hex() for f in m.encode(message)] == frames
    assert m.decode([bytes.fromhex(f) for f in frames]) == message


def test_every_kind_of_message_has_golden_frames() -> None:
    assert {type(message) for message, _ in GOLDEN} == set(m.KINDS.values())


def test_the_page_of_the_protocol_has_every_message_with_its_fields_in_their_order() -> None:
    page = (Path(__file__).parents[2] / "docs" / "protocol.md").read_text()
    rows = [line.split(" | ") for line in page.splitlines() if re.match(r"\| \d+ \| [A-Z]", line)]
    assert [int(row[0].strip("| ")) for row in rows] == sorted(map(int, m.KINDS))  # type: ignore[arg-type]
    for number, name, fields, *_ in rows:
        kind = m.KINDS[int(number.strip("| "))]
        own = [field for field in kind.__struct_fields__ if field != "data"]
        if "seq" in own and own[-1] == "read":
            own.pop()  # as the page says of all
        assert (name, re.findall(r"(\w+) \*[^*]+\*", fields)) == (kind.__name__, own)


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
        ([pack([26, 1, [], 1])], "has 1 array, 0 came"),
        ([pack([26, 1, [], 2]), b"", b""], "has 1 array, 2 came"),
        ([pack([26, 1, [], [b"", b""]])], "has 1 array, 2 came"),
        ([pack([22, 1, [1], "object", [[1]], [[1]], 0, 1, 0, [b""]])], "Invalid enum value 'object'"),
        ([pack([22, 1, [1], "float32", [[-1]], [[1]], 0, 1, 0, [b""]])], ">= 0"),
        ([b"\xdd\xff\xff\xff\xff"], "exceeds"),
        ([b"\x92\x0c" + b"\x91" * 9999], "too deep"),
        ([b"\x92\x0c\x81\xa1x" + b"\x91" * 9999], "too deep"),
        ([b"\x92\x0c\x81\xa1x" + b"\x91" * 16 + b"\x00"], "more than 16 deep"),
        ([b"\x92\x0c\xc7\x01\x05x"], "max_ext_len"),
        ([b"\x92\x0c\xd6\xff\x00\x00\x00\x00"], "max_ext_len"),
        ([pack([26, 1, [], ["QUJD"]])], "Values has bytes as arrays"),
        ([b"\x96\x06\xa0\x00\xa0\x01\x81\xc2\x01"], "type bool as a map's key"),
        ([b"x" * (wire.MAX_HEADER + 1)], "limit"),
    ],
)
def test_what_is_no_message_is_refused(frames: list[bytes], why: str) -> None:
    with pytest.raises(ProtocolError, match=why):
        m.decode(frames)


ATOMS = st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats() | st.text(max_size=3) | st.binary(max_size=9)
ANY = st.recursive(ATOMS, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=2))
HEADERS = st.binary(max_size=60) | st.builds(
    lambda kind, fields: pack([kind, *fields]), st.integers(0, 35), st.lists(ANY, max_size=11)
)


@given(HEADERS, st.lists(st.binary(max_size=9), max_size=3))
@settings(max_examples=500, deadline=None)
def test_decoding_is_total(header: list[object], frames: list[str]) -> None:
    with contextlib.suppress(ProtocolError):
        message = m.decode([header, *frames])
        assert m.decode(m.encode(message)) == message
