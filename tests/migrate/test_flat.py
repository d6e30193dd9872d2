"""States as safetensors and .npz: they come back as they went, and other programs read the
arrays."""

from __future__ import annotations

import contextlib
import pickle
from pathlib import Path
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

import mxopt
from mxopt import nn
from mxopt.document import dump_document, load_document
from mxopt.errors import StatesError
from mxopt.experimental import optim
from mxopt.migrate import read_npz, read_safetensors, write_npz, write_safetensors

KINDS = {"npz": (write_npz, read_npz)}
with contextlib.suppress(ImportError):
    import safetensors.numpy

    KINDS["safetensors"] = (write_safetensors, read_safetensors)

every = pytest.mark.parametrize("kind", KINDS)
TREE = {
    "none": None, "flags": [True, False], "counts": {0: 3, "0": 4, 2**62: -1}, "rate": 0.1, "inf": float("inf"),
    "pair": (np.arange(6, dtype=np.float32).reshape(2, 3), None), "half": np.ones(3, np.float16) / 3,
    "raw": b"\x00\xff", "brain": np.arange(4).astype(ml_dtypes.bfloat16),
    "number": np.array(2.5), "empty": np.zeros((0, 2), np.float32),
    "twice": {1: np.zeros(1), "1": np.ones(1)}, "mxopt": np.full(2, 7, np.int64), "text": "é\n",
}  # fmt: skip


def same(a: Any, b: Any) -> bool:
    if isinstance(a, np.ndarray):
        return isinstance(b, np.ndarray) and a.dtype == b.dtype and a.shape == b.shape and a.tobytes() == b.tobytes()
    if isinstance(a, dict):
        return type(b) is dict and list(a) == list(b) and all(same(a[k], b[k]) for k in a)
    if isinstance(a, list | tuple):
        return type(a) is type(b) and len(a) == len(b) and all(map(same, a, b))
    return type(a) is type(b) and a == b


@every
def test_a_tree_comes_back_as_it_went(kind: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]
    write(tmp_path / "x", TREE)
    assert same(TREE, read(tmp_path / "x"))


@every
@pytest.mark.parametrize("family", ["updater", "experimental", "nn"])
def test_training_goes_on_from_it_to_the_last_bit(kind: str, family: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]

    def start() -> tuple[Any, Any, Any]:
        weight = mxopt.Parameter(np.linspace(-1, 1, 6, dtype=np.float32), "w")
        if family == "updater":
            updater = mxopt.get_updater(mxopt.create("adam"))
            return weight, updater, lambda g: updater(0, g, weight.value)
        optimizer: Any = optim.Adam([weight]) if family == "experimental" else nn.Adam([weight])
        return weight, optimizer, lambda g: optimizer((g,))

    grads = [np.linspace(k, 1, 6, dtype=np.float32) for k in range(5)]
    (weight, first, step), (other, second, step_on) = start(), start()
    for grad in grads[:3]:
        step(grad)
    write(tmp_path / "x", first.get_states() if family == "updater" else first.state_dict())
    loaded = read(tmp_path / "x")
    other.set_data(weight.value)
    if family == "updater":
        second.set_states(dump_document(loaded))
        assert same(load_document(first.get_states()), loaded)
    else:
        second.load_state_dict(loaded)
    for grad in grads[3:]:
        step(grad)
        step_on(grad)
    assert weight.value.tobytes() == other.value.tobytes()


@every
def test_other_programs_find_the_arrays_by_their_paths(kind: str, tmp_path: Path) -> None:
    write, _ = KINDS[kind]
    optimizer = optim.Adam([mxopt.Parameter(np.ones(3, np.float32), "fc.weight")])
    optimizer((np.full(3, 0.5, np.float32),))
    write(tmp_path / "x.npz", optimizer.state_dict())
    found = np.load(tmp_path / "x.npz") if kind == "npz" else safetensors.numpy.load_file(tmp_path / "x.npz")
    np.testing.assert_allclose(found["state/fc.weight/mean"], 0.05, rtol=1e-6)


@every
def test_arrays_of_other_programs_come_by_name(kind: str, tmp_path: Path) -> None:
    _, read = KINDS[kind]
    arrays = {"a": np.ones(2), "b": np.arange(3)}
    if kind == "npz":
        np.savez(tmp_path / "x.npz", **arrays)  # type: ignore[arg-type]
    else:
        safetensors.numpy.save_file(arrays, tmp_path / "x.npz")
    assert same(dict(sorted(read(tmp_path / "x.npz").items())), arrays)


@every
def test_what_is_no_tree_is_refused_and_nothing_written(kind: str, tmp_path: Path) -> None:
    write, _ = KINDS[kind]
    with pytest.raises(StatesError, match="state/w is a object"):
        write(tmp_path / "x", {"state": {"w": object()}})
    assert not (tmp_path / "x").exists()


def test_pickled_objects_in_an_npz_are_refused(tmp_path: Path) -> None:
    np.savez(tmp_path / "x.npz", a=np.array([{1: 2}], object))
    with pytest.raises(StatesError, match=r"no \.npz file of plain arrays"):
        read_npz(tmp_path / "x.npz")
    (tmp_path / "y").write_bytes(pickle.dumps({1: 2}))
    with pytest.raises(StatesError, match=r"no \.npz file of plain arrays"):
        read_npz(tmp_path / "y")


@every
def test_a_file_that_is_not_there_is_an_os_error(kind: str, tmp_path: Path) -> None:
    with pytest.raises(OSError, match="none"):
        KINDS[kind][1](tmp_path / "none")


def test_any_byte_of_a_compressed_npz_may_be_damaged(tmp_path: Path) -> None:
    np.savez_compressed(tmp_path / "x.npz", a=np.arange(30.0), b=np.ones((2, 3), np.float16))
    whole = (tmp_path / "x.npz").read_bytes()
    for at in range(len(whole)):
        for flipped in (1, 8, 128, 255):
            damaged = bytearray(whole)
            damaged[at] ^= flipped
            (tmp_path / "y.npz").write_bytes(damaged)
            with contextlib.suppress(StatesError):
                read_npz(tmp_path / "y.npz")


@every
@given(data=st.data())
@settings(max_examples=150, deadline=None)
def test_a_damaged_file_is_a_states_error_or_the_same_tree(
    kind: str, data: st.DataObject, tmp_path_factory: Any
) -> None:
    """Never another one: in safetensors nearly every byte was taken as it came."""
    write, read = KINDS[kind]
    path = tmp_path_factory.getbasetemp() / f"damaged.{kind}"
    write(path, TREE)
    whole = bytearray(path.read_bytes())
    whole[data.draw(st.integers(0, len(whole) - 1))] ^= 1 << data.draw(st.integers(0, 7))
    path.write_bytes(whole[: data.draw(st.one_of(st.just(len(whole)), st.integers(0, len(whole))))])
    with contextlib.suppress(StatesError):
        assert same(TREE, read(path))


def test_an_npz_array_that_says_fewer_elements_than_are_there_is_damaged(tmp_path: Path) -> None:
    """NumPy takes the first thousand, without a look at the checksum."""
    write_npz(tmp_path / "x.npz", {"w": np.arange(3000, dtype=np.float32)})
    whole = (tmp_path / "x.npz").read_bytes()
    assert whole.count(b"(3000,)") == 1
    (tmp_path / "x.npz").write_bytes(whole.replace(b"(3000,)", b"(1000,)"))
    with pytest.raises(StatesError, match=r"the checksum of w\.npy is wrong"):
        read_npz(tmp_path / "x.npz")


@every
def test_arrays_of_another_byte_order_keep_their_values(kind: str, tmp_path: Path) -> None:
    write, read = KINDS[kind]
    write(tmp_path / "x", {"w": np.arange(3, dtype=">f4")})
    assert read(tmp_path / "x")["w"].tolist() == [0, 1, 2]
