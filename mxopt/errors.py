"""The errors that mxopt raises.

Each is also of the built-in type that a caller would expect::

    MXOptError
        ArgumentError (ValueError)          an argument has a value that isn't allowed
            ArgumentTypeError (TypeError)   it is of the wrong type
            ArgumentKeyError (KeyError)     it is a dict with a key too many or too few
            RepeatedParameterError (RuntimeError)  the same parameter stands twice
        UnknownArgumentError (TypeError)    an argument that doesn't exist
        UnknownNameError (ValueError)       a name nothing is registered under
        UsageError (AssertionError)         a call that lacks something, or comes at the wrong time
            WarnedUsageError (UserWarning)  the same, where MXNet raises a warning
        RemovedError (DeprecationWarning)   a method that MXNet has removed
        NotDefinedError (NotImplementedError)  a class lacks a method that is asked of it
        ArrayError (ValueError)             an array's shape, memory or values can't work
            ArrayTypeError (TypeError)      its dtype, its device, or not an array at all
        NoGradientError (RuntimeError)      a parameter has no gradient
        RuleError (TypeError)               a rule does what no kernel can
        CompilationError (RuntimeError)     LLVM doesn't accept a kernel
        ScheduleOverError (RuntimeError)    a list of learning rates has no value for this step
        StatesError (ValueError)            saved states that can't be read, or don't fit
        KVStoreError (RuntimeError)         a store can't do what is asked
            NotInitializedError (LookupError)  a key has no value, or its server has lost it
            ProtocolError (ValueError)      bytes that are no valid message
            DeadlineError (TimeoutError)    no answer came in time
            JobFailedError (ConnectionError)  another process of the job failed or is gone
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

# Names that the families of optimizers use for the same thing.
SYNONYMS = (
    {"lr", "learning_rate"},
    {"wd", "weight_decay"},
    {"eps", "epsilon"},
    {"betas", "beta1", "beta2"},
    {"alpha", "decay", "gamma1"},
    {"params", "parameters"},
    {"rescale_grad", "loss_scale"},
)


class MXOptError(Exception):
    """The base of all errors of mxopt's own."""


class ArgumentError(MXOptError, ValueError):
    """An argument has a value that isn't allowed."""


class ArgumentTypeError(ArgumentError, TypeError):
    """An argument is of the wrong type."""


class ArgumentKeyError(ArgumentError, KeyError):
    """An argument is a dict with a key that nobody knows, or without one that it needs."""

    __str__ = Exception.__str__  # KeyError's shows the message in quotes


class RepeatedParameterError(ArgumentError, RuntimeError):
    """The same parameter stands twice among an optimizer's parameters."""


class UnknownArgumentError(MXOptError, TypeError):
    """An argument that doesn't exist."""


class UnknownNameError(MXOptError, ValueError):
    """A name under which nothing is registered."""


class UsageError(MXOptError, AssertionError):
    """A call lacks something, doesn't fit together, or comes at the wrong time."""


class WarnedUsageError(UsageError, UserWarning):
    """A call that MXNet answers by raising a UserWarning."""


class RemovedError(MXOptError, DeprecationWarning):
    """A method that MXNet has removed."""


class NotDefinedError(MXOptError, NotImplementedError):
    """A class doesn't define a method that is asked of it."""


class ArrayError(MXOptError, ValueError):
    """An array's shape, memory or values can't work."""


class ArrayTypeError(ArrayError, TypeError):
    """An array's dtype or device can't work, or it is no array."""


class NoGradientError(MXOptError, RuntimeError):
    """A parameter has no gradient."""


class RuleError(MXOptError, TypeError):
    """A rule does what no kernel can."""


class CompilationError(MXOptError, RuntimeError):
    """LLVM, as it is installed, doesn't accept a kernel."""


class ScheduleOverError(MXOptError, RuntimeError):
    """A list of learning rates has no value for this step."""


class StatesError(MXOptError, ValueError):
    """Saved states can't be read, or don't fit what they are loaded into."""


class KVStoreError(MXOptError, RuntimeError):
    """A key-value store can't do what is asked."""


class NotInitializedError(KVStoreError, LookupError):
    """A key was never initialised, or the server that held it has lost it."""


class ProtocolError(KVStoreError, ValueError):
    """Bytes that are no valid message."""


class DeadlineError(KVStoreError, TimeoutError):
    """No answer came in time."""


class JobFailedError(KVStoreError, ConnectionError):
    """Another process of the job failed, ended early or is gone."""


def counted(number: int, thing: str) -> str:
    """How many things there are, in words: 1 key, 2 keys."""
    several = {"axis": "axes", "index": "indices", "push": "pushes"}.get(thing, f"{thing}s")
    return f"{number} {thing if number == 1 else several}"


def printable(text: str) -> str:
    """`text` without control characters and line ends, which are shown as Python writes them."""
    if text.isprintable():
        return text
    return "".join(c if c.isprintable() else c.encode("unicode_escape").decode() for c in text)


def nearest(name: str, names: Iterable[str]) -> str:
    """A half-sentence that suggests the names similar to `name`, or lists all if none is."""
    names = sorted(names)
    found = [other for group in SYNONYMS if name in group for other in names if other in group]
    found = found or difflib.get_close_matches(name.lower(), names, n=3, cutoff=0.5)
    return f"did you mean {' or '.join(map(repr, found))}?" if found else f"there are {', '.join(names)}"
