"""First values of several keys in one message."""

from __future__ import annotations

import numpy as np
import pytest
from peer import Disk, Peer, init

from mxopt.kvstore import messages as m, wire
from mxopt.kvstore.exchange import NAMES, plan
from mxopt.kvstore.held import Held

VALUES = np.arange(5, dtype=np.float32)


def several(seq: int, keys: list[str], shapes: list[list[int]], data: bytes = VALUES.tobytes()) -> m.Init:
    return m.Init(seq, list(keys), "float32", shapes, shapes, 0, 0, 7, [data])


def test_keys_of_one_message_have_their_own_values_and_its_round() -> None:
    peer = Peer(journal=Disk())
    for _ in range(2):
        assert peer.ask(0, several(1, ["a", "b", "c"], [[2], [1, 2], [1]])) == m.Done(1)
        assert [peer.weight(key) for key in "abc"] == [[0, 1], [[2, 3]], [4]]
        assert peer.ask(0, m.Rounds(2, ["a", "b", "c"])).rounds == [7, 7, 7]
        peer.restart()


def test_keys_that_are_known_keep_what_is_here() -> None:
    peer = Peer()
    peer.ask(0, init(1, "b"))
    assert peer.ask(0, several(2, ["a", "b", "c"], [[2], [2], [1]])) == m.Done(2)
    assert [peer.weight(key) for key in "abc"] == [[0, 1], [0, 0], [4]]


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (several(2, ["a", "w", "c"], [[2], [1, 2], [1]]), "key 'w' is initialised on server 0 as float32 of shape"),
        (several(2, ["a", "b", "a"], [[2], [2], [1]]), "names each of its keys once"),
        (several(2, ["a", "b"], [[2], [2], [1]]), "with both shapes"),
        (several(2, ["a", "b"], [[2], [2]]), "16 bytes are needed, 20 came"),
        (several(2, ["a", "b"], [[2], [1 << 20]]), "key 'b' has 4 pieces, which travel one by one"),
        (several(2, ["a", "b"], [[2], []]), "key 'b': no part of"),
    ],
    ids=["another shape", "twice", "shapes", "bytes", "pieces", "no shape"],
)
def test_where_one_key_is_wrong_none_has_begun(message: m.Init, text: str) -> None:
    peer = Peer()
    peer.ask(0, init(1))
    assert text in peer.ask(0, message).text
    assert list(peer.server.values.entries) == ["w"]


def test_a_message_with_first_values_is_bounded_however_many_keys_there_are() -> None:
    held = Held(1, 1 << 20)
    names = [f"{'block.' * 40}{k}" for k in range(5000)]
    for values in (np.zeros((1,) * 32, np.float32), np.zeros(5000, np.float32)):
        for item in plan([held.info(name, values, False) for name in names], shapes=True):
            shapes = [list(info.shape) for info in item.infos]
            message = m.Init(1, item.keys, "float32", shapes, shapes, 0, 0, 0, [bytes(item.nbytes)])
            assert item.nbytes <= wire.PIECE_BYTES
            assert len(m.encode(message)[0]) <= NAMES + wire.SMALL
