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
from mxopt.errors import ProtocolError
from mxopt.kvstore.job_messages import (
    Barrier as Barrier,
)
from mxopt.kvstore.job_messages import (
    Beat as Beat,
)
from mxopt.kvstore.job_messages import (
    Farewell as Farewell,
)
from mxopt.kvstore.job_messages import (
    Gone as Gone,
)
from mxopt.kvstore.job_messages import (
    Goodbye as Goodbye,
)
from mxopt.kvstore.job_messages import (
    Inquire as Inquire,
)
from mxopt.kvstore.job_messages import (
    Join as Join,
)
from mxopt.kvstore.job_messages import (
    Passed as Passed,
)
from mxopt.kvstore.job_messages import (
    Pulse as Pulse,
)
from mxopt.kvstore.job_messages import (
    Refused as Refused,
)
from mxopt.kvstore.job_messages import (
    Report as Report,
)
from mxopt.kvstore.job_messages import (
    Waiting as Waiting,
)
from mxopt.kvstore.job_messages import (
    Waits as Waits,
)
from mxopt.kvstore.job_messages import (
    Welcome as Welcome,
)
from mxopt.kvstore.message import Framed, Message
from mxopt.kvstore.requests import (
    Chunk as Chunk,
)
from mxopt.kvstore.requests import (
    Config as Config,
)
from mxopt.kvstore.requests import (
    Cut as Cut,
)
from mxopt.kvstore.requests import (
    Done as Done,
)
from mxopt.kvstore.requests import (
    FetchStates as FetchStates,
)
from mxopt.kvstore.requests import (
    Hello as Hello,
)
from mxopt.kvstore.requests import (
    Init as Init,
)
from mxopt.kvstore.requests import (
    InitTable as InitTable,
)
from mxopt.kvstore.requests import (
    ListRows as ListRows,
)
from mxopt.kvstore.requests import (
    Present as Present,
)
from mxopt.kvstore.requests import (
    Pull as Pull,
)
from mxopt.kvstore.requests import (
    PullRows as PullRows,
)
from mxopt.kvstore.requests import (
    Push as Push,
)
from mxopt.kvstore.requests import (
    PushRows as PushRows,
)
from mxopt.kvstore.requests import (
    Ready as Ready,
)
from mxopt.kvstore.requests import (
    Rounds as Rounds,
)
from mxopt.kvstore.requests import (
    SetOptimizer as SetOptimizer,
)
from mxopt.kvstore.requests import (
    StoreStates as StoreStates,
)
from mxopt.kvstore.requests import (
    Values as Values,
)
from mxopt.kvstore.wire import MAX_HEADER, SMALL, Frame

KINDS = {
    kind.__struct_config__.tag: kind
    for base in (Message, Framed)
    for kind in base.__subclasses__()
    if kind is not Framed
}
_TAGS = {kind: tag for tag, kind in KINDS.items()}
_pack = msgpack.Packer().pack
_AS_THEY_ARE = (bytes,)  # for `convert`, which would take a text for bytes in base64


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
    """The message that `frames` are: one whose fields have the types its class names. Raises ProtocolError where they
    are none. What it allocates is bounded by the frames that have really arrived."""
    if not frames:
        raise ProtocolError("a message without a header")
    if len(frames[0]) > MAX_HEADER:
        raise ProtocolError(f"a header of {len(frames[0])} bytes; the limit is {MAX_HEADER}")
    try:
        fields = plain.unpack(frames[0])
        kind = KINDS.get(fields[0]) if type(fields) is list and fields and type(fields[0]) is int else None
        if kind is None:
            raise ProtocolError(f"it begins with no message's number: {fields!r:.80}")
        message: Any = msgspec.convert(fields, kind, builtin_types=_AS_THEY_ARE)
        if kind.FREE:
            plain.check(getattr(message, kind.FREE))
    except (ValueError, msgspec.ValidationError) as error:  # no ValueError in msgspec 0.19
        raise ProtocolError(f"a header that is no message: {error}") from None
    following = 0
    if message.FRAMES:
        if type(message.data) is int:
            following, message.data = message.data, list(frames[1:])
        if len(message.data) != message.FRAMES:
            raise ProtocolError(f"{type(message).__name__} has {message.FRAMES} arrays, {len(message.data)} came")
    if len(frames) != following + 1:
        raise ProtocolError(f"{type(message).__name__} announced {following} frames, {len(frames) - 1} came")
    return message
