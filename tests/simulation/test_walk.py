"""The way of a small push: from the call of the store to the weight, and of the answer back."""

from __future__ import annotations

import re
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from itertools import groupby
from pathlib import Path
from types import FrameType
from typing import Any

import numpy as np
import pytest
from mxopt_server.server import Server
from simulation.jobs import Job, Plan

import mxopt
from mxopt.kvstore import messages as m

STORES = {"kvstore", "mxopt_server"}
MULTILINE_DOT = re.MULTILINE | re.DOTALL


@contextmanager
def walking(way: list[str]) -> Iterator[None]:
    """Notes in `way` through which files of stores and servers the calls of this thread go, one
    after the other."""

    def watch(frame: FrameType, event: str, _: object) -> None:
        path = Path(frame.f_code.co_filename)
        if event == "call" and path.parent.name in STORES:
            way.append(path.name)

    sys.setprofile(watch)
    try:
        yield
    finally:
        sys.setprofile(None)


def ways(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """The files of one `pushpull`, in the worker and in the server."""
    found: dict[str, list[str]] = {"worker": [], "server": []}
    handle, walks = Server.handle, list[bool]()

    def handled(self: Server, route: bytes, frames: list[Any]) -> None:
        if walks and isinstance(m.decode(frames), m.Push):
            with walking(found["server"]):
                handle(self, route, frames)
        else:
            handle(self, route, frames)

    def program(store: Any, pause: Callable[[], None]) -> bytes:
        store.set_optimizer(mxopt.create("sgd", learning_rate=1.0))
        grad, out = np.ones(5, np.float32), np.zeros(5, np.float32)
        store.init("w", out)
        for _ in range(3):
            store.pushpull("w", grad, out)
        walks.append(True)
        with walking(found["worker"]):
            store.pushpull("w", grad, out)
        walks.clear()
        return out.tobytes()

    monkeypatch.setattr(Server, "handle", handled)
    job = Job(Plan("", "sync", 1, 1), program)
    job.run()
    assert [worker.result for worker in job.workers] == [np.full(5, -4, np.float32).tobytes()], job.workers[0].error
    return {where: [name for name, _ in groupby(way)] for where, way in found.items()}


@pytest.fixture(scope="module")
def walked() -> dict[str, list[str]]:
    with pytest.MonkeyPatch.context() as patch:
        return ways(patch)


@pytest.mark.parametrize(("where", "changes"), [("worker", 36), ("server", 13)])
def test_a_small_push_changes_files_no_oftener_than_it_does_today(
    where: str, changes: int, walked: dict[str, list[str]]
) -> None:
    """A change that needs one more raises the number here; a layer that only hands on isn't one."""
    assert len(walked[where]) - 1 <= changes, walked[where]


@pytest.mark.parametrize(("where", "steps"), [("worker", (1, 2, 3, 4, 11)), ("server", (5, 6, 7, 8, 9, 10))])
def test_the_page_names_the_files_of_a_push_in_their_order(
    where: str, steps: tuple[int, ...], walked: dict[str, list[str]]
) -> None:
    page = (Path(__file__).parents[2] / "docs" / "how-it-works.md").read_text()
    section = page.partition("## A push, from the call")[2].partition("\n## ")[0]
    told = {
        int(number): text for number, text in re.findall(r"^(\d+)\. (.*?)(?=^\d+\. |^\S|\Z)", section, MULTILINE_DOT)
    }
    names = [name for step in steps for name in re.findall(r"`(\w+\.py)`", told[step])]
    assert list(dict.fromkeys(names)) == list(dict.fromkeys(walked[where]))
