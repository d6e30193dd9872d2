"""An optimizer's states, step and fixed learning rates as plain data, and back, strictly."""

from __future__ import annotations

from typing import Protocol

from mxopt.engine import arrays
from mxopt.errors import StatesError
from mxopt.nn.parameters import ParameterTuple
from mxopt.parameter import Parameter
from mxopt.rules.rule import Rule
from mxopt.state_dtype import as_stored, seed_of
from mxopt.typing import Document, Plain


class Optimizer(Protocol):
    """What is asked of an optimizer here."""

    parameters: ParameterTuple
    global_step: int
    seed: int | None

    def fixed_rates(self) -> list[Parameter]: ...


def state_dict(optimizer: Optimizer) -> Plain:
    """The document that `load_state_dict` takes."""
    keys = keys_of(optimizer)
    return {
        "optimizer": type(optimizer).__name__,
        "rule": _rule(optimizer),
        "parameters": _parameters(optimizer),
        "global_step": optimizer.global_step,
        "seed": optimizer.seed or 0,
        "learning_rates": [float(rate.asnumpy()) for rate in optimizer.fixed_rates()],
        "states": {
            name: {key: parameter.asnumpy().copy() for key, parameter in zip(keys, state, strict=True)}
            for name, state in _states(optimizer).items()
        },
    }


def load_state_dict(optimizer: Optimizer, document: Document) -> None:
    """Restores all of `document`, or raises StatesError and restores nothing."""
    own, keys, fixed = _states(optimizer), keys_of(optimizer), optimizer.fixed_rates()
    try:
        seed = seed_of(document, optimizer.seed)
        name, rule, step = document["optimizer"], document["rule"], int(document["global_step"])
        parameters = {key: (tuple(shape), str(dtype)) for key, (shape, dtype) in document["parameters"].items()}
        rates = [float(rate) for rate in document["learning_rates"]]
        loaded = {name: dict(state) for name, state in document["states"].items()}
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise StatesError(f"this is no state_dict of an optimizer: {error!r}") from error
    if name != type(optimizer).__name__:
        raise StatesError(f"the state_dict is of {name}, this is {type(optimizer).__name__}")
    if loaded.keys() != own.keys() or len(rates) != len(fixed):
        raise StatesError(
            f"{name} has the states {', '.join(own) or 'none'} and {len(fixed)} fixed learning rates,"
            f" the state_dict {', '.join(loaded) or 'none'} and {len(rates)}"
        )
    if rule != _rule(optimizer):
        raise StatesError(f"the state_dict is of {name} with the rule {rule!r}, this one has {_rule(optimizer)!r}")
    _compare(_parameters(optimizer), parameters)
    for what, state in own.items():
        if loaded[what].keys() != set(keys):
            raise StatesError(f"{what} is kept for {', '.join(keys)}, in the state_dict for {', '.join(loaded[what])}")
        for key, parameter in zip(keys, state, strict=True):
            new = loaded[what][key] = as_stored(loaded[what][key], parameter.dtype)
            if not hasattr(new, "dtype") or (new.shape, new.dtype) != (parameter.shape, parameter.dtype):
                raise StatesError(
                    f"{what} of {key} is an array {parameter.shape} of {parameter.dtype}, in the state_dict"
                    f" {getattr(new, 'shape', new)} of {getattr(new, 'dtype', type(new).__name__)}"
                )
    for what, state in own.items():
        for key, parameter in zip(keys, state, strict=True):
            parameter.value[...] = arrays.to_device_of(loaded[what][key], parameter.value)
    for rate, value in zip(fixed, rates, strict=True):
        rate.value[...] = value
    optimizer.global_step, optimizer.seed = step, seed


def _rule(optimizer: Optimizer) -> str | None:
    """What the states are used by; None where a step is not a rule's."""
    rule = getattr(optimizer, "rule", None)
    return rule.name if isinstance(rule, Rule) else None


def _parameters(optimizer: Optimizer) -> dict[str, tuple[tuple[int, ...], str]]:
    """Shape and dtype of each parameter."""
    pairs = zip(keys_of(optimizer), optimizer.parameters, strict=True)
    return {k: (p.shape, str(p.dtype.newbyteorder("="))) for k, p in pairs}


def _compare(own: Document, loaded: Document) -> None:
    """Raises where the parameters differ, and says in what."""
    removed, added = ([repr(k) for k in a if k not in b] for a, b in ((loaded, own), (own, loaded)))
    words = [f"{', '.join(removed)} of its parameters are not here"] * bool(removed)
    words += [f"{', '.join(added)} are new here"] * bool(added)
    for key in own:
        if key in loaded and own[key] != loaded[key]:
            (there, dtype), (here, own_dtype) = loaded[key], own[key]
            words.append(f"{key!r} is {dtype} {there} there, {own_dtype} {here} here")
    if words:
        raise StatesError(f"the state_dict is for other parameters: {'; '.join(words)}")


def _states(optimizer: Optimizer) -> dict[str, ParameterTuple]:
    found = {name: value for name, value in vars(optimizer).items() if isinstance(value, ParameterTuple)}
    return {name: value for name, value in found.items() if name != "parameters"}


def keys_of(optimizer: Optimizer) -> list[str]:
    """The parameters' names, or their positions where some have none, or the same."""
    names = [p.name for p in optimizer.parameters]
    usable = all(names) and len(set(names)) == len(names)
    return [str(name) for name in names] if usable else [str(k) for k in range(len(names))]
