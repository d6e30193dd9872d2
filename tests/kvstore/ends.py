"""How the workers of `test_ends.py` end; see `workers.py`."""

from __future__ import annotations

import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import numpy as np
from workers import make

from mxopt import kvstore
from mxopt.errors import KVStoreError, MXOptError


def rounds(store: Any, steps: int) -> list[float]:
    out = np.zeros(4, np.float32)
    for _ in range(steps):
        store.pushpull("w", np.ones(4, np.float32), out=out)
    return out.tolist()


def started(store: Any) -> Any:
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    store.init("w", np.zeros(4, np.float32))
    return store


def after_an_error(arguments: Any) -> None:
    """An error is shown, and the session goes on, as in a notebook."""
    store = started(kvstore.create("dist_sync"))
    try:
        raise ValueError("shown to a person")
    except ValueError as error:
        sys.last_value = error
    assert rounds(store, 2) == [-2] * 4


def one_raises(arguments: Any) -> None:
    """Worker 0 raises; the other, which catches what it hears of it, ends after a push that nobody
    takes."""
    store = started(kvstore.create("dist_sync"))
    try:
        rounds(store, 1)  # which the other may hear of in this round already
        if store.rank == 0:
            raise RuntimeError("this worker raises")
        rounds(store, 1)
    except MXOptError as error:
        print("CAUGHT", error, flush=True)


def pushes_last(arguments: dict[str, Any]) -> None:
    """Ends right after a push, once it is told to."""
    store = started(kvstore.create("dist_async"))
    rounds(store, 1)
    print("READY", flush=True)
    while not Path(arguments["go"]).exists():
        store._worker.member.check()
    store.push("w", np.ones(4, np.float32))


def forks(arguments: Any) -> None:
    """A forked child can't use the store, and ends without a word to the job."""
    store = started(kvstore.create("dist_sync"))
    rounds(store, 1)
    reader, writer = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            rounds(store, 1)
        except Exception as error:
            os.write(writer, str(error).encode())
        store.close()
        sys.exit(0)
    os.close(writer)
    assert "forked" in os.read(reader, 1000).decode()
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
    assert rounds(store, 1) == [-2] * 4


def ends_at_once(arguments: Any) -> None:
    """Ends right after 400 MB of pushes; another worker sees whether all were applied."""
    store = kvstore.create("dist_async")
    store.set_optimizer(make("sgd", {"learning_rate": -1.0}))
    size = 5_000_000
    store.init("w", np.zeros(size, np.float32))
    if store.rank == 0:
        for _ in range(20):
            store.push("w", np.ones(size, np.float32))
        return
    out = np.zeros(size, np.float32)
    while 0 not in store._worker.member.pulse.ended:
        store.pull("w", out)
    store.pull("w", out)
    assert set(out.tolist()) == {20}


def interrupted(arguments: dict[str, Any]) -> str:
    """Ctrl-C at some moment within a call of many pieces, which counts as a whole then or not at
    all; or the store is closed. Returns what the next call says of that, "" where it works."""
    store = kvstore.create("dist_sync")
    store.set_optimizer(make("sgd", {"learning_rate": 1.0}))
    weight, grad = np.zeros(8_000_000, np.float32), np.ones(8_000_000, np.float32)
    store.init("w", weight)
    store.pushpull("w", grad, out=weight)
    timer = threading.Timer(arguments["after"], os.kill, (os.getpid(), signal.SIGINT))
    steps = 1
    try:
        timer.start()
        while True:
            if arguments["call"] == "pull":
                store.pull("w", weight)
            elif arguments["call"] == "push":
                store.push("w", grad)
            else:
                store.pushpull("w", grad, out=weight)
            steps += arguments["call"] != "pull"
    except KeyboardInterrupt:
        pass
    try:
        store.pull("w", weight)
    except KVStoreError as error:
        return str(error)
    assert {-round(x) - steps for x in set(weight.tolist())} in ({0}, {1})  # the call that was interrupted
    return ""
