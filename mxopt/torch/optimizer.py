"""A `torch.optim.Optimizer` whose steps are mxopt's: fused, in place, at the speed of memory."""

from __future__ import annotations

import copy
import operator
import weakref
from collections.abc import Callable, Iterable, Mapping
from functools import wraps
from itertools import chain
from typing import TYPE_CHECKING, Any, ClassVar, overload

import numpy as np
import torch
from torch.optim.optimizer import register_optimizer_step_post_hook, register_optimizer_step_pre_hook
from torch.utils.hooks import RemovableHandle

from mxopt.engine import arrays
from mxopt.errors import ArrayError, MXOptError, StatesError
from mxopt.torch.backends import backend_of, is_kept, refuse
from mxopt.torch.held import Held, real, renew
from mxopt.torch.states import Numbers, States, as_array, as_tensor, by_parameter, check_state, groups_of, is_saved
from mxopt.typing import Array, Document, Plain

if TYPE_CHECKING:
    from mxopt.options import Unpack
    from mxopt.torch.named import AnyOption

_grad_of = operator.attrgetter("grad")
_params_of = operator.itemgetter("params")


def _hooks_by(register: Callable[[Any], RemovableHandle]) -> Mapping[int, Any]:
    """The hooks, by number, which a function of PyTorch's registers for all optimizers."""
    handle = register(lambda *_: None)
    found: Mapping[int, Any] = handle.hooks_dict_ref()
    handle.remove()
    return found


_before_all, _after_all = map(_hooks_by, (register_optimizer_step_pre_hook, register_optimizer_step_post_hook))
_in_profile = torch.autograd._profiler_enabled


class Optimizer(torch.optim.Optimizer):
    """Any of mxopt's optimizers for the parameters of a model on the CPU.

    Parameters
    ----------
    params : iterable of Tensor, of (str, Tensor), or of dict
        `model.parameters()`, `model.named_parameters()`, or groups with options of their own.
    name : str
        One of PyTorch's ("sgd", "adam", "adamw", "adamax", "nadam", "radam", "adadelta", "adagrad",
        "asgd", "rmsprop", "rprop", "adafactor", "sparseadam"), with the numbers, options and
        defaults of `torch.optim`; or any other of `mxopt.create` ("lamb", "lars", "lans", "ftrl",
        "adabelief", ...), with its own, except that they are called `lr`, `weight_decay`, `betas`
        and `eps`, in `param_groups` too.
    multi_precision : bool
        Keep a float32 master copy of each float16 and bfloat16 parameter, and update that. Where
        something else writes the parameter, such as a model's `load_state_dict`, the copy follows.
    lazy_update : bool
        Leave alone the rows that a sparse gradient lacks. Only some optimizers have this option.
    state_dtype : {None, "bfloat16"}
        "bfloat16" keeps states in half the memory, rounded stochastically by `seed`; see
        `mxopt.optimizer.Optimizer`.
    **options
        The optimizer's.

    Raises
    ------
    ValueError
        There is no such optimizer, an option has a value that isn't allowed, or a parameter is
        given twice or can't be updated.
    TypeError
        An option doesn't exist, and the message names similar ones; or a parameter is not on the
        CPU, or of a dtype that optimizers don't update.

    >>> model = torch.nn.Linear(3, 1)
    >>> optimizer = Optimizer(model.parameters(), "lamb", lr=0.01)
    >>> model(torch.ones(2, 3)).sum().backward()
    >>> optimizer.step()
    """

    _untraced: ClassVar[Any] = None  # `_step`, hidden from torch.compile, whose tracer can't see memory

    @overload
    def __init__(self, params: Iterable[Any], name: str, **options: Unpack[AnyOption]) -> None: ...
    @overload  # by a dict, which may have any: to a type checker even the key `_unpacked`
    def __init__(self, params: Iterable[Any], name: str, *, _unpacked: Any, **options: Any) -> None: ...
    def __init__(self, params: Iterable[Any], name: str, **options: Any) -> None:
        self._name = name
        self._given = options
        self._shown: Callable[[], States | None] = lambda: None  # a weak reference to what `state` returned
        self._looked: States | None = None  # keeps that alive until the next step
        self._others: Plain = {}  # what callers keep in `state`: other names of a parameter's, other keys
        self._begin()
        held = {key: x for key, x in options.items() if torch.is_tensor(x) and key in self._backend.defaults}
        super().__init__(params, self._backend.defaults | held)  # a rate that is a tensor may be changed in place
        if Optimizer._untraced is None:  # imports nothing that PyTorch's constructor hasn't imported
            Optimizer._untraced = torch.compiler.disable(Optimizer._step)

    @staticmethod
    def profile_hook_step(func: Callable[..., Any]) -> Callable[..., Any]:
        """What PyTorch wraps around `step`: hooks, and an entry in profiles. Where there is no hook
        and no profile, this one adds nothing, as PyTorch's takes 0.2 ms with cold caches."""
        watched = torch.optim.Optimizer.profile_hook_step(func)

        @wraps(func)
        def step(self: Optimizer, *args: Any, **kwargs: Any) -> Any:
            own = self._optimizer_step_pre_hooks or self._optimizer_step_post_hooks
            call = watched if own or _before_all or _after_all or _in_profile() else func
            return call(self, *args, **kwargs)

        return step

    def _begin(self) -> None:
        self._backend = backend_of(self._name, dict(self._given))
        self._held = Held.of([], [])
        self._numbers = Numbers()
        self._narrow = list[int]()  # the numbers of the parameters that have a master copy
        self._versions = list[int]()  # theirs, after the last step

    def __repr__(self) -> str:
        shown: str = super().__repr__()
        return shown.replace(" (", f" {self._name!r} (", 1)

    @property
    def state(self) -> Any:
        """The states of each parameter, by PyTorch's names, as tensors over the memory that steps
        change.

        Writing into a tensor changes the state. Putting something into these dicts or taking it out
        takes effect at the next step, which raises StatesError, and changes nothing, if it doesn't
        fit. Names that no optimizer has, and keys that aren't parameters, belong to the caller, and
        are saved too. Assigning a dict of parameters and their states replaces all states, or
        raises StatesError at once.
        """
        shown = self._shown()
        if shown is None:
            self._take_numbers()
            shown = States(self._kept())
            self._shown = weakref.ref(shown)
        self._looked = shown  # the caller may change and drop it before the next step
        return shown

    @state.setter
    def state(self, value: Array) -> None:
        if not isinstance(value, Mapping):
            raise StatesError(f"state is a dict of parameters and their states, not {value!r:.80}")
        if self._held.tensors:  # PyTorch's constructor begins with an empty one
            self._restore(self.param_groups, value)

    def _kept(self) -> dict[Any, Any]:
        found = dict[Any, Any]()
        for number, tensor in enumerate(self._held.tensors):
            state = self._backend.state(number)
            if state:
                found[tensor] = {
                    name: as_tensor(x, tensor) if isinstance(x, np.ndarray) else self._numbers.tensor((number, name), x)
                    for name, x in state.items()
                } | self._others.get(tensor, {})
        return found | {key: x for key, x in self._others.items() if key not in found}

    def _restore(self, groups: list[Plain], kept: Mapping[Any, Any]) -> None:
        """Continues from `kept`, states by parameter; whatever else it holds belongs to the
        caller."""
        tensors, states, others = self._held.tensors, list[Plain](), dict(kept)
        for tensor in tensors:
            state = others.pop(tensor, {})
            check_state(state)
            states.append({name: as_array(x) for name, x in state.items() if is_kept(name)})
            theirs = {name: x for name, x in state.items() if not is_kept(name)}
            others |= {tensor: theirs} if theirs else {}
        self._backend.restore(groups, states)
        self._numbers, self._versions, self._others = Numbers(), [], others
        self._show()

    def _show(self) -> None:
        """Brings what `state` returned up to date."""
        shown = self._shown()
        if shown is not None:
            shown.renew(self._kept())

    def _take_numbers(self) -> None:
        """Takes over numbers of states that have been written."""
        for (number, name), value in self._numbers.written():
            self._backend.set_number(number, name, value)

    def add_param_group(self, param_group: Plain) -> None:
        """Adds parameters, with options of their own. Raises what the constructor raises, and then
        changes nothing."""
        if isinstance(param_group, dict):
            whose = f"{self._name}, group {len(self.param_groups)}"
            refuse(whose, param_group)
            options = self._backend.group(param_group, whose)
            if options.keys() != param_group.keys():
                param_group = options
        if not (self._held.are(self._params()) and self._held.lie_as_before()):
            self._look_again()
        super().add_param_group(param_group)
        try:
            self._admit(self.param_groups[-1])
            if not self._others.keys().isdisjoint(self.param_groups[-1]["params"]):  # removed before, and back
                self._restore(self.param_groups, self._kept())
        except BaseException:
            del self.param_groups[-1]
            raise

    def _admit(self, group: Plain) -> None:
        first, tensors = len(self._held.tensors), group["params"]
        numbers = [str(first + k) for k in range(len(tensors))]
        names = group.get("param_names") or numbers
        if not set(names).isdisjoint(self._held.names):  # two models may use one name
            names = [f"{name} ({number})" for name, number in zip(names, numbers, strict=True)]
        held = Held.of(tensors, names)
        self._backend.add(group, held.views, names)
        self._held += held
        if self._given.get("multi_precision"):
            self._narrow += [first + k for k, view in enumerate(held.views) if view.dtype.itemsize == 2]
            self._versions = []

    def step(self, closure: Callable[[], Any] | None = None) -> Any:
        """Updates the parameters that have a gradient, in place, and tells autograd.

        Parameters
        ----------
        closure : function, optional
            Computes the loss and the gradients; its result is returned.

        Raises
        ------
        ValueError
            A gradient doesn't fit its parameter, an option in `param_groups` isn't allowed, or a
            parameter has another dtype or shape than its states, or is on another device. Then
            nothing has been changed.
        """
        return self._untraced(closure)

    def _step(self, closure: Callable[[], Any] | None) -> Any:
        loss = None
        if closure is not None:
            with torch.enable_grad():
                loss = closure()
        self._take_changes()
        followed = bool(self._numbers)
        if followed:
            self._take_numbers()
        self._update()
        if followed:
            self._numbers.follow(self._backend.number)
        if self._narrow:
            self._versions = self._versions_now()
        self._looked = None
        self._show()
        return loss

    def _take_changes(self) -> None:
        """Takes over replaced parameters in `param_groups`, and replaced states in `state`."""
        shown = self._shown()
        changed = shown if shown is not None and shown.changed else None
        same = self._held.are(self._params())
        if not same or (changed is not None and not self._held.lie_as_before()):
            self._look_again(changed)
        elif changed is not None:
            self._restore(self.param_groups, changed)

    def _update(self) -> None:
        tensors = self._held.tensors
        grads = list(map(_grad_of, tensors))
        places = self._held.places_of(grads)
        if places is None and not self._held.lie_as_before():
            self._look_again()
        self._renew_masters()
        # Before the update, while the tensors are in the caches still.
        told = map(torch.autograd.graph.increment_version, (tensors,))
        if places is not None and self._backend.repeat(self.param_groups, places, told):
            return
        self._backend.update(self.param_groups, self._held.views, self._held.arrays_of(grads))
        written = [tensor for tensor, grad in zip(tensors, grads, strict=True) if grad is not None]
        if written:
            torch.autograd.graph.increment_version(written)

    def _versions_now(self) -> list[int]:
        return [self._held.tensors[number]._version for number in self._narrow]

    def _renew_masters(self) -> None:
        """Updates master copies whose parameters others have written since the last step."""
        if self._narrow and self._versions_now() != self._versions:
            for number in self._narrow:
                state = self._backend.state(number)
                if "master" in state:
                    renew(state["master"], self._held.views[number])

    def _params(self) -> list[torch.Tensor]:
        return list(chain.from_iterable(map(_params_of, self.param_groups)))

    def _look_again(self, changed: States | None = None) -> None:
        """Continues with parameters that were replaced, as by `group["params"][0] = p`, or whose
        memory was, as by `p.data = x`; from the states `changed`, if given."""
        if changed is None:
            self._take_numbers()
            there = set(map(id, self._params()))
            for number, tensor in enumerate(self._held.tensors):
                if id(tensor) in there:
                    self._check_same(number)
        kept = self._kept() if changed is None else changed
        before = self._backend, self._held, self._numbers, self._narrow, self._versions
        try:
            self._begin()
            for group in self.param_groups:
                self._admit(group)
            self._restore(self.param_groups, kept)
        except BaseException:
            self._backend, self._held, self._numbers, self._narrow, self._versions = before
            raise

    def _check_same(self, number: int) -> None:
        """Raises if a parameter no longer fits its state."""
        if not self._backend.state(number):
            return
        old, name = self._held.views[number], f"parameter {self._held.names[number]!r}"
        now = arrays.as_array(real(self._held.tensors[number], name), name)
        if (old.shape, old.dtype) != (now.shape, now.dtype):
            raise ArrayError(
                f"{name} was {old.dtype} {old.shape} when its states were made, and is {now.dtype} {now.shape} now:"
                " make a new optimizer of the model as it is"
            )

    # Saving: PyTorch's own format, which `torch.save` and `torch.load(weights_only=True)` take.

    def state_dict(self) -> Plain:
        """The states and options in the format of `torch.optim`, as plain dicts. The tensors lie
        over the memory that steps change. Parameters that have left all groups are left out."""
        shown, here = self.state, set(map(id, self._params()))
        gone = {key: x for key, x in shown.items() if torch.is_tensor(key) and id(key) not in here}
        for key in gone:
            dict.__delitem__(shown, key)
        try:
            saved: Plain = super().state_dict()
        finally:
            dict.update(shown, gone)
        if not is_saved(saved):  # a hook has returned something else
            return saved
        return {**saved, "state": {k: dict(x) if isinstance(x, dict) else x for k, x in saved["state"].items()}}

    def load_state_dict(self, state_dict: Document) -> None:
        """Continues from what `state_dict` returned, of an optimizer like this one or of that of
        `torch.optim` with its name.

        Raises ValueError, and changes nothing, if it is of another optimizer or of other
        parameters.
        """
        if self._optimizer_load_state_dict_pre_hooks and isinstance(state_dict, Mapping):
            state_dict = dict(state_dict)  # which a hook may change, or return another
        for before in self._optimizer_load_state_dict_pre_hooks.values():
            found = before(self, state_dict)
            state_dict = state_dict if found is None else found
        if not is_saved(state_dict):
            raise StatesError("load_state_dict takes what the state_dict() of an optimizer returned")
        try:
            saved = copy.deepcopy(state_dict["param_groups"])
            new = groups_of(saved, self.param_groups, self._backend.defaults, self._name)
            numbers = [number for group in saved for number in group["params"]]
            self._restore(new, by_parameter(state_dict["state"], dict(zip(numbers, self._held.tensors, strict=True))))
        except MXOptError:
            raise
        except (TypeError, ValueError, LookupError, AttributeError, RuntimeError, OverflowError) as error:
            raise StatesError(f"these are no states of an optimizer: {error!r:.200}") from error
        for group, options in zip(self.param_groups, new, strict=True):
            group.clear()
            group.update(options)
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
