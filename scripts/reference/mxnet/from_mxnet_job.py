# launch.py -n 2 -s 2 --launcher local python from_mxnet_job.py
import mxnet as mx

store = mx.kvstore.create("dist_sync")
if store.rank == 0:
    optimizer = mx.optimizer.create("sgd", learning_rate=0.1)
    store.set_optimizer(optimizer)

weight = mx.nd.ones((100, 10))
store.init("weight", weight)
store.pull("weight", out=weight)
for _ in range(30):
    grad = (weight - store.rank) / store.num_workers
    store.push("weight", grad)
    store.pull("weight", out=weight)
print(f"worker {store.rank}: {weight.asnumpy()[0, 0]:.4f}")
