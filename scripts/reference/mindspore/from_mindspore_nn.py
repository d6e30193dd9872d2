# MindSpore 2.10.0: python from_mindspore_nn.py
import mindspore as ms
import numpy as np
from mindspore import Tensor, nn, ops

ms.set_context(mode=ms.PYNATIVE_MODE)
rng = np.random.RandomState(0)
x = rng.randn(64, 3).astype("float32")
y = x @ np.array([[1], [-2], [3]], "float32")

net = nn.Dense(3, 1, weight_init="zeros", bias_init="zeros")
parameters = net.trainable_params()
rate = nn.ExponentialDecayLR(0.3, decay_rate=0.5, decay_steps=10)
optimizer = nn.Adam(
    [
        {"params": parameters[:1], "weight_decay": 0.01},
        {"params": parameters[1:]},
    ],
    learning_rate=rate,
)


def loss(x, y):
    return ops.square(net(x) - y).mean()


gradients = ms.value_and_grad(loss, None, parameters)
for step in range(1, 31):
    _, grads = gradients(Tensor(x), Tensor(y))

    optimizer(grads)
    if step % 10 == 0:
        print(step, net.weight.asnumpy().round(3))
    if step == 20:
        ms.save_checkpoint(net, "net.ckpt")
        ms.save_checkpoint(optimizer, "adam.ckpt")
