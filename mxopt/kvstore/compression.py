"""Gradient compression with error feedback: two bits or one bit an element instead of 32.

What is not sent stays in a residual, one for each value, that is added before the next gradient is
looked at. On the wire a compressed array is bit planes, lowest bit first: '2bit' has the plane of
+threshold, then that of -threshold, '1bit' the plane of +1 (the rest is -1).
"""

from __future__ import annotations

import math
from collections.abc import Hashable, Mapping

import numpy as np

from mxopt.errors import ArgumentError, ArgumentTypeError, ArrayTypeError, nearest
from mxopt.options import number
from mxopt.typing import Document

CODECS = {"2bit": 1, "1bit": 2}  # as on the wire; 0 is no compression


class GradientCompression:
    """The compression that `set_gradient_compression` asks for.

    Parameters
    ----------
    params : {'type': '2bit' or '1bit', 'threshold': float}
        `threshold` is 0.5 unless given; '2bit' needs one above 0.

    Raises ValueError if the type is missing or unknown, or the threshold isn't a finite number
    above 0 ('1bit': a finite number).
    """

    def __init__(self, params: Document) -> None:
        if not isinstance(params, Mapping):
            raise ArgumentTypeError(
                "set_gradient_compression takes a dict, such as {'type': '2bit', 'threshold': 0.5}, got"
                f" {params!r:.80}"
            )
        if "type" not in params:
            raise ArgumentError("set_gradient_compression needs a 'type': '2bit' or '1bit'")
        self.type: str = str(params["type"])
        if self.type not in CODECS:
            raise ArgumentError(f"there is no gradient compression {self.type!r}: {nearest(self.type, CODECS)}")
        self.codec: int = CODECS[self.type]
        self.threshold: float = float(
            np.float32(number("gradient compression: the threshold", params.get("threshold", 0.5), nan=True))
        )
        if not math.isfinite(self.threshold) or (self.type == "2bit" and self.threshold <= 0):
            raise ArgumentError(f"gradient compression: the threshold must be above 0, got {params['threshold']!r}")
        self.residuals: dict[Hashable, np.ndarray] = {}

    def _residual(self, name: Hashable, gradient: np.ndarray) -> np.ndarray:
        """A copy of the residual of `name`, flat, float32; zeros at first."""
        if not isinstance(gradient, np.ndarray):
            raise ArrayTypeError(
                f"key {name!r}: only dense NumPy arrays can be compressed, got {type(gradient).__name__}"
            )
        found = self.residuals.get(name)
        return np.zeros(gradient.size, np.float32) if found is None or found.size != gradient.size else found.copy()

    def encode(self, gradient: np.ndarray, residual: np.ndarray) -> np.ndarray:
        """The bytes to send for `gradient` (flat). `residual` keeps what they leave out."""
        residual += gradient
        if self.type == "1bit":
            up = residual > np.float32(self.threshold)
            residual -= np.where(up, np.float32(1), np.float32(-1))
            return np.packbits(up, bitorder="little")
        step = np.float32(self.threshold)
        up, down = residual >= step, residual <= -step
        np.subtract(residual, step, out=residual, where=up)
        np.add(residual, step, out=residual, where=down)
        return np.concatenate([np.packbits(up, bitorder="little"), np.packbits(down, bitorder="little")])

    def quantize(self, name: Hashable, gradient: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """`gradient` as it arrives when it is sent compressed, a new array of its shape and dtype;
        and what the residual of `name` becomes once the push is taken."""
        residual = self._residual(name, gradient)
        sent = decode(self.encode(gradient.reshape(-1), residual), self.codec, self.threshold, gradient.size)
        return sent.reshape(gradient.shape).astype(gradient.dtype), residual


def encoded_size(codec: int, size: int) -> int:
    """The bytes that `size` compressed elements take."""
    return (size + 7) // 8 * (2 if codec == CODECS["2bit"] else 1)


def decode(sent: np.ndarray, codec: int, threshold: float, size: int) -> np.ndarray:
    """The `size` float32 values that the bytes `sent` stand for."""
    if codec == CODECS["1bit"]:
        bits = np.unpackbits(sent, count=size, bitorder="little")
        return np.where(bits, np.float32(1), np.float32(-1))
    half = len(sent) // 2
    up = np.unpackbits(sent[:half], count=size, bitorder="little")
    down = np.unpackbits(sent[half:], count=size, bitorder="little")
    steps = up.astype(np.float32)
    steps -= down
    steps *= np.float32(threshold)
    return steps
