"""Plain values as MessagePack: None, booleans, numbers, texts and bytes, lists of them and maps,
and nothing else.

Other types of MessagePack (timestamps, extensions) are refused, and the nesting of lists and maps
is bounded.
"""

from __future__ import annotations

from typing import Any

import msgpack

MAX_DEPTH = 16
SCALARS = frozenset((type(None), bool, int, float, str, bytes))


def pack(value: object) -> bytes:
    """A plain value as bytes; tuples become lists. Raises ValueError if it isn't plain, or if a
    number has more than 64 bits."""
    try:
        packed: bytes = msgpack.packb(value)
    except (TypeError, OverflowError) as error:
        raise ValueError(str(error)) from None
    return packed


def unpack(data: Any) -> Any:
    """The value that bytes encode; `check` tests whether it is plain. Raises ValueError if they
    encode none.

    A text, list or map that claims to be longer than the bytes is refused.
    """
    size = len(data)
    try:
        return msgpack.unpackb(
            data, strict_map_key=False, max_str_len=size, max_bin_len=size, max_array_len=size, max_map_len=size,
            max_ext_len=0,
        )  # fmt: skip
    except msgpack.StackError:
        raise ValueError("lists and maps within each other are too deep") from None
    except msgpack.FormatError:
        raise ValueError("malformed bytes") from None
    except (TypeError, MemoryError) as error:  # a list or map as a map's key; nested lists, all too long
        raise ValueError(str(error)) from None


def check(value: Any, depth: int = MAX_DEPTH) -> None:
    """Raises ValueError unless a value is plain, with numbers or texts as keys of maps, and nested
    at most `depth` deep: deeper values couldn't be sent on."""
    kind = type(value)
    if kind in SCALARS:
        return
    if kind is not list and kind is not dict:
        raise ValueError(f"a value of type {kind.__name__} where plain ones belong")
    if depth == 0:
        raise ValueError(f"lists and maps within each other more than {MAX_DEPTH} deep")
    if kind is dict:
        for key in value:
            if type(key) is not str and type(key) is not int:
                raise ValueError(f"a value of type {type(key).__name__} as a map's key")
        value = value.values()
    for each in value:
        check(each, depth - 1)
