# PyTorch 2.13.0: python from_pytorch.py
import torch
from torch import nn

torch.manual_seed(0)
x = torch.randn(64, 8)
y = x.sin().sum(1, keepdim=True)
model = nn.Sequential(nn.Linear(8, 16), nn.Tanh(), nn.Linear(16, 1))

matrices = [p for p in model.parameters() if p.ndim > 1]
biases = [p for p in model.parameters() if p.ndim == 1]
optimizer = torch.optim.AdamW(
    [
        {"params": matrices},
        {"params": biases, "weight_decay": 0.0},
    ],
    lr=0.02,
)
schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 0.02, 40)
scaler = torch.amp.GradScaler("cpu", init_scale=1024.0)

for step in range(1, 31):
    optimizer.zero_grad()
    loss = nn.functional.mse_loss(model(x), y)
    scaler.scale(loss).backward()
    scaler.unscale_(optimizer)
    nn.utils.clip_grad_norm_(model.parameters(), 1.0)
    scaler.step(optimizer)
    scaler.update()
    schedule.step()
    if step % 10 == 0:
        print(f"{step} {loss.item():.4f}")
    if step == 20:
        parts = (model, optimizer, schedule, scaler)
        torch.save([part.state_dict() for part in parts], "run.pt")
