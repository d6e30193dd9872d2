"""What workers contribute to rounds, as a server takes it apart."""

from __future__ import annotations

import numpy as np
from mxopt_server.contributions import Contribution, PushedRows
from mxopt_server.entries import Entry, cut


def test_rows_that_came_in_several_messages_are_joined_once_for_all_parts() -> None:
    width = 1 << 16
    entry = Entry("w", "float32", (32, width), (32, width), 0, 0)
    for piece in range(entry.pieces):
        entry.add(np.zeros(entry.size_of(piece), np.float32))
    indices = np.arange(0, 32, 3)
    rows = np.arange(len(indices), dtype=np.float32)[:, None] * np.ones(width, np.float32)
    pushed = Contribution(0, 1, PushedRows([rows[:4], rows[4:5], rows[5:]], indices, (32, width)), None, 0)
    found = [cut(pushed, slice(0), part, False).value for part in entry.parts]
    assert len(found) == entry.pieces == 8
    assert [value.indices.tolist() for value in found[:3]] == [[0, 3], [2], [1]]
    assert np.array_equal(np.concatenate([value.joined().data for value in found]), rows)
    whole = pushed.value.joined().data
    assert all(np.shares_memory(whole, value.joined().data) for value in found)
