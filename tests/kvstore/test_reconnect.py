"""Connections that break in the middle of a push: everything is applied once."""

from __future__ import annotations

import contextlib
import socket
import threading

import zmq
from jobs import Job

from mxopt.kvstore import sockets
from mxopt.kvstore.network import SocketLine


class Proxy:
    """Passes bytes on to a server; cuts each of the first connections once this number of bytes has
    come from the worker."""

    def __init__(self, cuts: list[int]) -> None:
        self.cuts, self.target = list(cuts), 0
        self.listener = socket.create_server(("127.0.0.1", 0))
        self.port = self.listener.getsockname()[1]
        self.broken = 0
        threading.Thread(target=self._accept, daemon=True).start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self.listener.accept()
            except OSError:
                return
            server = socket.create_connection(("127.0.0.1", self.target))
            limit = self.cuts.pop(0) if self.cuts else None
            threading.Thread(target=self._pass, args=(client, server, limit), daemon=True).start()
            threading.Thread(target=self._pass, args=(server, client, None), daemon=True).start()

    def _pass(self, source: socket.socket, sink: socket.socket, limit: int | None) -> None:
        passed = 0
        try:
            while data := source.recv(1 << 16):
                passed += len(data)
                if limit is not None and passed > limit:
                    sink.sendall(data[: len(data) // 2])
                    self.broken += 1
                    break
                sink.sendall(data)
        except OSError:
            pass
        for end in (source, sink):
            with contextlib.suppress(OSError):
                end.shutdown(socket.SHUT_RDWR)
            end.close()


def test_a_line_tells_when_it_has_been_made_again() -> None:
    with zmq.Context() as context, socket.create_server(("127.0.0.1", 0)) as listener:
        line = SocketLine(lambda: sockets.connect(context, f"tcp://127.0.0.1:{listener.getsockname()[1]}", None))
        try:
            first, _ = listener.accept()
            assert line.receive(wait=True) is None
            assert not line.renewed()
            first.close()
            again, _ = listener.accept()
            while not line.renewed():
                line.receive(wait=True)
            assert not line.renewed()
            again.close()
        finally:
            line.close()


def test_pushes_repeated_after_broken_connections_are_applied_once() -> None:
    proxy = Proxy([3_000_000, 1_500_000])
    with Job(1, 1, ("--advertise", f"127.0.0.1:{proxy.port}")) as job:
        proxy.target = int(job.servers[0].endpoint.rpartition(":")[2])
        job.run("broken")
        assert proxy.broken == 2
        assert job.ended() == [0, 0]
    proxy.listener.close()


def test_pushes_that_are_sent_twice_on_one_connection_keep_what_servers_hold_of_them() -> None:
    with Job(2, 1) as job:
        job.run("sent_twice")
