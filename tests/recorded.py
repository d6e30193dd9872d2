"""Reads the recorded runs of MindSpore and PyTorch; `tests/data/README.md` describes them."""

from __future__ import annotations

import builtins
import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from mxopt import nn

DATA = Path(__file__).parent / "data" / "mindspore"


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


@cache
def arrays(name: str) -> dict[str, np.ndarray]:
    with np.load(DATA / f"{name}.npz") as file:
        return dict(file)


def decode(value: Any) -> Any:
    """The Python value that a JSON value stands for."""
    if isinstance(value, list):
        return [decode(item) for item in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(decode(value["$tuple"]))
    if "$array" in value:
        return np.array(value["$array"], np.float32)
    if "$matrix" in value:
        return np.full((value["$matrix"], value["$matrix"]), 0.1, np.float32)
    if "$schedule" in value:
        return getattr(nn, value["$schedule"])(**decode(value["options"]))
    if "$power" in value:
        return lambda step: value["$power"] ** step
    if "$hyperbola" in value:
        return lambda step: 1.0 / (1.0 + value["$hyperbola"] * step)
    if "$constant" in value:
        return lambda step: value["$constant"]
    return {key: decode(item) for key, item in value.items()}


def exceptions(names: list[str]) -> list[type[BaseException]]:
    return [getattr(builtins, name) for name in names]


def split(vector: np.ndarray, shapes: list[list[int]]) -> list[np.ndarray]:
    """The arrays of these shapes that stand in `vector` one behind another."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]
