"""Every message of the protocol, as frames and back. `docs/protocol.md` says when each is sent.

frame 0    a MessagePack array: [kind, field, field, ...]
frame 1..  the bytes of arrays; those that are small stand in frame 0
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgpack
import msgspec
from msgspec.structs import astuple

from mxopt import plain
from mxopt.errors import ProtocolError, counted
from mxopt.kvstore.job_messages import *  # noqa: F403 so that a message stands nowhere but in its class
from mxopt.kvstore.message import Framed, Message
from mxopt.kvstore.requests import *  # noqa: F403
from mxopt.kvstore.wire import MAX_HEADER, SMALL, Frame

KINDS = {
    kind.__struct_config__.tag: kind
    for base in (Message, Framed)
    for kind in base.__subclasses__()
    if kind is not Framed
}
_TAGS = {kind: tag for tag, kind in KINDS.items()}
_pack = msgpack.Packer().pack


def encode(message: Any) -> list[Frame]:
    """All frames of a message."""
    if not message.FRAMES or sum(map(len, message.data)) < SMALL:
        return [_header(message)]
    data = message.data
    message.data = len(data)
    frames = [_header(message), *data]
    message.data = data
    return frames


def _header(message: Any) -> bytes:
    packed: bytes = _pack((_TAGS[type(message)], *astuple(message)))
    return packed


def decode(frames: Sequence[Frame]) -> Any:
    """The message that `frames` are: one whose fields have the types its class names. Raises
    ProtocolError where they are none. What it allocates is bounded by the frames that have really
    arrived."""
    if not frames:
        raise ProtocolError("a message without a header")
    if len(frames[0]) > MAX_HEADER:
        raise ProtocolError(f"a header of {counted(len(frames[0]), 'byte')}; the limit is {MAX_HEADER}")
    try:
        fields = plain.unpack(frames[0])
        kind = KINDS.get(fields[0]) if type(fields) is list and fields and type(fields[0]) is int else None
        if kind is None:
            raise ProtocolError(f"it begins with no message's number: {fields!r:.80}")
        message: Any = msgspec.convert(fields, kind)
        if kind.FREE:
            plain.check(getattr(message, kind.FREE))
    except (ValueError, msgspec.ValidationError) as error:  # no ValueError in msgspec 0.19
        raise ProtocolError(f"a header that is no message: {error}") from None
    following = 0
    if message.FRAMES:
        data = message.data
        if type(data) is int:
            following, data = data, list(frames[1:])
            message.data = data
        else:
            for each in data if type(data) is list else [None]:
                if type(each) is not bytes:
                    raise ProtocolError(f"{kind.__name__} has bytes as arrays, {data!r:.80} came")
        if len(data) != message.FRAMES:
            raise ProtocolError(f"{kind.__name__} has {counted(message.FRAMES, 'array')}, {len(data)} came")
    if len(frames) != following + 1:
        raise ProtocolError(f"{type(message).__name__} announced {counted(following, 'frame')}, {len(frames) - 1} came")
    return message
