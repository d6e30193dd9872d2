# MXNet 1.9.1, NumPy 1.23.5: python from_mxnet_updater.py
import mxnet as mx

weights = [mx.nd.ones((4, 3)), mx.nd.ones((3,))]
optimizer = mx.optimizer.create(
    "lamb",
    learning_rate=0.1,
    wd=0.01,
    param_idx2name={0: "fc_weight", 1: "fc_bias"},
)
optimizer.set_lr_mult({"fc_bias": 2.0})
updater = mx.optimizer.get_updater(optimizer)

for step in range(1, 31):
    for index, weight in enumerate(weights):
        grad = 2 * weight - 1
        updater(index, grad, weight)
    if step % 10 == 0:
        print(step, [f"{w.asnumpy().flat[0]:.4f}" for w in weights])
    if step == 20:
        mx.nd.save("fc.params", weights)
        with open("fc.states", "wb") as file:
            file.write(updater.get_states(dump_optimizer=True))
