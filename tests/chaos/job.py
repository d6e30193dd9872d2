"""A job of real processes, disturbed as its plan says, and what must hold of it.

What must hold: its final weights have the bits of an undisturbed job's; where somebody dies whom
nobody starts again, the job ends with an error that names who it was, and ends well when it is
taken up with `--resume`. Nothing lasts longer than its deadline, and no process stays behind.
"""

from __future__ import annotations

import contextlib
import json
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, replace
from pathlib import Path
from typing import IO, TypeVar

import numpy as np
import psutil
from chaos.plan import Plan
from chaos.relay import Relay

Found = TypeVar("Found")
HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
DEADLINE_S = 120.0  # for one start of a job, on a busy machine; an undisturbed one takes some seconds
FAULT_S = 6.0  # the same for each fault more
MARK = "MXOPT_CHAOS"  # in the environment of all that belongs to a job
SERVE = [sys.executable, "-m", "mxopt_server"]
LAUNCH = [sys.executable, "-c", "import sys; from mxopt_server.launch import main; sys.exit(main())"]
TIMES = {"MXOPT_KVSTORE_JOIN_TIMEOUT": "60", "MXOPT_KVSTORE_TIMEOUT": "300", "MXOPT_KVSTORE_HEARTBEAT": "0.2",
         "MXOPT_KVSTORE_DEAD_AFTER": "20", "MXNET_KVSTORE_BIGARRAY_BOUND": "1000", "OMP_NUM_THREADS": "1"}  # fmt: skip


class Job:
    """A plan, carried out in `folder`, where its logs and its history stay."""

    def __init__(self, plan: Plan, folder: Path) -> None:
        self.plan, self.folder = plan, folder
        self.history: list[str] = []  # what was done and what happened, with the time since the start
        self._start, self._starts = time.monotonic(), 0
        self._output = ""

    def faults(self) -> list[str]:
        """Runs the job; returns what doesn't hold of it."""
        shutil.rmtree(self.folder, ignore_errors=True)
        self.folder.mkdir(parents=True)
        plan = self.plan
        found = self._run_by_hand() if plan.weather else self._run_launched()
        if not found:
            expected, got = undisturbed(plan, self.folder.parent), _weights(self.folder)
            found += [f"{key} has other bits" for key in expected if got[key].tobytes() != expected[key].tobytes()]
        for process in self._processes():
            found.append(f"{process.name()} {process.pid} stayed behind")
            process.kill()
        self._tell(*found)
        (self.folder / "history.json").write_text(json.dumps({"plan": asdict(plan), "history": self.history}, indent=1))
        return found

    def _run_launched(self) -> list[str]:
        code = self._launch()
        if self.plan.survives or (code == 0 and not self.plan.file_bytes):  # the last fault may come too late
            return [] if code == 0 else [f"ended with {code}, but nobody died for good: {self._last_words}"]
        if code == 0:
            return []  # the disk was large enough
        found = []
        for faults in (*self.plan.again, []):
            found += self._unnamed()
            self.plan = replace(self.plan, file_bytes=0, faults=faults)
            code = self._launch(resume=True)
            if code == 0:
                return found
        return [*found, f"taken up again, it ended with {code}: {self._last_words}"]

    def _unnamed(self) -> list[str]:
        """What is wrong with the error of a job that somebody's death has ended."""
        culprits = {f.who for f in self.plan.faults if not f.stopped} if self.plan.faults else {"server", "disk"}
        if any(who in self._output.replace("-", " ") for who in culprits):  # the launcher writes worker-1
            return []
        return [f"the error doesn't name {' or '.join(sorted(culprits))}: {self._last_words}"]

    def _launch(self, resume: bool = False) -> int:
        """Runs the job from its start, or from its state; returns its exit code, or -1 after its
        deadline."""
        plan, state = self.plan, self.folder / "state"
        for began in self.folder.glob("began-*"):
            began.unlink()
        command = [*LAUNCH, "-n", str(plan.workers), "-s", str(plan.servers), "--run-dir", str(self.folder / "logs")]
        if resume:
            command += ["--resume", str(state)]
        else:
            command += ["--state-dir", str(state)]
        command += ["--durability", "journal", "--restarts", "100"] + ["--fsync"] * plan.fsync
        self._starts += 1
        output = self.folder / f"output-{self._starts}.txt"
        with output.open("w") as stream:
            launcher = self._start_process([*command, *self._program()], stream)
            with self._disturbing(launcher):
                code = self._finish([launcher])
        self._output = output.read_text()
        self._tell(f"the job {'that was taken up ' * resume}ended with {code}")
        return code

    def _run_by_hand(self) -> list[str]:
        """A job whose servers are reached through relays."""
        plan, started, relays = self.plan, [], []
        assert plan.weather is not None
        counts = {"DMLC_NUM_WORKER": str(plan.workers), "DMLC_NUM_SERVER": str(plan.servers)}
        with contextlib.ExitStack() as streams:

            def start(name: str, command: list[str], **env: str) -> subprocess.Popen[bytes]:
                stream = streams.enter_context((self.folder / f"{name}.log").open("w"))
                started.append(self._start_process(command, stream, **counts, **env))
                return started[-1]

            start("scheduler", [*SERVE, "--role", "scheduler", "--port", "0"])
            counts["DMLC_PS_ROOT_PORT"] = str(self._port("scheduler"))
            for rank in range(plan.servers):
                relays.append(Relay(plan.weather, plan.seed + rank))
                advertised = ["--advertise", f"127.0.0.1:{relays[rank].port}"]
                start(f"server-{rank}", [*SERVE, "--role", "server", *advertised], DMLC_SERVER_ID=str(rank))
                relays[rank].target = self._port(f"server-{rank}")
            for rank in range(plan.workers):
                start(f"worker-{rank}", self._program(), DMLC_ROLE="worker", DMLC_WORKER_ID=str(rank))
            code = self._finish(started)
        for relay in relays:
            relay.close()
        self._tell(*(f"a relay cut {relay.cuts} times, sent {relay.doubles} messages twice" for relay in relays))
        if code == 0:
            return []
        logs = sorted(self.folder.glob("*.log"))
        self._output = "".join(log.read_text() for log in logs)
        return [f"ended with {code}: {self._last_words}"]

    @property
    def _last_words(self) -> str:
        return " | ".join(self._output.strip().splitlines()[-3:])

    def _program(self) -> list[str]:
        plan = self.plan
        arguments = [str(self.folder), plan.program, str(plan.steps), str(plan.pause)]
        return [sys.executable, str(HERE / "program.py"), *arguments]

    def _port(self, name: str) -> int:
        log = self.folder / f"{name}.log"
        line = _waited(lambda: next((x for x in log.read_text().splitlines() if "listening on" in x), None), 30)
        if line is None:
            raise AssertionError(f"{name} doesn't listen: {log.read_text()}")
        return int(line.rpartition(":")[2])

    def _start_process(self, command: list[str], stream: IO[str], **more: str) -> subprocess.Popen[bytes]:
        plan = self.plan
        env = {k: v for k, v in os.environ.items() if not k.startswith(("DMLC_", "MXOPT_", "MXNET_"))}
        path = [str(HERE / "slow")] * plan.slow_disk + [str(ROOT), str(ROOT / "server")]
        env |= TIMES | {MARK: str(self.folder), "PYTHONPATH": os.pathsep.join(path)} | more

        def limited() -> None:
            resource.setrlimit(resource.RLIMIT_FSIZE, (plan.file_bytes, plan.file_bytes))

        return subprocess.Popen(
            command, env=env, stdout=stream, stderr=stream, start_new_session=True,
            preexec_fn=limited if plan.file_bytes else None,
        )  # fmt: skip

    def _finish(self, processes: list[subprocess.Popen[bytes]]) -> int:
        """The first exit code that isn't 0 of these; -1 where one hasn't ended in time, and then
        all are killed."""
        until, codes = time.monotonic() + DEADLINE_S + FAULT_S * len(self.plan.faults), []
        for process in processes:
            try:
                codes.append(process.wait(max(0.0, until - time.monotonic())))
            except subprocess.TimeoutExpired:
                self._tell("the deadline is over")
                codes.append(-1)
        if -1 in codes:
            for left in self._processes():
                with contextlib.suppress(psutil.NoSuchProcess):
                    left.kill()
            for process in processes:
                process.wait(DEADLINE_S)
        return next((code for code in codes if code), 0)

    def _processes(self) -> list[psutil.Process]:
        """All processes of the job, with whatever they have started."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == str(self.folder) and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process)
        return found

    def _member(self, launcher: subprocess.Popen[bytes], who: str) -> psutil.Process | None:
        """The process that has this place in the job now."""
        role, _, rank = who.partition(" ")
        script = "program.py" if role == "worker" else "mxopt_server"
        processes: list[psutil.Process] = []
        with contextlib.suppress(psutil.NoSuchProcess):  # the launcher has just ended
            processes = psutil.Process(launcher.pid).children()
        for process in processes:
            with contextlib.suppress(psutil.Error):  # of those that were killed, which stay as zombies, each raises
                env, command = process.environ(), " ".join(process.cmdline())
                same = env.get("DMLC_ROLE") == role and env.get(f"DMLC_{role.upper()}_ID", "") == rank
                if same and script in command:
                    return process
        return None

    @contextlib.contextmanager
    def _disturbing(self, launcher: subprocess.Popen[bytes]) -> Iterator[None]:
        """While this runs, a thread of this process carries the faults out."""
        thread = threading.Thread(target=self._disturb, args=(launcher,), daemon=True)
        thread.start()
        yield
        thread.join(DEADLINE_S)

    def _disturb(self, launcher: subprocess.Popen[bytes]) -> None:
        marks = [self.folder / f"began-{rank}" for rank in range(self.plan.workers)]
        _waited(lambda: all(mark.exists() for mark in marks) or launcher.poll() is not None or None, DEADLINE_S)
        begun = time.monotonic()
        for fault in self.plan.faults:
            while launcher.poll() is None and time.monotonic() < begun + fault.seconds:
                time.sleep(min(0.1, max(0.0, begun + fault.seconds - time.monotonic())))
            if launcher.poll() is not None:
                return
            process = self._found(launcher, fault.who)
            if process is None:
                self._tell(f"{fault.who} isn't there to be disturbed")
                continue
            self._tell(str(fault))
            with contextlib.suppress(psutil.NoSuchProcess):
                if not fault.stopped:
                    process.send_signal(signal.SIGKILL)
                else:
                    process.send_signal(signal.SIGSTOP)
                    time.sleep(fault.stopped)
                    process.send_signal(signal.SIGCONT)

    def _found(self, launcher: subprocess.Popen[bytes], who: str) -> psutil.Process | None:
        """The member's process; None where it doesn't come, or the job ends first."""
        process = _waited(lambda: self._member(launcher, who) or launcher.poll(), 5)
        return process if isinstance(process, psutil.Process) else None

    def _tell(self, *lines: str) -> None:
        self.history += [f"{time.monotonic() - self._start:6.2f} s  {line}" for line in lines]


def undisturbed(plan: Plan, folder: Path) -> dict[str, np.ndarray]:
    """The final weights of the same job when nothing is done to it; they are kept in `folder`."""
    kept = folder / f"undisturbed-{plan.program}-{plan.workers}-{plan.steps}"
    if not (kept / "weights.npz").exists():
        calm = Plan(plan.seed, plan.program, plan.workers, 1, plan.steps, 0.0)
        job = Job(calm, kept)
        kept.mkdir(parents=True, exist_ok=True)
        if job._launch() != 0:
            raise AssertionError(f"an undisturbed job failed: {job._last_words}")
    return _weights(kept)


def _weights(folder: Path) -> dict[str, np.ndarray]:
    with np.load(folder / "weights.npz") as loaded:
        return dict(loaded)


def _waited(look: Callable[[], Found | None], deadline_s: float) -> Found | None:
    """What `look` gives once it isn't None; None after the deadline."""
    until = time.monotonic() + deadline_s
    while (found := look()) is None and time.monotonic() < until:
        time.sleep(0.01)
    return found
