"""A `torch.optim.Optimizer` whose steps are mxopt's: fused, in place, at the speed of memory."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Iterable, Mapping
from operator import attrgetter
from types import NoneType
from typing import Any

import numpy as np
import torch

from mxopt.engine import arrays
from mxopt.errors import StatesError
from mxopt.torch.rules import rules_of
from mxopt.typing import Array, Plain

_grad_of = attrgetter("grad")


class Optimizer(torch.optim.Optimizer):
    """Any of mxopt's optimizers for the parameters of a model on the CPU.

    Parameters
    ----------
    params : iterable of Tensor, of (str, Tensor), or of dict
        `model.parameters()`, `model.named_parameters()`, or groups with options of their own.
    name : str
        PyTorch's ("sgd", "adam", "adamw", "adamax", "nadam", "radam", "adadelta", "adagrad",
        "asgd", "rmsprop", "rprop"): the numbers, options and defaults of `torch.optim`. Any other
        of `mxopt.create` ("lamb", "lars", "lans", "ftrl", "adabelief", ...): its own, where `lr`,
        `weight_decay`, `betas` and `eps` may be written so.
    multi_precision : bool
        Keep a float32 master copy of float16 and bfloat16 parameters, and update that.
    lazy_update : bool
        Leave the rows alone for which a sparse gradient has none.
    state_dtype : {None, "bfloat16"}
        "bfloat16" keeps states in half the memory, rounded stochastically by `seed`; see
        `mxopt.optimizer.Optimizer`.
    **options
        The optimizer's.

    Raises
    ------
    ValueError
        There is no such optimizer, or an option has a value that isn't allowed.
    TypeError
        An option doesn't exist; the message names those like it.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Optimizer(model.parameters(), "lamb", lr=0.01)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(self, params: Iterable[Any], name: str, **options: Any) -> None:
        self._name = name
        self._given = options
        self._begin()
        super().__init__(params, dict(self._rules.defaults))

    def _begin(self) -> None:
        self._rules = rules_of(self._name, dict(self._given))
        self._tensors: list[torch.Tensor] = []
        self._views: list[np.ndarray] = []
        self._places: list[int] = []  # in memory, of the tensors when they were looked at

    @property
    def state(self) -> Any:
        """What is kept of each parameter, by PyTorch's names: tensors over the memory that steps
        change.

        A new dict at each look: states are changed by `load_state_dict`.
        """
        found: defaultdict[torch.Tensor, Plain] = defaultdict(dict)
        for number, tensor in enumerate(self._tensors):
            kept = self._rules.state(number)
            if kept:
                found[tensor] = {key: _as_tensor(value) for key, value in kept.items()}
        return found

    @state.setter
    def state(self, value: Array) -> None:
        """PyTorch's constructor sets it; there is nothing to keep."""

    def add_param_group(self, param_group: Plain) -> None:
        """Adds parameters, with options of their own. Raises what PyTorch raises; nothing has been
        changed then."""
        super().add_param_group(param_group)
        try:
            self._admit(self.param_groups[-1])
        except BaseException:
            del self.param_groups[-1]
            raise

    def _admit(self, group: Plain) -> None:
        tensors = group["params"]
        names = group.get("param_names") or [str(len(self._tensors) + k) for k in range(len(tensors))]
        views = [arrays.as_array(tensor, f"parameter {name!r}") for tensor, name in zip(tensors, names, strict=True)]
        self._rules.add(group, views, names)
        self._tensors = [*self._tensors, *tensors]
        self._views = [*self._views, *views]
        self._places = list(map(torch.Tensor.data_ptr, self._tensors))

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters that have a gradient, in place, and tells autograd.

        Parameters
        ----------
        closure : function, optional
            Computes the loss and the gradients anew; what it returns is returned.

        Raises
        ------
        ValueError
            A gradient doesn't fit its parameter, or a parameter has been moved to another device or
            dtype; nothing has been changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        tensors = self._tensors
        if list(map(torch.Tensor.data_ptr, tensors)) != self._places:
            self._follow_memory()
        grads = list(map(_grad_of, tensors))
        self._rules.update(self.param_groups, self._views, _as_arrays(grads))
        written = [tensor for tensor, grad in zip(tensors, grads, strict=True) if grad is not None]
        if written:
            torch.autograd.graph.increment_version(written)
        return loss

    def _follow_memory(self) -> None:
        """Goes on with parameters whose memory is another by now, as after `p.data = ...`."""
        groups, states = self.param_groups, [self._rules.state(number) for number in range(len(self._tensors))]
        self._begin()
        for group in groups:
            self._admit(group)
        self._rules.restore(groups, states)

    # Saving: PyTorch's own format, which `torch.save` and `torch.load(weights_only=True)` take.

    def load_state_dict(self, state_dict: Mapping[str, Any]) -> None:
        """Goes on from what `state_dict` returned, of this optimizer or of the one of `torch.optim`
        of that name.

        Raises ValueError, and changes nothing, where it is of another optimizer or of other
        parameters.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, dict(state_dict)) or state_dict
        saved, state = state_dict["param_groups"], state_dict["state"]
        counts = [len(group["params"]) for group in saved], [len(group["params"]) for group in self.param_groups]
        if counts[0] != counts[1]:
            raise StatesError(f"the states are for groups of {counts[0]} parameters, not of {counts[1]}")
        own = self._rules.defaults
        new = [
            {**group, **{k: v for k, v in old.items() if k != "params"}}
            for group, old in zip(self.param_groups, saved, strict=True)
        ]
        lacking = sorted({key for group in saved for key in own if key not in group} - {"lazy_update", "seed"})
        if lacking:
            raise StatesError(f"the states are those of another optimizer: groups without {', '.join(lacking)}")
        decoupled = self._name.lower() == "adamw"
        if any(
            group.get("decoupled_weight_decay", decoupled) != decoupled for group in saved if group.get("weight_decay")
        ):
            kind = "part of the gradient" if decoupled else "decoupled"
            raise StatesError(
                f"the states are those of an optimizer whose weight decay is {kind}, {self._name}'s isn't"
            )
        order = [number for group in saved for number in group["params"]]
        self._rules.restore(new, [{k: _as_array(v) for k, v in state.get(n, {}).items()} for n in order])
        for group, options in zip(self.param_groups, new, strict=True):
            group.update({key: value for key, value in options.items() if key != "params"})
        for after in self._optimizer_load_state_dict_post_hooks.values():
            after(self)

    def __getstate__(self) -> Plain:
        return {"name": self._name, "given": self._given, "groups": self.param_groups, "saved": self.state_dict()}

    def __setstate__(self, state: Plain) -> None:
        if "saved" not in state:
            super().__setstate__(state)
            return
        self.__init__([dict(group) for group in state["groups"]], state["name"], **state["given"])  # type: ignore[misc]
        self.load_state_dict(state["saved"])


def _as_arrays(grads: list[Array]) -> list[Any]:
    """Gradients as arrays over their memory; None stays."""
    if set(map(type, grads)) <= {torch.Tensor, NoneType}:
        try:
            return [grad if grad is None else grad.numpy() for grad in grads]
        except (TypeError, RuntimeError):  # one is sparse, or bfloat16, or in a graph, or says why it can't be
            pass
    return [None if grad is None else arrays.as_gradient(grad, "grad") for grad in grads]


def _as_tensor(value: Array) -> Any:
    """A state as PyTorch keeps it: arrays as tensors over their memory, numbers as tensors without
    axes."""
    if not isinstance(value, np.ndarray):
        return torch.tensor(float(value))
    if value.dtype == arrays.BFLOAT16:  # which PyTorch doesn't take from NumPy
        return torch.from_numpy(value.view(np.int16)).view(torch.bfloat16)
    return torch.from_numpy(value)


def _as_array(value: Array) -> Any:
    if not isinstance(value, torch.Tensor):
        return value
    return value.item() if value.ndim == 0 else arrays.as_array(value, "a state").copy()
