# MXNet 1.9.1, NumPy 1.23.5: python from_mxnet_trainer.py
import mxnet as mx
import numpy as np
from mxnet import autograd, gluon

rng = np.random.RandomState(0)
x = rng.randn(64, 3).astype("float32")
y = x @ np.array([[1], [-2], [3]], "float32")

net = gluon.nn.Dense(1, in_units=3, prefix="dense_")
net.initialize(mx.init.Zero())
l2 = gluon.loss.L2Loss()
schedule = mx.lr_scheduler.FactorScheduler(10, 0.5, base_lr=0.2)
trainer = gluon.Trainer(
    net.collect_params(),
    "adam",
    {"learning_rate": 0.2, "lr_scheduler": schedule},
)

for step in range(1, 31):
    with autograd.record():
        loss = l2(net(mx.nd.array(x)), mx.nd.array(y))
    loss.backward()

    trainer.step(len(x))
    if step % 10 == 0:
        weight = net.weight.data().asnumpy()
        print(step, weight.round(3), trainer.learning_rate)
    if step == 20:
        net.save_parameters("net.params")
        trainer.save_states("net.states")
