"""Addresses of a job's processes as people write them, checked before anyone connects to them."""

from __future__ import annotations

import socket

from mxopt.errors import ArgumentError
from mxopt.kvstore import unix


def host_and_port(text: str, name: str) -> tuple[str, int]:
    """The parts of `HOST:PORT`, or `ipc://PATH` and 0. Raises ArgumentError, which begins with
    `name`, for anything else."""
    if unix.is_unix(text):
        return text, 0
    host, _, port = text.rpartition(":")
    if not host or not port.isdecimal():
        raise ArgumentError(f"{name} {text!r}: needs HOST:PORT or ipc://PATH")
    return host, checked_port(int(port), name)


def checked_port(port: int, name: str, least: int = 1) -> int:
    """`port`. Raises ArgumentError, which begins with `name`, if there is no such port."""
    if not least <= port <= 65535:
        raise ArgumentError(f"{name} {port}: needs a port from {least} to 65535")
    return port


def check_host(host: str) -> None:
    """Raises ArgumentError if a host has no IPv4 address, or is `ipc://PATH` in a folder that isn't
    this user's."""
    if unix.is_unix(host):
        unix.check(host)
    else:
        resolved(host)


def resolved(host: str) -> str:
    """The IPv4 address of a host. Raises ArgumentError if it has none."""
    if ":" in host:
        raise ArgumentError(f"{host!r} is an IPv6 address, which isn't supported: give an IPv4 address or a name")
    try:
        ((*_, address), *_) = socket.getaddrinfo(host, None, socket.AF_INET)
    except (OSError, UnicodeError) as error:
        raise ArgumentError(f"the host name {host!r} can't be resolved: {error}") from None
    return str(address[0])


def check_advertised(text: str, name: str) -> None:
    """Raises ArgumentError, which begins with `name`, if nobody could connect to `HOST` or
    `HOST:PORT`."""
    host, colon, port = text.partition(":")
    if not host or (colon and not port.isdecimal()):
        raise ArgumentError(f"{name} {text!r}: needs HOST or HOST:PORT, by IPv4")
    if colon:
        checked_port(int(port), name)
    resolved(host)
