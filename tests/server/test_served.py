"""The optimizer that a server updates by: whose states it takes, and from where an assigned rate
counts."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from mxopt_server.entries import Entry
from mxopt_server.served import Served

import mxopt
from mxopt.errors import StatesError
from mxopt.lr_scheduler import FactorScheduler
from mxopt.optimizer.config import optimizer_config


def serving(optimizer: mxopt.optimizer.Optimizer) -> Served:
    entry = Entry("w", "float32", (3, 2), (3, 2), 0, 0)
    entry.add(np.ones(6, np.float32))
    served = Served({"w": entry})
    served.set_optimizer(1, optimizer_config(optimizer))
    return served


def assigned(rate: float, since: int, wd: float = 0.0) -> dict[str, Any]:
    """The config of a worker that has assigned a rate to its schedule."""
    schedule = FactorScheduler(4, 0.5, base_lr=1.0)
    schedule.assigned = (rate, since)
    return optimizer_config(mxopt.create("sgd", wd=wd, lr_scheduler=schedule))


def test_a_rate_that_one_of_several_workers_assigns_counts_from_the_servers_own_count() -> None:
    served = serving(mxopt.create("sgd", lr_scheduler=FactorScheduler(4, 0.5, base_lr=1.0)))
    assert served.updater is not None
    optimizer = served.updater.optimizer
    optimizer.num_update = 12  # by three workers
    served.reconfigure(assigned(1.0, 4), apart=True)
    assert optimizer.lr_scheduler is not None
    assert optimizer.lr_scheduler.assigned == (1.0, 12)
    assert [optimizer.lr_scheduler(n) for n in (12, 13, 16, 17)] == [1.0, 0.5, 0.5, 0.25]
    optimizer.num_update = 16
    served.reconfigure(assigned(1.0, 4, wd=0.5), apart=True)  # what else changes moves nothing
    assert (optimizer.lr_scheduler.assigned, optimizer.wd) == ((1.0, 12), 0.5)
    again = serving(mxopt.create("sgd", lr_scheduler=FactorScheduler(4, 0.5, base_lr=1.0)))
    again.restore(served.record(), same_job=True)
    assert again.updater is not None
    assert again.updater.optimizer.lr_scheduler.assigned == (1.0, 12)
    served.reconfigure(assigned(0.75, 5), apart=True)
    assert optimizer.lr_scheduler.assigned == (0.75, 16)
    served.reconfigure(assigned(0.5, 6))  # in a round of all workers their count is the server's
    assert optimizer.lr_scheduler.assigned == (0.5, 6)


@pytest.mark.parametrize(
    ("content", "says"),
    [
        ({"count": 1, "state": None}, r"there is None instead of float32 \(3, 2\)"),
        ({"count": 1, "state": np.ones((2, 3), np.float32)}, r"float32 \(2, 3\) instead of float32 \(3, 2\)"),
        ({"count": 1, "state": np.ones((3, 2))}, "float64"),
        ({"count": 1, "state": (np.ones((3, 2), np.float32),)}, "instead of"),
        ({"count": "many", "state": np.ones((3, 2), np.float32)}, "the count of its updates is a number"),
    ],
)
def test_states_that_are_no_states_of_the_key_are_refused_before_anything_changes(
    content: dict[str, Any], says: str
) -> None:
    served = serving(mxopt.create("sgd", momentum=0.5))
    entry = served.entries["w"]
    good = np.full((3, 2), 2, np.float32)
    served.states.load(1, entry, {"count": 7, "state": good})
    with pytest.raises(StatesError, match=says):
        served.states.load(2, entry, content)
    assert (served.states.state(entry) is good, served.states.count(entry), served.states.loads) == (True, 7, {"w": 1})


def test_a_state_of_several_parts_has_as_many() -> None:
    served = serving(mxopt.create("adam"))
    with pytest.raises(StatesError, match="has 2 parts, this one is"):
        served.states.load(1, served.entries["w"], {"count": 7, "state": (np.ones((3, 2), np.float32),)})
    served.states.load(1, served.entries["w"], {"count": 7, "state": [np.ones((3, 2), np.float32)] * 2})


def test_an_own_optimizer_may_keep_what_it_likes() -> None:
    class Keeping(mxopt.optimizer.Optimizer):
        def create_state(self, index: Any, weight: Any) -> Any:
            return None

    mxopt.optimizer.Optimizer.registry.add("_keeping", Keeping)
    served = serving(Keeping())
    served.states.load(1, served.entries["w"], {"count": 1, "state": [1, "two", None]})
    assert served.states.state(served.entries["w"]) == [1, "two", None]
