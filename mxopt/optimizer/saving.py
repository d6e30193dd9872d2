"""`state_dict` and `load_state_dict` of optimizers that hold their parameters in groups: plain data
with all that a resumed run needs, and strict loading."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import Any

import numpy as np

from mxopt.engine import arrays
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import NotDefinedError, StatesError
from mxopt.state_dtype import as_stored, seed_of
from mxopt.typing import Document, Plain

Kept = Mapping[str, Plain]  # by each parameter's key, its numbers and arrays by name
Wanted = Mapping[str, type | tuple[tuple[int, ...], np.dtype]]  # the type of a number, shape and dtype of an array


class Resumable:
    """An optimizer whose run can be resumed. Its family says what is kept, and lays it out."""

    seed: int | None

    @property
    def slots(self) -> Sequence[Any]:
        """The parameters and their states, in the order of gradients."""
        raise NotDefinedError

    def keys(self) -> list[str]:
        """The key under which each parameter's states are saved."""
        raise NotDefinedError

    def kept(self) -> Kept:
        """Counts, numbers and copies of the arrays, of parameters that have any."""
        raise NotDefinedError

    def _laid_out(self, kept: Kept) -> Plain:
        """The family's entries of a document."""
        raise NotDefinedError

    def _fit(self, document: Document) -> tuple[list[str], Callable[[], None]]:
        """What doesn't fit of these entries, and a function that takes them over. May raise
        whatever broken data raises."""
        raise NotDefinedError

    def _parameters(self) -> dict[str, tuple[tuple[int, ...], str]]:
        """Shape and dtype of each parameter, with or without a state."""
        weights = [slot.weight for slot in self.slots]
        pairs = zip(self.keys(), weights, strict=True)
        return {key: (tuple(w.shape), str(w.dtype.newbyteorder("="))) for key, w in pairs}

    def document(self, kept: Kept) -> Plain:
        """A `state_dict` with these states."""
        header = {"optimizer": type(self).__name__, "parameters": self._parameters(), "seed": self.seed or 0}
        return {**header, **self._laid_out(kept)}

    def state_dict(self) -> Plain:
        """Everything that a resumed run needs to give the same bits, except the parameters' values.

        Plain data and copies of the arrays, by the parameters' names: states, counts, the seed, and
        what may change during training (in `experimental` all options, in `nn` fixed learning
        rates). `mxopt.document.dump_document` makes bytes of it.
        """
        return self.document(self.kept())

    def load_state_dict(self, state_dict: Document) -> None:
        """Continues from where `state_dict` was taken, on an optimizer made in the same way.

        Raises StatesError, which lists the differences, if it was made by another optimizer or for
        other parameters. Then nothing has been changed.
        """
        if not isinstance(state_dict, Mapping):
            raise StatesError(
                f"a state_dict is the dict that state_dict() returns, got {state_dict!r:.80}: of a file it is"
                " mxopt.document.load_document(pathlib.Path(name).read_bytes())"
            )
        own = self._parameters()
        try:
            name, seed = state_dict["optimizer"], seed_of(state_dict, self.seed)
            theirs = {key: (tuple(shape), str(dtype)) for key, (shape, dtype) in state_dict["parameters"].items()}
            if name != type(self).__name__:
                raise StatesError(f"the states are those of {name}, this is {type(self).__name__}")
            wrong = [
                f"parameter {key!r} is {_shown(theirs.get(key))} there, {_shown(own.get(key))} here"
                for key in {**own, **theirs}
                if theirs.get(key) != own.get(key)
            ]
            if not wrong:
                wrong, take = self._fit(state_dict)
        except StatesError:
            raise
        except (TypeError, LookupError, AttributeError, ValueError) as error:
            why = f"it has no {error}" if isinstance(error, KeyError) else f"{error!r}"
            raise StatesError(f"this is no state_dict of an optimizer of mxopt: {why}") from error
        if wrong:
            raise StatesError("the states don't fit: " + "; ".join(wrong))

        def go_on() -> None:
            self.seed = seed
            take()

        uninterrupted(go_on)


def _shown(parameter: tuple[tuple[int, ...], str] | None) -> str:
    return "unknown" if parameter is None else f"{parameter[1]} {parameter[0]}"


def differences(place: str, wanted: Wanted, kept: Plain) -> list[str]:
    """What is wrong with the saved state of a parameter. Converts its arrays to the dtypes that
    they have here."""
    wrong = [f"{place} lacks {name!r}" for name in wanted if name not in kept]
    for name, value in kept.items():
        want = wanted.get(name)
        if want is None:
            wrong.append(f"{place} keeps no {name!r}")
        elif isinstance(want, type):
            if (want is int and isinstance(value, int) and value < 1) or type(value) is not want:
                wrong.append(f"{place}: {name!r} is {value!r:.80}")
        else:
            value = kept[name] = as_stored(value, want[1])
            if not arrays.is_array(value):
                wrong.append(f"{place}: {name!r} is no array")
            elif (value.shape, value.dtype) != want:
                wrong.append(f"{place}: {name!r} is {value.dtype} {value.shape}, not {want[1]} {want[0]}")
    return wrong
