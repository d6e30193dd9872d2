"""A worker's line to a server's door, by a Unix socket."""

from __future__ import annotations

from contextlib import ExitStack
from pathlib import Path
from typing import Any

import zmq
from mxopt_server import routers
from mxopt_server.door import Door

from mxopt.kvstore import sockets
from mxopt.kvstore.network import SocketLine


def door_at(stack: ExitStack, context: zmq.Context[Any], path: Path) -> Door:
    router = stack.enter_context(routers.router(context, None, 35))
    router.linger = 0
    routers.bind_unix(router, f"ipc://{path}")
    return Door(router)


def line_to(stack: ExitStack, context: zmq.Context[Any], path: Path) -> SocketLine:
    line = SocketLine(lambda: sockets.connect(context, f"ipc://{path}", None, b"me"), lends=True)
    stack.callback(line.close)
    return line
