"""An optimizer whose updates fail, which servers are told to import."""

from __future__ import annotations

from typing import Any

import mxopt


@mxopt.register
class Raises(mxopt.Optimizer):
    """For tests."""

    def update(self, index: Any, weight: Any, grad: Any, state: Any) -> None:
        raise ValueError("this update fails")
