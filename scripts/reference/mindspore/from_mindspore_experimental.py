# MindSpore 2.10.0: python from_mindspore_experimental.py
import mindspore as ms
import numpy as np
from mindspore import Parameter, Tensor
from mindspore.experimental import optim

ms.set_context(mode=ms.PYNATIVE_MODE)
weight = Parameter(np.ones((4, 3), "float32"), name="fc.weight")
bias = Parameter(np.ones(3, "float32"), name="fc.bias")
groups = [
    {"params": [weight]},
    {"params": [bias], "weight_decay": 0.0},
]
optimizer = optim.AdamW(groups, lr=0.1, weight_decay=0.05)
schedule = optim.lr_scheduler.StepLR(optimizer, 10, gamma=0.5)

for step in range(1, 31):
    grads = [Tensor(2 * p.asnumpy() - 1) for p in (weight, bias)]
    optimizer(grads)
    schedule.step()

    if step % 10 == 0:
        both = weight.asnumpy()[0, 0], bias.asnumpy()[0]
        print(step, [f"{value:.4f}" for value in both])
    if step == 20:
        ms.save_checkpoint([weight, bias], "fc.ckpt")
        ms.save_checkpoint(optimizer, "adamw.ckpt")
