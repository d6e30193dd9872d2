"""A worker's optimizer is followed: servers hear of what has changed, and pushes needn't look at
what isn't theirs."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any, NoReturn

import pytest

import mxopt
from mxopt.kvstore.follow import Followed

NAMES = {0: "a_weight", 1: "b_weight", 2: "c_weight"}


def followed(**options: Any) -> Followed:
    """A follower of sgd with these options, whose words go nowhere."""
    nowhere: Any = SimpleNamespace(channels=[])
    nowhere.channels = [SimpleNamespace(config_sent=0)]
    return Followed(mxopt.create("sgd", learning_rate=0.1, **options), nowhere, 1)


@pytest.mark.parametrize("index", [1, "b_weight"], ids=["by index", "by name"])
@pytest.mark.parametrize("what", ["lr_mult", "wd_mult"])
def test_a_changed_multiplier_is_told_with_the_next_push_of_its_key(what: str, index: Any) -> None:
    found = followed(param_idx2name=NAMES)
    getattr(found.optimizer, f"set_{what}")({index: 0.5})
    found.look([0, 2])
    assert found.number == 1
    found.look([0, 1])
    assert found.number == 2
    found.look([1])
    assert found.number == 2


def test_a_parameter_that_changes_its_multiplier_is_told_with_its_next_push() -> None:
    params = {k: SimpleNamespace(name=name, lr_mult=1.0, wd_mult=1.0) for k, name in NAMES.items()}
    found = followed(param_dict=params)
    params[2].wd_mult = 0.0
    found.look([0])
    assert found.number == 1
    found.look([2])
    assert found.number == 2


class Untouched(dict[Any, Any]):
    """A dict of which only single entries are asked for."""

    def _refuse(self, *arguments: object) -> NoReturn:
        raise AssertionError("all of it was looked at")

    __iter__ = keys = values = items = copy = _refuse


def test_a_push_does_not_look_at_what_the_optimizer_knows_of_other_keys() -> None:
    found = followed(param_idx2name={k: f"p{k}" for k in range(1000)})
    optimizer = found.optimizer
    for name in ("idx2name", "lr_mult", "wd_mult", "param_dict"):
        setattr(optimizer, name, Untouched(getattr(optimizer, name)))
    found.look([7])
    assert found.number == 1
