"""The recorded runs of the real MXNet's kvstore (scripts/reference/mxnet/kvstore.py), repeated."""

from __future__ import annotations

import json
from pathlib import Path

import numpy as np
import pytest
from jobs import Job

import mxopt
from mxopt import kvstore

RECORD = json.loads((Path(__file__).parents[1] / "data" / "kvstore" / "mxnet.json").read_text())


@pytest.mark.parametrize("case", RECORD["local"]["sums"])
def test_sums_have_the_same_bits(case: str) -> None:
    kind, n, dtype = case.split()
    rng = np.random.default_rng(int(n))
    kv = kvstore.create(kind)
    kv.init(0, np.zeros(40, dtype))
    kv.push(0, [rng.normal(size=40).astype(dtype) for _ in range(int(n))])
    out = np.zeros(40, dtype)
    kv.pull(0, out)
    assert out.tobytes().hex() == RECORD["local"]["sums"][case]


def test_compression_sends_the_same_steps() -> None:
    kv = kvstore.create("device")
    kv.init(0, np.zeros(6, np.float32))
    kv.set_gradient_compression({"type": "2bit", "threshold": 0.3})
    out = np.zeros(6, np.float32)
    for step, expected in enumerate(RECORD["local"]["compressed"]):
        kv.push(0, (np.linspace(-1, 1, 6) * (step % 3)).astype(np.float32))
        kv.pull(0, out)
        assert out.tolist() == expected


def test_an_optimizer_sees_the_sum_of_the_list() -> None:
    kv = kvstore.create("local")
    kv.set_optimizer(mxopt.create("sgd", learning_rate=0.1, momentum=0.9, wd=0.01))
    kv.init(0, np.ones(4, np.float32))
    out = np.zeros(4, np.float32)
    for step, expected in enumerate(RECORD["local"]["momentum"]):
        kv.push(0, [np.full(4, step + 1, np.float32), np.full(4, 0.5, np.float32)])
        kv.pull(0, out)
        np.testing.assert_allclose(out, expected, rtol=5e-7)


def test_two_workers_get_the_same_rounds() -> None:
    with Job(2, 1) as job:
        for found in job.run("recorded"):
            assert found["rounds"] == RECORD["distributed"]["rounds"]
            np.testing.assert_allclose(found["adam"], RECORD["distributed"]["adam"], rtol=5e-7)
