"""The optimizer that a worker counts on, as it has told a server, and how two workers' differ."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass

from mxopt import plain
from mxopt.errors import ProtocolError
from mxopt.typing import Document, Plain


@dataclass(slots=True)
class Told:
    """The config of call number `event` of `set_optimizer`, `changed` since or not. `drawn`: nobody
    gave the seed in it. `digest` is that of `config`, `same` that of what has to be the same
    on all workers."""

    number: int
    event: int
    config: Plain
    changed: bool
    drawn: bool
    digest: bytes
    same: bytes

    @classmethod
    def of(cls, number: int, event: int, config: Plain, changed: bool, drawn: bool) -> Told:
        """As a worker says it."""
        whole = digest(config)
        same = digest(_without_seed(config)) if drawn else whole
        return cls(number, event, config, changed, drawn, whole, same)

    def is_given(self, config: Document | None) -> bool:
        """Whether it is the config that the call gave, as this one is."""
        given = _without_seed(config) if self.drawn and config is not None else config
        return not self.changed and self.same == digest(given)


def unknown(number: int) -> ProtocolError:
    """A worker counts on a config that isn't the last that it has said."""
    return ProtocolError(f"the optimizer's config number {number} hasn't come, or another has since")


def digest(config: Document | None) -> bytes:
    """A short text that only equal configs share."""
    return hashlib.blake2b(plain.pack(config), digest_size=16).digest()


def _without_seed(config: Document) -> Plain:
    arguments = config.get("arguments")
    if not isinstance(arguments, dict):
        return dict(config)
    return {**config, "arguments": {name: value for name, value in arguments.items() if name != "seed"}}


def difference(rank: int, mine: Told, other: int, theirs: Told) -> str:
    """How what two workers count on differs, in words; "" where it doesn't."""
    if mine is theirs:
        return ""
    if mine.event != theirs.event:
        return f"worker {rank} counts on its set_optimizer number {mine.event}, worker {other} on number {theirs.event}"
    if mine.same == theirs.same:
        return ""
    drawn = mine.drawn or theirs.drawn
    here, there = (_without_seed(told.config) if drawn else told.config for told in (mine, theirs))
    where, values = _first_difference(here, there)
    if not where:
        return ""
    return f"worker {rank} has an optimizer with {where} {values[0]!r:.80}, worker {other} with {values[1]!r:.80}"


def _first_difference(mine: object, theirs: object, where: str = "") -> tuple[str, tuple[object, object]]:
    """The first place at which two plain values differ, and what is there."""
    if isinstance(mine, dict) and isinstance(theirs, dict):
        for name in dict.fromkeys([*mine, *theirs]):
            found = _first_difference(mine.get(name), theirs.get(name), str(name))
            if found[0]:
                return found
        return "", (None, None)
    if isinstance(mine, list) and isinstance(theirs, list) and len(mine) == len(theirs):
        for here, there in zip(mine, theirs, strict=True):
            if here != there:
                return where, (here, there)
        return "", (None, None)
    return ("", (None, None)) if mine == theirs else (where, (mine, theirs))
