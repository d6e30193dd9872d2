"""How many calls of Python an update of one small array takes, which is most of its time."""

from __future__ import annotations

import sys
from types import FrameType
from typing import Any

import numpy as np
import pytest

import mxopt


def calls_of(update: Any) -> list[str]:
    """The functions of mxopt that a call goes through."""
    found: list[str] = []

    def watch(frame: FrameType, event: str, _: object) -> None:
        if event == "call" and frame.f_globals.get("__name__", "").startswith("mxopt."):
            found.append(frame.f_code.co_name)

    sys.setprofile(watch)
    try:
        update()
    finally:
        sys.setprofile(None)
    return found


@pytest.mark.parametrize("name", ["sgd", "nag", "adam", "adamw", "rmsprop", "adagrad", "lion", "lamb"])
@pytest.mark.parametrize("options", [{}, {"wd": 0.1, "clip_gradient": 1.0}], ids=["as it is", "with more"])
def test_an_update_of_one_array_is_ten_calls_from_the_second_on(name: str, options: dict[str, float]) -> None:
    updater = mxopt.get_updater(mxopt.create(name, learning_rate=0.1, **options))
    weight, grad = np.ones(3, np.float32), np.ones(3, np.float32)
    updater(0, grad, weight)
    found = calls_of(lambda: updater(0, grad, weight))
    assert 5 < len(found) <= 10, found
