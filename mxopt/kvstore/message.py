"""The base classes of all messages: structs encoded as a MessagePack array, the kind first."""

from __future__ import annotations

from typing import ClassVar

import msgspec


class Message(msgspec.Struct, array_like=True, forbid_unknown_fields=True, gc=False):
    """The base of all messages. Its tag is the kind."""

    FRAMES: ClassVar[int] = 0
    FREE: ClassVar[str] = ""  # the field that may hold any plain value


class Framed(Message):
    """The base of messages with arrays: `data` is a list of them, `FRAMES` how many."""

    FRAMES: ClassVar[int] = 1
