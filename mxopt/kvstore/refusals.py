"""Refusals as exceptions."""

from __future__ import annotations

from mxopt import errors
from mxopt.kvstore import messages as m


def error_of(refused: m.Refused) -> errors.MXOptError:
    """The exception for a Refused."""
    klass = getattr(errors, refused.code, errors.KVStoreError)
    if not (isinstance(klass, type) and issubclass(klass, errors.MXOptError)):
        klass = errors.KVStoreError
    made: errors.MXOptError = klass(refused.text)
    return made
