"""The learning rate and the weight decay of each parameter: the optimizer's, times a multiplier
that the parameter has itself, or that is given by its index or name."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from mxopt.caller import warn
from mxopt.errors import ArgumentTypeError, nearest
from mxopt.optimizer.counts import Counts, Index
from mxopt.options import number, plain


class _Table:
    """An attribute that may only be set to a dict. Updates read it under its name with an
    underscore, which costs no call."""

    def __set_name__(self, owner: type, name: str) -> None:
        self.name = name

    def __get__(self, optimizer: Any, owner: type) -> Any:
        return self if optimizer is None else getattr(optimizer, f"_{self.name}")

    def __set__(self, optimizer: Any, value: Any) -> None:
        if not isinstance(value, Mapping):
            raise ArgumentTypeError(f"{type(optimizer).__name__}: {self.name} must be a dict, got {value!r:.80}")
        setattr(optimizer, f"_{self.name}", value)


def attributes_of(sym: Any) -> tuple[Any, ...]:
    """The attributes of a symbol's arguments, and their names. Raises ArgumentTypeError for what
    has none."""
    if not (hasattr(sym, "attr_dict") and hasattr(sym, "list_arguments")):
        raise ArgumentTypeError(f"sym must have the methods attr_dict and list_arguments, got {sym!r:.80}")
    return sym.attr_dict(), sym.list_arguments()


class Multipliers(Counts):
    """The multipliers of an optimizer."""

    lr: Any
    wd: float
    overridden: frozenset[str]
    sym_info: tuple[Any, ...] = ()
    _param_dict: Mapping[Index, Any]
    _lr_mult: Mapping[Index, float]
    _wd_mult: Mapping[Index, float]
    if TYPE_CHECKING:
        idx2name: dict[Any, str]
        param_dict: Mapping[Index, Any]
        lr_mult: dict[Index, float]
        wd_mult: dict[Index, float]
    else:
        idx2name, param_dict, lr_mult, wd_mult = _Table(), _Table(), _Table(), _Table()

    def set_lr_mult(self, args_lr_mult: Mapping[Index, float]) -> None:
        """Sets multipliers of the learning rate, by index or by name (`param_idx2name`); all others
        become 1.

        Warns about a name that no parameter has, and about parameters whose own multipliers
        (`param_dict`) count instead.
        """
        self.lr_mult = self._multipliers("lr_mult", {}, args_lr_mult)

    def set_wd_mult(self, args_wd_mult: Mapping[Index, float]) -> None:
        """Sets multipliers of the weight decay, by index or by name. All others become 1, or 0 for
        names (`param_idx2name`) that don't end in `_weight` or `_gamma`."""
        names = self.idx2name.values()
        undecayed: dict[Index, float] = {name: 0.0 for name in names if not name.endswith(self.decayed_endings)}
        self.wd_mult = self._multipliers("wd_mult", undecayed, args_wd_mult)

    decayed_endings: ClassVar[tuple[str, ...]] = ("_weight", "_gamma")

    def _multipliers(self, what: str, default: dict[Index, float], given: Mapping[Index, float]) -> dict[Index, float]:
        if not isinstance(given, Mapping):
            raise ArgumentTypeError(f"set_{what} takes a dict of index or name to number, got {given!r}")
        for key, value in given.items():
            number(f"{what} of {key!r}", value)
        self._warn_of_idle(what, given)
        if self.sym_info:
            attributes, names = self.sym_info
            attribute = f"__{what}__"
            default.update({n: float(attributes[n][attribute]) for n in names if attribute in attributes.get(n, {})})
        return {**default, **{plain(key): plain(value) for key, value in given.items()}}

    def _warn_of_idle(self, what: str, given: Mapping[Index, float]) -> None:
        """Warns about multipliers that have no effect."""
        own = {*self.param_dict, *(getattr(p, "name", None) for p in self.param_dict.values())}
        known = own.union(self.idx2name, self.idx2name.values(), *self.sym_info[1:])
        names = [name for name in known if isinstance(name, str)]
        for key in given:
            if key in own:
                counts = f"parameter {key!r} has a multiplier of its own, which counts: set its {what}"
                warn(f"set_{what}: {counts}")
            elif isinstance(key, str) and names and key not in known and not self.has_updated(key):
                warn(f"set_{what}: no parameter is called {key!r}: {nearest(key, names)}")

    def _multiplier(self, what: str, index: Index) -> float:
        """The parameter's own attribute, else a multiplier by index, else one by name."""
        if index in self._param_dict:
            own = getattr(self._param_dict[index], what)
            return own if type(own) is float and own == own else number(f"parameter {index!r}: its {what}", own)
        given = getattr(self, what)
        if index in given:
            return float(given[index])
        return float(given.get(self.idx2name.get(index), 1.0))

    def _get_lr(self, index: Index) -> float:
        """The learning rate of a parameter."""
        if self.overridden and "_get_lrs" in self.overridden:
            return self._get_lrs((index,))[0]
        lr = self.lr if self.lr_scheduler is None else self.lr_scheduler(self.num_update)
        if type(lr) is not float:
            lr = self._as_rate(lr)
        return lr * self._multiplier("lr_mult", index) if self._lr_mult or self._param_dict else lr

    def _as_rate(self, lr: object) -> float:
        """A learning rate as a float. Raises ArgumentError if it isn't a number."""
        whose = "" if self.lr_scheduler is None else f" that lr_scheduler gives for update {self.num_update}"
        return number(f"{type(self).__name__}: the learning rate{whose}", lr, nan=True)

    def _get_lrs(self, indices: Sequence[Index]) -> list[float]:
        """The learning rates of parameters."""
        lr = self.lr if self.lr_scheduler is None else self.lr_scheduler(self.num_update)
        lr = lr if type(lr) is float else self._as_rate(lr)
        if not self._lr_mult and not self._param_dict:
            return [lr] * len(indices)
        return [lr * self._multiplier("lr_mult", index) for index in indices]

    def _get_wd(self, index: Index) -> float:
        """The weight decay of a parameter."""
        if self.overridden and "_get_wds" in self.overridden:
            return self._get_wds((index,))[0]
        return self.wd * self._multiplier("wd_mult", index) if self._wd_mult or self._param_dict else self.wd

    def _get_wds(self, indices: Sequence[Index]) -> list[float]:
        """The weight decays of parameters."""
        if not self._wd_mult and not self._param_dict:
            return [self.wd] * len(indices)
        return [self.wd * self._multiplier("wd_mult", index) for index in indices]
