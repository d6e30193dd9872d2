"""Checkpoints of the real MindSpore 2.10, saved in the middle of runs and gone on with here."""

from __future__ import annotations

import contextlib
import json
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from mxopt import nn
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.migrate import load_mindspore_states, read_mindspore_checkpoint, write_mindspore_checkpoint
from mxopt.parameter import Parameter

FILE = np.load(Path(__file__).parent.parent / "data" / "migrate" / "mindspore.npz")
RUNS = {run["name"]: run for run in json.loads(str(FILE["runs"]))}
NAMES = ("fc.w", "fc.b")


def file_of(name: str, folder: Path) -> Path:
    path = folder / f"{name}.ckpt"
    path.write_bytes(FILE[f"{name}/ckpt"].tobytes())
    return path


def start(name: str, values: dict[str, np.ndarray]) -> tuple[list[Parameter], Any]:
    run = RUNS[name]
    parameters = [Parameter(values[n].copy(), n) for n in NAMES]
    return parameters, getattr(nn if run["family"] == "nn" else optim, run["kind"])(parameters, **run["options"])


@pytest.mark.parametrize("name", RUNS)
def test_a_run_of_mindspore_goes_on_here(name: str, tmp_path: Path) -> None:
    values = read_mindspore_checkpoint(file_of(name, tmp_path))
    parameters, optimizer = start(name, values)
    load_mindspore_states(optimizer, values)
    for step in range(10):
        optimizer(tuple(FILE[f"{name}/grad/{step}/{k}"] for k in range(2)))
        for k, parameter in enumerate(parameters):
            recorded = FILE[f"{name}/after/{step}/{k}"]
            np.testing.assert_allclose(parameter.value, recorded, rtol=1e-5, atol=1e-5, err_msg=f"step {step}")


def test_a_checkpoint_comes_back_as_it_was_written(tmp_path: Path) -> None:
    values = {
        "w": np.arange(300, dtype=np.float32).reshape(100, 3), "scalar": np.array(2.5), "half": np.ones(3, np.float16),
        "brain": np.ones((2, 1), ml_dtypes.bfloat16), "count": np.array([7], np.int32), "none": np.zeros((0, 4)),
        "text": np.array("Grüße"),
    }  # fmt: skip
    write_mindspore_checkpoint(tmp_path / "x", values)
    found = read_mindspore_checkpoint(tmp_path / "x")
    assert list(found) == list(values)
    for name, value in values.items():
        assert (found[name].dtype, found[name].shape, found[name].tobytes()) == (
            value.dtype, value.shape, value.tobytes(),
        )  # fmt: skip
    again = read_mindspore_checkpoint(file_of("adam", tmp_path))
    write_mindspore_checkpoint(tmp_path / "again", again)
    assert (tmp_path / "again").read_bytes()[:-17] == FILE["adam/ckpt"].tobytes()  # without the checksum


def test_slices_and_a_checksum_are_read(tmp_path: Path) -> None:
    write_mindspore_checkpoint(tmp_path / "x", {"w": np.arange(4, dtype=np.float32)})
    checked = (tmp_path / "x").read_bytes()
    np.testing.assert_array_equal(read_mindspore_checkpoint(tmp_path / "x")["w"], np.arange(4))
    (tmp_path / "x").write_bytes(checked[:-17])  # as MindSpore writes it, unless asked for a checksum
    np.testing.assert_array_equal(read_mindspore_checkpoint(tmp_path / "x")["w"], np.arange(4))
    (tmp_path / "x").write_bytes(checked.replace(b"Float32", b"Float31"))
    with pytest.raises(StatesError, match="checksum is wrong"):
        read_mindspore_checkpoint(tmp_path / "x")
    (tmp_path / "x").write_bytes(b"")
    with pytest.raises(StatesError, match="the file is empty"):
        read_mindspore_checkpoint(tmp_path / "x")


def test_what_does_not_fit_is_refused_and_changes_nothing(tmp_path: Path) -> None:
    values = read_mindspore_checkpoint(file_of("nn-adam", tmp_path))
    _, optimizer = start("nn-momentum", values)
    before = optimizer.state_dict()
    with pytest.raises(StatesError, match=r"the checkpoint has no 'moments\.fc\.w'"):
        load_mindspore_states(optimizer, values)
    assert str(optimizer.state_dict()) == str(before)
    _, adam = start("nn-adam", values)
    values["moment1.fc.w"] = np.zeros((2, 3), np.float32)
    with pytest.raises(StatesError, match="moment1"):
        load_mindspore_states(adam, values)
    for bad, dtype in ((np.ones(2, complex), "complex128"), (np.array(["a", "b"]), "<U1")):
        with pytest.raises(StatesError, match=f"MindSpore has no array of {dtype}"):
            write_mindspore_checkpoint(tmp_path / "y", {"w": bad})


def test_a_text_is_read_as_mindspore_writes_it(tmp_path: Path) -> None:
    """`save_checkpoint(net, file, append_dict={"text": "abc"})`."""
    kept = bytes.fromhex("0a1d0a04746578741215080012037374721a0c610000006200000063000000")
    (tmp_path / "x").write_bytes(kept)
    found = read_mindspore_checkpoint(tmp_path / "x")
    assert found["text"].item() == "abc"
    write_mindspore_checkpoint(tmp_path / "x", found)
    assert (tmp_path / "x").read_bytes()[:-17] == kept
    (tmp_path / "x").write_bytes(kept[:-1] + b"\xff")
    with pytest.raises(StatesError, match="can't decode"):
        read_mindspore_checkpoint(tmp_path / "x")


@given(data=st.data())
@settings(max_examples=300, deadline=None)
def test_a_damaged_checkpoint_is_a_states_error_or_other_values(data: st.DataObject, tmp_path_factory: Any) -> None:
    whole = bytearray(FILE["adam/ckpt"].tobytes())
    for _ in range(data.draw(st.integers(0, 2))):
        whole[data.draw(st.integers(0, len(whole) - 1))] = data.draw(st.integers(0, 255))
    path = tmp_path_factory.getbasetemp() / "damaged.ckpt"
    path.write_bytes(whole[: data.draw(st.integers(0, len(whole)))])
    with contextlib.suppress(StatesError):
        read_mindspore_checkpoint(path)
