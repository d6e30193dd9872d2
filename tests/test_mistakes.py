"""Mistakes of a first day: what is typed, and what the message must contain.

The first table is one such day as it was, a row for each of its 57 mistakes; what can't be said
within this process stands in `OF_PROCESSES`, by the test that has it, and what has become right in
`RIGHT`. The second table has what was found since.
"""

from __future__ import annotations

import contextlib
import io
import re
import socket
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any, NoReturn
from unittest import mock

import numpy as np
import pytest
from mxopt_server import cli, launch, metrics
from mxopt_server.roster import Roster

import mxopt
from mxopt import Parameter, Trainer, create, get_updater, kvstore, lr_scheduler, migrate, nn, sparse
from mxopt.engine.trace import trace
from mxopt.experimental import optim
from mxopt.kvstore import messages as m, wire


class Parsed:
    """What pandas gives: it has `to_numpy`, and lends no memory."""

    def to_numpy(self) -> np.ndarray:
        return np.zeros(4)


def zeros(*shape: int, dtype: Any = np.float32) -> np.ndarray:
    return np.zeros(shape or 4, dtype)


def parameter(grad: Any = None) -> Parameter:
    made = Parameter(zeros(), "w")
    made.grad = grad
    return made


def sgd(**options: Any) -> mxopt.Updater:
    return get_updater(create("sgd", **options))


def changed(attribute: str, value: object) -> None:
    updater = sgd()
    setattr(updater.optimizer, attribute, value)
    updater(0, zeros(), zeros())


def read_only(x: np.ndarray) -> np.ndarray:
    x.flags.writeable = False
    return x


def reused(first: np.ndarray, second: np.ndarray) -> None:
    updater = get_updater(create("adam"))
    updater(0, first, first.copy())
    updater(0, second, second.copy())


def swapped_later(one: bool) -> None:
    weight, grad = zeros(), np.ones(4, np.float32)
    updater = get_updater(create("adam"))
    updater(0, grad, weight)
    updater(0, weight, grad) if one else updater([0], [weight], [grad])


def registered_again() -> None:
    class SGD(mxopt.Optimizer):
        pass

    mxopt.register(SGD)


def filled_store() -> kvstore.KVStore:
    store = kvstore.create("local")
    store.init("w", zeros())
    return store


def saved_in(folder: str) -> None:
    trainer = Trainer([parameter(zeros())], "sgd")
    trainer.step(1)
    trainer.save_states(f"{folder}/states")


def scipy_matrix() -> Any:
    return pytest.importorskip("scipy.sparse").csr_matrix(np.eye(4, dtype=np.float32))


def torch_swapped() -> tuple[Any, Any]:
    torch = pytest.importorskip("torch")
    weight = torch.nn.Parameter(torch.zeros(4))
    weight.grad = torch.ones(4)
    return weight, weight.grad


class Told(Exception):  # noqa: N818 no error of ours
    """What a command, or the scheduler of a job, has said."""


def said(command: Callable[[list[str]], int], *arguments: str) -> NoReturn:
    """Runs a command in this process, which must end with an error of one line."""
    with contextlib.redirect_stderr(io.StringIO()) as errors, contextlib.suppress(SystemExit):
        assert command([*arguments]) != 0
    (line,) = errors.getvalue().splitlines()
    raise Told(line)


def one_too_many(role: str) -> NoReturn:
    """A process without a rank asks for a place of a job that has none left."""
    roster = Roster("job", 1, 1, lambda: "token", lambda *place: None)
    first, second = (m.Join(wire.VERSION, "", role, -1, 0, 0, "", name, name) for name in ("first", "second"))
    roster.admit(first, 0, b"", 0.0)
    raise Told(roster.place(second, False)[1])


def joined_twice() -> NoReturn:
    """A process that has a distributed store makes another."""
    roster = Roster("job", 1, 1, lambda: "token", lambda *place: None)
    first, second = (m.Join(wire.VERSION, "", "worker", 0, 0, 0, "", nonce, "here") for nonce in ("first", "second"))
    roster.admit(first, 0, b"", 0.0)
    raise Told(roster.place(second, False)[1])


def served_twice() -> None:
    pytest.importorskip("prometheus_client")
    with socket.create_server(("127.0.0.1", 0)) as taken:
        metrics.serve(dict, "127.0.0.1", taken.getsockname()[1])


def without_prometheus() -> None:
    with mock.patch.dict(sys.modules, {"prometheus_client": None}):
        metrics.serve(dict, "127.0.0.1", 9550)


Call = Callable[[], object]
Rows = list[tuple[str, Call, list[str]]]
FIRST_DAY: Rows = [
    # Names.
    ("create('adamww')", lambda: create("adamww"), ["'adamww'", "did you mean 'adamw'"]),
    ("use_engine('cuda')", lambda: mxopt.use_engine("cuda").__enter__(), ["engine 'cuda'", "'llvm' and 'numpy'"]),
    ("kvstore.create('dist_syncc')", lambda: kvstore.create("dist_syncc"), ["did you mean 'dist_sync'"]),
    ("create('keyedoptimizer')", lambda: create("keyedoptimizer"), ["there are ", "@mxopt.register"]),
    ("register a taken name", registered_again, ["test_mistakes.SGD", "mxopt.optimizer.sgd.SGD"]),
    # Arguments.
    ("create('adam', lr=)", lambda: create("adam", lr=0.1), ["Adam", "'lr'", "did you mean 'learning_rate'"]),  # type: ignore[call-overload]
    ("create('adam', weight_decay=)", lambda: create("adam", weight_decay=0.1), ["did you mean 'wd'"]),  # type: ignore[call-overload]
    ("create('adam', betas=)", lambda: create("adam", betas=(0.9, 0.999)), ["'beta1'", "'beta2'"]),  # type: ignore[call-overload]
    ("learning_rate='1e-3'", lambda: create("sgd", learning_rate="1e-3"), ["learning_rate", "number", "'1e-3'"]),  # type: ignore[call-overload]
    ("learning_rate=nan", lambda: create("sgd", learning_rate=float("nan")), ["learning_rate", "NaN"]),
    ("learning_rate=-1", lambda: create("sgd", learning_rate=-1), ["-1", "climbs", "positive"]),
    ("optim.Adam(learning_rate=)", lambda: optim.Adam([parameter()], learning_rate=0.1), ["did you mean 'lr'"]),  # type: ignore[call-arg]
    ("nn.Adam(lr=)", lambda: nn.Adam([parameter()], lr=0.1), ["'lr'", "did you mean 'learning_rate'"]),  # type: ignore[call-arg]
    (
        "optimizer and its params",
        lambda: Trainer([parameter()], create("sgd"), {"learning_rate": 0.1}),
        ["optimizer_params", "SGD(learning_rate=0.1)"],
    ),
    ("set_lr_mult of no parameter", lambda: create("sgd", param_idx2name={0: "w"}).set_lr_mult({"x": 2}), ["'x'", "w"]),
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
    ("weight and gradient swapped", lambda: sgd()(0, parameter(), zeros()), ["parameter 0", "(index, grad, weight)"]),
    ("another shape", lambda: sgd()(0, zeros(3), zeros(4)), ["parameter 0", "(4,)", "(3,)"]),
    ("(1, 3) for (4, 3)", lambda: sgd()(0, zeros(1, 3), zeros(4, 3)), ["parameter 0", "(4, 3)", "(1, 3)"]),
    (
        "whole numbers for a weight",
        lambda: sgd()(0, zeros(), zeros(dtype=int)),
        ["parameter 0: the weight", "float16, float32, float64, bfloat16", "int64", "x.astype(np.float32)"],
    ),
    (
        "a float64 gradient",
        lambda: sgd()(0, zeros(dtype=float), zeros()),
        ["parameter 0", "float32 weight", "gradient of float64", "grad.astype('float32')"],
    ),
    ("a list for a weight", lambda: sgd()(0, zeros(), [1.0, 2]), ["parameter 0", "list", "np.array(x, np.float32)"]),
    ("a number", lambda: sgd()(0, zeros(), 1.0), ["parameter 0", "float", "np.array(x, np.float32)"]),  # type: ignore[arg-type]
    ("a DataFrame", lambda: sgd()(0, zeros(), Parsed()), ["Parsed", "to_numpy(copy=True)"]),  # type: ignore[arg-type]
    ("a csr_matrix", lambda: sgd()(0, scipy_matrix(), zeros(4, 4)), ["csr_matrix", "row_sparse_array(x)"]),
    ("None for a gradient", lambda: sgd()(0, None, zeros()), ["parameter 0, grad", "leave out"]),
    ("an index used again", lambda: reused(zeros(4), zeros(3)), ["(4,)", "(3,)"]),
    ("row 9 of 4", lambda: sparse.row_sparse_array((zeros(1, 2), [9]), (4, 2)), ["9", "4 rows"]),
    (
        "float16 without master copies",
        lambda: sgd()(0, zeros(dtype=np.float16), zeros(dtype=np.float16)),
        ["float16 weights", "multi_precision=True", "rounded to 16 bits"],
    ),
    # The experimental optimizers.
    (
        "too few gradients",
        lambda: optim.Adam([zeros(), zeros()])((zeros(),)),
        ["Adam", "1 gradient for 2 parameters", "None"],
    ),
    (
        "one array of gradients",
        lambda: optim.Adam([zeros()])(zeros()),  # type: ignore[arg-type]
        ["Adam", "a tuple", "each", "ndarray: one is (x,)"],
    ),
    ("no parameters", lambda: optim.Adam([]), ["params is empty", "needs parameters"]),
    (
        "a misspelt option of a group",
        lambda: optim.Adam([{"params": [zeros()], "weigth_decay": 0.1}]),
        ["Adam, group 0", "'weigth_decay'", "did you mean 'weight_decay'"],
    ),
    # The Trainer.
    ("step without a gradient", lambda: Trainer([parameter()], "sgd").step(1), ["'w'", "ignore_stale_grad=True"]),
    ("step(0)", lambda: Trainer([parameter(zeros())], "sgd").step(0), ["batch_size", "above 0", "got 0"]),
    # Stores and states.
    ("push before init", lambda: kvstore.create("local").push("w", zeros()), ["'w'", "call init or broadcast"]),
    ("init twice", lambda: filled_store().init("w", zeros()), ["'w'", "initialised already", "push changes its value"]),
    ("keys of both kinds", lambda: filled_store().init(0, zeros()), ["key 0", "keys are str", "int and str don't mix"]),
    ("set_states of garbage", lambda: sgd().set_states(b"12345"), ["no mxopt states", "5 bytes"]),
    (
        "set_states of a pickle",
        lambda: sgd().set_states(b"\x80\x04" + bytes(100)),
        ["no mxopt states", "a pickle", "mxopt.migrate.read_mxnet_states"],
    ),
    ("set_states of a name", lambda: sgd().set_states("x.states"), ["bytes", "'x.states'", "read_bytes()"]),  # type: ignore[arg-type]
    # Commands and jobs.
    ("mxopt-launch nosuchprog", lambda: said(launch.main, "-n", "1", "nosuchprog"), ["'nosuchprog'", "on the PATH"]),
    (
        "mxopt-launch -H nosuch",
        lambda: said(launch.main, "-n", "1", "-H", "nosuch", "true"),
        ["host file nosuch", "one host a line", "No such file"],
    ),
    ("--scheduler localhost", lambda: said(cli.main, "--scheduler", "localhost"), ["'localhost'", "HOST:PORT"]),
    ("--log-level LOUD", lambda: said(cli.main, "--log-level", "LOUD"), ["--log-level", "LOUD", "DEBUG", "--help"]),
    ("dist_sync outside a job", lambda: kvstore.create("dist_sync"), ["no job", "`mxopt-launch -n", "DMLC_PS_ROOT"]),
    ("--metrics-port without its package", without_prometheus, ["--metrics-port", "pip install 'mxopt[metrics]'"]),
    ("--metrics-port of two servers", served_twice, ["127.0.0.1:", "in use", "+RANK"]),
    ("a server without its rank", lambda: one_too_many("server"), ["all its 1 server", "--rank N"]),
    ("a worker too many", lambda: one_too_many("worker"), ["all its 1 worker", "DMLC_WORKER_ID"]),
]
OF_PROCESSES = {
    "a worker that never joins": (
        "server/test_launch_ends.py",
        "test_a_command_that_never_joins_does_not_keep_the_servers_waiting",
    ),
    "an exit code of -9": (
        "server/test_command_words.py",
        "test_a_worker_killed_by_a_signal_is_said_to_be_by_its_name",
    ),
    "tracebacks of the others when one worker raises": (
        "kvstore/test_ends.py",
        "test_survivors_say_why_the_job_failed_and_end_without_noise",
    ),
}
FOUND_SINCE: Rows = [
    ("create('qhm')", lambda: create("qhm"), ["'qhm'", "@mxopt.register", "docs/guide.md"]),
    ("nn.SGD(lr=)", lambda: nn.SGD([parameter()], lr=0.1), ["'lr'", "did you mean 'learning_rate'"]),  # type: ignore[call-arg]
    ("set_wd_mult of no parameter", lambda: create("sgd", param_idx2name={0: "w"}).set_wd_mult({"x": 2}), ["'x'", "w"]),
    ("updater(weight, grad)", lambda: sgd()(zeros(), zeros(), 0), ["(index, grad, weight)"]),  # type: ignore[arg-type]
    ("swapped in lists", lambda: sgd()([0], [parameter()], [zeros()]), ["parameter 0", "(index, grad, weight)"]),
    ("swapped with PyTorch's", lambda: sgd()(0, *torch_swapped()), ["parameter 0", "(index, grad, weight)"]),
    ("swapped at a later step", lambda: swapped_later(True), ["parameter 0", "(index, grad, weight)"]),
    ("the same in lists", lambda: swapped_later(False), ["parameter 0", "(index, grad, weight)"]),
    ("a read-only gradient, swapped", lambda: sgd()(0, zeros(), read_only(zeros())), ["(index, grad, weight)"]),
    ("a list for a gradient", lambda: sgd()(0, [1.0, 2], zeros()), ["parameter 0, grad", "np.array(x, np.float32)"]),
    ("a read-only array", lambda: sgd()(0, zeros(), read_only(zeros())), ["parameter 0", "read-only", "np.array(x)"]),
    ("a class for an optimizer", lambda: get_updater(mxopt.optimizer.SGD), ["mxopt.create('sgd')"]),  # type: ignore[arg-type]
    ("Trainer(kvstore='locl')", lambda: Trainer([parameter()], "sgd", kvstore="locl"), ["'locl'", "'local'"]),
    ("Trainer(kvstore=3)", lambda: Trainer([parameter()], "sgd", kvstore=3), ["kvstore", "got 3"]),  # type: ignore[arg-type]
    ("a key twice in init", lambda: kvstore.create().init(["w", "w"], [zeros(), zeros()]), ["'w'", "twice"]),
    ("a row-sparse weight in Adam", lambda: optim.Adam([sparse.zeros("row_sparse", (2, 2))]), ["'0'", "mxopt.create"]),
    ("the same in nn", lambda: nn.Adam([sparse.zeros("row_sparse", (2, 2))]), ["parameter 0", "mxopt.create"]),
    ("base_lr = -1", lambda: setattr(lr_scheduler.FactorScheduler(2), "base_lr", -1), ["-1", "climbs"]),
    ("a shape of no whole numbers", lambda: sparse.zeros("row_sparse", (2.5, 3)), ["whole numbers", "(2.5, 3)"]),  # type: ignore[arg-type]
    ("a table of a number of rows", lambda: sparse.table(3), ["(rows, ...)", "got 3"]),  # type: ignore[arg-type]
    ("register of no class", lambda: mxopt.register("mine"), ["class", "'mine'", "@mxopt.register"]),  # type: ignore[type-var]
    (
        "create of a class",
        lambda: create(mxopt.optimizer.SGD),  # type: ignore[call-overload]
        ["by its name", "a class is called by itself, SGD(...)"],
    ),
    ("create('rmsprop', alpha=)", lambda: create("rmsprop", alpha=0.9), ["RMSProp", "did you mean 'gamma1'"]),  # type: ignore[call-overload]
    ("create('sgd', nesterov=)", lambda: create("sgd", nesterov=True), ["SGD", "'nesterov'", "create('nag')"]),  # type: ignore[call-overload]
    ("create('adam', amsgrad=)", lambda: create("adam", amsgrad=True), ["'amsgrad'", "mxopt.experimental.optim.Adam"]),  # type: ignore[call-overload]
    (
        "np.sign in a rule",
        lambda: trace(lambda grad: np.sign(grad)),
        ["np.sign", "table", "common.sign(x, 1.0)"],
    ),
    ("np.tanh in a rule", lambda: trace(lambda grad: np.tanh(grad)), ["np.tanh", "table", "`scalars`"]),
    ("np.floor in a rule", lambda: trace(lambda grad: np.floor(grad)), ["np.floor", "table", "absolute, add"]),
    (
        "a sum in a rule",
        lambda: trace(lambda grad: np.sum(grad, axis=0)),
        ["np.sum with axis", "one element at a time"],
    ),
    ("grad.sum() in a rule", lambda: trace(lambda grad: grad.sum()), [".sum", "one number at a time"]),
    ("float(grad) in a rule", lambda: trace(lambda grad: float(grad)), ["convert a value", "as it is"]),
    ("get_updater of a name", lambda: get_updater("adam"), ["as mxopt.create('sgd') makes it", "'adam'"]),  # type: ignore[arg-type]
    ("set_optimizer of a name", lambda: filled_store().set_optimizer("adam"), ["as mxopt.create('sgd')", "'adam'"]),  # type: ignore[arg-type]
    ("a name for a weight", lambda: sgd()(0, zeros(), "w"), ["parameter 0", "lends its memory", "got str"]),
    (
        "update without a state",
        lambda: create("adam").update(0, zeros(), zeros(), None),
        ["adam keeps 2 states (mean, var), got 0", "create_state(index, weight)"],
    ),
    ("pull without out", lambda: filled_store().pull("w"), ["pull needs out, the array"]),
    ("a checkpoint of a local store", lambda: filled_store().load_checkpoint("x"), ["load_optimizer_states"]),
    ("a second store of a job", joined_twice, ["rank 0 is taken by worker 0", "one distributed store"]),
    ("clip_global_norm=0", lambda: Trainer([parameter()], "sgd", clip_global_norm=0), ["every gradient 0", "None"]),
    (
        "set_states of a short pickle",
        lambda: sgd().set_states(b"\x80\x04N."),
        ["4 bytes", "a pickle", "read_mxnet_states"],
    ),
    ("optim.Adam of an array", lambda: optim.Adam(zeros()), ["params must be", "ndarray: give a list, [x]"]),  # type: ignore[arg-type]
    ("optim.Adam of a dict", lambda: optim.Adam({"w": zeros()}), ["params must be", "dict: list(x.items())"]),  # type: ignore[arg-type]
    ("set_states of np.savez's file", lambda: sgd().set_states(b"PK\3\4" + bytes(99)), ["read_npz", "torch.load"]),
    ("load_state_dict of no state", lambda: optim.Adam([zeros()]).load_state_dict({}), ["it has no 'optimizer'"]),
    (
        "read_npz of a text",
        lambda: migrate.read_npz(__file__),
        [__file__, "no .npz file of plain arrays: it begins with"],
    ),
    ("write_file of a tree", lambda: mxopt.document.write_file("x", {"a": 1}), ["dump_document", "{'a': 1}"]),  # type: ignore[arg-type]
    ("save_states where no folder is", lambda: saved_in("/nosuch"), ["No such file or directory: '/nosuch/states'"]),
    ("save_states on a full disk", lambda: mxopt.document.write_file("/dev/full", b"x"), ["No space", "'/dev/full'"]),
    ("mxopt-server stat", lambda: said(cli.main, "stat"), ["unrecognized arguments: stat: did you mean status?"]),
    ("mxopt-server --num-workers", lambda: said(cli.main, "--num-workers", "2"), ["did you mean --workers?"]),
    ("mxopt-launch --state-dri", lambda: said(launch.main, "-n", "1", "--state-dri=x", "true"), ["--state-dir?"]),
    ("a gradient for a list of them", lambda: sgd()([0], None, [zeros()]), ["list of gradients", "got NoneType"]),
    ("an index in a list", lambda: sgd()([[0]], [zeros()], [zeros()]), ["number or a text", "got list"]),  # type: ignore[list-item]
    ("lr_scheduler = 0.1", lambda: changed("lr_scheduler", 0.1), ["SGD: lr_scheduler must be a schedule", "got 0.1"]),
    ("lr_mult = 0.1", lambda: changed("lr_mult", 0.1), ["SGD: lr_mult must be a dict", "got 0.1"]),
    ("clip_gradient = '1'", lambda: changed("clip_gradient", "1"), ["SGD: clip_gradient must be a number", "'1'"]),
    ("compression by name", lambda: kvstore.create("device").set_gradient_compression("2bit"), ["{'type': '2bit'"]),  # type: ignore[arg-type]
    ("use_engine of a list", lambda: mxopt.use_engine(["numpy"]).__enter__(), ["no engine ['numpy']"]),  # type: ignore[arg-type]
    ("a table of a misspelt dtype", lambda: sparse.table((2, 3), dtype="flot32"), ["a table is of", "'flot32'"]),
    ("row_sparse_array of a text", lambda: sparse.row_sparse_array("x"), ["row_sparse_array: needs arrays", "'x'"]),
    ("step without gradient and name", lambda: Trainer([Parameter(zeros())], "sgd").step(1), ["parameter 0 has no"]),
]


EVERY = FIRST_DAY + FOUND_SINCE


@pytest.mark.parametrize(("call", "words"), [row[1:] for row in EVERY], ids=[row[0] for row in EVERY])
def test_a_mistake_is_told_with_what_to_write_instead(
    call: Call, words: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delitem(mxopt.Optimizer.opt_registry, "qhm", raising=False)  # as the guide registers it
    with pytest.raises((Exception, Warning)) as caught:  # warnings are errors here
        call()
    message = str(caught.value)
    assert [each for each in words if each not in message] == [], message
    python = r"memoryview:|positional argument|unexpected keyword|object is not callable|division by zero|Traceback"
    tails = rf"{python}|allow_pickle|/\.mxopt\."
    assert not re.search(tails, message)  # Python's own words, about what was inside


def lion() -> None:
    assert type(create("lion")).__name__ == "Lion"


def nan_left_out() -> None:
    weight = zeros()
    updater = mxopt.Updater(create("sgd"), skip_nonfinite=True)
    updater(0, np.full(4, np.nan, np.float32), weight)
    assert (weight == 0).all()
    assert updater.skipped == 1


RIGHT: dict[str, Call] = {"create('lion')": lion, "a NaN gradient, with skip_nonfinite": nan_left_out}


@pytest.mark.parametrize("call", RIGHT.values(), ids=RIGHT)
def test_what_was_a_mistake_is_right_now(call: Call) -> None:
    call()


def test_all_57_mistakes_of_the_first_day_are_here() -> None:
    assert len({row[0] for row in FIRST_DAY} | RIGHT.keys() | OF_PROCESSES.keys()) == 57
    for file, test in OF_PROCESSES.values():
        assert f"\ndef {test}(" in (Path(__file__).parent / file).read_text(), test
