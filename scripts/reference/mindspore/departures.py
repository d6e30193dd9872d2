"""Print the numbers behind docs/departures-mindspore.md: what MindSpore 2.10 does, beside what it
promises.

Runs in the environment that `generate` describes:

    GLOG_v=4 python scripts/reference/mindspore/departures.py
"""

import mindspore as ms
import mindspore.experimental.optim as ms_optim
import numpy as np
from mindspore import nn
from nn_runs import SparseStep
from run import first_line


def parameter(values, name="w", dtype=np.float32):
    return ms.Parameter(ms.Tensor(np.array(values, dtype)), name=name)


def steps(make, start, grads, dtype=np.float32):
    """The parameter after each step, from `make(parameters)`; or what was raised."""
    weight = parameter(start, dtype=dtype)
    seen = []
    try:
        optimizer = make([weight])
        for grad in grads:
            optimizer((ms.Tensor(np.array(grad, dtype)),))
            seen.append(np.round(weight.asnumpy().astype(float), 6).tolist())
    except Exception as error:
        seen.append("{type}: {message}".format(**first_line(error)))
    return seen


def show(title, *results):
    print(f"\n{title}")
    for result in results:
        print(f"    {result}")


def experimental():
    def adam(**options):
        return lambda params: ms_optim.Adam(params, lr=0.1, **options)

    show("Adam, eps=0.01, gradient 1 (documented 0.900990)", steps(adam(eps=0.01), [1.0], [[1.0]]))
    grads = [[1.0], [0.1], [0.1]]
    show(
        "Adam, amsgrad on and off",
        steps(adam(amsgrad=True), [1.0], grads),
        steps(adam(amsgrad=False), [1.0], grads),
    )
    half = np.float16
    show(
        "float16: Adagrad, Rprop, nn.FTRL, nn.AdamOffload",
        steps(lambda params: ms_optim.Adagrad(params, lr=0.3), [1.0] * 4, [[1.0] * 4], half),
        steps(lambda params: ms_optim.Rprop(params, lr=0.3), [1.0] * 4, [[1.0] * 4], half),
        steps(lambda params: nn.FTRL(params, learning_rate=0.3), [1.0] * 4, [[1.0] * 4], half),
        steps(lambda params: nn.AdamOffload(params, learning_rate=0.3), [1.0] * 4, [[1.0] * 4], half),
    )
    for written in (0.5, 1, np.float32(0.5)):
        optimizer = ms_optim.SGD([parameter([1.0])], lr=0.1)
        optimizer.param_groups[0]["lr"] = written
        optimizer((ms.Tensor([1.0]),))
        show(f"SGD, lr 0.1, then {written!r} written into the group", optimizer.parameters[0].asnumpy())
    optimizer = ms_optim.SGD([parameter([1.0])], lr=0.1)
    show("lr read back", optimizer.param_groups[0]["lr"].asnumpy().item())
    scheduler = ms_optim.lr_scheduler.ExponentialLR(optimizer, gamma=0.5)
    optimizer.param_groups[0]["lr"] = 0.5
    scheduler.step()
    optimizer((ms.Tensor([1.0]),))
    show(
        "ExponentialLR(0.5) after 0.5 was written: reported rate, and the step",
        [float(lr.asnumpy()) for lr in scheduler.get_last_lr()],
        optimizer.parameters[0].asnumpy(),
    )
    optimizer = ms_optim.SGD([parameter([1.0])], lr=0.1)
    optimizer.add_param_group({"params": [parameter([1.0], "v")]})
    try:
        optimizer((ms.Tensor([1.0]), ms.Tensor([1.0])))
    except RuntimeError as error:
        show("SGD after add_param_group", first_line(error)["message"])


def family():
    def rmsprop(params):
        return nn.RMSProp(params, learning_rate=0.1, epsilon=0.1)

    outside, inside = 1 - 0.1 / (1 + 0.1), 1 - 0.1 / np.sqrt(1 + 0.1)
    show(
        f"nn.RMSProp, 10 elements, epsilon=0.1 (outside the root {outside:.6f}, inside {inside:.6f})",
        steps(rmsprop, [1.0] * 10, [[1.0] * 10]),
    )
    for l1 in (0.0, 0.1, 0.4):
        show(
            f"nn.FTRL, l1={l1}",
            steps(lambda params, l1=l1: nn.FTRL(params, learning_rate=0.3, l1=l1, l2=0.3), [1.0], [[1.0]]),
        )
    for slots in (True, False):
        optimizer = nn.Adagrad([parameter([1.0])], accum=0.5, learning_rate=0.1, update_slots=slots)
        for _ in range(3):
            optimizer((ms.Tensor([1.0]),))
        show(f"nn.Adagrad, update_slots={slots}: accumulator", optimizer.accum[0].asnumpy())
    for nesterov in (True, False):
        show(
            f"nn.Momentum, use_nesterov={nesterov}",
            steps(
                lambda params, nesterov=nesterov: nn.Momentum(params, 0.1, 0.9, use_nesterov=nesterov),
                [1.0],
                [[1.0], [0.5]],
            ),
        )
    show(
        "nn.Adam, eps=0.01",
        steps(lambda params: nn.Adam(params, learning_rate=0.1, eps=0.01), [1.0], [[1.0]]),
    )
    for name in ("FTRL", "SGD"):
        weight = parameter([1.0], "bn.beta")
        optimizer = getattr(nn, name)([weight], learning_rate=0.1, weight_decay=0.5)
        optimizer((ms.Tensor([0.0]),))
        show(f"nn.{name}, a parameter named bn.beta, weight_decay 0.5, gradient 0", weight.asnumpy())
    show(
        "get_weight_decay of 0.1 under loss_scale 8",
        nn.SGD([parameter([1.0])], weight_decay=0.1, loss_scale=8.0).get_weight_decay(),
    )
    show(
        "learning_rate=[0.1, 0.2], three steps",
        steps(lambda params: nn.SGD(params, learning_rate=[0.1, 0.2]), [1.0], [[1.0]] * 3),
    )
    for shape in ((2, 3), (2, 16)):

        def centred(params):
            return nn.SGD([{"params": params, "grad_centralization": True}], learning_rate=0.1)

        grad = np.arange(np.prod(shape), dtype=np.float32).reshape(shape)
        show(f"gradient centralization, shape {shape}", str(steps(centred, np.zeros(shape), [grad]))[:90])
    for name in ("Lamb", "LARS"):

        def layered(params, name=name):
            return nn.Lamb(params, 0.1) if name == "Lamb" else nn.LARS(nn.SGD(params, 0.1))

        show(f"nn.{name}", steps(layered, [1.0], [[1.0]]))


def sparse():
    ms.set_context(mode=ms.GRAPH_MODE)
    values = np.array([[1.0, 2.0], [3.0, 4.0]], np.float32)
    for name, options in (("LazyAdam", {}), ("Adam", {}), ("Adam", {"use_nesterov": True}), ("FTRL", {})):
        for target in (None, "CPU"):
            for rows in ([3, 1], [3, 3]):
                weight = parameter(np.ones((5, 2)))
                optimizer = getattr(nn, name)([weight], learning_rate=0.1, **options)
                if target:
                    optimizer.target = target
                step = SparseStep(optimizer, (5, 2))
                for _ in range(2):
                    step(ms.Tensor(np.array(rows, np.int32)), ms.Tensor(values))
                show(f"nn.{name} {options}, target {target}, rows {rows}", weight.asnumpy().tolist())
    ms.set_context(mode=ms.PYNATIVE_MODE)


if __name__ == "__main__":
    ms.set_context(mode=ms.PYNATIVE_MODE, device_target="CPU")
    experimental()
    family()
    sparse()
