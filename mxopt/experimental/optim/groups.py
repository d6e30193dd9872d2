"""Parameter groups: parameters that share options."""

from __future__ import annotations

import difflib
from collections.abc import Collection, Hashable, Iterable, Mapping
from typing import Any

from mxopt.device import is_cupy
from mxopt.engine import arrays
from mxopt.errors import SYNONYMS, ArgumentError, ArgumentKeyError, ArgumentTypeError, nearest
from mxopt.optimizer.grouped import Slot
from mxopt.options import Declared
from mxopt.parameter import Parameter, name_of, named, value_of
from mxopt.typing import Array, Plain

Options = Plain
NOT_OPTIONS = {"learning_rate", "wd"}  # MXNet's names of `lr` and `weight_decay`
OF_ALL = {"multi_precision", "state_dtype", "seed"}  # what an optimizer has once, for all its groups


class ParameterGroup(Plain):
    """Some parameters, its item "params", and their options. Assigned values are checked at once.

    `checks` are the declarations of the optimizer's options, by name; `others` are the names of
    other optimizers' options; errors begin with `whose`.
    """

    def __init__(
        self, options: Options, checks: Mapping[str, Declared], whose: str, others: Collection[str] = ()
    ) -> None:
        super().__init__(checked(options, checks, whose))
        self.checks = checks
        self.whose = whose
        self.others = others

    def __reduce__(self) -> tuple[Array, ...]:
        return ParameterGroup, (dict(self), self.checks, self.whose, self.others)

    def __setitem__(self, key: str, value: object) -> None:
        self.update({key: value})

    def __ior__(self, other: Any) -> ParameterGroup:  # type: ignore[override,misc]
        self.update(other)
        return self

    def setdefault(self, key: str, default: Any = None) -> Any:
        """The option `key`, set to `default` first if there is none."""
        if key not in self:
            self[key] = default
        return self[key]

    def update(self, *args: Any, **kwargs: object) -> None:
        """Changes options. Raises, and changes nothing, if one isn't allowed."""
        new = self | dict(*args, **kwargs)
        if new["params"] is not self["params"]:
            raise ArgumentError("the parameters of a group can't be exchanged: use add_param_group")
        if len(new) > len(self):
            check_keys(new, self, self.others, self.whose)
        super().update(self.checked(new))

    def checked(self, options: Options) -> Options:
        """The options as they would be kept. Raises if one isn't allowed."""
        return checked(options, self.checks, self.whose)

    def fit(self, saved: Options, names: list[str], needed: Iterable[str]) -> list[str]:
        """What is wrong with saved options, for a group whose parameters have these names. If
        nothing is, `saved` is updated to what would be kept here."""
        there, lacking = saved["params"], [key for key in needed if key not in saved]
        wrong = [f"{self.whose} lacks {name!r}" for name in names if name not in there]
        wrong += [f"{self.whose} has {name!r} too many" for name in there if name not in names]
        wrong += [f"{self.whose} lacks the options {', '.join(lacking)}"] * bool(lacking)
        try:
            saved.update(self.checked({**saved, "params": self["params"]}))
        except (TypeError, ValueError) as error:
            wrong.append(str(error))
        return wrong


def checked(options: Options, checks: Mapping[str, Declared], whose: str) -> Options:
    """The options after their checks, as they are kept. Raises if one isn't allowed."""
    return {k: checks[k].check(f"{whose}: {k}", v) if k in checks else v for k, v in options.items()}


def check_keys(given: Iterable[str], known: Iterable[str], others: Iterable[str], whose: str) -> None:
    """Raises ArgumentKeyError for an option that looks misspelt, has another family's name, or is
    one of all groups together.

    As in MindSpore and PyTorch, other keys belong to the caller, even options of other optimizers
    (`others`).
    """
    known = {*known, "params", "initial_lr"}
    for key in given:
        if key in known or key in others:
            continue
        if key in OF_ALL:
            raise ArgumentKeyError(f"{whose} can't have a {key} of its own: it is an argument beside the groups")
        meant = key in NOT_OPTIONS or any(key in group and group & known for group in SYNONYMS)
        if meant or difflib.get_close_matches(str(key).lower(), map(str.lower, known), n=1, cutoff=0.8):
            raise ArgumentKeyError(f"{whose} has no option {key!r}: {nearest(str(key), known)}")


def as_groups(params: object) -> list[Options]:
    """The `params` argument of a constructor, as a list of groups."""
    if params is None:
        raise ArgumentError("params is None: an optimizer needs parameters")
    found = _listed(params, "params")
    if not found:
        raise ArgumentError("params is empty: an optimizer needs parameters")
    if not any(isinstance(p, dict) for p in found):
        return [{"params": found}]
    for p in found:
        if not isinstance(p, dict):
            raise ArgumentTypeError(f"params mixes groups and parameters: {type(p).__name__} among dicts")
    return found


def make_slots(params: object, group: int, before: list[Slot], carry: float) -> tuple[list[object], list[Slot]]:
    """The parameters of group number `group`, as given and as slots. Raises if one of them is in
    `before`."""
    given = [params] if hasattr(params, "shape") else list(map(named, _listed(params, f"group {group}: params")))
    slots: list[Slot] = []
    x: Array
    for x in given:
        name = name_of(x, str(len(before) + len(slots)))
        place = f"group {group}, parameter {name!r}"
        arrays.check_dense_weight(value_of(x, place), place)
        parameter = x if isinstance(x, Parameter) else Parameter(x, name)
        slots.append(Slot(name, place, group, parameter, parameter.value, carry))
    _check_distinct([*before, *slots])
    return given, slots


def _listed(params: object, what: str) -> list[Array]:
    unordered = isinstance(params, str | bytes | set | frozenset | Mapping) or hasattr(params, "shape")
    if unordered or not isinstance(params, Iterable):
        instead = ": list(x.items()) has their names and them" * isinstance(params, Mapping)
        instead = instead or ": give a list, [x]" * hasattr(params, "shape")
        given = type(params).__name__
        raise ArgumentTypeError(f"{what} must be an ordered collection of parameters, got {given}{instead}")
    return list(params)


def _check_distinct(slots: list[Slot]) -> None:
    names: dict[str, Slot] = {}
    memory: dict[Hashable, Slot] = {}
    for slot in slots:
        w = slot.weight
        where = id(w) if is_cupy(w) or not w.size else (w.ctypes.data, w.shape, w.strides)
        other = memory.setdefault(where, slot)
        if other is not slot:
            raise ArgumentError(f"{slot.place} is the same array as {other.place}")
        other = names.setdefault(slot.name, slot)
        if other is not slot:
            raise ArgumentError(f"two parameters are called {slot.name!r}: {other.place} and {slot.place}")
