"""Runs of the real MXNet 1.9.1, saved in the middle and gone on with here."""

from __future__ import annotations

import contextlib
import json
import pickle
import pickletools
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import mxopt
from mxopt.document import write_file
from mxopt.errors import StatesError
from mxopt.migrate import read_mxnet_params, read_mxnet_states, write_mxnet_params
from mxopt.migrate.pickles import STEPS, read_pickle
from mxopt.sparse import RowSparse

DATA = Path(__file__).parent.parent / "data" / "migrate"
FILE = np.load(DATA / "mxnet.npz")
RUNS = {run["name"]: run for run in json.loads(str(FILE["runs"]))}
# Adam's and others' scalars are MXNet's in double precision; its kernels' last bits differ.
TOLERANCE = {"float32": 2e-6, "float16": 2e-3}


def file_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.states"
    path.write_bytes(FILE[f"{name}/states"].tobytes())
    return path


def weights_of(name: str) -> list[np.ndarray]:
    count = len(RUNS[name].get("shapes", (0, 0)))
    return [FILE[f"{name}/weight/{k}"].copy() for k in range(count)]


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_mxnet_goes_on_here(name: str, tmp_path: Path) -> None:
    run = RUNS[name]
    optimizer = mxopt.create(run["optimizer"], **run["options"]) if run.get("alone") else None
    updater = read_mxnet_states(file_of(name, tmp_path), optimizer)
    if not run.get("alone"):  # and through mxopt's own document
        fresh = mxopt.get_updater(mxopt.create("sgd"))
        fresh.set_states(updater.get_states(dump_optimizer=True))
        updater = fresh
    weights = weights_of(name)
    for step in range(10):
        for k, weight in enumerate(weights):
            updater(k, FILE[f"{name}/grad/{step}/{k}"], weight)
            tolerance = TOLERANCE[run.get("dtype", "float32")]
            recorded = FILE[f"{name}/after/{step}/{k}"]
            np.testing.assert_allclose(weight, recorded, rtol=tolerance, atol=tolerance, err_msg=f"step {step}")


def test_empty_states_are_taken_of_any_number_of_weights(tmp_path: Path) -> None:
    path = tmp_path / "x.states"
    for protocol in (2, 3, 4, 5):
        path.write_bytes(pickle.dumps({0: (), 1: (), 2: None}, protocol))
        assert read_mxnet_states(path, mxopt.create("sgd")).states == {0: (), 1: (), 2: None}


def test_gluons_files_go_on_in_a_trainer(tmp_path: Path) -> None:
    values = read_mxnet_params(DATA / "gluon.params")
    assert isinstance(values, dict)
    parameters = [mxopt.Parameter(values[name], f"dense_{name}") for name in sorted(values)]  # as gluon numbers them
    write_file(tmp_path / "trainer.states", read_mxnet_states(DATA / "gluon.states").get_states(dump_optimizer=True))
    trainer = mxopt.Trainer(parameters, "adam", {"learning_rate": 0.1, "wd": 0.01})
    trainer.load_states(tmp_path / "trainer.states")
    for step in range(10):
        for parameter in parameters:
            parameter.grad = FILE[f"gluon/grad/{step}/{parameter.name}"]
        trainer.step(2)
        for parameter in parameters:
            recorded = FILE[f"gluon/after/{step}/{parameter.name}"]
            np.testing.assert_allclose(parameter.value, recorded, rtol=2e-6, atol=2e-6)


def test_params_are_read_as_they_were_saved(tmp_path: Path) -> None:
    found = read_mxnet_params(DATA / "mlp.params")
    assert isinstance(found, dict)
    assert list(found) == ["arg:fc_weight", "arg:half", "aux:count", "rows"]
    np.testing.assert_array_equal(found["arg:fc_weight"], np.arange(6, dtype=np.float32).reshape(2, 3))
    np.testing.assert_array_equal(found["arg:half"], (np.ones(3) / 3).astype(np.float16))
    np.testing.assert_array_equal(found["aux:count"], np.arange(3))
    rows = found["rows"]
    assert isinstance(rows, RowSparse)
    assert (rows.indices.tolist(), rows.shape, rows.data.tolist()) == ([1, 3], (5, 2), [[0.25] * 2] * 2)
    listed = read_mxnet_params(DATA / "list.params")
    assert [a.tolist() for a in listed] == [[[1.0] * 3] * 2, [0.0] * 4]
    for name, content in (("mlp", found), ("list", listed)):
        write_mxnet_params(tmp_path / "again", content)
        assert (tmp_path / "again").read_bytes() == (DATA / f"{name}.params").read_bytes()


def test_what_is_no_such_file_is_refused_by_name(tmp_path: Path) -> None:
    with pytest.raises(StatesError, match=r"csr.params: a CSR array at byte \d+ can't be read"):
        read_mxnet_params(DATA / "csr.params")
    path = tmp_path / "x"
    for data, says in (
        (b"", "x: "),
        (b"mxopt\r\n", "pickle of protocol 2 or later; this begins with b'mxopt"),
        (pickle.dumps([1, 2]), "holds no states"),
        (pickle.dumps({0: {1: 2}}, 2), "the optimizer is not in the file"),
    ):
        path.write_bytes(data)
        with pytest.raises(StatesError, match=says):
            read_mxnet_states(path)
    with pytest.raises(StatesError, match="the state of 0 is no array of MXNet's"):
        read_mxnet_states(path, mxopt.create("sgd"))
    with pytest.raises(StatesError, match="MXNet has no array of complex128"):
        write_mxnet_params(path, [np.ones(2, complex)])


class Harmful:
    """Runs a command where a pickle of it is loaded."""

    def __reduce__(self) -> Any:
        return exec, ("import sys; sys.harmed = True",)


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
def test_nothing_in_a_pickle_is_executed_or_imported(protocol: int, tmp_path: Path) -> None:
    path, before = tmp_path / "x.states", set(sys.modules)
    content: Any
    for content in ({0: Harmful()}, ({}, Harmful())):
        path.write_bytes(pickle.dumps(content, protocol))
        with pytest.raises(StatesError):
            read_mxnet_states(path)
    path.write_bytes(b"\x80\x02cthis.is.no\nmodule\n)\x81.")
    with pytest.raises(StatesError):
        read_mxnet_states(path)
    assert not hasattr(sys, "harmed")
    assert set(sys.modules) == before


def test_opcodes_that_such_files_have_not_are_refused() -> None:
    every = {opcode.name for opcode in pickletools.opcodes}
    assert set(STEPS) < every
    for content in ({1, 2}, frozenset([1])):
        with pytest.raises(StatesError, match=r"opcode (EMPTY_SET|MARK|FROZENSET|REDUCE|ADDITEMS)"):
            read_pickle(pickle.dumps(content, 4))


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_pickle_is_a_states_error_or_other_data(data: st.DataObject) -> None:
    whole = bytearray(FILE["factor/states"].tobytes())
    for _ in range(data.draw(st.integers(1, 3))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    cut = bytes(whole[: data.draw(st.integers(0, len(whole)))])
    for damaged in (bytes(whole), cut):
        with contextlib.suppress(StatesError):
            read_pickle(damaged)


@given(data=st.data())
@settings(max_examples=200, deadline=None)
def test_a_damaged_params_file_is_a_states_error_or_other_data(data: st.DataObject, tmp_path_factory: Any) -> None:
    whole = bytearray((DATA / "mlp.params").read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.params"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(StatesError):
        read_mxnet_params(path)
