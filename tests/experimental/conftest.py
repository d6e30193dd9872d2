"""Lets these tests use the stand-in for CuPy that the engine's tests have."""

from __future__ import annotations

import sys
from pathlib import Path

sys.path.append(str(Path(__file__).parent.parent / "engine"))
