"""The signatures of every public class and function of MindSpore that mxopt takes the place of.

The optimizers of mindspore.nn hide their constructor behind a decorator, so `inspect` sees
`*args, **kwargs` only. The function behind it is looked up in what the decorator's closure holds.
"""

import inspect

import mindspore.experimental.optim as ms_optim
from mindspore import nn

# fmt: off
NN_OPTIMIZERS = ("Optimizer", "Adadelta", "AdaFactor", "Adagrad", "Adam", "AdaMax", "AdamOffload",
                 "AdamWeightDecay", "ASGD", "FTRL", "Lamb", "LARS", "LazyAdam", "Momentum", "ProximalAdagrad",
                 "RMSProp", "Rprop", "SGD")
NN_SCHEDULES = ("ExponentialDecayLR", "NaturalExpDecayLR", "InverseDecayLR", "CosineDecayLR",
                "PolynomialDecayLR", "WarmUpLR")
NN_FUNCTIONS = ("piecewise_constant_lr", "exponential_decay_lr", "natural_exp_decay_lr", "inverse_decay_lr",
                "cosine_decay_lr", "polynomial_decay_lr", "warmup_lr")
OPTIMIZERS = ("Optimizer", "Adadelta", "Adagrad", "Adam", "Adamax", "AdamW", "ASGD", "NAdam", "RAdam",
    "RMSprop",
              "Rprop", "SGD")
# fmt: on
SCHEDULERS = tuple(ms_optim.lr_scheduler.__all__)

# : Methods of the base classes that belong to MindSpore's interface. (`Cell`, from which they all
# derive, has : some three hundred more.)
METHODS = {
    "mindspore.nn.Optimizer": [
        "decay_weight",
        "flatten_gradients",
        "get_lr",
        "get_lr_parameter",
        "get_weight_decay",
        "gradients_centralization",
        "scale_grad",
        "broadcast_params",
        "construct",
    ],
    "mindspore.experimental.optim.Optimizer": ["add_param_group", "construct"],
    "mindspore.experimental.optim.lr_scheduler.LRScheduler": ["get_lr", "get_last_lr", "step"],
    "mindspore.experimental.optim.lr_scheduler.ReduceLROnPlateau": ["step", "get_last_lr", "in_cooldown"],
    "mindspore.experimental.optim.lr_scheduler.SequentialLR": ["step", "get_last_lr"],
}
PROPERTIES = {"mindspore.nn.Optimizer": ["unique", "target"]}


def undecorated(function):
    """The constructor that was written, behind any number of decorators."""
    while "args" in inspect.signature(function).parameters and function.__closure__:
        inner = [cell.cell_contents for cell in function.__closure__ if inspect.isfunction(cell.cell_contents)]
        if not inner:
            break
        function = inner[0]
    return function


def describe(function):
    """Each parameter as [name, kind, default], the default left out where there is none."""
    rows = []
    for parameter in inspect.signature(undecorated(function)).parameters.values():
        if parameter.name == "self":
            continue
        row = [parameter.name, parameter.kind.name]
        if parameter.default is not parameter.empty:
            row.append({"$function": parameter.name} if callable(parameter.default) else encode(parameter.default))
        rows.append(row)
    return rows


def encode(default):
    return {"$tuple": list(default)} if isinstance(default, tuple) else default


def defaults(cls):
    """The options of a constructor with their defaults, as `format.decode` reads them."""
    return {row[0]: row[2] for row in describe(cls.__init__) if len(row) == 3}


def collect():
    """The document of `signatures.json`."""
    places = {
        "mindspore.nn": (nn, NN_OPTIMIZERS + NN_SCHEDULES),
        "mindspore.experimental.optim": (ms_optim, OPTIMIZERS),
        "mindspore.experimental.optim.lr_scheduler": (ms_optim.lr_scheduler, SCHEDULERS),
    }
    classes = {}
    for path, (module, names) in places.items():
        for name in names:
            cls = getattr(module, name)
            title = f"{path}.{name}"
            classes[title] = {"constructor": describe(cls.__init__)}
            classes[title]["methods"] = {method: describe(getattr(cls, method)) for method in METHODS.get(title, ())}
            classes[title]["properties"] = PROPERTIES.get(title, [])
    functions = {f"mindspore.nn.{name}": describe(getattr(nn, name)) for name in NN_FUNCTIONS}
    return {"classes": classes, "functions": functions}
