"""Memory: an update allocates nothing of its weight's size, and states cost nothing before they are
used."""

from __future__ import annotations

import subprocess
import sys
import tracemalloc
import weakref
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from table import ROWS, Row

import mxopt
from mxopt.sparse import row_sparse_array

ELEMENTS = 3 << 18
ALLOWED = 2 << 20  # bytes; a float32 weight of this size has 3 MiB
SHAPE = (ELEMENTS // 64, 64)


def peak(update: Callable[[], Any]) -> int:
    """The most memory that Python and NumPy held at once during a call."""
    tracemalloc.start()
    try:
        update()
        return tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()


def sparse(dtype: str) -> Any:
    return row_sparse_array((np.ones((100, 64), dtype), np.arange(100) * 7), shape=SHAPE)


@pytest.mark.parametrize("row", {row.make().rule.name: row for row in ROWS}.values(), ids=str)
def test_no_update_allocates_what_its_weight_does(row: Row) -> None:
    for dtype, gradient in (("float32", "dense"), ("float16", "dense"), ("float32", "sparse"), ("float32", "strided")):
        optimizer = row.make(multi_precision=True)
        weight = np.zeros(SHAPE, dtype)
        grad = sparse(dtype) if gradient == "sparse" else np.zeros(SHAPE, dtype)
        if gradient == "strided":
            weight, grad = weight.T, grad.T
            if row.name == "groupadagrad":
                continue  # which the reference engine updates where the layout is unusual
        if gradient in ("sparse", "strided") and row.rules[0].by_matrix is not None:
            continue  # which is updated by way of dense copies then
        state = optimizer.create_state_multi_precision(0, weight)
        arguments = (0, weight, grad, state)
        listed = tuple([a] for a in arguments)
        for given in (arguments, arguments, listed, listed):  # while a plan is made, and when it is used
            assert peak(lambda o=optimizer, g=given: o.update_multi_precision(*g)) < ALLOWED, (dtype, gradient)  # type: ignore[misc]


def test_rows_are_looked_at_again_without_memory_of_their_own() -> None:
    """At each step a row-sparse gradient is new; a plan takes its indices, however many, in
    compiled code."""
    kinds = (
        Row("sgd", momentum=0.9),
        Row("adam", lazy_update=True),
        Row("adam", lazy_update=False),
        Row("groupadagrad"),
    )
    for row in kinds:
        updater, weight = mxopt.get_updater(row.make()), np.zeros(SHAPE, np.float32)
        grads = [
            row_sparse_array((np.ones((len(i), 64), np.float32), i), shape=SHAPE)
            for i in (np.arange(0, SHAPE[0], 2), np.arange(1, SHAPE[0]), np.arange(3))
        ]
        for grad in grads:
            updater(0, grad, weight)
        for grad in grads:
            assert peak(lambda g=grad, u=updater, w=weight: u(0, g, w)) < 5000, row  # type: ignore[misc]  # their indices are 48 KiB


IN_A_PROCESS_OF_ITS_OWN = """
import pathlib
import numpy as np, mxopt
from mxopt.sparse import row_sparse_array

MIB = 1 << 20

def memory(what):  # VmRSS: resident now; VmHWM: the most since `forget`
    lines = pathlib.Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith(what))

def forget():
    pathlib.Path("/proc/self/clear_refs").write_text("5")

def updates(n, dtype):
    weights = [np.ones(n, dtype) for _ in range(2)]
    grads = [np.ones(n, dtype) for _ in range(2)]
    for name in ("sgd", "adam", "lamb", "lbsgd"):
        updater = mxopt.get_updater(mxopt.create(name, multi_precision=True))
        for turn in range(3):
            forget()
            before = memory("VmRSS")
            updater(0, grads[0], weights[0])
            updater([0, 1], grads, weights)
        assert memory("VmHWM") - before < 2 * MIB, (name, dtype, (memory("VmHWM") - before) // MIB)

for dtype in ("float32", "float16"):
    updates(10, dtype)  # compiles
    updates(8 * MIB, dtype)

table = np.zeros((1 << 22, 64), np.float32)  # 1 GiB, of which no page is there yet
row = lambda k: row_sparse_array((np.ones((4, 64), np.float32), [0, 1, 5, k]), shape=table.shape)
small = np.zeros((10, 64), np.float32)
for name in ("sgd", "adam", "adagrad", "groupadagrad"):
    options = {"momentum": 0.9} if name == "sgd" else {}
    warm = mxopt.get_updater(mxopt.create(name, **options))
    warm(0, row_sparse_array((np.ones((4, 64), np.float32), [0, 1, 5, 9]), shape=small.shape), small)
    updater = mxopt.get_updater(mxopt.create(name, **options))
    before = memory("VmRSS")
    state = updater.optimizer.create_state(0, table)
    assert memory("VmRSS") - before < 2 * MIB, (name, "state")
    for k in range(10, 4_000_000, 400_000):
        updater(0, row(k), table)
    assert memory("VmRSS") - before < 128 * MIB, name  # pages may be of 2 MiB
print("small")
"""


@pytest.mark.skipif(not Path("/proc/self/clear_refs").exists(), reason="reads /proc")
def test_resident_memory_of_a_process() -> None:
    command = [sys.executable, "-W", "error", "-c", IN_A_PROCESS_OF_ITS_OWN]
    folder = Path(mxopt.__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert (result.stdout, result.returncode) == ("small\n", 0), result.stderr


def test_plans_hold_on_to_no_weight_and_no_gradient() -> None:
    for row in ROWS:
        optimizer = row.make()
        weight, grad = np.ones((4, 3), np.float32), np.ones((4, 3), np.float32)
        state = optimizer.create_state(0, weight)
        for _ in range(2):
            optimizer.update(0, weight, grad, state)
            optimizer.update([0], [weight], [grad], [state])
        seen = weakref.ref(weight), weakref.ref(grad)
        del weight, grad
        assert [ref() for ref in seen] == [None, None], row


WITHOUT_MEMORY = """
import resource
import numpy as np, mxopt

def updaters():
    return [mxopt.get_updater(mxopt.create("adam")), mxopt.get_updater(mxopt.create("sgd", momentum=0.9))]

for updater in updaters():
    updater(0, np.ones(9, np.float32), np.ones(9, np.float32))
weight, grad = np.ones(10_000_000, np.float32), np.ones(10_000_000, np.float32)
now = int(open("/proc/self/statm").read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (now + 30_000_000, -1))
for updater in updaters():
    for arguments in ((0, grad, weight), ([0, 1], [grad, grad], [weight, weight])):
        try:
            updater(*arguments)
        except MemoryError as error:
            assert "40000000 bytes" in str(error)
        else:
            raise AssertionError("there was memory")
        assert updater.optimizer.num_update == 0 and not updater.states and (weight == 1).all()
"""


@pytest.mark.skipif(not Path("/proc/self/statm").exists(), reason="reads /proc")
def test_no_memory_for_states_is_a_memory_error_and_nothing_has_changed() -> None:
    command, folder = [sys.executable, "-c", WITHOUT_MEMORY], Path(mxopt.__file__).parent.parent
    result = subprocess.run(command, capture_output=True, text=True, cwd=folder, check=False)
    assert result.returncode == 0, result.stderr
