"""One of two processes of DistributedDataParallel, with half of each batch: python distributed.py
RANK FOLDER NAME."""

from __future__ import annotations

import sys

import torch
from torch_models import model

from mxopt.torch import Optimizer

rank, folder, name = int(sys.argv[1]), sys.argv[2], sys.argv[3]
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method=f"file://{folder}/rendezvous", rank=rank, world_size=2)
net = torch.nn.parallel.DistributedDataParallel(model())
optimizer = Optimizer(net.parameters(), name, lr=0.01)
for step in range(3):
    optimizer.zero_grad()
    batch = torch.randn(8, 4, generator=torch.Generator().manual_seed(step))
    (net(batch[4 * rank : 4 * rank + 4]) ** 2).mean().backward()
    optimizer.step()
torch.save([p.detach() for p in net.parameters()], f"{folder}/{rank}")
torch.distributed.barrier()  # a process that ends early breaks the other's connection
torch.distributed.destroy_process_group()
