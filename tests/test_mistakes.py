"""Mistakes that people make on their first days: what is typed, and what the message must
contain."""

from __future__ import annotations

import re
import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

import mxopt
from mxopt import Parameter, Trainer, create, get_updater, kvstore, lr_scheduler, nn, sparse
from mxopt.experimental import optim


class Parsed:
    """What pandas gives: it has `to_numpy`, and lends no memory."""

    def to_numpy(self) -> np.ndarray:
        return np.zeros(4)


def zeros(*shape: int) -> np.ndarray:
    return np.zeros(shape or 4, np.float32)


def parameter(grad: Any = None) -> Parameter:
    made = Parameter(zeros(), "w")
    made.grad = grad
    return made


def sgd(**options: Any) -> mxopt.Updater:
    return get_updater(create("sgd", **options))


def reused(first: np.ndarray, second: np.ndarray) -> None:
    updater = get_updater(create("adam"))
    updater(0, first, first.copy())
    updater(0, second, second.copy())


def scipy_matrix() -> Any:
    return pytest.importorskip("scipy.sparse").csr_matrix(np.eye(4, dtype=np.float32))


def torch_swapped() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.ones(4)
    return weight, weight.grad


Call = Callable[[], object]
MISTAKES: list[tuple[str, Call, list[str]]] = [
    # Names.
    ("create('adamww')", lambda: create("adamww"), ["'adamww'", "did you mean 'adamw'"]),
    ("create('qhm')", lambda: create("qhm"), ["'qhm'", "@mxopt.register", "docs/guide.md"]),
    ("create('keyedoptimizer')", lambda: create("keyedoptimizer"), ["there are ", "@mxopt.register"]),
    ("kvstore.create('dist_syncc')", lambda: kvstore.create("dist_syncc"), ["did you mean 'dist_sync'"]),
    ("use_engine('cuda')", lambda: mxopt.use_engine("cuda").__enter__(), ["'cuda'"]),
    # Arguments.
    ("create('adam', lr=)", lambda: create("adam", lr=0.1), ["Adam", "'lr'", "did you mean 'learning_rate'"]),
    ("create('adam', weight_decay=)", lambda: create("adam", weight_decay=0.1), ["did you mean 'wd'"]),
    ("create('adam', betas=)", lambda: create("adam", betas=(0.9, 0.999)), ["'beta1'", "'beta2'"]),
    ("learning_rate='1e-3'", lambda: create("sgd", learning_rate="1e-3"), ["learning_rate", "number", "'1e-3'"]),
    ("learning_rate=nan", lambda: create("sgd", learning_rate=float("nan")), ["learning_rate", "NaN"]),
    ("learning_rate=-1", lambda: create("sgd", learning_rate=-1), ["-1", "climbs", "positive"]),
    ("optim.Adam(learning_rate=)", lambda: optim.Adam([parameter()], learning_rate=0.1), ["did you mean 'lr'"]),
    ("nn.Adam(lr=)", lambda: nn.Adam([parameter()], lr=0.1), ["'lr'", "did you mean 'learning_rate'"]),
    ("nn.SGD(lr=)", lambda: nn.SGD([parameter()], lr=0.1), ["'lr'", "did you mean 'learning_rate'"]),
    (
        "optimizer and its params",
        lambda: Trainer([parameter()], create("sgd"), {"learning_rate": 0.1}),
        ["optimizer_params", "SGD(learning_rate=0.1)"],
    ),
    ("set_lr_mult of no parameter", lambda: create("sgd", param_idx2name={0: "w"}).set_lr_mult({"x": 2}), ["'x'", "w"]),
    ("set_wd_mult of no parameter", lambda: create("sgd", param_idx2name={0: "w"}).set_wd_mult({"x": 2}), ["'x'", "w"]),
    # Schedules.
    (
        "a warm-up longer than the schedule",
        lambda: lr_scheduler.CosineScheduler(10, warmup_steps=100),
        ["max_update", "10 is below warmup_steps 100", "max_update=110"],
    ),
    (
        "set_learning_rate under a schedule",
        lambda: create("sgd", lr_scheduler=lr_scheduler.CosineScheduler(10)).set_learning_rate(0.1),
        ["lr_scheduler", "base_lr"],
    ),
    # Updates.
    ("optimizer(0, grad, weight)", lambda: create("sgd")(0, zeros(), zeros()), ["mxopt.get_updater(optimizer)"]),
    ("updater(weight, grad)", lambda: sgd()(zeros(), zeros(), 0), ["(index, grad, weight)"]),
    ("weight and gradient swapped", lambda: sgd()(0, parameter(), zeros()), ["parameter 0", "(index, grad, weight)"]),
    ("the same in lists", lambda: sgd()([0], [parameter()], [zeros()]), ["parameter 0", "(index, grad, weight)"]),
    ("the same with PyTorch's", lambda: sgd()(0, *torch_swapped()), ["parameter 0", "(index, grad, weight)"]),
    ("another shape", lambda: sgd()(0, zeros(3), zeros(4)), ["parameter 0", "(4,)", "(3,)"]),
    ("a list for a weight", lambda: sgd()(0, zeros(), [1.0, 2]), ["parameter 0", "list", "np.array(x, np.float32)"]),
    ("a list for a gradient", lambda: sgd()(0, [1.0, 2], zeros()), ["parameter 0, grad", "np.array(x, np.float32)"]),
    ("a number", lambda: sgd()(0, zeros(), 1.0), ["parameter 0", "float", "np.array(x, np.float32)"]),
    ("a DataFrame", lambda: sgd()(0, zeros(), Parsed()), ["Parsed", "to_numpy(copy=True)"]),
    ("a csr_matrix", lambda: sgd()(0, scipy_matrix(), zeros(4, 4)), ["csr_matrix", "row_sparse_array(x)"]),
    ("None for a gradient", lambda: sgd()(0, None, zeros()), ["parameter 0, grad", "leave out"]),
    ("an index used again", lambda: reused(zeros(4), zeros(3)), ["(4,)", "(3,)"]),
    ("row 9 of 4", lambda: sparse.row_sparse_array((zeros(1, 2), [9]), (4, 2)), ["9", "4 rows"]),
    ("a table of a number of rows", lambda: sparse.table(3), ["(rows, ...)", "got 3"]),  # type: ignore[arg-type]
    ("register of no class", lambda: mxopt.register("mine"), ["class", "'mine'", "@mxopt.register"]),  # type: ignore[type-var]
    # The Trainer.
    ("step without a gradient", lambda: Trainer([parameter()], "sgd").step(1), ["'w'", "ignore_stale_grad=True"]),
    ("step without gradient and name", lambda: Trainer([Parameter(zeros())], "sgd").step(1), ["parameter 0 has no"]),
    ("step(0)", lambda: Trainer([parameter(zeros())], "sgd").step(0), ["batch_size", "above 0", "got 0"]),
    # Stores and states.
    ("push before init", lambda: kvstore.create("local").push("w", zeros()), ["'w'", "init"]),
    ("set_states of a name", lambda: sgd().set_states("x.states"), ["bytes", "'x.states'", "read_bytes()"]),  # type: ignore[arg-type]
    ("set_states of garbage", lambda: sgd().set_states(b"12345"), ["no mxopt states", "5 bytes"]),
]


@pytest.mark.parametrize(("call", "said"), [m[1:] for m in MISTAKES], ids=[m[0] for m in MISTAKES])
def test_a_mistake_is_told_with_what_to_write_instead(
    call: Call, said: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(mxopt.Optimizer.opt_registry, "qhm", raising=False)  # as the guide registers it
    with pytest.raises((Exception, Warning)) as caught:  # warnings are errors here
        call()
    message = str(caught.value)
    assert [words for words in said if words not in message] == [], message
    tails = r"memoryview:|positional argument|unexpected keyword|object is not callable|division by zero"
    assert not re.search(tails, message)  # Python's own words, about what was inside


def test_weight_and_gradient_by_name_come_in_any_order() -> None:
    weight = zeros()
    sgd(learning_rate=0.5)(0, weight=weight, grad=np.ones(4, np.float32))
    assert (weight == -0.5).all()


def test_a_parameter_may_be_the_gradient_of_another() -> None:
    weight = parameter()
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        sgd(learning_rate=0.5)(0, Parameter(np.ones(4, np.float32)), weight)
    assert (weight.value == -0.5).all()
