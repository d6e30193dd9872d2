"""The wire protocol: golden frames, what is refused, and pushes applied exactly once."""

from __future__ import annotations

import contextlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from msgspec.msgpack import encode as pack
from mxopt_server import snapshot
from mxopt_server.server import Server

import mxopt
from mxopt.errors import ProtocolError
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.optimizer.config import optimizer_config

ONES = np.ones(2, np.float32).tobytes()
LARGE = b"\xab" * wire.SMALL  # a frame of its own

GOLDEN = [
    (m.Join(1, "j", "worker", -1, 2, 1, "", "ab", "me"), ["9a0101a16aa6776f726b6572ff0201a0a26162a26d65"]),
    (m.Hello(1, "j", 0, "ab", 2, "sync", 4, 1), ["991401a16a00a2616202a473796e630401"]),
    (m.Init(2, "w", "float32", [2], [2], 0, 9, 0, [ONES]),
     ["9a1602a177a7666c6f617433329102910200" + "0900" + "91c4080000803f0000803f"]),
    (m.Push(3, True, [7, 8], 0, 0, 0.5, 0, None, [ONES]),
     ["9a1803c392070800" + "00cb3fe000000000000000c0" + "91c4080000803f0000803f"]),
    (m.Pull(4, ["w"], 1), ["94190491a17701"]),
    (m.Values(4, 0, [ONES]), ["941a0400" + "91c4080000803f0000803f"]),
    (m.Values(4, 0, [LARGE]), ["941a0400" + "01", "ab" * 32768]),
    (m.PushRows(4, "w", True, 0, None, [LARGE, ONES]),
     ["971b04a177c300c0" + "02", "ab" * 32768, "0000803f0000803f"]),
    (m.Done(5, 3), ["93170503"]),
    (m.Refused(5, "KVStoreError", "no", "w"), ["950a05ac4b5653746f72654572726f72a26e6fa177"]),
]  # fmt: skip


@pytest.mark.parametrize(
    ("message", "frames"), GOLDEN, ids=lambda x: type(x).__name__ if not isinstance(x, list) else ""
)
def test_golden_frames(message, frames):
    assert [bytes(f).hex() for f in m.encode(message)] == frames
    assert m.decode([bytes.fromhex(f) for f in frames]) == message


@pytest.mark.parametrize(
    ("frames", "why"),
    [
        ([], "without a header"),
        ([b"\xc1"], "malformed"),
        ([b"\x81\x01\x02"], "Expected `array`"),
        ([pack([99])], "Invalid value 99"),
        ([pack([True])], "Expected `int`, got `bool`"),
        ([pack([25, 1, [1]])], "length 4, got 3"),
        ([pack([25, 1, [1], 0, 0])], "at most length"),
        ([pack([25, -1, [1], 0])], r">= 0 - at `\$\[1\]"),
        ([pack([25, 2**63, [1], 0])], r"<= 9223372036854775807 - at `\$\[1\]"),
        ([pack([25, 1, [], 0])], r"length >= 1 - at `\$\[2\]"),
        ([pack([25, 1, [1.5], 0])], "Expected `int | str`"),
        ([pack([25, 1, ["x" * 4097], 0])], "length <= 4096"),
        ([pack([24, 1, True, [1], 0, 1, float("nan"), 0, None, [b""]])], "Expected `float`"),
        ([pack([24, 1, True, [1], 0, 1, float("inf"), 0, None, [b""]])], "Expected `float`"),
        ([pack([25, 1, [1], 0]), b""], "announced 0 frames, 1 came"),
        ([pack([26, 1, 0, 1])], "has 1 arrays, 0 came"),
        ([pack([26, 1, 0, 2]), b"", b""], "has 1 arrays, 2 came"),
        ([pack([26, 1, 0, [b"", b""]])], "has 1 arrays, 2 came"),
        ([pack([22, 1, 1, "object", [1], [1], 0, 1, 0, [b""]])], "Invalid enum value 'object'"),
        ([pack([22, 1, 1, "float32", [-1], [1], 0, 1, 0, [b""]])], ">= 0"),
        ([b"\xdd\xff\xff\xff\xff"], "truncated"),
        ([b"\x92\x0c" + b"\x91" * 9999], "Expected `object`"),
        ([b"\x92\x0c\x81\xa1x" + b"\x91" * 9999], "recursion"),
        ([b"x" * (wire.MAX_HEADER + 1)], "limit"),
    ],
)
def test_what_is_no_message_is_refused(frames, why):
    with pytest.raises(ProtocolError, match=why):
        m.decode(frames)


PLAIN = st.none() | st.booleans() | st.integers(-5, 2**63) | st.floats() | st.text(max_size=3) | st.binary(max_size=9)
ANY = st.recursive(PLAIN, lambda x: st.lists(x, max_size=3) | st.dictionaries(st.text(max_size=2), x, max_size=2))
HEADERS = st.binary(max_size=60) | st.builds(
    lambda kind, fields: pack([kind, *fields]), st.integers(0, 33), st.lists(ANY, max_size=11)
)


@given(HEADERS, st.lists(st.binary(max_size=9), max_size=3))
@settings(max_examples=500, deadline=None)
def test_decoding_is_total(header, frames):
    with contextlib.suppress(ProtocolError):
        message = m.decode([header, *frames])
        assert m.decode(m.encode(message)) == message


class Peer:
    """A server without sockets, and what it answers."""

    def __init__(self, workers: int = 1, mode: str = "sync") -> None:
        self.sent: list[tuple[bytes, object]] = []
        self.server = Server(lambda route, message: self.sent.append((route, message)), "job", 0, workers)
        self.mode, self.workers = mode, workers
        for rank in range(workers):
            self.hello(rank)

    def hello(self, rank: int, incarnation: str = "i", oldest: int = 1, **changes: object) -> object:
        fields = {"version": 1, "job": "job", "workers": self.workers, "mode": self.mode} | changes
        return self.ask(
            rank,
            m.Hello(
                fields["version"],
                fields["job"],
                rank,
                f"{incarnation}{rank}",
                fields["workers"],
                fields["mode"],
                1,
                oldest,
            ),
        )

    def ask(self, rank: int, message: object) -> object:
        """The last answer to rank, once it has sent a message."""
        self.server.handle(b"route%d" % rank, [bytes(f) for f in m.encode(message)])
        answers = [x for route, x in self.sent if route == b"route%d" % rank]
        self.sent = []
        return answers[-1] if answers else None

    def weight(self, key: object = "w") -> list[float]:
        return self.server.table.entries[key].weight.tolist()


def init(seq: int, key: object = "w") -> m.Init:
    return m.Init(seq, key, "float32", [2], [2], 0, 9, 0, [np.zeros(2, np.float32).tobytes()])


def push(seq: int, answer: bool = True, value: float = 1, keys: tuple[object, ...] = ("w",)) -> m.Push:
    data = np.full(2 * len(keys), value, np.float32).tobytes()
    return m.Push(seq, answer, list(keys), 0, 0, 0.0, 0, None, [data])


def with_sgd(peer: Peer) -> Peer:
    config = optimizer_config(mxopt.create("sgd", learning_rate=1.0))
    assert isinstance(peer.ask(0, m.SetOptimizer(1, 1, config)), m.Done)
    assert isinstance(peer.ask(0, init(2)), m.Done)
    return peer


def test_a_push_that_comes_twice_is_applied_once():
    peer = with_sgd(Peer(mode="async"))
    first, again = peer.ask(0, push(3)), peer.ask(0, push(3))
    assert first == again
    assert peer.weight() == [-1, -1]


def test_a_push_that_comes_too_early_is_asked_for_again_in_order():
    peer = with_sgd(Peer(mode="async"))
    assert peer.ask(0, push(4)) == m.Ready(0, peer.server.incarnation, 3, 0)
    assert peer.weight() == [0, 0]
    peer.ask(0, push(3))
    peer.ask(0, push(4))
    assert peer.weight() == [-2, -2]


def test_a_repeated_push_of_an_open_round_is_answered_when_it_is_complete():
    peer = with_sgd(Peer(2))
    assert peer.ask(0, push(3)) is None
    assert peer.ask(0, push(3)) is None
    peer.server.handle(b"route1", [bytes(f) for f in m.encode(push(1, value=2))])
    assert sorted(type(x).__name__ for _, x in peer.sent) == ["Values", "Values"]
    assert peer.weight() == [-3, -3]


def test_a_round_counts_workers_and_not_pushes():
    peer = with_sgd(Peer(2))
    for seq in (3, 4, 5):
        assert isinstance(peer.ask(0, push(seq, answer=False)), m.Done)
    assert peer.weight() == [0, 0]
    peer.ask(1, push(1, answer=False, value=10))
    assert peer.weight() == [-11, -11]


def test_a_replaced_worker_is_refused():
    peer = with_sgd(Peer(mode="async"))
    peer.server.handle(b"new", [bytes(f) for f in m.encode(m.Hello(1, "job", 0, "other", 1, "async", 1, 1))])
    assert peer.ask(0, push(3)).code == "ProtocolError"
    assert "replaced" in peer.hello(0).text
    assert peer.weight() == [0, 0]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 2}, "version 2"),
        ({"job": "old"}, "belongs to job"),
        ({"workers": 3}, "has 1 workers"),
        ({"mode": "async"}, "dist_"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes, text):
    assert text in Peer().hello(0, **changes).text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (push(3, keys=("x",)), "'x' has not been initialised"),
        (m.Push(3, True, ["w"], 0, 0, 0.0, 0, None, [b"123"]), "3 came"),
        (m.Push(3, True, ["w"], 7, 0, 0.0, 0, None, [ONES]), "no piece 7"),
        (m.Push(3, True, ["w"], 0, 9, 0.0, 0, None, [ONES]), "no codec 9"),
        (push(3, keys=("w", "w")), "twice"),
        (m.Init(3, "w", "float32", [3], [3], 0, 9, 0, [ONES]), "'w' is initialised"),
        (m.Init(3, "v", "float32", [1 << 60], [1 << 60], 0, 1 << 60, 0, [ONES]), "8 came"),
        (m.PushRows(3, "w", True, 0, None, [np.array([2]).tobytes(), ONES[:4]]), "ascend"),
        (m.PullRows(3, "w", [np.array([-1]).tobytes()]), "row ids"),
        (m.StoreStates(3, 1, "w", 5, 9, [b"x"]), "from byte 5"),
        (m.SetOptimizer(3, 2, {"name": "nonsense"}), "can't be made"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_name_and_the_server_goes_on(message, text):
    peer = with_sgd(Peer(mode="async"))
    answer = peer.ask(0, message)
    assert isinstance(answer, m.Refused)
    assert text in answer.text
    assert "server 0" in answer.text
    assert isinstance(peer.ask(0, push(4)), m.Values)
    assert peer.weight() == [-1, -1]


def test_grouping_keys_differently_gives_the_same_rounds():
    peer = Peer(2)
    for k, key in enumerate("abc"):
        peer.ask(0, init(1 + k, key))
    peer.ask(0, push(4, False, 1, ("a", "b", "c")))
    peer.ask(1, push(1, False, 10, ("b",)))
    assert [peer.weight(k) for k in "abc"] == [[0, 0], [11, 11], [0, 0]]
    peer.ask(1, push(2, False, 20, ("a", "c")))
    assert [peer.weight(k) for k in "abc"] == [[21, 21], [11, 11], [21, 21]]
    peer.ask(0, push(5, False, 5, ("a", "b", "c")))
    answer = peer.ask(1, push(3, True, 6, ("a", "b", "c")))
    assert np.frombuffer(answer.data[0], np.float32).tolist() == [11] * 6


def test_a_snapshot_has_open_rounds_and_sequence_numbers(tmp_path):
    peer = with_sgd(Peer(2))
    peer.ask(0, push(3, False))
    snapshot.save(peer.server, tmp_path / "s")
    new = Peer(2)
    new.server = Server(new.server._send, "job", 0, 2)
    assert snapshot.restore(new.server, tmp_path / "s")
    assert new.hello(0, oldest=3).expects == 4
    assert new.hello(1).expects == 1
    assert isinstance(new.ask(0, push(3, False)), m.Done)  # known already: not applied again
    new.ask(1, push(1, False, 2))
    assert new.weight() == [-3, -3]


def test_a_failed_snapshot_leaves_the_old_one_and_the_server_running(tmp_path, monkeypatch):
    from mxopt_server.attached import Attached

    peer = with_sgd(Peer(mode="async"))
    attached = Attached(peer.server, tmp_path / "s", 1, None)
    attached.save()
    before = (tmp_path / "s").read_bytes()

    def full(*_: object) -> None:
        raise OSError(28, "No space left on device")

    peer.ask(0, push(3))
    monkeypatch.setattr("mxopt.document.os.fsync", full)
    attached.save()
    assert (tmp_path / "s").read_bytes() == before
    assert isinstance(peer.ask(0, push(4)), m.Values)
