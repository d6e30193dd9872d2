"""`Trainer`: applies an optimizer to a set of parameters, directly or through a key-value store, as
`mxnet.gluon.Trainer`."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from functools import partial
from os import PathLike
from pathlib import Path
from typing import Any

from mxopt import clipping, nn, owned
from mxopt.document import write_file
from mxopt.engine.uninterrupted import uninterrupted
from mxopt.errors import ArgumentError, ArgumentTypeError, KVStoreError, UsageError, WarnedUsageError, counted
from mxopt.experimental import optim as experimental
from mxopt.kvstore import trained
from mxopt.kvstore.base import KVStoreBase
from mxopt.kvstore.local import KVStore
from mxopt.optimizer import Optimizer, Updater, create as create_optimizer, get_updater
from mxopt.optimizer.direct import DirectUpdater
from mxopt.optimizer.keyed import KeyedOptimizer, following
from mxopt.optimizer.states import load
from mxopt.options import one_number
from mxopt.owned import AnyOptimizer
from mxopt.parameter import Parameter, listed, written
from mxopt.sparse import RowSparse
from mxopt.typing import Document, NamedArrays, Plain


class Trainer:
    """Updates parameters by their gradients.

    Parameters
    ----------
    params : list or dict of Parameter, or of arrays
        A dict is taken in the order of its sorted keys, which name parameters without a name. An
        array becomes a parameter over its memory, which `parameters` has: set its gradient there.
    optimizer : str, Optimizer, or one of `mxopt.experimental.optim` or `mxopt.nn`
        The latter two must have been made with these same parameters, and their order counts.
    optimizer_params : dict, optional
        Arguments for an optimizer given by name.
    kvstore : str, store or None
        `local` and `device` need no store, since there is one copy of each parameter; the names of
        distributed stores join a job; a store object is used as it is.
    compression_params : dict, optional
        For `set_gradient_compression` of the store.
    update_on_kvstore : bool, optional
        Whether the store updates the weights, or only sums the gradients while the Trainer updates.
        By default the store does (unless `MXNET_UPDATE_ON_KVSTORE=0`); asynchronous ones must.
    clip_global_norm : float, optional
        The largest Euclidean norm of all gradients together, before they are divided by the batch
        size, as with `mxopt.clip_global_norm` between `allreduce_grads` and `update`. Here the
        factor goes into the update, and the gradients aren't changed (except LBSGD's). Needs a
        Trainer that updates by itself.
    skip_nonfinite : bool
        Skip a step if one of its gradients is NaN or infinite: no weight, no state and no count
        changes. Needs a Trainer that updates by itself, and gradients that aren't compressed.

    Raises
    ------
    ValueError
        `params` aren't parameters, the store can't do what is asked, or the optimizer or the store
        belongs to another Trainer.

    A parameter that is given twice counts once, with a warning.
    """

    def __init__(
        self,
        params: NamedArrays,
        optimizer: str | AnyOptimizer,
        optimizer_params: Document | None = None,
        kvstore: str | KVStoreBase | None = "device",
        compression_params: Document | None = None,
        update_on_kvstore: bool | None = None,
        *,
        clip_global_norm: float | None = None,
        skip_nonfinite: bool = False,
    ) -> None:
        self._guard = clipping.Guard(clip_global_norm, skip_nonfinite)
        owned.check_free(optimizer, "its update counts and multipliers")
        owned.check_free(kvstore, "its keys")
        trained.check_asked(kvstore)
        self._params = listed(params)
        if optimizer_params and not isinstance(optimizer, str):
            name = type(optimizer).__name__
            raise UsageError(
                f"optimizer_params go with an optimizer's name, not with an optimizer: give {name} its arguments where"
                f" it is made, as {name}({', '.join(f'{k}={v!r}' for k, v in optimizer_params.items())})"
            )
        if optimizer_params is not None and not isinstance(optimizer_params, Mapping):
            raise ArgumentTypeError(f"optimizer_params must be a dict of arguments, got {optimizer_params!r}")
        self._optimizer: Optimizer
        self._updater: Updater | DirectUpdater
        if isinstance(optimizer, experimental.Optimizer | nn.Optimizer):
            self._params = owned.in_order_of(optimizer, self._params)
            self._optimizer = keyed = following(optimizer)
            self._updater = DirectUpdater(keyed)
        else:
            param_dict: dict[Any, Any] = dict(enumerate(self._params))
            if isinstance(optimizer, Optimizer):
                self._optimizer = optimizer
            else:
                self._optimizer = create_optimizer(optimizer, param_dict=param_dict, **(optimizer_params or {}))
            self._updater = get_updater(self._optimizer)
            self._optimizer.param_dict = param_dict
        self._scale = self._optimizer.rescale_grad
        self._asked = (kvstore, update_on_kvstore)
        self._compression_params = compression_params
        self._kvstore: Any = None
        self._update_on_kvstore = False
        self._ready = self._stepped = False
        self._exchanged = 0  # the number of steps whose gradients went through the store
        self._claim(optimizer, kvstore)

    def __setstate__(self, state: Plain) -> None:
        vars(self).update(state)
        self._claim(self.optimizer, self._kvstore or self._asked[0])

    def _claim(self, *things: object) -> None:
        """Marks an optimizer and a store as this Trainer's, and asks its parameters to report
        changes."""
        for param in self._params:
            param.keepers.add(self)
        owned.claim(self, *things)

    @property
    def parameters(self) -> list[Parameter]:
        """The parameters, in the order of their numbers."""
        return list(self._params)

    @property
    def skipped(self) -> int:
        """The number of steps that `skip_nonfinite` has skipped."""
        return self._guard.skipped

    def __repr__(self) -> str:
        asked, _ = self._asked
        store = self._kvstore if self._ready and self._kvstore is not None else asked
        return f"<Trainer of {counted(len(self._params), 'parameter')}, kvstore {store!r}: {self.optimizer!r}>"

    # Rates.

    @property
    def optimizer(self) -> AnyOptimizer:
        """The optimizer. Changing it takes effect, on servers too."""
        if not isinstance(self._optimizer, KeyedOptimizer):
            return self._optimizer
        found: AnyOptimizer = self._optimizer.of.model
        return found

    @property
    def learning_rate(self) -> float:
        """The current learning rate. Raises ArgumentError if groups have different ones."""
        return self._optimizer.learning_rate

    def set_learning_rate(self, lr: float) -> None:
        """Sets the learning rate; servers get it with the next step, and keep their states."""
        self._optimizer.set_learning_rate(lr)

    # Steps.

    def step(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Updates all parameters by their gradients, which are divided by `batch_size`.

        Parameters
        ----------
        batch_size : float
        ignore_stale_grad : bool
            Skip parameters without a gradient instead of raising. In a job of several workers such
            a parameter gets a gradient of zeros, because the other workers would wait for a skipped
            one.

        Raises
        ------
        UserWarning
            A parameter has no gradient, or `batch_size` changes in a job whose servers update.
        ArgumentError
            `batch_size` isn't a number above 0, or the store can't sum a row-sparse gradient.

        Then nothing has been updated.
        """
        params = self._trained(ignore_stale_grad)
        with self._scaled(batch_size):
            self._check_sparse(params)
            self._stepped = True
            filled = self._fill_stale()
            try:
                self._allreduce_grads()
                if not self._update_on_kvstore:
                    self._update(sorted(params + filled))
            finally:
                for i in filled:
                    self._params[i].grad = None

    def allreduce_grads(self) -> None:
        """Sums the gradients over all workers, in place; for a Trainer that updates by itself."""
        self._prepare()
        self._updates_itself("allreduce_grads")
        self._check_sparse(self._trained(True))
        self._fill_stale()
        self._allreduce_grads()

    def update(self, batch_size: float, ignore_stale_grad: bool = False) -> None:
        """Updates all parameters by their gradients, as `step` does after `allreduce_grads`."""
        self._prepare()
        self._updates_itself("update")
        params = self._trained(ignore_stale_grad)
        with self._scaled(batch_size):
            self._stepped = True
            self._update(params)

    def _trained(self, ignore_stale: bool) -> list[int]:
        """The numbers of the parameters that a step updates."""
        found = []
        for i, param in enumerate(self._params):
            if not param.requires_grad:
                continue
            if param.grad is not None:
                found.append(i)
            elif not ignore_stale:
                name = i if param.name is None else repr(param.name)
                raise WarnedUsageError(
                    f"parameter {name} has no gradient: give it one, or call step with ignore_stale_grad=True"
                )
        return found

    def _check_sparse(self, params: list[int]) -> None:
        given = [self._params[i] for i in params]
        trained.check_sparse(self._kvstore, given, self._update_on_kvstore, self._guard.asked)

    def _fill_stale(self) -> list[int]:
        """Gives parameters without a gradient zeros, if other workers may have one; returns their
        numbers."""
        if self._kvstore is None or "dist" not in self._kvstore.type or self._kvstore.num_workers == 1:
            return []
        found = [i for i, p in enumerate(self._params) if p.requires_grad and p.grad is None]
        for i in found:
            zeros = self._params[i].value.copy()
            zeros[...] = 0
            self._params[i].grad = zeros
        return found

    @contextmanager
    def _scaled(self, batch_size: float) -> Iterator[None]:
        """Makes the optimizer divide by `batch_size`; undoes that if the step fails or is
        skipped."""
        try:
            size = one_number("batch_size", batch_size)
        except ArgumentError:
            size = math.nan
        if not 0 < size < math.inf:
            raise ArgumentError(
                f"batch_size must be a number above 0, got {batch_size!r}: gradients are divided by it; give 1 where"
                " the loss is a mean already"
            )
        before, scale, skipped = self._optimizer.rescale_grad, self._scale / size, self.skipped
        remote = self._stepped and self._update_on_kvstore and "dist" in self._kvstore.type
        if remote and self._optimizer.rescale_grad != scale:
            raise WarnedUsageError(
                "the batch_size has changed since the last step: the servers of a distributed kvstore keep dividing"
                " by the first one; set trainer.optimizer.rescale_grad to change it"
            )
        self._prepare()
        self._optimizer.rescale_grad = scale
        try:
            yield
        except BaseException:
            self._optimizer.rescale_grad = before
            raise
        if self.skipped > skipped:
            self._optimizer.rescale_grad = before

    def _allreduce_grads(self) -> None:
        """Sums the gradients over all workers; if the store updates, pushes them and pulls the
        values. `step` calls it before it updates. As in MXNet, a subclass may override it to sum
        gradients in another way."""
        if self._kvstore is None:
            return
        grads = {i: self._params[i].grad for i in self._trained(True)}
        values, step = [param.value for param in self._params], self._exchanged + 1
        trained.exchange(self._kvstore, grads, values, self._update_on_kvstore, step)
        if self._update_on_kvstore:
            written(self._params[i] for i in grads)
        self._exchanged = step

    def _update(self, params: list[int]) -> None:
        if not params:
            return
        updated = list(map(self._params.__getitem__, params))
        grads, values = [p.grad for p in updated], [p.value for p in updated]
        optimizer, scale = self._optimizer, self._optimizer.rescale_grad
        if self._guard.asked:
            factor = self._guard(grads, [f"parameter {self._params[i].name or i!r}, grad" for i in params])
            if factor is None:
                return
            if optimizer.rescales_first:
                optimizer.rescale_grad = scale * factor
            else:
                clipping.rescale(grads, factor)
        self._updater(params, grads, values)
        optimizer.rescale_grad = scale
        written(updated)

    # The store.

    def _prepare(self) -> None:
        """Makes the store when it is first needed, and gives it the parameters."""
        if self._ready:
            return
        asked, update = self._asked
        store, updates = trained.store_of(asked), False
        if store is not None:
            updates = trained.updates_in(store, update)
            if updates and self._guard.asked:
                sparse = any(isinstance(param.grad, RowSparse) for param in self._params)
                raise ArgumentError(
                    f"{self._guard.asked} needs the summed gradients of all parameters, and this {store.type} store"
                    " updates each by itself: make the Trainer with update_on_kvstore=False, and with a store that"
                    f" isn't asynchronous{'; row-sparse gradients go there as dense ones, grad.todense()' * sparse}"
                )
            compressed = self._compression_params or store.compresses
            if self._guard.skip_nonfinite and compressed:
                raise ArgumentError(
                    f"skip_nonfinite: the {store.type} store's gradient compression sends a step or nothing where a"
                    " gradient is NaN, so nobody would see it; do without one of the two"
                )
            store.check_new(range(len(self._params)))
        begin = partial(self._begin, store, updates)
        if isinstance(store, KVStore):  # a store of a job is closed where a call of it is interrupted
            uninterrupted(begin)
        else:
            begin()

    def _begin(self, store: Any, updates: bool) -> None:
        """Gives a store the parameters, and what else it needs."""
        if store is not None:
            if self._compression_params:
                store.set_gradient_compression(self._compression_params)
            if updates:
                store.set_optimizer(self._optimizer)
            trained.broadcast(store, self._params)
        self._kvstore, self._update_on_kvstore = store, updates
        for param in self._params:
            param.held = True
        self._ready = True

    def before_set_data(self, param: Parameter) -> None:
        """Raises if the store holds the parameter's value and can't be given another."""
        if self._update_on_kvstore and not isinstance(self._kvstore, KVStore):
            raise KVStoreError(
                f"parameter {param.name!r}: its value is held by the {self._kvstore.type} store, where set_data can't"
                " change it: call set_data before the first step"
            )

    def after_set_data(self, param: Parameter) -> None:
        """Lets the store's value and the optimizer's master copy follow."""
        index = next(i for i, p in enumerate(self._params) if p is param)
        if self._update_on_kvstore:
            self._kvstore._replace(index, param.value)
        else:
            self._updater.refresh(index, param.value)

    def _updates_itself(self, what: str) -> None:
        if self._update_on_kvstore:
            raise UsageError(f"{what}() needs a Trainer that updates by itself: make it with update_on_kvstore=False")

    # States.

    def save_states(self, fname: str | PathLike[str]) -> None:
        """Writes optimizer, states and update counts to a file; in a distributed job the
        servers'."""
        self._prepare()
        if self._update_on_kvstore:
            self._kvstore.save_optimizer_states(fname, dump_optimizer=True)
        else:
            write_file(fname, self._updater.get_states(dump_optimizer=True))

    def load_states(self, fname: str | PathLike[str]) -> None:
        """Takes states, update counts and the optimizer's options from a file. The parameters' own
        multipliers stay.

        States follow the parameters' names, where all have one, else their order. The optimizer
        stays the same object. Raises StatesError if the states are of another optimizer or of
        other parameters, and says what differs; nothing has changed then.
        """
        self._prepare()
        if self._update_on_kvstore:
            self._kvstore.load_optimizer_states(fname)
        else:
            self._updater.take(load(Path(fname).read_bytes()), {})
