"""Parameters: arrays with a name, a gradient and multipliers."""

from __future__ import annotations

import weakref
from collections.abc import Iterable, Mapping
from typing import Any, Protocol

import numpy as np
from numpy.typing import DTypeLike

from mxopt.caller import warn
from mxopt.device import to_host
from mxopt.engine import arrays
from mxopt.errors import ArgumentError, ArrayError, ArrayTypeError, NoGradientError
from mxopt.options import number, plain
from mxopt.sparse import RowSparse
from mxopt.typing import AnyArray, Array, Dtype, Plain


class Keeper(Protocol):
    """Keeps copies of parameters' values, and so must know of `set_data`."""

    def before_set_data(self, param: Parameter) -> None:
        """Raises if the copy can't be changed."""

    def after_set_data(self, param: Parameter) -> None:
        """Changes the copy."""


class Parameter:
    """An array that training changes, with its name, gradient and multipliers.

    It holds no copy: `value` is the given array itself, or an array over its memory, so everyone
    who has the array sees every update. Wherever mxopt takes parameters it takes plain arrays too.

    Parameters
    ----------
    value : array
        float16, bfloat16, float32 or float64, of any shape: NumPy, CuPy, or anything that lends its
        memory by DLPack or the buffer protocol, as a `torch.Tensor` on the CPU does.
    name : str, optional
        States are saved under it, and errors mention it.
    requires_grad : bool
        Whether it is trained; optimizers skip it if not.
    lr_mult, wd_mult : float
        Its own multipliers of the learning rate and of the weight decay.

    Attributes
    ----------
    held : bool
        Whether an optimizer or a Trainer uses the array already, so that `cast` can't replace it.

    Raises
    ------
    ArrayTypeError
        `value` doesn't lend its memory.
    ArgumentError
        The name isn't a text, or a multiplier isn't a number.

    >>> weight = Parameter(np.ones(2, np.float32), name="weight")
    >>> weight
    Parameter 'weight' (2,) float32
    """

    requires_grad: bool

    def __init__(
        self,
        value: AnyArray,
        name: str | None = None,
        requires_grad: bool = True,
        *,
        lr_mult: float = 1.0,
        wd_mult: float = 1.0,
    ) -> None:
        if name is not None and not isinstance(name, str):
            raise ArgumentError(f"a parameter's name must be a text, got {name!r}")
        self._value = arrays.as_array(value, f"parameter {name!r}" if name else "parameter")
        self._lender: Any = None if self._value is value else value  # a tensor, whose memory the array is over
        self.name = name
        self.requires_grad = requires_grad
        for what, multiplier in {"lr_mult": lr_mult, "wd_mult": wd_mult}.items():
            number(f"parameter {name!r}: its {what}", multiplier)
        self.lr_mult: float = plain(lr_mult)
        self.wd_mult: float = plain(wd_mult)
        self._grad: Array = None
        self.held = False
        self._accumulates = False
        self.keepers: weakref.WeakSet[Keeper] = weakref.WeakSet()  # Trainers, whose stores may hold the value too

    def __getstate__(self) -> Plain:
        value = self._value if self._lender is None else None
        return {**self.__dict__, "_value": value, "held": False, "keepers": None}  # a copy is nobody's yet

    def __setstate__(self, state: Plain) -> None:
        vars(self).update(state, keepers=weakref.WeakSet())
        if self._lender is not None:  # a copied tensor has memory of its own
            self._value = arrays.as_array(self._lender, f"parameter {self.name!r}")

    @property
    def value(self) -> Array:
        """The array that is updated, always the same one. `set_data` changes its contents."""
        return self._value

    @property
    def lender(self) -> Any:
        """The object that lends its memory to the array, such as a tensor of PyTorch; None if the
        array was given itself."""
        return self._lender

    @property
    def grad(self) -> Array:
        """Its gradient, an array, a RowSparse or None. It is what was set here (`put_grad` adds
        several up), else the `.grad` of the tensor that lends the memory. Setting None drops
        both."""
        if self._grad is None and self._lender is not None and arrays.is_tensor(self._lender):
            return self._lender.grad
        return self._grad

    @grad.setter
    def grad(self, grad: Array) -> None:
        self._grad = grad
        if grad is None and self._lender is not None and arrays.is_tensor(self._lender):
            self._lender.grad = None

    @property
    def shape(self) -> tuple[int, ...]:
        """The array's shape."""
        return tuple(self._value.shape)

    @property
    def dtype(self) -> np.dtype:
        """The array's dtype."""
        dtype: np.dtype = self._value.dtype
        return dtype

    def asnumpy(self) -> np.ndarray:
        """The value as a NumPy array: the array itself, or a copy if it is on another device."""
        value: np.ndarray = to_host(self._value)
        return value

    # Methods of gluon's Parameter, for one array and one gradient.

    def data(self, ctx: object = None) -> Array:
        """The value. `ctx` has no effect."""
        return self._value

    def list_data(self) -> list[Array]:
        """The value, in a list: there is one device."""
        return [self._value]

    def list_grad(self) -> list[Array]:
        """The gradient, in a list. Raises NoGradientError if there is none."""
        if self.grad is None:
            raise NoGradientError(f"parameter {self.name!r} has no gradient")
        return [self.grad]

    @property
    def grad_req(self) -> str:
        """'null' for a parameter that isn't trained, else 'write' or 'add', which is what
        `put_grad` does. Set to 'null' it drops the gradient. Raises ArgumentError for anything
        else.
        """
        return "null" if not self.requires_grad else "add" if self._accumulates else "write"

    @grad_req.setter
    def grad_req(self, req: str) -> None:
        if req not in ("write", "add", "null"):
            raise ArgumentError(f"parameter {self.name!r}: grad_req must be 'write', 'add' or 'null', got {req!r}")
        self.requires_grad = req != "null"
        self._accumulates = req == "add"
        if req == "null":
            self.grad = None

    def put_grad(self, grad: AnyArray) -> None:
        """Takes a gradient as gluon's backward pass does: with `grad_req` 'write' it becomes the
        gradient, with 'add' it is added to the one there is, with 'null' nothing happens.

        The sum is the parameter's own array, which begins as a copy of `grad`, with its dtype. It
        grows until `zero_grad`; call that after the step. Raises ArrayError, and changes nothing,
        if the shapes differ.
        """
        where = f"parameter {self.name!r}, gradient"
        if not self.requires_grad:
            return
        if not self._accumulates:
            self.grad = grad
            return
        added = arrays.as_gradient(grad, where)
        if added.shape != self.shape:
            raise ArrayError(f"{where}: the parameter has shape {self.shape}, the gradient {added.shape}")
        if not arrays.dtype_name(added.dtype):
            raise ArrayTypeError(f"{where}: needs one of {', '.join(arrays.DTYPES.values())}, got {added.dtype}")
        if self.grad is None:
            self.grad = added.copy()
            return
        total = arrays.as_gradient(self.grad, where)
        if isinstance(added, RowSparse) and not isinstance(total, RowSparse):
            total[added.indices] += added.data
        else:
            total += added
        if isinstance(total, RowSparse):  # made of a sparse tensor, perhaps
            self.grad = total

    def zero_grad(self) -> None:
        """Sets the gradient to 0, in place; a row-sparse one then has no rows. Does nothing if
        there is none. Raises ArrayError if it is read-only."""
        if isinstance(self.grad, RowSparse):
            self.grad = RowSparse(self.grad.data[:0], self.grad.indices[:0], self.grad.shape)
        elif arrays.is_tensor(self.grad):
            self.grad.detach_().zero_()
        elif self.grad is not None:
            grad = arrays.as_array(self.grad, f"parameter {self.name!r}, gradient")
            if not arrays.is_writeable(grad):
                raise ArrayError(f"parameter {self.name!r}: the gradient is read-only; drop it by grad = None")
            grad[...] = 0

    def cast(self, dtype: Dtype) -> None:
        """Replaces value and gradient by copies of another dtype; the old array stays as it is.

        Raises ArgumentError once an optimizer or a Trainer uses the array, ArrayTypeError if
        optimizers don't have the dtype. Then nothing has been changed.
        """
        where = f"parameter {self.name!r}"
        if self.held:
            raise ArgumentError(f"{where} belongs to an optimizer or to a Trainer that has begun: cast it before")
        try:
            dtype = np.dtype(dtype)
        except TypeError as error:
            raise ArrayTypeError(f"{where}: {error}") from error
        if dtype not in arrays.DTYPES:
            raise ArrayTypeError(f"{where}: needs one of {', '.join(arrays.DTYPES.values())}, got {dtype}")
        if self.grad is not None:
            self._grad = arrays.as_gradient(self.grad, f"{where}, gradient").astype(dtype)
        self._value, self._lender = self._value.astype(dtype), None

    def set_data(self, data: AnyArray) -> None:
        """Copies `data` into the array, converted to its dtype, and into the local store of its
        `Trainer`. States stay.

        Raises ArrayError if the shapes differ or the array is read-only, ArrayTypeError if `data`
        isn't an array, KVStoreError if a Trainer's servers hold the value. Then nothing has been
        changed.
        """
        values = arrays.as_array(data, f"parameter {self.name!r}, data")
        if values.shape != self._value.shape:
            raise ArrayError(f"parameter {self.name!r} has shape {self.shape}, the data {values.shape}")
        if values.dtype.kind not in "biuf" and not arrays.dtype_name(values.dtype):
            raise ArrayTypeError(f"parameter {self.name!r} of {self.dtype} can't hold {values.dtype}")
        if not arrays.is_writeable(self._value):
            raise ArrayError(f"parameter {self.name!r}: its array is read-only")
        for keeper in self.keepers:
            keeper.before_set_data(self)
        self._value[...] = values
        written([self])
        for keeper in self.keepers:
            keeper.after_set_data(self)

    def __array__(self, dtype: DTypeLike | None = None, copy: bool | None = None) -> np.ndarray:
        return np.array(self.asnumpy(), dtype, copy=copy)

    def __repr__(self) -> str:
        return f"Parameter {self.name!r} {self.shape} {self.dtype}"


def written(parameters: Iterable[Parameter]) -> None:
    """Tells PyTorch which of its tensors, among these parameters, have been written."""
    arrays.tell_autograd([p.lender for p in parameters if p.lender is not None])


def value_of(x: Array, name: str) -> Array:
    """The array of a Parameter, or of a plain array, over the same memory. `name` is what an error
    calls it."""
    return x.value if isinstance(x, Parameter) else arrays.as_array(x, name)


def named(x: Array) -> Any:
    """A Parameter for a pair (name, array), as PyTorch's `named_parameters()` gives them;
    everything else as it is."""
    if isinstance(x, tuple) and len(x) == 2 and isinstance(x[0], str):
        return Parameter(x[1], x[0])
    return x


def name_of(x: Array, otherwise: str) -> str:
    """The name of a Parameter; `otherwise` for one without, and for a plain array."""
    return x.name if isinstance(x, Parameter) and x.name else otherwise


def listed(params: object) -> list[Parameter]:
    """Parameters as a list. A dict is taken in the order of its sorted keys, which name parameters
    without a name; arrays become parameters over their memory. One that is given twice counts once,
    with a warning.

    Raises ArgumentError unless `params` is a list or dict of parameters or arrays. Then no
    parameter has a new name.
    """
    names: list[Any] = []
    if isinstance(params, Mapping):
        try:
            names = sorted(params)
        except TypeError:
            raise ArgumentError(
                f"params: a dict is taken in the order of its keys, which must all be texts, got {list(params)!r:.80}"
            ) from None
        params = [params[name] for name in names]
    if not isinstance(params, list | tuple):
        raise ArgumentError(f"params must be a list or dict of Parameter, got {type(params).__name__}")
    found: list[Parameter] = []
    for k, param in enumerate(params):
        try:
            found.append(param if isinstance(param, Parameter) else Parameter(param))
        except ArrayError as error:
            raise ArgumentError(
                f"params must be a list or dict of Parameter or of arrays, got a {type(param).__name__} at {k}"
            ) from error
    for name, param in zip(names, found, strict=False):
        param.name = param.name or (name if isinstance(name, str) else None)
    once = list({id(param): param for param in found}.values())
    if len(once) < len(found):
        twice = ", ".join(sorted({repr(p.name) for p in once if sum(p is each for each in found) > 1}))
        warn(f"parameters that stand twice among params are updated once: {twice}")
    return once
