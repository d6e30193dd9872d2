"""Reads the recorded runs of MindSpore and PyTorch; tests/data/README.md describes the format."""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

DATA = Path(__file__).parent.parent / "data" / "mindspore"


@cache
def document(name: str) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((DATA / f"{name}.json").read_text(encoding="utf-8"))
    return found


@cache
def numbers(name: str) -> Any:
    return np.load(DATA / f"{name}.npz")


def decode(value: Any) -> Any:
    """The Python value that a value in the JSON stands for."""
    if isinstance(value, list):
        return [decode(x) for x in value]
    if not isinstance(value, dict):
        return value
    if "$tuple" in value:
        return tuple(decode(x) for x in value["$tuple"])
    if "$array" in value:
        return np.array(value["$array"], np.float32)
    if "$power" in value:
        return lambda step: value["$power"] ** step
    if "$hyperbola" in value:
        return lambda step: 1.0 / (1.0 + value["$hyperbola"] * step)
    if "$constant" in value:
        return lambda step: value["$constant"]
    return {key: decode(x) for key, x in value.items()}


def split(vector: np.ndarray, shapes: list[list[int]]) -> list[np.ndarray]:
    """The arrays of these shapes that were written one after another."""
    ends = np.cumsum([int(np.prod(shape)) for shape in shapes])
    return [part.reshape(shape) for part, shape in zip(np.split(vector, ends[:-1]), shapes, strict=True)]
