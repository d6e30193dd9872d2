"""Which optimizers, options, dtypes and ways of calling `optimizers.py` records: one table.

Hyper-parameters are sums of a few powers of two, so that float16 and float32 hold them exactly:
MXNet rounds the scalars of its float64 kernels to float32, and here that loses nothing, so a
float64 case may be compared to the last bits. The cases named "defaults" show each optimizer with
its own, inexact, defaults.
"""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, field, replace

BETAS = {"beta1": 0.875, "beta2": 0.96875}
EPSILON = {"epsilon": 2.0**-10}
LR = {"learning_rate": 0.125}
FULL = {"wd": 0.0625, "rescale_grad": 0.5, "clip_gradient": 0.5}

# Shared options of an optimizer, then the variants of its own.
OPTIMIZERS = {
    "sgd": (LR, [{}, {"momentum": 0.75}]),
    "ccsgd": (LR, [{"momentum": 0.75}]),
    "nag": (LR, [{}, {"momentum": 0.75}]),
    "signum": (LR, [{"momentum": 0.0}, {"momentum": 0.75}, {"momentum": 0.75, "wd_lh": 0.25}]),
    "sgld": ({"learning_rate": 0.0625}, [{}]),
    "dcasgd": (LR, [{}, {"lamda": 0.5}]),
    "lars": ({"learning_rate": 0.5, "eta": 0.25}, [{}, {"momentum": 0.75}, {"momentum": 0.5, "eps": 0.5}]),
    "lbsgd": (LR, [{"momentum": 0.75}]),
    "lamb": (
        {"learning_rate": 0.125, **BETAS, **EPSILON},
        [{}, {"bias_correction": False}, {"lower_bound": 4.0}, {"upper_bound": 2.0}],
    ),
    "adam": ({**LR, **BETAS, **EPSILON}, [{}]),
    "adamax": ({**LR, **BETAS}, [{}]),
    "nadam": ({**LR, **BETAS, **EPSILON}, [{}, {"schedule_decay": 8.0}]),
    "ftml": ({**LR, **BETAS, **EPSILON}, [{}]),
    "rmsprop": (
        {**LR, "gamma1": 0.875, **EPSILON},
        [
            {},
            {"clip_weights": 1.0},
            {"centered": True, "gamma2": 0.75},
            {"centered": True, "clip_weights": 1.0},
        ],
    ),
    "adagrad": ({**LR, "eps": 2.0**-10}, [{}]),
    "groupadagrad": ({**LR, "eps": 2.0**-10}, [{}]),
    "adadelta": ({"rho": 0.875, "epsilon": 2.0**-6}, [{}]),
    "ftrl": ({**LR, "lamda1": 0.25, "beta": 0.5}, [{}, {"lamda1": 0.0}]),
    "test": ({}, [{}]),
}
CLIP_IN_PYTHON = {"adadelta", "adagrad", "adamax", "nadam", "dcasgd", "sgld", "groupadagrad"}
LAZY_OPTION = {"sgd", "adam", "lars"}
DTYPES = (("float32", False), ("float64", False), ("float16", False), ("float16", True))
NAMES = ("fc_weight", "fc_bias", "bn_gamma", "bn_beta", "conv_weight", "out_bias")
SHAPES = ((3, 4), (7,), (2, 3, 2), (5,), (4, 4), (6, 2))


@dataclass(frozen=True)
class Case:
    optimizer: str
    title: str
    options: dict = field(default_factory=dict)
    dtypes: tuple[str, ...] = ("float32",)  # one per parameter; the last one stands for the rest
    form: str = "updater"  # or "update", "list", "operator"
    shapes: tuple[tuple[int, ...], ...] = ((3, 4),)
    names: tuple[str, ...] = ()
    steps: int = 5
    weight_storage: str = "default"
    weight_rows: tuple[int, ...] | None = None  # the only rows that aren't zero; a row-sparse weight holds no other
    grad_storage: str = "default"
    zero_start: bool = False  # the first gradient is zero at every third element
    scheduler: tuple[str, dict] | None = None
    lr_mult: dict = field(default_factory=dict)
    wd_mult: dict = field(default_factory=dict)
    departs: str | None = None  # why mxopt deliberately gives another result


def cases() -> Iterator[Case]:
    for optimizer in OPTIMIZERS:
        yield from crossed(optimizer)
        yield from sparse(optimizer)
    yield from by_hand()
    yield from adamw()


def crossed(optimizer: str) -> Iterator[Case]:
    """Every variant in every dtype, without and with weight decay, rescaling and clipping."""
    base, variants = OPTIMIZERS[optimizer]
    full = FULL | ({"wd": 0.0} if optimizer == "groupadagrad" else {})
    one = Case(optimizer, "", form="update" if optimizer == "lamb" else "updater")
    for dtype in ("float32", "float64"):
        yield replace(one, title="defaults", dtypes=(dtype,))
    for variant in variants:
        for dtype, masters in DTYPES:
            # One call at a time, LAMB's master copy is never written; its updater goes through the
            # list kernel.
            form = "updater" if masters else one.form
            options = base | variant | ({"multi_precision": True} if masters else {})
            yield replace(one, title="plain", options=options, dtypes=(dtype,), form=form)
            yield replace(one, title="full", options=options | full, dtypes=(dtype,), form=form)
    options = base | variants[-1]
    if optimizer != "groupadagrad":
        yield replace(one, title="wd only", options=options | {"wd": 0.0625})
    yield replace(one, title="zero start", options=options, zero_start=True)
    yield replace(one, title="counts from 7", options=options | {"begin_num_update": 7})
    off = "MXNet clips to 0 where the clip is done in Python" if optimizer in CLIP_IN_PYTHON else None
    yield replace(one, title="clip 0", options=options | {"clip_gradient": 0}, departs=off)
    if optimizer not in CLIP_IN_PYTHON:
        yield replace(one, title="negative clip", options=options | {"clip_gradient": -0.5})
    shapes = ((33, 5), (3, 2)) if optimizer == "groupadagrad" else ((33, 5), (7,))
    several = "MXNet shares one momentum schedule among all parameters" if optimizer == "nadam" else None
    yield replace(one, title="two parameters", options=options | full, shapes=shapes, departs=several)
    if optimizer == "lamb":
        yield replace(one, title="updater", options=options | full, form="updater")


def sparse(optimizer: str) -> Iterator[Case]:
    """Row-sparse gradients, for weights stored densely and by rows."""
    base, variants = OPTIMIZERS[optimizer]
    one = Case(optimizer, "sparse", shapes=((20, 3),), grad_storage="row_sparse")
    if optimizer == "lamb":
        one = replace(one, form="update")
    for variant in (variants[0], variants[-1])[: len(variants)]:
        for lazy in (True, False) if optimizer in LAZY_OPTION else (None,):
            for storage in ("default", "row_sparse"):
                options = base | variant | ({} if lazy is None else {"lazy_update": lazy})
                yield departing(replace(one, options=options, weight_storage=storage))
                # AdaGrad's row-sparse kernel refuses weight decay, GroupAdaGrad refuses it always.
                wd = {"wd": 0.0} if optimizer in ("adagrad", "groupadagrad") else {}
                yield departing(replace(one, options=options | FULL | wd, weight_storage=storage))
    options = base | variants[-1] | FULL | {"multi_precision": True}
    if optimizer in ("sgd", "adam"):
        for storage in ("default", "row_sparse"):
            yield departing(replace(one, options=options, dtypes=("float16",), weight_storage=storage))


def row_sparse() -> Iterator[Case]:
    """The whole product of optimizers, options, dtypes, `lazy_update`, and storages of weight and
    gradient."""
    options = {name: {name: value} for name, value in FULL.items()} | {"plain": {}, "full": FULL}
    storages = [("row_sparse", None), ("row_sparse", (0, 2, 3)), ("default", None)]
    for optimizer, (base, variants) in OPTIMIZERS.items():
        if optimizer in ("sgld", "test"):  # noise; MXNet can't
            continue
        product = itertools.product(variants, options.items(), DTYPES, storages, ("row_sparse", "default"))
        for variant, (title, more), (dtype, masters), (storage, rows), grads in product:
            if storage == grads == "default" or ("wd" in more and optimizer == "groupadagrad"):
                continue
            one = Case(
                optimizer,
                title,
                base | variant | more | ({"multi_precision": True} if masters else {}),
                (dtype,),
                form="update" if optimizer == "lamb" and not masters else "updater",
                shapes=((6, 2),),
                steps=4,
                weight_storage=storage,
                weight_rows=rows,
                grad_storage=grads,
            )
            for lazy in (True, False) if optimizer in LAZY_OPTION else (None,):
                chosen = {} if lazy is None else {"lazy_update": lazy}
                yield departing(replace(one, options=one.options | chosen))


def departing(case: Case) -> Case:
    """The case, with the reason where mxopt gives other numbers on purpose."""
    options, sparse = case.options, case.grad_storage == "row_sparse"
    masters = options.get("multi_precision")
    lazy = case.optimizer in ("sgd", "ccsgd", "lars") and options.get("lazy_update", True)
    if sparse and masters and (lazy or (case.optimizer == "nag" and "momentum" not in options)):
        return replace(case, departs="MXNet's SGD, NAG and LARS forget to be lazy under a master copy")
    copied = case.weight_storage == "row_sparse" or (masters and sparse)
    if case.optimizer == "nag" and {"momentum", "wd"} <= options.keys() and copied:
        return replace(case, departs="MXNet's NAG decays the weight before the step where it works on copies")
    return case


def by_hand() -> Iterator[Case]:
    """Lists, schedules, multipliers, warm-up."""
    momentum = LR | FULL | {"momentum": 0.75}
    masters = {"multi_precision": True}
    everything = {"shapes": SHAPES, "names": NAMES}
    for options in (LR, LR | FULL, momentum):
        yield Case("sgd", "list", options, form="list", **everything)
        yield Case("sgd", "list", options | masters, ("float16",), form="list", **everything)
    mixed = ("float32", "float16", "float32", "float16", "float64", "float32")
    yield Case("sgd", "list of three dtypes", momentum | masters, mixed, form="list", **everything)
    lars = LR | FULL | {"eta": 0.25, "momentum": 0.75}
    for dtypes, more in ((("float32",), {}), (("float64",), {}), (("float16",), masters)):
        yield Case("lars", "list", lars | more, dtypes, form="list", **everything)
    lamb = OPTIMIZERS["lamb"][0] | FULL
    for more in ({}, {"lower_bound": 1.0, "upper_bound": 3.0}, {"bias_correction": False}):
        yield Case("lamb", "list", lamb | more, form="list", **everything)
        yield Case("lamb", "list", lamb | more | masters, ("float16",), form="list", **everything)
    unwritten = "MXNet computes the float16 weight but leaves LAMB's master copy as it was"
    yield Case("lamb", "one call with a master", lamb | masters, ("float16",), form="update", departs=unwritten)

    for optimizer, (base, variants) in OPTIMIZERS.items():
        count = 1 if optimizer in ("groupadagrad", "nadam") else 4
        for names in (NAMES[:count], ("fc_bias", "x_gamma", "gamma", "other")[:count]):
            yield Case(
                optimizer,
                "multipliers by name and by index",
                base | variants[-1] | FULL | ({"wd": 0.0} if optimizer == "groupadagrad" else {}),
                form="update" if optimizer == "lamb" else "updater",
                shapes=SHAPES[:count],
                names=names,
                lr_mult={"fc_bias": 2.0, 2: 0.5},
                wd_mult={"fc_bias": 1.0, 0: 0.25},
            )

    halves = ("FactorScheduler", {"step": 3, "factor": 0.5, "base_lr": 0.25})
    cosine = ("CosineScheduler", {"max_update": 8, "base_lr": 0.25, "final_lr": 0.03125, "warmup_steps": 3})
    for optimizer, (base, variants) in OPTIMIZERS.items():
        own = {k: v for k, v in (base | variants[-1]).items() if k != "learning_rate"}
        for scheduler in (halves, cosine):
            yield Case(optimizer, "scheduler", own, steps=10, scheduler=scheduler)
    corrected = {"eta": 0.25, "momentum": 0.75}
    reached = "MXNet corrects LARS's momentum for the first four parameters of a step only"
    yield Case("lars", "momentum corrected", corrected, steps=8, scheduler=halves)
    for count, why in ((4, None), (6, reached)):
        many = {"shapes": SHAPES[:count], "names": NAMES[:count]}
        yield Case(
            "lars",
            "list, momentum corrected",
            corrected,
            form="list",
            steps=8,
            scheduler=halves,
            departs=why,
            **many,
        )
    yield Case(
        "lars",
        "momentum not corrected",
        corrected | {"momentum_correction": False},
        steps=8,
        scheduler=halves,
    )

    for strategy in ("linear", "power2", "sqrt", "lars"):
        for scale in (1, 3):
            for more in ({"momentum": 0.75}, FULL):
                options = LR | {"warmup_strategy": strategy, "batch_scale": scale} | more
                warmup = {"warmup_epochs": 2, "updates_per_epoch": 5}
                yield Case("lbsgd", "warm-up", options | warmup, steps=15)
        late = LR | {"warmup_strategy": strategy, "batch_scale": 4, "begin_epoch": 1, "momentum": 0.5}
        yield Case("lbsgd", "begun late", late | {"warmup_epochs": 3, "updates_per_epoch": 4}, steps=12)
    masters_too = LR | {"batch_scale": 2, "warmup_epochs": 2, "updates_per_epoch": 3, "momentum": 0.5} | masters
    yield Case("lbsgd", "warm-up with masters", masters_too, ("float16",), steps=9, shapes=SHAPES[:2])


def adamw() -> Iterator[Case]:
    """The contrib operators, for MXNet 1.9.1 has no AdamW class: what each call was given stands in
    the case."""
    base = LR | BETAS | EPSILON
    for dtype, masters in DTYPES:
        more = {"multi_precision": True} if masters else {}
        for options in (base, base | FULL, base | FULL | {"correct_bias": False}):
            for decay in ("plain", "scaled"):
                yield Case("adamw", f"operator, {decay} decay", options | more, (dtype,), form="operator")
