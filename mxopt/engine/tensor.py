"""One tensor of an update: its arrays under names, and what is asked of them."""

from __future__ import annotations

from dataclasses import dataclass

from mxopt.engine import arrays
from mxopt.engine.rounding import Rounding
from mxopt.errors import ArrayError, ArrayTypeError, counted
from mxopt.rules.rule import Rule
from mxopt.sparse import RowSparse
from mxopt.typing import Array, State


@dataclass(slots=True)
class Tensor:
    """The arrays of one weight. `master` is the float32 copy of a 16-bit weight, `name` what errors
    call it.

    With `rounding`, states are of bfloat16, and what is stored in it is rounded stochastically.
    `noise` says, in the same way, which noise is drawn for a rule that takes some.
    """

    name: str
    weight: Array
    grad: Array
    states: tuple[Array, ...] = ()
    master: Array = None
    rounding: Rounding | None = None
    noise: Rounding | None = None

    def check(self, rule: Rule) -> None:
        """Raises if these arrays can't be updated by `rule`; nothing has been changed then."""
        self.weight = arrays.as_array(self.weight, f"{self.name}, weight")
        self.grad = arrays.as_gradient(self.grad, f"{self.name}, grad")
        arrays.check_weight(self.weight, self.name, grad=self.grad)
        arrays.check_grad(self.weight, self.grad, self.name)
        if rule.by_row is not None and not self.weight.ndim:
            raise ArrayError(f"{self.name}: {rule.name} keeps a state for each row, and the weight has no rows")
        if rule.by_matrix is not None and isinstance(self.weight, RowSparse):
            raise ArrayError(f"{self.name}: {rule.name} keeps states for columns, which a row-sparse weight can't have")
        if len(self.states) != len(rule.states):
            raise ArrayError(
                f"{self.name}: {rule.name} keeps {counted(len(rule.states), 'state')}"
                f" ({', '.join(rule.states) or 'none'}), got {len(self.states)}: create_state(index, weight) makes them"
            )
        if self.rounding is not None and self.weight.dtype.itemsize == 8:
            raise ArrayTypeError(f"{self.name}: a float64 weight can't have states of bfloat16: leave state_dtype out")
        for what, state in zip(rule.states, self.states, strict=True):
            shape = rule.state_shape(what, self.weight.shape)
            arrays.check_state(self.weight, state, shape, self.name, what)
            self._check_dtype(what, state)
        if self.master is not None:
            arrays.check_state(self.weight, self.master, self.weight.shape, self.name, "the master copy")
            if arrays.dtype_name(self.master.dtype) != "float32":
                raise ArrayTypeError(f"{self.name}: the master copy must be float32, got {self.master.dtype}")
        written = [arrays.data_of(a) for a in (self.weight, *self.states, self.master)]
        written = [a for a in written if arrays.is_array(a)]
        read = (self.grad.memory, self.grad.indices) if isinstance(self.grad, RowSparse) else (self.grad,)
        for k, a in enumerate(written):
            if any(arrays.overlap(a, b) for b in (*written[:k], *read)):
                raise ArrayError(f"{self.name}: two of the weight, the gradient and the states share memory")

    def _check_dtype(self, what: str, state: State) -> None:
        """Raises if a state has fewer bits than it needs: rounded to nearest, a running mean
        would get stuck."""
        dtype, source = arrays.dtype_name(state.dtype), self.weight if self.master is None else self.master
        if self.rounding is not None:
            if dtype != "bfloat16":
                raise ArrayTypeError(
                    f"{self.name}: {what} is of {dtype}: with state_dtype='bfloat16' it must be of that"
                )
        elif state.dtype.itemsize < source.dtype.itemsize or dtype == "bfloat16" != arrays.dtype_name(source.dtype):
            raise ArrayTypeError(
                f"{self.name}: a {source.dtype} weight can't have {what} of {dtype}, which loses what is added to it;"
                " make the optimizer with state_dtype='bfloat16' for states of that"
            )

    @property
    def all(self) -> list[Array]:
        """The arrays in the order of a kernel's table; a row-sparse gradient's data in its
        place."""
        return self._with(self.grad.data if isinstance(self.grad, RowSparse) else self.grad)

    @property
    def dtypes(self) -> tuple[str, ...]:
        return tuple(str(arrays.dtype_name(a.dtype)) for a in self._with(self.grad))

    def _with(self, grad: Array) -> list[Array]:
        return [self.weight, grad, *self.states] + [self.master] * (self.master is not None)

    @property
    def plain(self) -> bool:
        """Whether a kernel can walk all arrays from start to end."""
        return all(arrays.is_array(a) and arrays.is_plain(a) for a in self.all)

    @property
    def random(self) -> Rounding | None:
        """What random bits follow from, where some are needed."""
        return self.rounding or self.noise
