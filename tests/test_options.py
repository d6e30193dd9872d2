"""Options: what is declared is checked, described, and found again when a config is saved."""

from __future__ import annotations

import inspect
from typing import Annotated, Any, Literal

import numpy as np
import pytest

import mxopt
from mxopt import lr_scheduler, nn
from mxopt.arguments import NamedArguments, attribute_of
from mxopt.errors import ArgumentError, ArgumentTypeError, UnknownArgumentError
from mxopt.experimental import optim
from mxopt.optimizer import Optimizer
from mxopt.optimizer.options import OptimizerOptions
from mxopt.options import Exact, Option, Unpack, checked, declared, parameters

NAN, INF = float("nan"), float("inf")


class Things(NamedArguments):
    """Some things.

    They are there to be checked.

    Raises
    ------
    ValueError
        A thing is wrong.
    """

    def __init__(
        self,
        share: Annotated[float, Option("[0, 1)", "how much of it")] = 0.5,
        rate: Annotated[float | None, Option("(0, inf)", "how fast", kept="speed")] = None,
        steps: Annotated[int, Exact("[1, inf)", "how many")] = 1,
        size: Annotated[float, Exact("", "how large")] = 1.0,
        either: Annotated[float | int, Exact("", "a number")] = 1,
        mode: Annotated[Literal["up", "down"], Option("", "where to")] = "up",
        loose: Annotated[bool, Option("", "a truth value")] = True,
        strict: Annotated[bool, Exact("", "True or False")] = True,
        pair: Annotated[tuple[float, float], Option("(0, 1] [1, inf)", "two numbers")] = (1.0, 1.0),
        rising: Annotated[tuple[float, float], Option("[0, inf)", "two more", ascending=True)] = (0.0, 1.0),
        free: Any = None,
    ) -> None:
        self.share, self.speed = share, rate


GOOD: list[tuple[str, Any]] = [
    *[("share", x) for x in (0, 0.5, np.float32(0.5), np.array(0.25), False)],
    *[("rate", x) for x in (None, 1, 1e300)],
    *[("steps", x) for x in (1, np.int64(7))],
    *[("size", x) for x in (-1.0, np.float32(3))],
    *[("either", x) for x in (1, 1.5)],
    *[("mode", x) for x in ("up", "down")],
    *[("loose", x) for x in (True, 0, None, np.bool_(True))],
    *[("strict", x) for x in (True, np.bool_(False))],
    *[("pair", x) for x in ((1, 1), [0.5, 2], np.array([0.1, 9]))],
    *[("rising", x) for x in ((0, 0), (1, 2))],
    ("free", "anything"),
]
BAD: list[tuple[str, Any, type[Exception], str]] = [
    ("share", 1, ValueError, r"Things: share must be within \[0, 1\), got 1"),
    ("share", -0.1, ValueError, "share must be within"),
    ("share", NAN, ValueError, "share is NaN"),
    ("share", np.float32("nan"), ValueError, "share is NaN"),
    ("share", "0.5", ArgumentTypeError, "share must be a number, got '0.5'"),
    ("share", None, ArgumentTypeError, "share must be a number, got None"),
    ("share", np.ones(2), ValueError, "share must be a single number"),
    ("rate", 0, ValueError, "rate must be above 0, got 0"),
    ("rate", INF, ValueError, "rate must be finite, got inf"),
    ("steps", 0, ValueError, "steps must be 1 or more, got 0"),
    ("steps", 1.0, ArgumentTypeError, "steps must be an int, got 1.0"),
    ("steps", True, ArgumentTypeError, "steps must be an int"),
    ("size", 1, ArgumentTypeError, "size must be a float, got 1"),
    ("size", NAN, ValueError, "size is NaN"),
    ("either", "1", ArgumentTypeError, "either must be a float or an int"),
    ("mode", "left", ValueError, "mode must be 'up' or 'down', got 'left'"),
    ("loose", "no", ArgumentTypeError, "loose must be True or False"),
    ("strict", 1, ArgumentTypeError, "strict must be True or False, got 1"),
    ("pair", (0, 1), ValueError, r"pair\[0\] must be within \(0, 1\], got 0"),
    ("pair", (1, 0.5), ValueError, r"pair\[1\] must be 1 or more"),
    ("pair", (1, 1, 1), ArgumentTypeError, "pair must be a pair of numbers"),
    ("pair", 1, ArgumentTypeError, "pair must be a pair of numbers"),
    ("rising", (2, 1), ValueError, r"rising must be a pair \(a, b\) with a <= b"),
]


@pytest.mark.parametrize(("name", "value"), GOOD, ids=str)
def test_what_is_declared_is_taken(name: str, value: Any) -> None:
    Things(**{name: value})


@pytest.mark.parametrize(("name", "value", "error", "says"), BAD, ids=str)
def test_what_is_not_is_refused_by_name(name: str, value: Any, error: type[Exception], says: str) -> None:
    with pytest.raises(error, match=says):
        Things(**{name: value})
    position = list(inspect.signature(Things).parameters).index(name)
    before = [p.default for p in inspect.signature(Things).parameters.values()][:position]
    with pytest.raises(error, match=says):
        Things(*before, value)  # type: ignore[call-arg]


def test_what_a_subclass_hands_on_is_checked_too() -> None:
    class More(Things):
        def __init__(self, half: Any) -> None:
            super().__init__(share=2 * half)

    More(0.25)
    with pytest.raises(ArgumentError, match=r"More: share must be within \[0, 1\), got 1"):
        More(0.5)


@pytest.mark.parametrize(
    ("klass", "needs"),
    [
        (lr_scheduler.CosineScheduler, "max_update"),
        (optim.lr_scheduler.LambdaLR, "optimizer and lr_lambda"),
        (nn.ExponentialDecayLR, "learning_rate and decay_rate and decay_steps"),
        (nn.Lamb, "params and learning_rate"),
    ],
)
def test_an_argument_that_is_missing_is_one_of_the_class_that_was_called(klass: Any, needs: str) -> None:
    with pytest.raises(ArgumentTypeError, match=f"^{klass.__name__} needs {needs}$"):
        klass()


def test_functions_are_checked_as_well() -> None:
    @checked
    def halved(steps: Annotated[int, Exact("[1, inf)")]) -> int:
        return steps // 2

    assert halved(8) == 4
    with pytest.raises(ArgumentError, match="halved: steps must be 1 or more"):
        halved(0)


def test_the_docstring_lists_what_is_declared_before_its_other_sections() -> None:
    text = Things.__doc__ or ""
    assert text.startswith("Some things.\n\nThey are there to be checked.\n\nParameters\n----------\n")
    assert "share : float, within [0, 1)\n    How much of it.\nrate : float | None, within (0, inf)\n" in text
    assert text.endswith("Raises\n------\nValueError\n    A thing is wrong.\n")
    assert str(inspect.signature(Things)).startswith("(share: float = 0.5, rate: float | None = None, steps: int = 1,")


def test_a_docstring_that_lists_its_parameters_stays() -> None:
    class Own(Things):
        """Mine.

        Parameters
        ----------
        x : int
        """

    assert Own.__doc__ is not None
    assert Own.__doc__.count("Parameters") == 1
    assert "share" not in Own.__doc__


def test_a_value_is_looked_for_where_it_is_kept() -> None:
    assert attribute_of(Things, "rate") == "speed"
    assert attribute_of(Things, "share") == "share"
    assert attribute_of(mxopt.optimizer.Adam, "learning_rate") == "lr"
    assert attribute_of(lr_scheduler.PolyScheduler, "base_lr") == "warmup_final_lr"


FAMILIES = (mxopt.optimizer, lr_scheduler, optim, optim.lr_scheduler, nn)
CLASSES = {
    f"{family.__name__.removeprefix('mxopt.')}.{name}": getattr(family, name)
    for family in FAMILIES
    for name in family.__all__
    if inspect.isclass(getattr(family, name)) and issubclass(getattr(family, name), NamedArguments)
}


@pytest.mark.parametrize("klass", CLASSES.values(), ids=CLASSES)
def test_every_argument_is_declared_with_words(klass: Any) -> None:
    assert len(CLASSES) > 50
    named = [p for p in parameters(klass.__init__)[1:] if p.kind not in (p.VAR_KEYWORD, p.VAR_POSITIONAL)]
    known = declared(klass.__init__)
    assert [p.name for p in named if p.name not in known or not known[p.name].option.says] == []
    assert not [d for d in known.values() if d.option.says.endswith(".")]


class Mine(Optimizer):
    """As people wrote them for MXNet: nothing is declared."""

    def __init__(self, learning_rate: float = 0.1, **kwargs: object) -> None:
        self.decay = kwargs.pop("decay", 0.5)
        super().__init__(learning_rate=learning_rate, **kwargs)  # type: ignore[arg-type]


class More(OptimizerOptions, total=False):
    spare: int


def test_an_optimizer_of_ones_own_that_names_its_keywords_suggests_one_of_them() -> None:
    class Own(mxopt.optimizer.SGD):
        def __init__(self, share: Annotated[float, Option("[0, 1]", "share")] = 0.5, **base: Unpack[More]) -> None:
            self.spare = base.get("spare", 0)
            super().__init__(wd=base.get("wd", 0.0))

    class Open(Own):
        def __init__(self, **kwargs: object) -> None:
            self.kwargs = kwargs

    with pytest.raises(UnknownArgumentError, match="Own has no argument 'shar': did you mean 'share'"):
        Own(shar=0.5)  # type: ignore[call-arg]
    with pytest.raises(UnknownArgumentError, match="Own has no argument 'momentum'"):  # which SGD isn't handed
        Own(momentum=0.5)  # type: ignore[call-arg]
    assert (Own(spare=3, wd=0.25).spare, Own(spare=3, wd=0.25).wd) == (3, 0.25)
    assert Open(shar=0.5).kwargs == {"shar": 0.5}


def test_an_optimizer_in_mxnets_style_needs_no_declarations() -> None:
    made = Mine(decay=0.25, wd=0.1)
    assert (made.decay, made.wd, made.lr) == (0.25, 0.1, 0.1)
    with pytest.raises(ArgumentError, match="Mine: learning_rate is NaN"):
        Mine(NAN)
    with pytest.raises(TypeError, match="momentun"):
        Mine(momentun=0.9)
    assert attribute_of(Mine, "learning_rate") == "lr"


# MXNet 1.9.1's constructors, by what `inspect.signature` says of them; `...` stands for no default.
MXNET: dict[str, dict[str, Any]] = {
    "AdaDelta": {"rho": 0.9, "epsilon": 1e-5},
    "AdaGrad": {"eps": 1e-7},
    "Adam": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "lazy_update": True},
    "Adamax": {"learning_rate": 0.002, "beta1": 0.9, "beta2": 0.999},
    "DCASGD": {"momentum": 0.0, "lamda": 0.04},
    "FTML": {"beta1": 0.6, "beta2": 0.999, "epsilon": 1e-8},
    "Ftrl": {"lamda1": 0.01, "learning_rate": 0.1, "beta": 1},
    "GroupAdaGrad": {"eps": 1e-5},
    "LAMB": {
        "learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-6, "lower_bound": None,
        "upper_bound": None, "bias_correction": True,
    },
    "LARS": {"momentum": 0.0, "lazy_update": True, "eta": 0.001, "eps": 0, "momentum_correction": True},
    "LBSGD": {
        "momentum": 0.0, "multi_precision": False, "warmup_strategy": "linear", "warmup_epochs": 5, "batch_scale": 1,
        "updates_per_epoch": 32, "begin_epoch": 0, "num_epochs": 60,
    },
    "Nadam": {"learning_rate": 0.001, "beta1": 0.9, "beta2": 0.999, "epsilon": 1e-8, "schedule_decay": 0.004},
    "NAG": {"momentum": 0.0},
    "RMSProp": {
        "learning_rate": 0.001, "gamma1": 0.9, "gamma2": 0.9, "epsilon": 1e-8, "centered": False, "clip_weights": None,
    },
    "SGD": {"momentum": 0.0, "lazy_update": True},
    "SGLD": {},
    "Signum": {"learning_rate": 0.01, "momentum": 0.9, "wd_lh": 0.0},
    "Test": {},
    "Optimizer": {
        "rescale_grad": 1.0, "param_idx2name": None, "wd": 0.0, "clip_gradient": None, "learning_rate": None,
        "lr_scheduler": None, "sym": None, "begin_num_update": 0, "multi_precision": False, "param_dict": None,
    },
    "LRScheduler": {"base_lr": 0.01, "warmup_steps": 0, "warmup_begin_lr": 0, "warmup_mode": "linear"},
    "FactorScheduler": {
        "step": ..., "factor": 1, "stop_factor_lr": 1e-8, "base_lr": 0.01, "warmup_steps": 0, "warmup_begin_lr": 0,
        "warmup_mode": "linear",
    },
    "MultiFactorScheduler": {
        "step": ..., "factor": 1, "base_lr": 0.01, "warmup_steps": 0, "warmup_begin_lr": 0, "warmup_mode": "linear",
    },
    "PolyScheduler": {
        "max_update": ..., "base_lr": 0.01, "pwr": 2, "final_lr": 0, "warmup_steps": 0, "warmup_begin_lr": 0,
        "warmup_mode": "linear",
    },
    "CosineScheduler": {
        "max_update": ..., "base_lr": 0.01, "final_lr": 0, "warmup_steps": 0, "warmup_begin_lr": 0,
        "warmup_mode": "linear",
    },
}  # fmt: skip


@pytest.mark.parametrize("name", MXNET)
def test_a_constructor_takes_mxnets_arguments_by_position(name: str) -> None:
    klass = getattr(lr_scheduler, name, None) or getattr(mxopt.optimizer, name)
    ours = [p for p in inspect.signature(klass).parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    defaults = {p.name: ... if p.default is p.empty else p.default for p in ours}
    assert list(defaults.items())[: len(MXNET[name])] == list(MXNET[name].items())
