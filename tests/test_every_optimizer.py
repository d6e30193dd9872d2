"""What holds for every optimizer of every front-end, beside what other files find out by the same
table."""

from __future__ import annotations

from types import ModuleType

import numpy as np
import pytest
from bitwise import array
from table import ALL, EXPERIMENTAL, GROUPED, NN, ROWS, Grouped, Row

import mxopt
from mxopt import nn
from mxopt.errors import ArgumentError
from mxopt.experimental import optim
from mxopt.sparse import row_sparse_array


def classes(module: ModuleType, base: type) -> set[str]:
    public = (getattr(module, name) for name in module.__all__)
    return {x.__name__ for x in public if isinstance(x, type) and issubclass(x, base)}


def names(rows: list[Grouped]) -> set[str]:
    return {row.name.partition(".")[2] for row in rows}


def test_the_table_has_every_optimizer() -> None:
    registered = {n for n, c in mxopt.Optimizer.opt_registry.items() if c.__module__.startswith("mxopt.optimizer.")}
    assert {row.name for row in ROWS} == registered
    assert names(EXPERIMENTAL) == classes(optim, optim.Optimizer) - {"Optimizer"}
    assert names(NN) == classes(nn, nn.Optimizer) - {"Optimizer", "RuleOptimizer"}
    assert len({str(row) for row in ALL}) == len(ALL)


@pytest.mark.parametrize("row", ALL, ids=str)
def test_an_optimizer_can_what_its_row_says(row: Row) -> None:
    weight, store = np.ones((3, 2), np.float32), mxopt.kvstore.create("local")
    optimizer = row.over([weight]) if isinstance(row, Grouped) else row.make()
    if row.alone:
        with pytest.raises(ArgumentError, match="defines construct"):
            store.set_optimizer(optimizer)
        return
    store.set_optimizer(optimizer)
    assert store._updater.optimizer.elementwise == row.elementwise  # type: ignore[union-attr]
    assert any(rule.wide for rule in row.rules) != row.narrow


# What hides a NaN: the sign of NaN is 0, as in the real systems, and averages are for those who
# read them.
HIDES = {
    "experimental.Rprop": {"grad", "previous"}, "nn.Rprop": {"grad", "prev"},
    "experimental.ASGD": {"average"}, "nn.ASGD": {"ax"},
}  # fmt: skip


@pytest.mark.parametrize("sparse", [False, True], ids=["dense", "sparse"])
@pytest.mark.parametrize("dtype", ["float32", "float16"])
@pytest.mark.parametrize("row", GROUPED, ids=str)
def test_no_rule_hides_a_nan(row: Grouped, dtype: str, sparse: bool) -> None:
    """For what `create` makes see `optimizer/test_not_finite.py`."""
    shape, at = (3, 2), (1, 0)
    for engine in ("numpy", "llvm"):
        inputs = ["weight", "grad"]
        for k, name in enumerate(inputs):
            rng = np.random.default_rng(k)
            run = row.run([array(rng, shape, dtype)], engine)
            grads = [array(rng, shape, dtype) for _ in range(8)]  # RAdam looks at its second moments from step 6 on
            given = [row_sparse_array((g, np.arange(3)), shape) for g in grads] if sparse else grads
            run.step(given[:1])
            states = run.slots[0].arrays
            if k == 0:
                inputs += [n for n, x in states.items() if x.shape == shape and n != "master"]
            target = run.weights[0] if name == "weight" else grads[1] if name == "grad" else states[name]
            target[at] = np.nan
            for g in given[1:]:
                run.step([g])
            assert np.isnan(run.weights[0][at]) == (name not in HIDES.get(row.name, ())), f"{engine}: NaN in {name}"
