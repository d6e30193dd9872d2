"""A server's promises: pushes are applied exactly once, what is wrong is refused by name and changes nothing."""

from __future__ import annotations

import functools

import msgpack
import numpy as np
import pytest
from mxopt_server.scheduler import Scheduler
from peer import ONES, Disk, Peer, config, init, push, with_sgd

import mxopt
from mxopt.document import dump_document, load_document
from mxopt.kvstore import messages as m
from mxopt.kvstore import wire
from mxopt.optimizer.config import optimizer_config


def test_a_push_that_comes_twice_is_applied_once():
    peer = with_sgd(Peer(mode="async"))
    first, again = peer.ask(0, push(3)), peer.ask(0, push(3))
    assert first == again
    assert peer.weight() == [-1, -1]


def test_a_push_that_comes_too_early_is_asked_for_again_in_order():
    peer = with_sgd(Peer(mode="async"))
    assert peer.ask(0, push(4, number=2)) == m.Ready(0, peer.server.epoch, 3)
    assert peer.weight() == [0, 0]
    peer.ask(0, push(3, number=1))
    peer.ask(0, push(4, number=2))
    assert peer.weight() == [-2, -2]


def test_a_repeated_push_of_an_open_round_is_answered_when_it_is_complete():
    peer = with_sgd(Peer(2))
    assert peer.ask(0, push(3)) is None
    assert peer.ask(0, push(3)) is None
    peer.server.handle(b"route1", [bytes(f) for f in m.encode(push(1, value=2, number=1))])
    assert sorted(type(x).__name__ for _, x in peer.sent) == ["Values", "Values"]
    assert peer.weight() == [-3, -3]


def test_a_round_counts_workers_and_not_pushes():
    peer = with_sgd(Peer(2))
    for seq in (3, 4, 5):
        assert isinstance(peer.ask(0, push(seq, answer=False)), m.Done)
    assert peer.weight() == [0, 0]
    peer.ask(1, push(1, answer=False, value=10))
    assert peer.weight() == [-11, -11]


# Who is heard.


def test_a_worker_that_was_replaced_is_refused_over_restarts_too():
    peer = with_sgd(Peer(mode="async", journal=Disk()))
    peer.server.hear([(0, 2, "another")])
    assert peer.ask(0, push(3)) == m.Ready(0, peer.server.epoch, 0)  # it is to say Hello
    assert "replaced" in peer.hello(0).text
    assert isinstance(peer.hello(0, 2, "another"), m.Ready)
    peer.restart()  # by now the new server has heard of the first only
    assert "replaced" in peer.hello(0).text
    assert peer.weight() == [0, 0]


def test_a_worker_is_let_in_once_the_scheduler_has_told_of_it_and_by_its_token_only():
    peer = Peer()
    assert isinstance(peer.hello(0, 2, "new"), m.Waiting)
    peer.server.hear([(0, 2, "new")])
    assert "isn't the worker 0" in peer.hello(0, 2, "guessed").text
    assert isinstance(peer.hello(0, 2, "new"), m.Ready)


def test_a_server_whose_lease_has_run_out_keeps_its_answers_for_itself():
    peer, leased = with_sgd(Peer(mode="async")), []
    peer.server._lease = lambda: bool(leased)
    assert peer.ask(0, push(3)) is None
    leased.append(True)
    peer.server.flush()
    assert [type(x) for _, x in peer.sent] == [m.Values]


@pytest.mark.parametrize(
    ("changes", "text"),
    [
        ({"version": 1}, "version 1 came, server 0 speaks 2: install the same"),
        ({"job": "old"}, "belongs to job"),
        ({"workers": 3}, "has 1 workers"),
        ({"mode": "async"}, "dist_"),
    ],
)
def test_a_hello_that_does_not_fit_is_refused(changes, text):
    assert text in Peer().hello(0, **changes).text


@pytest.mark.parametrize(
    ("message", "text"),
    [
        (push(3, keys=("x",)), "'x' has not been initialised"),
        (m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 0, [b"123"]), "3 came"),
        (m.Push(3, True, ["w"], 7, 0, 0, 0, 0.0, 0, 0, [ONES]), "no piece 7"),
        (m.Push(3, True, ["w"], 0, 0, 0, 9, 0.0, 0, 0, [ONES]), "no codec 9"),
        (push(3, keys=("w", "w")), "twice"),
        (m.Init(3, "w", "float32", [3], [3], 0, 0, [ONES]), "'w' is initialised"),
        (m.Init(3, "v", "float32", [1 << 60], [1 << 60], 0, 0, [ONES]), "8 came"),
        (m.PushRows(3, "w", 0, 0, 0, 1, 0, 0, [np.array([2]).tobytes(), ONES[:4]]), "ascend"),
        (m.PullRows(3, "w", 0, 0, [np.array([-1]).tobytes()]), "row ids"),
        (m.StoreStates(3, 1, "w", 5, 9, [b"x"]), "what comes after 5 of 9 came, 0 are here"),
        (m.SetOptimizer(3, 2, 7), "config number 7 hasn't come"),
        (m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 7, [ONES]), "config number 7 hasn't come"),
        (m.Config(3, 1, 1, False, 0, False, 0, wire.MAX_CONFIG + 1, [b"x"]), "at most"),
        (m.Config(3, 1, 1, False, 0, False, 0, 1, [b"x"]), "holds a map"),
    ],
)  # fmt: skip
def test_a_bad_request_is_refused_by_name_and_the_server_goes_on(message, text):
    peer = with_sgd(Peer(mode="async"))
    answer = peer.ask(0, message)
    assert isinstance(answer, m.Refused)
    assert text in answer.text
    assert "server 0" in answer.text
    assert isinstance(peer.ask(0, push(4)), m.Values)
    assert peer.weight() == [-1, -1]


def test_grouping_keys_differently_gives_the_same_rounds():
    peer = Peer(2)
    for k, key in enumerate("abc"):
        peer.ask(0, init(1 + k, key))
    peer.ask(0, push(4, False, 1, ("a", "b", "c")))
    peer.ask(1, push(1, False, 10, ("b",)))
    assert [peer.weight(k) for k in "abc"] == [[0, 0], [11, 11], [0, 0]]
    peer.ask(1, push(2, False, 20, ("a", "c")))
    assert [peer.weight(k) for k in "abc"] == [[21, 21], [11, 11], [21, 21]]
    peer.ask(0, push(5, False, 5, ("a", "b", "c")))
    answer = peer.ask(1, push(3, True, 6, ("a", "b", "c")))
    assert np.frombuffer(answer.data[0], np.float32).tolist() == [11] * 6


# Rounds.


def test_a_push_that_is_missing_is_an_error_and_never_skipped():
    for mode in ("sync", "async"):
        peer = with_sgd(Peer(mode=mode))
        assert isinstance(peer.ask(0, push(3, number=1)), m.Values)
        answer = peer.ask(0, push(4, number=3))
        assert "worker 0 pushes for round 3, and its last push here was for round 1" in answer.text
        assert "'w'" in answer.text
        assert "its last push here was for round 1" in peer.ask(0, m.Pull(5, ["w"], 0, 2)).text
        assert isinstance(peer.ask(0, push(6, number=2)), m.Values)
        assert peer.weight() == [-2, -2]


def test_pushes_of_different_steps_are_never_summed():
    peer = with_sgd(Peer(2))
    assert isinstance(peer.ask(0, push(3, False, step=7)), m.Done)
    error = "key 'w': worker 0 pushed for round 1 in step 7, worker 1 in step 8"
    assert error in peer.ask(1, push(1, step=8)).text
    assert error in peer.ask(1, push(1, number=1, step=8)).text  # asked again
    assert peer.weight() == [0, 0]
    peer.ask(0, push(4, False, step=8))
    assert isinstance(peer.ask(1, push(2)), m.Values)  # a worker that counts no steps differs from nobody
    assert peer.weight() == [-2, -2]


def test_a_round_that_ended_with_an_error_is_over_for_who_comes_late():
    peer = with_sgd(Peer(3, journal=Disk()))
    peer.ask(0, push(3, step=1))
    assert "in step 2" in peer.ask(1, push(1, step=2)).text
    for _ in range(2):
        assert "in step 2" in peer.ask(2, push(1, number=1, step=1)).text
        peer.restart()
        peer.server.handle(b"route2", m.encode(push(1, number=1, step=1)))
        assert "in step 2" in peer.sent.pop()[1].text
        peer.restart()
    for rank in range(3):
        peer.ask(rank, push(1, number=2))
    assert peer.weight() == [-3, -3]


@pytest.mark.parametrize("then", [m.Pull(2, ["v"], 0, 0, 1), push(2, keys=("w",), step=2)], ids=["pull", "next"])
def test_a_worker_that_has_left_out_a_key_is_told_by_its_pull_or_next_step(then):
    peer = with_sgd(Peer(2))
    peer.ask(0, init(3, "v"))
    peer.ask(0, push(4, False, keys=("w",), step=1))
    peer.ask(0, push(5, False, keys=("v",), step=1))
    peer.ask(1, push(1, False, keys=("w",), step=1))
    answer = peer.ask(1, then)
    assert "without having pushed key 'v', which worker 0 pushed in step 1" in answer.text
    peer.server.handle(b"route0", m.encode(push(6, keys=("w",), number=2, step=2)))  # who is ahead has left out nothing
    assert peer.sent == []


def test_a_server_started_again_has_the_rounds_that_are_over_and_is_sent_the_others_again():
    peer = with_sgd(Peer(2, journal=Disk()))
    assert peer.ask(0, push(3, False)) is None  # Done is a promise
    assert isinstance(peer.ask(1, push(1, False)), m.Done)
    assert peer.ask(0, push(4, False)) is None
    peer.restart()
    assert peer.weight() == [-2, -2]
    assert isinstance(peer.ask(0, push(1, False, number=1)), m.Done)  # known already: not applied again
    assert peer.ask(0, push(2, False, number=2)) is None
    assert isinstance(peer.ask(1, push(1, False, number=2)), m.Done)
    assert peer.weight() == [-4, -4]


def test_a_server_started_again_knows_how_far_ahead_a_worker_of_ssp_is():
    peer = with_sgd(Peer(2, "ssp", Disk()))  # staleness 1
    assert isinstance(peer.ask(0, push(3)), m.Values)
    peer.restart()
    assert peer.ask(0, push(1)) is None
    peer.server.handle(b"route1", [bytes(f) for f in m.encode(push(1, False, number=1))])
    assert [route for route, x in peer.sent if isinstance(x, m.Values)] == [b"route0"]


def test_a_server_that_goes_on_from_a_snapshot_counts_what_it_has_lost_in_async(tmp_path):
    peer = with_sgd(Peer(mode="async"))
    assert isinstance(peer.ask(0, push(3, number=1)), m.Values)
    peer.restart(tmp_path)
    assert isinstance(peer.ask(0, push(1, number=4)), m.Values)
    assert peer.weight() == [-2, -2]
    assert peer.server.members.lost == 2
    assert "is missing" in peer.ask(0, push(2, number=6)).text


def test_a_worker_that_comes_anew_in_ssp_starts_at_the_slowests_count():
    peer = with_sgd(Peer(3, "ssp", Disk()))  # staleness 1
    for rank, count in ((0, 4), (1, 3), (2, 1)):
        for number in range(1, count + 1):
            peer.ask(rank, push(2 * (rank == 0) + number, False, number=number))
    peer.server.set_ended({2})
    peer.server.hear([(2, 2, "another")])
    peer.server.set_ended(set())
    peer.restart()
    peer.server.hear([(2, 2, "another")])
    assert isinstance(peer.hello(2, 2, "another"), m.Ready)
    assert peer.ask(2, m.Rounds(1, ["w"])) == m.Present(1, [3])
    peer.restart()
    peer.server.hear([(2, 2, "another")])
    peer.hello(2, 2, "another")
    assert isinstance(peer.ask(2, push(1, number=4)), m.Values)
    assert peer.hello(0).lacks == []


def test_a_push_before_the_optimizer_is_refused_and_its_round_is_over():
    peer = Peer(mode="async", journal=Disk())
    peer.ask(0, init(1))
    assert "needs an optimizer" in peer.ask(0, push(2)).text
    peer.restart()
    assert "needs an optimizer" in peer.ask(0, push(1, number=1)).text
    assert isinstance(peer.ask(0, m.SetOptimizer(2, 1, 0)), m.Done)
    peer.server.served.install(optimizer_config(mxopt.create("sgd", learning_rate=1.0)))
    assert isinstance(peer.ask(0, push(3, number=2)), m.Values)
    assert peer.weight() == [-1, -1]


def test_a_worker_that_waits_long_hears_whose_push_of_which_key_is_missing():
    peer = with_sgd(Peer(3))
    peer.ask(0, init(3, "v"))
    for seq in (4, 6):
        peer.ask(0, push(seq, False, keys=("v",)))
        peer.ask(0, push(seq + 1, False))
    for seq in (1, 2):
        peer.ask(2, push(seq, False))
    peer.ask(1, push(1, False))
    assert peer.ask(0, m.Pull(8, ["v", "w"], 0, 0)) is None
    assert peer.hello(0).lacks == [(1, "v", 1), (2, "v", 1), (1, "w", 2)]
    assert peer.hello(1).lacks == []
    peer = with_sgd(Peer(2, "ssp"))
    for seq in (3, 4):
        peer.ask(0, push(seq))
    assert peer.hello(0).lacks == [(1, "w", 1)]


def test_a_push_that_nobody_waits_for_and_that_fails_is_refused(monkeypatch):
    peer = with_sgd(Peer(2))
    monkeypatch.setattr(peer.server.served.updater.optimizer, "update_multi_precision", lambda *_: 1 / 0)
    assert isinstance(peer.ask(0, push(3, False)), m.Done)
    assert "ZeroDivisionError" in peer.ask(1, push(1, False)).text
    assert isinstance(peer.ask(1, m.Pull(2, ["w"], 0, 0)), m.Values)


# Rows and states that come in several messages.


def rows(seq: int, offset: int, total: int, numbers: list[int], key: str = "e") -> m.PushRows:
    data = np.ones((len(numbers), 1), np.float32).tobytes()
    return m.PushRows(seq, key, 0, 0, offset, total, 0, 0, [np.array(numbers, np.int64).tobytes(), data])


def with_rows(workers: int = 1, keys: str = "e") -> Peer:
    """A server with keys of four rows, each of one element; the next request of worker 0 is number 4."""
    peer = with_sgd(Peer(workers))
    for k, key in enumerate(keys):
        assert isinstance(peer.ask(0, m.Init(3 + k, key, "float32", [4, 1], [4, 1], 0, 0, [bytes(16)])), m.Done)
    return peer


def test_rows_that_came_in_part_never_become_another_keys():
    peer = with_rows(keys="ef")
    assert isinstance(peer.ask(0, rows(5, 0, 4, [0, 1], "e")), m.Done)
    assert isinstance(peer.ask(0, rows(6, 0, 1, [3], "f")), m.Done)
    assert "0 are here" in peer.ask(0, rows(7, 2, 4, [2, 3], "e")).text  # one thing comes at a time
    assert peer.weight("f") == [[0], [0], [0], [-1]]
    assert peer.weight("e") == [[0], [0], [0], [0]]


def test_a_push_of_rows_is_refused_whole_once_a_message_of_it_was():
    peer = with_rows()
    assert isinstance(peer.ask(0, rows(4, 0, 4, [0])), m.Done)
    assert "2 after 1 of 2" in peer.ask(0, rows(5, 1, 2, [1, 2])).text
    assert "0 are here" in peer.ask(0, rows(6, 1, 2, [1])).text
    assert "ascend" in peer.ask(0, rows(7, 0, 2, [3, 3])).text
    assert peer.weight("e") == [[0], [0], [0], [0]]
    assert isinstance(peer.ask(0, rows(8, 0, 1, [3])), m.Done)
    assert peer.weight("e") == [[0], [0], [0], [-1]]


def test_states_that_came_in_part_never_become_another_keys():
    peer = with_rows(keys="ef")
    document = dump_document({"count": 7, "state": None})
    first, second = document[:9], document[9:]
    assert isinstance(peer.ask(0, m.StoreStates(5, 1, "e", 0, len(document), [first])), m.Done)
    assert "0 are here" in peer.ask(0, m.StoreStates(6, 1, "f", 9, len(document), [second])).text
    assert isinstance(peer.ask(0, m.StoreStates(7, 1, "e", 0, len(document), [first])), m.Done)
    assert isinstance(peer.ask(0, m.StoreStates(8, 1, "e", 9, len(document), [second])), m.Done)
    answer = peer.ask(0, m.FetchStates(9, "e", 0))
    assert load_document(answer.data[0])["count"] == 7
    assert "from byte 0" in peer.ask(0, m.FetchStates(10, "f", 4)).text


# Refusals.


def test_a_refusal_that_got_lost_is_given_again():
    peer = with_sgd(Peer(mode="async"))
    bad = m.Push(3, True, ["w"], 0, 0, 0, 0, 0.0, 0, 0, [b"123"])
    refused = peer.ask(0, bad)
    assert isinstance(peer.ask(0, config(4, 1, {"name": "nonsense"})), m.Done)
    optimizer = peer.ask(0, m.SetOptimizer(5, 2, 1))
    assert "can't be made" in optimizer.text
    assert [peer.ask(0, bad), peer.ask(0, m.SetOptimizer(5, 2, 1))] == [refused, optimizer]


def test_refusals_are_kept_for_as_many_requests_as_can_be_without_an_answer():
    peer = with_sgd(Peer(mode="async"))
    for seq in range(3, 3 * wire.REQUESTS):
        peer.ask(0, push(seq, keys=("x",)))
    assert len(peer.server.sessions[0].refused) == wire.REQUESTS


def test_an_optimizer_that_was_refused_is_refused_to_every_worker():
    peer = Peer(2)
    for rank in (0, 1):
        peer.ask(rank, config(1, 1, {"name": "nonsense"}))
    first, second = (peer.ask(rank, m.SetOptimizer(2, 1, 1)) for rank in (0, 1))
    assert first.text == second.text
    assert isinstance(peer.ask(0, m.SetOptimizer(3, 2, 0)), m.Done)


def test_an_optimizer_is_never_left_out():
    peer = with_sgd(Peer(2))
    assert "number 1 is the last" in peer.ask(1, m.SetOptimizer(1, 2**63 - 1, 0)).text
    assert isinstance(peer.ask(1, m.SetOptimizer(2, 2, 0)), m.Done)
    assert peer.server.served.updater is None


def test_a_config_with_an_unknown_entry_is_refused():
    peer = Peer()
    peer.ask(0, config(1, 1, {**optimizer_config(mxopt.create("sgd")), "note": 1}))
    assert "no entry 'note'" in peer.ask(0, m.SetOptimizer(2, 1, 1)).text


@pytest.mark.parametrize(
    ("value", "text"),
    [
        (msgpack.ExtType(5, b""), "type Ext"),
        (msgpack.Timestamp(1), "max_ext_len"),
        (functools.reduce(lambda x, _: [x], range(20), 1), "more than 16"),
    ],
)
def test_a_config_of_other_than_plain_values_is_refused(value, text):
    assert text in Peer().ask(0, config(1, 1, {"arguments": value})).text


def test_a_config_of_many_parameters_comes_in_parts():
    peer = Peer()
    names = {k: f"layer{k}_weight" for k in range(30_000)}
    document = config(1, 1, mxopt.create("sgd", learning_rate=1.0, param_idx2name=names)).data[0]
    cut = len(document) // 2
    assert isinstance(peer.ask(0, m.Config(1, 1, 1, False, 0, False, 0, len(document), [document[:cut]])), m.Done)
    assert isinstance(peer.ask(0, m.Config(2, 1, 1, False, 0, False, cut, len(document), [document[cut:]])), m.Done)
    assert isinstance(peer.ask(0, m.SetOptimizer(3, 1, 1)), m.Done)
    assert peer.server.served.updater.optimizer.idx2name == names


def test_an_init_of_no_piece_leaves_nothing():
    peer = Peer(2)
    assert "piece 2 before piece 0" in peer.ask(1, m.Init(1, "w", "float32", [4], [8], 0, 2, [b""])).text
    assert isinstance(peer.ask(0, m.Init(1, "w", "float32", [4], [4], 0, 0, [bytes(16)])), m.Done)


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


def test_two_workers_with_different_rates_in_one_round_are_an_error_with_both_values():
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


def test_a_changed_rate_holds_from_the_round_on_in_which_it_comes():
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


def test_a_seed_that_was_not_given_is_rank_0s_and_differs_from_nobody():
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
def test_a_push_is_never_applied_without_the_optimizer_it_counts_on(mode):
    peer = Peer(mode=mode)
    peer.ask(0, init(1))
    peer.ask(0, config(2, 1, sgd(1.0), event=2))  # as to a server that was started again and has lost it
    answer = peer.ask(0, counting_on(1, push(3)))
    assert "counts on its set_optimizer number 2" in answer.text or "needs an optimizer" in answer.text
    assert peer.weight() == [0, 0]


def test_in_async_the_last_change_to_come_holds_and_an_older_one_never_replaces_it():
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


# The scheduler.


def test_a_mistake_in_the_scheduler_is_told_to_who_asked(monkeypatch):
    sent = []
    scheduler = Scheduler(lambda route, message: sent.append(message), 1, 1, "job")
    monkeypatch.setattr(scheduler.roster, "missing", lambda: 1 / 0)
    scheduler.handle(b"a", m.encode(m.Join(wire.VERSION, "job", "worker", -1, 1, 1, "", "i", "me")))
    assert "ZeroDivisionError" in sent[-1].text


def test_a_peer_of_version_1_is_told_what_to_do():
    sent = []
    scheduler = Scheduler(lambda route, message: sent.append(message), 1, 1, "job")
    scheduler.handle(b"a", m.encode(m.Join(1, "job", "worker", -1, 1, 1, "", "i", "me")))
    assert "install the same mxopt for all" in sent[-1].text


def test_a_gap_is_told_once_however_many_requests_follow_it_and_again_when_it_is_not_mended():
    peer = with_sgd(Peer())
    answers = [type(peer.ask(0, push(seq))) for seq in range(10, 60)]
    assert answers == [m.Ready] + [type(None)] * 49
    assert [type(peer.ask(0, push(seq))) for seq in range(5, 60)] == [m.Ready] + [
        type(None)
    ] * 54  # sent again, in part
    assert [type(peer.ask(0, push(seq))) for seq in range(3, 60)] == [m.Values] * 57
