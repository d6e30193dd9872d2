"""Processes that are forked from one that has made all imports already: a new interpreter takes
some tenths of a second of a core for them, and the tests start hundreds.

A child is like a process that was started. Its script is `__main__`; arguments, environment,
folder, path of modules, session, streams and signals are its own, random numbers too, and every
other one hashes differently. It has no other thread and no other open file. What only a start can
show must be started: what is imported and when, and what interpreters read of the environment.
"""

from __future__ import annotations

import atexit
import contextlib
import gc
import importlib
import importlib.util
import itertools
import json
import os
import select
import signal
import socket
import subprocess
import sys
import types
from pathlib import Path

IMPORTS = ("llvmlite.binding", "mxopt.kvstore.dist", "mxopt_server.attached", "mxopt_server.cli",
           "mxopt_server.doors", "mxopt_server.preload", "table")  # fmt: skip
# What interpreters and libraries read of the environment as they start.
READ_AT_START = ("PYTHON", "LC_", "LANG", "LD_", "OMP_", "OPENBLAS_")


class Forks:
    """Forks processes in environments that differ from `env` in nothing that is read at a start,
    but for the path of modules."""

    def __init__(self, env: dict[str, str]) -> None:
        self._env = env
        self._parents = itertools.cycle([self._parent(), self._parent()])

    def _parent(self) -> socket.socket:
        here, there = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with there:
            command = [sys.executable, __file__, str(there.fileno())]
            parent = subprocess.Popen(
                command, env=self._env, pass_fds=[there.fileno()], stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
                start_new_session=True,
            )  # fmt: skip
        atexit.register(parent.communicate)
        atexit.register(here.close)
        return here

    def fork(self, command: list[str], env: dict[str, str]) -> Child:
        """Does what `command` would, which is Python with a script or `-m` and a package."""
        changed = {name for name, _ in env.items() ^ self._env.items()} - {"PYTHONPATH"}
        assert not [name for name in changed if name.startswith(READ_AT_START)], changed
        return Child(next(self._parents), [command, env, os.getcwd()])


class Child:
    """A forked process, as `subprocess.Popen` shows one."""

    returncode: int | None = None

    def __init__(self, parent: socket.socket, request: list[object]) -> None:
        out, output = os.pipe()
        self._end, end = os.pipe()
        socket.send_fds(parent, [json.dumps(request).encode()], [output, end])
        os.close(output)
        os.close(end)
        self.pid = int(parent.recv(32))
        self.stdout = os.fdopen(out, encoding="utf-8")

    def poll(self) -> int | None:
        return self._look(0)

    def wait(self, timeout: float | None = None) -> int:
        if self._look(timeout) is None:
            raise subprocess.TimeoutExpired(f"process {self.pid}", timeout or 0)
        assert self.returncode is not None
        return self.returncode

    def _look(self, timeout: float | None) -> int | None:
        if self.returncode is None and select.select([self._end], [], [], timeout)[0]:
            self.returncode = int(os.read(self._end, 32))
            os.close(self._end)
        return self.returncode

    def send_signal(self, number: int) -> None:
        if self.poll() is None:
            os.kill(self.pid, number)


def serve(requests: socket.socket) -> str:
    """Forks a child for each request, and tells when it has ended. Returns in the child: what it
    shall run as `__main__`."""
    ends: dict[int, int] = {}

    def reap(*_: object) -> None:
        with contextlib.suppress(ChildProcessError):
            while (ended := os.waitpid(-1, os.WNOHANG))[0]:
                end = ends.pop(ended[0])
                with contextlib.suppress(BrokenPipeError):
                    os.write(end, b"%d" % os.waitstatus_to_exitcode(ended[1]))
                os.close(end)

    signal.signal(signal.SIGCHLD, reap)
    while True:
        request, files, *_ = socket.recv_fds(requests, 1 << 20, 2)
        if not request:
            sys.exit()
        signal.pthread_sigmask(signal.SIG_BLOCK, [signal.SIGCHLD])
        if (pid := os.fork()) == 0:
            break
        ends[pid] = files[1]
        os.close(files[0])
        signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
        requests.send(b"%d" % pid)
    os.setsid()
    for stream in (1, 2):
        os.dup2(files[0], stream)
    requests.close()
    os.closerange(3, os.sysconf("SC_OPEN_MAX"))
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, [signal.SIGCHLD])
    return become(*json.loads(request))


def become(command: list[str], env: dict[str, str], folder: str) -> str:
    """Makes this process one that `command` has started. Returns the file that it runs."""
    _, script, *arguments = command
    os.chdir(folder)
    if script == "-m":
        spec = importlib.util.find_spec(f"{arguments.pop(0)}.__main__")
        assert spec is not None
        assert spec.origin is not None
        script, first = spec.origin, folder
    else:
        first = str(Path(script).parent)
    given = os.environ["PYTHONPATH"].split(os.pathsep)
    sys.path[:] = [first, *env["PYTHONPATH"].split(os.pathsep), *(p for p in sys.path[1:] if p not in given)]
    sys.argv = [script, *arguments]
    os.environ.clear()
    os.environ.update(env)
    return script


if __name__ == "__main__":
    for name in IMPORTS:
        importlib.import_module(name)
    gc.freeze()  # nothing of it is ever to be copied for a look at it
    script = serve(socket.socket(fileno=int(sys.argv[1])))
    module = sys.modules["__main__"] = types.ModuleType("__main__")
    module.__file__ = script
    exec(compile(Path(script).read_bytes(), script, "exec", dont_inherit=True), vars(module))
