"""The optimizer that pushes count on: refused to all, changed for a round, never left out."""

# mypy: disable-error-code="union-attr"

from __future__ import annotations

import msgpack
import pytest
from peer import Disk, Peer, config, init, push, with_sgd

import mxopt
from mxopt.kvstore import messages as m
from mxopt.optimizer.config import optimizer_config


def test_an_optimizer_that_was_refused_is_refused_to_every_worker() -> None:
    peer = Peer(2)
    for rank in (0, 1):
        peer.ask(rank, config(1, 1, {"name": "nonsense"}))
    first, second = (peer.ask(rank, m.SetOptimizer(2, 1, 1)) for rank in (0, 1))
    assert first.text == second.text
    assert isinstance(peer.ask(0, m.SetOptimizer(3, 2, 0)), m.Done)


def test_an_optimizer_is_never_left_out() -> None:
    peer = with_sgd(Peer(2))
    assert "number 1 is the last" in peer.ask(1, m.SetOptimizer(1, 2**63 - 1, 0)).text
    assert isinstance(peer.ask(1, m.SetOptimizer(2, 2, 0)), m.Done)
    assert peer.server.served.updater is None


def test_a_config_with_an_unknown_entry_is_refused() -> None:
    peer = Peer()
    peer.ask(0, config(1, 1, {**optimizer_config(mxopt.create("sgd")), "note": 1}))
    assert "no entry 'note'" in peer.ask(0, m.SetOptimizer(2, 1, 1)).text


def nested(depth: int) -> object:
    return [nested(depth - 1)] if depth else 1


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (msgpack.ExtType(5, b""), "type Ext"),
        (msgpack.Timestamp(1), "max_ext_len"),
        (nested(20), "more than 16"),
    ],
)
def test_a_config_of_other_than_plain_values_is_refused(value: object, text: str) -> None:
    assert text in Peer().ask(0, config(1, 1, {"arguments": value})).text


def test_a_config_of_many_parameters_comes_in_parts() -> None:
    peer = Peer()
    names = {k: f"layer{k}_weight" for k in range(30_000)}
    document = config(1, 1, mxopt.create("sgd", learning_rate=1.0, param_idx2name=names)).data[0]
    cut = len(document) // 2
    assert isinstance(peer.ask(0, m.Config(1, 1, 1, False, 0, False, 0, len(document), [document[:cut]])), m.Done)
    assert isinstance(peer.ask(0, m.Config(2, 1, 1, False, 0, False, cut, len(document), [document[cut:]])), m.Done)
    assert isinstance(peer.ask(0, m.SetOptimizer(3, 1, 1)), m.Done)
    assert peer.server.served.updater.optimizer.idx2name == names


# What a push counts on.


def sgd(rate: float, **more: object) -> mxopt.Optimizer:
    return mxopt.create("sgd", learning_rate=rate, **more)


def set_by(peer: Peer, rank: int, seq: int, what: mxopt.Optimizer, drawn: bool = False) -> None:
    """A worker's first set_optimizer, by its requests `seq` and the next."""
    assert isinstance(peer.ask(rank, config(seq, 1, what, drawn=drawn)), m.Done)
    assert isinstance(peer.ask(rank, m.SetOptimizer(seq + 1, 1, 1)), m.Done)


def counting_on(number: int, message: m.Push) -> m.Push:
    message.config = number
    return message


def test_two_workers_with_different_rates_in_one_round_are_an_error_with_both_values() -> None:
    peer = Peer(2)
    for rank, rate in ((0, 0.5), (1, 0.25)):
        set_by(peer, rank, 1, sgd(rate))
    peer.ask(0, init(3))
    peer.ask(0, counting_on(1, push(4, False)))
    text = peer.ask(1, counting_on(1, push(3))).text
    assert "key 'w': worker 0 has an optimizer with learning_rate 0.5, worker 1 with 0.25" in text
    assert peer.weight() == [0, 0]
    peer.ask(0, counting_on(1, push(5, False)))
    assert isinstance(peer.ask(1, push(4)), m.Values)  # one that never set an optimizer differs from nobody
    assert peer.weight() == [-1, -1]


def test_a_changed_rate_holds_from_the_round_on_in_which_it_comes() -> None:
    peer = Peer(2, journal=Disk())
    for rank in (0, 1):
        set_by(peer, rank, 1, sgd(1.0))
    peer.ask(0, init(3))
    peer.ask(0, counting_on(1, push(4, False)))
    peer.ask(0, config(5, 2, sgd(10.0), changed=True))
    peer.ask(0, counting_on(2, push(6, False)))
    peer.ask(1, counting_on(1, push(3, False)))
    assert peer.weight() == [-2, -2]
    peer.ask(1, config(4, 2, sgd(10.0), changed=True))
    peer.ask(1, counting_on(2, push(5, False)))
    assert peer.weight() == [-22, -22]
    peer.restart()
    assert peer.weight() == [-22, -22]
    assert peer.server.served.updater.optimizer.lr == 10


def test_a_seed_that_was_not_given_is_rank_0s_and_differs_from_nobody() -> None:
    peer, made = Peer(2), [mxopt.create("sgld") for _ in range(2)]
    for rank in (1, 0):
        set_by(peer, rank, 1, made[rank], drawn=True)
    peer.ask(0, init(3))
    peer.ask(0, counting_on(1, push(4, False)))
    assert isinstance(peer.ask(1, counting_on(1, push(3))), m.Values)
    assert peer.server.served.updater.optimizer.seed == made[0].seed
    peer = Peer(2)
    for rank in (0, 1):
        set_by(peer, rank, 1, mxopt.create("sgld", seed=rank))
    peer.ask(0, init(3))
    peer.ask(0, counting_on(1, push(4, False)))
    assert "worker 0 has an optimizer with seed 0, worker 1 with 1" in peer.ask(1, counting_on(1, push(3))).text


@pytest.mark.parametrize("mode", ["sync", "async"])
def test_a_push_is_never_applied_without_the_optimizer_it_counts_on(mode: str) -> None:
    peer = Peer(mode=mode)
    peer.ask(0, init(1))
    peer.ask(0, config(2, 1, sgd(1.0), event=2))  # as to a server that was started again and has lost it
    answer = peer.ask(0, counting_on(1, push(3)))
    assert "counts on its set_optimizer number 2" in answer.text or "needs an optimizer" in answer.text
    assert peer.weight() == [0, 0]


def test_in_async_the_last_change_to_come_holds_and_an_older_one_never_replaces_it() -> None:
    peer = Peer(2, "async", Disk())
    for rank in (0, 1):
        set_by(peer, rank, 1, sgd(1.0 + rank))  # the first to call counts
    peer.ask(0, init(3))
    assert peer.server.served.updater.optimizer.lr == 1
    assert peer.ask(0, config(4, 2, sgd(3.0), changed=True)) == m.Done(4, 1)
    assert peer.ask(1, config(3, 2, sgd(4.0), changed=True)) == m.Done(3, 2)
    assert peer.ask(1, config(4, 3, sgd(4.0), changed=True)) == m.Done(4, 0)  # no change
    peer.restart()
    assert peer.ask(0, config(1, 2, sgd(3.0), changed=True, version=1)) == m.Done(1, 1)
    assert peer.server.served.updater.optimizer.lr == 4
    peer.ask(0, counting_on(2, push(2)))
    assert peer.weight() == [-4, -4]
    assert peer.ask(1, config(1, 2, sgd(5.0), changed=True, version=7)) == m.Done(1, 7)  # which it had lost
    assert peer.server.served.updater.optimizer.lr == 5
    never = config(2, 3, sgd(6.0), changed=True, version=2**63 - 1)  # a number that no later change could go beyond
    assert "begins with number" in peer.ask(1, never).text
    assert peer.ask(0, config(3, 3, sgd(7.0), changed=True)) == m.Done(3, 8)


def test_no_push_is_applied_that_counts_on_a_change_which_was_refused() -> None:
    peer = Peer(mode="async")
    set_by(peer, 0, 1, sgd(1.0))
    peer.ask(0, init(3))
    wrong = {**optimizer_config(sgd(2.0)), "lr_mult": [["w", "fast"]]}
    assert "must be a number" in peer.ask(0, config(4, 2, wrong, changed=True)).text
    assert "config number 2 hasn't come" in peer.ask(0, counting_on(2, push(5))).text
    assert peer.weight() == [0, 0]
    assert isinstance(peer.ask(0, counting_on(1, push(6))), m.Values)
    assert peer.weight() == [-1, -1]
