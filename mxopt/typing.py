"""What annotations call things whose types Python's checkers can't tell apart."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, TypeAlias

Array: TypeAlias = Any
"""An array of NumPy or CuPy, bfloat16 ones included; where a docstring says so also a RowSparse, or
what lends its memory, as a tensor of PyTorch does."""

State: TypeAlias = Any
"""What an optimizer keeps of a weight: None, an array, or a tuple of them; with a master copy a
pair of that and it."""

Plain: TypeAlias = dict[str, Any]
"""Plain data by name: what a saved document or a message carries."""

Document: TypeAlias = Mapping[str, Any]
"""The same, where it is only read."""

Hypers: TypeAlias = Sequence[float]
"""All hyper-parameters of an update of one tensor, in the order of its rule's `hypers`."""
