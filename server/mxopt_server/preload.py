"""Imports everything that messages need, so that no message triggers an import."""

import llvmlite.binding  # noqa: F401 the first update compiles
