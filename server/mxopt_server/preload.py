"""Imports what a server would otherwise import at its first message of some kind: no message may
set off an import."""

import llvmlite.binding  # noqa: F401 the first update compiles
