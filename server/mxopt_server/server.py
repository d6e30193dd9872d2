"""A server: takes the workers' messages, one handler each, and answers them."""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from mxopt.document import dump_document, load_document
from mxopt.errors import JobFailedError, KVStoreError, MXOptError, ProtocolError
from mxopt.kvstore import compression, wire
from mxopt.kvstore import messages as m
from mxopt.kvstore.wire import Key
from mxopt.sparse import RowSparse
from mxopt_server.entries import Entry, Part
from mxopt_server.rounds import DEPTH, Contribution, Request, RoundError
from mxopt_server.table import ABSENT, Table

log = logging.getLogger("mxopt.server")

CHUNK = 4 << 20  # bytes of states in one message
MAX_STATES = 1 << 36

Send = Callable[[bytes, Any], None]


@dataclass
class Rows:
    """A push of rows of one key, as far as it has come."""

    indices: np.ndarray
    data: np.ndarray  # a row each


@dataclass
class Worker:
    """What the server knows of a worker."""

    rank: int
    incarnation: str
    route: bytes
    expects: int = 1  # the next sequence number
    since: float = field(default_factory=time.monotonic)
    seen: float = field(default_factory=time.monotonic)
    requests: int = 0
    waiting: dict[int, Request] = field(default_factory=dict)
    rows: dict[Key, Rows] = field(default_factory=dict)  # row-sparse pushes that are coming in
    refused: dict[int, m.Refused] = field(default_factory=dict)  # what was answered, for the latest requests
    documents: dict[Key, bytes] = field(default_factory=dict)  # the states that are being fetched: of one key
    arriving: dict[Key, bytearray] = field(default_factory=dict)  # the states that are being stored


class Server:
    """One server of job `job`, moved by messages. `send(route, message)` is how it answers."""

    def __init__(self, send: Send, job: str, rank: int, workers: int) -> None:
        self.job, self.rank = job, rank
        self.incarnation = secrets.token_hex(8)
        self.table = Table(workers)
        self.workers: dict[int, Worker] = {}
        self.routes: dict[bytes, Worker] = {}
        self.fenced: set[str] = set()  # incarnations of workers that others have replaced
        self.started = time.monotonic()
        self.received = self.sent = self.messages = self.refusals = 0
        self.resumed = False
        self.mode_chosen = False
        self._send = send
        self._handlers: dict[type, Callable[[Worker, Any], None]] = {
            m.Push: self._push, m.Pull: self._pull, m.Init: self._init, m.PushRows: self._push_rows,
            m.PullRows: self._pull_rows, m.SetOptimizer: self._set_optimizer, m.FetchStates: self._fetch_states,
            m.StoreStates: self._store_states,
        }  # fmt: skip

    def handle(self, route: bytes, frames: list[Any]) -> None:
        """Takes one message. Whatever is wrong with it is answered with Refused; the server goes on."""
        seq, message = 0, None
        self.messages += 1
        try:
            message = m.decode(frames)
            handler = self._handlers.get(type(message))
            if handler is None:
                self._unnumbered(route, message)
                return
            seq = message.seq
            worker = self.routes.get(route)
            if worker is None:
                raise ProtocolError(f"{type(message).__name__} before Hello")
            worker.requests += 1
            if seq > worker.expects:
                log.info("worker %d: request %d came, %d is expected", worker.rank, seq, worker.expects)
                self._send(route, self._ready(worker))
                return
            if seq < worker.expects:
                self._again(worker, message)
                return
            worker.expects = seq + 1
            handler(worker, message)
        except Exception as error:
            failed = error.__cause__ if isinstance(error, RoundError) else error
            if not isinstance(failed, MXOptError):
                log.exception("a message failed")
                failed = KVStoreError(f"{type(failed).__name__}: {failed}")
            for request in error.requests if isinstance(error, RoundError) else ():
                other = self.workers[request.rank]
                if other.route != route and other.waiting.pop(request.seq, None) is not None:
                    self._refuse(other.route, request.seq, failed, _key_of(message))
            self._refuse(route, seq, failed, _key_of(message))

    def set_ended(self, ended: set[int]) -> None:
        """Workers that have ended: who waits for them is told."""
        if ended <= self.table.ended:
            return
        self.table.ended |= ended
        for group in self.table.groups.values():
            for request in group.stuck():
                self._refuse_ended(request, group.parts[0])
            group.settle()

    # Messages without a number.

    def _unnumbered(self, route: bytes, message: Any) -> None:
        if isinstance(message, m.Hello):
            self._hello(route, message)
        elif isinstance(message, m.Inquire):
            from mxopt_server.report import report

            self._send(route, m.Report(report(self)))
        else:
            raise ProtocolError(f"a server takes no {type(message).__name__}")

    def _hello(self, route: bytes, hello: m.Hello) -> None:
        wire.check_version(hello.version, f"server {self.rank}")
        if hello.job != self.job:
            raise KVStoreError(f"server {self.rank} belongs to job {self.job}, the worker to job {hello.job}")
        if hello.workers != self.table.workers or hello.rank >= hello.workers:
            raise KVStoreError(f"server {self.rank} has {self.table.workers} workers, the worker says {hello.workers}")
        if hello.incarnation in self.fenced:
            raise KVStoreError(f"worker {hello.rank} has been replaced by another process")
        if hello.mode not in ("sync", "async", "ssp"):
            raise KVStoreError(f"there is no mode {hello.mode!r}")
        table = self.table
        if self.mode_chosen and (table.mode, table.staleness) != (hello.mode, hello.staleness):
            raise KVStoreError(f"the job's stores are dist_{table.mode}, worker {hello.rank} has dist_{hello.mode}")
        self.mode_chosen, table.mode, table.staleness = True, hello.mode, hello.staleness
        worker = self.workers.get(hello.rank)
        if worker is None or worker.incarnation != hello.incarnation:
            if worker is not None:
                self.fenced.add(worker.incarnation)
                self.routes.pop(worker.route, None)
            worker = self.workers[hello.rank] = Worker(hello.rank, hello.incarnation, route)
            log.info("worker %d is here", hello.rank)
        self.routes.pop(worker.route, None)
        if worker.expects < hello.oldest:
            if worker.expects > 1 or self.resumed:
                log.warning("worker %d: requests %d to %d are lost", worker.rank, worker.expects, hello.oldest - 1)
            worker.expects = hello.oldest
        worker.route, worker.seen = route, time.monotonic()
        self.routes[route] = worker
        self._send(route, self._ready(worker))

    def _ready(self, worker: Worker) -> m.Ready:
        return m.Ready(self.rank, self.incarnation, worker.expects)

    def _again(self, worker: Worker, message: Any) -> None:
        """A request that was taken before: it is answered again, and not applied again."""
        if message.seq in worker.waiting:
            return
        refused = worker.refused.get(message.seq)
        if refused is not None:
            self._reply(worker, refused)
            return
        if isinstance(message, m.Push) and message.answer:
            self._pull(worker, m.Pull(message.seq, message.keys, message.piece))
        elif isinstance(message, m.Pull | m.PullRows | m.FetchStates):
            self._handlers[type(message)](worker, message)
        else:
            self._done(worker, message.seq)

    # Values.

    def _init(self, worker: Worker, init: m.Init) -> None:
        table = self.table
        if not init.shape or init.step < 1 or np.prod(init.shape, dtype=object) > np.prod(init.whole, dtype=object):
            raise ProtocolError(f"key {init.key!r}: no part of {init.shape} in {init.whole}")
        entry = table.entries.get(init.key)
        asked = (init.dtype, init.shape, init.whole, init.first, init.step)
        if entry is not None and not entry.same(*asked):
            raise KVStoreError(
                f"key {init.key!r} is initialised on server {self.rank} as {entry.dtype} of shape {entry.whole},"
                f" not as {init.dtype} of shape {tuple(init.whole)}"
            )
        if entry is not None and not entry.missing:
            self._done(worker, init.seq)  # resumed from a snapshot: what is here counts
            return
        size = min(init.step, init.shape[0] - init.piece * init.step)
        count = size * int(np.prod(init.shape[1:], dtype=object))
        if init.piece and size <= 0:
            raise ProtocolError(f"key {init.key!r} has no piece {init.piece}")
        value = wire.array_of(init.data[0], wire.DTYPES[init.dtype], count, init.key)
        if entry is None:
            entry = table.entries[init.key] = Entry(init.key, *asked)
        part = entry.parts[init.piece]
        part.weight[...] = value.reshape(part.shape)
        entry.missing.discard(init.piece)
        if not entry.missing and table.updater is not None:
            table._name_parts(table.updater.optimizer, entry)
        self._done(worker, init.seq)

    def _push(self, worker: Worker, push: m.Push) -> None:
        keys: tuple[Any, ...] = tuple(push.keys) if len(push.keys) > 1 else ((push.keys[0], push.piece),)
        group = self.table.groups.get(keys)
        if group is not None:
            parts, size, dtype = group.parts, group.size, group.dtype
        else:
            parts = self.table.parts(push.keys, push.piece)
            size, dtype = sum(p.size for p in parts), parts[0].weight.dtype
            if any(p.weight.dtype != dtype for p in parts):
                raise ProtocolError("a message with keys of different dtypes")
        if push.codec:
            value = self._decompress(push, size).astype(dtype, copy=False)
        else:
            value = wire.array_of(push.data[0], dtype, size, push.keys[0])
        self._take(worker, push, keys, parts, value, push.answer)

    def _decompress(self, push: m.Push, size: int) -> np.ndarray:
        if push.codec not in compression.CODECS.values():
            raise ProtocolError(f"there is no codec {push.codec}")
        expected = compression.encoded_size(push.codec, size)
        sent = wire.array_of(push.data[0], np.dtype(np.uint8), expected, push.keys[0])
        return compression.decode(sent, push.codec, push.threshold, size)

    def _take(
        self, worker: Worker, push: Any, keys: tuple[Any, ...], parts: list[Part], value: Any, answer: bool
    ) -> None:
        """Hands a contribution to its group, and sees to it that the worker gets its answer."""
        table = self.table
        if table.mode == "sync":
            for rank in table.ended:
                if not parts[0].group or not parts[0].group.queues[rank]:
                    raise _ended(rank, parts[0])
        elif table.updater is None:
            raise KVStoreError(f"dist_{table.mode} needs an optimizer: call set_optimizer before the first push")
        request = None
        if answer:
            request = self._request(worker, push.seq, lambda r: self._answer(r, parts))
        elif table.depth(parts, worker.rank) >= DEPTH:
            request = self._request(worker, push.seq, lambda r: self._done(worker, r.seq))
        else:
            self._done(worker, push.seq)
        table.push(keys, parts, Contribution(worker.rank, value, push.config, push.update, request))

    def _pull(self, worker: Worker, pull: m.Pull) -> None:
        parts = self.table.parts(pull.keys, pull.piece)
        self._check_ended(worker, parts)
        self.table.wait(self._request(worker, pull.seq, lambda r: self._answer(r, parts)), parts)

    def _push_rows(self, worker: Worker, push: m.PushRows) -> None:
        entry = self.table.entry(push.key)
        name = f"key {push.key!r}, rows"
        buffer: Any = getattr(push.data[0], "buffer", push.data[0])
        indices = wire.array_of(push.data[0], np.dtype(np.int64), len(buffer) // 8, push.key)
        width = entry.rows().shape[1]
        data = wire.array_of(push.data[1], entry.weight.dtype, len(indices) * width, push.key)
        if len(indices) and (indices[0] < 0 or indices[-1] >= entry.units or np.any(indices[1:] <= indices[:-1])):
            raise ProtocolError(f"{name}: numbers must ascend within 0 to {entry.units - 1}")
        data = data.reshape(len(indices), width)
        before = worker.rows.pop(push.key, None)  # gone where this message is refused: so are those that follow
        if push.offset:
            if before is None or len(before.indices) != push.offset:
                here = 0 if before is None else len(before.indices)
                raise ProtocolError(f"{name} from the {push.offset}th of a push, {here} are here")
            if len(indices) and indices[0] <= before.indices[-1]:
                raise ProtocolError(f"{name}: numbers must ascend over all messages of a push")
            indices, data = np.concatenate([before.indices, indices]), np.concatenate([before.data, data])
        if len(indices) < push.total:
            worker.rows[push.key] = Rows(indices, data)
            self._done(worker, push.seq)
            return
        value = RowSparse(data, indices, (entry.units, width))
        keys = (None, push.key) if entry.pieces > 1 else ((push.key, 0),)
        self._take(worker, push, keys, entry.parts, value, False)

    def _pull_rows(self, worker: Worker, pull: m.PullRows) -> None:
        entry = self.table.entry(pull.key)
        buffer: Any = getattr(pull.data[0], "buffer", pull.data[0])
        ids = wire.array_of(pull.data[0], np.dtype(np.int64), len(buffer) // 8, pull.key)
        if len(ids) and (ids.min() < 0 or ids.max() >= entry.units):
            raise ProtocolError(f"key {pull.key!r}: row ids must be within 0 to {entry.units - 1}")
        self._check_ended(worker, entry.parts)

        def answer(request: Request) -> None:
            worker.waiting.pop(request.seq, None)
            rows = np.ascontiguousarray(entry.rows()[ids])
            self._reply(worker, m.Values(request.seq, [wire.bytes_of(rows)]))

        self.table.wait(self._request(worker, pull.seq, answer), entry.parts)

    # The optimizer and its states.

    def _set_optimizer(self, worker: Worker, request: m.SetOptimizer) -> None:
        self.table.set_optimizer(request.event, request.config)
        self._done(worker, request.seq)

    def _fetch_states(self, worker: Worker, request: m.FetchStates) -> None:
        entry = self.table.entry(request.key)
        if request.offset == 0:
            content: dict[str, Any] = {"count": self.table.count(entry), "first": entry.first}
            optimizer = self.table.updater.optimizer if self.table.updater else None
            content["num_update"] = optimizer.num_update if optimizer else 0
            if self.table.updater is not None and entry.key in self.table.updater.states:
                content["state"] = self.table.state(entry)
            worker.documents = {entry.key: dump_document(content)}
        document = worker.documents.get(entry.key)
        if document is None:
            raise ProtocolError(f"key {entry.key!r}: states are fetched from byte 0 on")
        part = document[request.offset : request.offset + CHUNK]
        self._reply(worker, m.Chunk(request.seq, len(document), [part]))

    def _store_states(self, worker: Worker, request: m.StoreStates) -> None:
        entry = self.table.entry(request.key)
        arriving = worker.arriving.pop(request.key, bytearray()) if request.offset else bytearray()
        if request.offset != len(arriving) or request.total > MAX_STATES:
            raise ProtocolError(f"key {request.key!r}: states from byte {request.offset}, {len(arriving)} are here")
        frame: Any = request.data[0]
        arriving += getattr(frame, "buffer", frame)
        if len(arriving) < request.total:
            worker.arriving[request.key] = arriving
        else:
            document = bytes(arriving)
            if self.table.loads.get(request.key, 0) < request.event:
                content = load_document(document)
                self.table.set_state(entry, content.get("state", ABSENT), content.get("count"))
                self.table.loads[request.key] = request.event
        self._done(worker, request.seq)

    # Answers.

    def _request(self, worker: Worker, seq: int, answer: Callable[[Request], None]) -> Request:
        made = worker.waiting[seq] = Request(worker.rank, seq, answer)
        return made

    def _answer(self, request: Request, parts: list[Part]) -> None:
        worker = self.workers[request.rank]
        worker.waiting.pop(request.seq, None)
        group = parts[0].group
        if len(parts) == 1:
            data: Any = parts[0].frame
            # The array itself may be sent, without a copy, where it can't change before the answer has arrived: no
            # round of it is complete without this worker's next push.
            if self.table.mode != "sync" and self.table.workers > 1:
                data = bytes(data)
        else:
            known = group is not None and group.parts is parts
            data = wire.bytes_of(group.values() if known else np.concatenate([p.weight.reshape(-1) for p in parts]))
        self._reply(worker, m.Values(request.seq, [data]))

    def _done(self, worker: Worker, seq: int) -> None:
        worker.waiting.pop(seq, None)
        self._reply(worker, m.Done(seq))

    def _reply(self, worker: Worker, message: Any) -> None:
        self._send(worker.route, message)

    def _check_ended(self, worker: Worker, parts: list[Part]) -> None:
        for part in parts if self.table.ended and self.table.mode == "sync" else ():
            if part.group is not None and not part.group.settled(worker.rank):
                lost = next((r for r in self.table.ended if not part.group.queues[r]), None)
                if lost is not None:
                    raise _ended(lost, part)

    def _refuse_ended(self, request: Request, part: Part) -> None:
        worker = self.workers[request.rank]
        if worker.waiting.pop(request.seq, None) is not None:
            lost = min(self.table.ended)
            self._refuse(worker.route, request.seq, _ended(lost, part), part.entry.key)

    def _refuse(self, route: bytes, seq: int, error: Exception, key: Any) -> None:
        self.refusals += 1
        worker = self.routes.get(route)
        if worker is not None:
            worker.waiting.pop(seq, None)
        who = f"worker {worker.rank}" if worker else "a stranger"
        log.warning("refused a request of %s: %s", who, error)
        text = f"server {self.rank}: {error}" if not str(error).startswith("server") else str(error)
        code = type(error).__name__
        refused = m.Refused(seq, code, text[: wire.MAX_TEXT], key if type(key) in (int, str) else None)
        if worker is not None and seq:
            worker.refused[seq] = refused
            while next(iter(worker.refused)) <= worker.expects - 1 - wire.REQUESTS:
                del worker.refused[next(iter(worker.refused))]
        self._send(route, refused)


def _key_of(message: Any) -> Any:
    return message.keys[0] if hasattr(message, "keys") else getattr(message, "key", None)


def _ended(rank: int, part: Part) -> Exception:
    return JobFailedError(f"worker {rank} has ended, so no round of key {part.entry.key!r} can be complete any more")
