"""Whatever order workers push in, and whatever order messages arrive in: a cut that all servers
make is between two steps of every worker's program, so that a job that goes on from it leaves
nothing out, and does nothing twice."""

from __future__ import annotations

import itertools
import logging
import random
from collections import Counter, deque
from types import SimpleNamespace
from typing import Any

import pytest
from peer import Peer, init, push

from mxopt.kvstore import messages as m
from mxopt.kvstore.cut import Cuts

KEYS = {"a": 0, "b": 0, "c": 1, "d": 1}  # which server has it


class Worker:
    """A worker whose program has, for each step, the keys that it pushes one by one. `said` are its
    messages that haven't arrived, by server; `ends` what it has pushed at the end of each step."""

    def __init__(self, rank: int, program: list[list[str]], counts: bool) -> None:
        self.rank, self._counts = rank, counts
        self._pushes = deque((step, key) for step, keys in enumerate(program, 1) for key in keys)
        self.pushed: Counter[str] = Counter()
        self.ends = list(itertools.accumulate(map(Counter, program), initial=Counter[str]()))
        self.said: list[deque[Any]] = [deque(), deque()]
        self.pulse, self.beat = m.Pulse("running", "", [], []), m.Beat("", "", 0, "")
        self.welcome = SimpleNamespace(goes_on=-1)
        channels = [SimpleNamespace(server=server) for server in (0, 1)]
        connections: Any = SimpleNamespace(channels=channels, send=lambda server, what: self.said[server].append(what))
        self._cuts = Cuts(connections, self)  # type: ignore[arg-type]

    def go_on(self) -> None:
        """Makes its next push."""
        step, key = self._pushes.popleft()
        self.pushed[key] += 1
        self._cuts.before(self.pushed[key], step * self._counts)
        self.said[KEYS[key]].append(push(0, False, keys=(key,), number=self.pushed[key]))

    @property
    def at_end(self) -> bool:
        return not self._pushes


class Job:
    """Workers and servers, in an order that `draw` draws; `regular`: all keys are pushed in each
    step, `counts`: the workers count the steps."""

    def __init__(self, draw: random.Random, regular: bool, counts: bool) -> None:
        self.draw, workers, steps = draw, draw.randint(1, 3), draw.randint(3, 10)
        often = draw.sample(list(KEYS), 2)
        pushed = [[key for key in KEYS if regular or key in often or draw.random() < 0.4] for _ in range(steps)]
        own = draw.random() < 0.7  # each worker has an order of its own
        programs = [[draw.sample(keys, len(keys)) if own else keys for keys in pushed] for _ in range(workers)]
        self.workers = [Worker(rank, program, counts) for rank, program in enumerate(programs)]
        self.peers = [Peer(workers) for _ in (0, 1)]
        self.seqs = Counter[tuple[int, int]]()
        for key, server in KEYS.items():
            self.tell(0, server, init(0, key))
        self.made: list[dict[int, dict[str, int]]] = [{}, {}]  # by server: by cut, the rounds that are over then

    def tell(self, rank: int, server: int, message: Any) -> None:
        self.seqs[rank, server] += 1
        message.seq = self.seqs[rank, server]
        peer = self.peers[server]
        before = peer.server.machine.cut
        assert not isinstance(peer.ask(rank, message), m.Refused)
        cut = peer.server.machine.cut
        if cut != before:
            self.made[server][cut] = {key: over(peer, key) for key in KEYS if KEYS[key] == server}

    def run(self) -> list[dict[str, int]]:
        """Until all is over. Returns what each cut that both servers have made is."""
        draw, cut = self.draw, 0
        while any(not w.at_end or any(w.said) for w in self.workers):
            furthest = max(w.beat.round for w in self.workers)
            if draw.random() < 0.2 and (cut == 0 or furthest > cut):
                cut = furthest + draw.choice([1, 1, 2, 3])
            worker = draw.choice(self.workers)
            if draw.random() < 0.5 and cut:
                worker.pulse = m.Pulse("running", "", [], [], cut=cut)
            waiting = [server for server in (0, 1) if worker.said[server]]
            if not worker.at_end and (not waiting or draw.random() < 0.5):
                worker.go_on()
            elif waiting:
                server = draw.choice(waiting)
                self.tell(worker.rank, server, worker.said[server].popleft())
        first, second = self.made
        return [first[number] | second[number] for number in first.keys() & second.keys()]


def over(peer: Peer, key: str) -> int:
    """The last round of a key that is over."""
    group = peer.server.values.entries[key].parts[0].group
    done: int = 0 if group is None else group.rounds.done  # type: ignore[attr-defined]
    return done


@pytest.mark.parametrize(("regular", "counts"), [(True, False), (True, True), (False, True)])
def test_a_cut_is_between_two_steps_of_every_workers_program(
    regular: bool, counts: bool, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.CRITICAL)
    cuts = 0
    for seed in range(60):
        job = Job(random.Random(seed), regular, counts)
        for cut in job.run():
            cuts += 1
            for worker in job.workers:
                assert any(all(end[key] == cut[key] for key in KEYS) for end in worker.ends), (seed, cut)
    assert cuts > 30


def test_who_cannot_have_checkpoints_is_told_why(caplog: pytest.LogCaptureFixture) -> None:
    worker = Worker(0, [["a"], ["a"], ["b", "a"], ["b", "a"]], False)
    while not worker.at_end:
        worker.pulse.cut = worker.pushed["a"]
        worker.go_on()
    assert [message.number for message in worker.said[0] if isinstance(message, m.Cut)] == [1]
    assert caplog.text.count("where a step ends can't be told") == 1
    assert "store.step" in caplog.text
