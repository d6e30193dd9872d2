"""A `torch.optim.Optimizer` whose steps are mxopt's: fused, in place, at the speed of memory."""

from __future__ import annotations

import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import chain
from typing import Any

import torch

from mxopt.engine import arrays
from mxopt.errors import ArrayError, StatesError
from mxopt.torch.backends import NOT_TAKEN, backend_of, refuse
from mxopt.torch.held import Held
from mxopt.torch.states import States, as_array, as_tensor
from mxopt.typing import Array, Document, Plain

_grad_of = operator.attrgetter("grad")
_params_of = operator.itemgetter("params")


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
        `weight_decay`, `betas` and `eps` are written so, in `param_groups` too.
    multi_precision : bool
        Keep a float32 master copy of float16 and bfloat16 parameters, and update that.
    lazy_update : bool
        Leave the rows alone for which a sparse gradient has none: an option of those optimizers
        that can.
    state_dtype : {None, "bfloat16"}
        "bfloat16" keeps states in half the memory, rounded stochastically by `seed`; see
        `mxopt.optimizer.Optimizer`.
    **options
        The optimizer's.

    Raises
    ------
    ValueError
        There is no such optimizer, an option has a value that isn't allowed, a parameter stands
        twice, or can't be updated.
    TypeError
        An option doesn't exist, and the message names those like it; or a parameter is not on the
        CPU, or of no dtype that optimizers update.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Optimizer(model.parameters(), "lamb", lr=0.01)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    """

    def __init__(self, params: Iterable[Any], name: str, **options: Any) -> None:
        self._name = name
        self._given = options
        self._begin()
        held = {key: x for key, x in options.items() if torch.is_tensor(x) and key in self._backend.defaults}
        super().__init__(params, self._backend.defaults | held)  # a rate that is a tensor may be changed in place

    def _begin(self) -> None:
        self._backend = backend_of(self._name, dict(self._given))
        self._held = Held.of([], [])

    def __repr__(self) -> str:
        shown: str = super().__repr__()
        return shown.replace(" (", f" {self._name!r} (", 1)

    @property
    def state(self) -> Any:
        """What is kept of each parameter, by PyTorch's names: tensors over the memory that steps
        change.

        A new dict at each look. A dict of parameters and their states that is assigned to it takes
        the place of all that is kept; raises StatesError, and changes nothing, where it doesn't
        fit.
        """
        kept = ((tensor, self._backend.state(number)) for number, tensor in enumerate(self._held.tensors))
        return States({tensor: {key: as_tensor(x) for key, x in state.items()} for tensor, state in kept if state})

    @state.setter
    def state(self, value: Array) -> None:
        tensors = self._held.tensors
        if tensors:  # PyTorch's constructor begins with an empty one
            states = [{key: as_array(x) for key, x in value.get(t, {}).items()} for t in tensors]
            self._backend.restore(self.param_groups, states)

    def add_param_group(self, param_group: Plain) -> None:
        """Adds parameters, with options of their own. Raises what the constructor raises; nothing
        has been changed then."""
        if isinstance(param_group, dict):
            whose = f"{self._name}, group {len(self.param_groups)}"
            refuse(whose, param_group)
            options = self._backend.group(param_group, whose)
            if options.keys() != param_group.keys():
                param_group = options
        super().add_param_group(param_group)
        try:
            self._admit(self.param_groups[-1])
        except BaseException:
            del self.param_groups[-1]
            raise

    def _admit(self, group: Plain) -> None:
        first, tensors = len(self._held.tensors), group["params"]
        numbers = [str(first + k) for k in range(len(tensors))]
        names = group.get("param_names") or numbers
        if not set(names).isdisjoint(self._held.names):  # two models have parameters of one name
            names = [f"{name} ({number})" for name, number in zip(names, numbers, strict=True)]
        held = Held.of(tensors, names)
        self._backend.add(group, held.views, names)
        self._held += held

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters that have a gradient, in place, and tells autograd.

        Parameters
        ----------
        closure : function, optional
            Computes the loss and the gradients anew; what it returns is returned.

        Raises
        ------
        ValueError
            A gradient doesn't fit its parameter, an option in `param_groups` isn't allowed, or a
            parameter has another dtype or shape than its states, or is on another device; nothing
            has been changed then.
        """
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        if not self._held.are(self._params()):
            self._look_again()
        tensors = self._held.tensors
        grads = list(map(_grad_of, tensors))
        places = self._held.places_of(grads)
        if places is not None and self._backend.repeat(self.param_groups, places):
            torch.autograd.graph.increment_version(tensors)
            return loss
        if not self._held.lie_as_before():
            self._look_again()
        self._backend.update(self.param_groups, self._held.views, self._held.arrays_of(grads))
        written = [tensor for tensor, grad in zip(tensors, grads, strict=True) if grad is not None]
        if written:
            torch.autograd.graph.increment_version(written)
        return loss

    def _params(self) -> list[torch.Tensor]:
        return list(chain.from_iterable(map(_params_of, self.param_groups)))

    def _look_again(self) -> None:
        """Goes on with parameters that are others by now, as in `group["params"][0] = p`, or whose
        memory is, as after `p.data = x`."""
        now, there = self._params(), set(map(id, self._params()))
        kept = {id(t): self._state_of(k) for k, t in enumerate(self._held.tensors) if id(t) in there}
        before = self._backend, self._held
        try:
            self._begin()
            for group in self.param_groups:
                self._admit(group)
            self._backend.restore(self.param_groups, [kept.get(id(tensor), {}) for tensor in now])
        except BaseException:
            self._backend, self._held = before
            raise

    def _state_of(self, number: int) -> Plain:
        """A parameter's state. Raises where it isn't one of the parameter as that is now."""
        state, old = self._backend.state(number), self._held.views[number]
        name = f"parameter {self._held.names[number]!r}"
        now = arrays.as_array(self._held.tensors[number], name) if state else old
        if (old.shape, old.dtype) != (now.shape, now.dtype):
            raise ArrayError(
                f"{name} was {old.dtype} {old.shape} when its states were made, and is {now.dtype} {now.shape} now:"
                " make a new optimizer of the model as it is"
            )
        return state

    # Saving: PyTorch's own format, which `torch.save` and `torch.load(weights_only=True)` take.

    def state_dict(self) -> Plain:
        """The states and options as `torch.optim`'s, in plain dicts; the tensors lie over the
        memory that steps change."""
        saved: Plain = super().state_dict()
        return {**saved, "state": {key: dict(state) for key, state in saved["state"].items()}}

    def load_state_dict(self, state_dict: Document) -> None:
        """Goes on from what `state_dict` returned, of this optimizer or of the one of `torch.optim`
        of that name.

        Raises ValueError, and changes nothing, where it is of another optimizer or of other
        parameters.
        """
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            state_dict = before(self, dict(state_dict)) or state_dict
        if not isinstance(state_dict, Mapping) or not {"param_groups", "state"} <= state_dict.keys():
            raise StatesError("load_state_dict takes what the state_dict() of an optimizer returned")
        saved, state = state_dict["param_groups"], state_dict["state"]
        counts = [len(group["params"]) for group in saved], [len(group["params"]) for group in self.param_groups]
        if counts[0] != counts[1]:
            raise StatesError(f"the states are for groups of {counts[0]} parameters, not of {counts[1]}")
        own = self._backend.defaults
        old_default = {"maximize": False} if "maximize" in own else {}  # which older PyTorch doesn't save
        new = [
            {**group, **old_default, **{k: v for k, v in old.items() if k != "params" and k not in NOT_TAKEN}}
            for group, old in zip(self.param_groups, saved, strict=True)
        ]
        lacking = sorted(
            {key for group in saved for key in own if key not in group} - {"lazy_update", "seed", "maximize"}
        )
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
        self._backend.restore(new, [{k: as_array(v) for k, v in state.get(n, {}).items()} for n in order])
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
        groups = [dict(group) for group in state["groups"]]
        Optimizer.__init__(self, groups, state["name"], **state["given"])  # a subclass may take other arguments
        self.load_state_dict(state["saved"])
