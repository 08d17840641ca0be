"""Training steps of PyTorch and torchvision, in turn with the trainer's: the same protocol as atelier-trainer bench --paced.

Full steps (forward, cross entropy, backward, SGD with momentum) on input already in memory. Prints {"ready": true} after
the warm-up, then for each line with a number of steps {"images_per_s": rate of that block}, until the lines end.
"""
import argparse, json, sys, time
import torch, torchvision
from vanilla import VanillaCNN

p = argparse.ArgumentParser()
p.add_argument("--model", default="resnet18")
p.add_argument("--size", type=int, default=64)
p.add_argument("--batch", type=int, default=32)
p.add_argument("--classes", type=int, default=5)
p.add_argument("--threads", type=int, default=2)
p.add_argument("--layout", choices=["default", "channels_last"], default="default")
p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
p.add_argument("--device", default="cpu")
p.add_argument("--warmup", type=int, default=2)
a = p.parse_args()

torch.set_num_threads(a.threads)
torch.manual_seed(0)
build = VanillaCNN if a.model == "vanilla" else getattr(torchvision.models, a.model)
kind = a.device.split(":")[0]
model = build(num_classes=a.classes).train().to(a.device)
x = torch.randn(a.batch, 3, a.size, a.size, device=a.device)
y = (torch.arange(a.batch) % a.classes).to(a.device)
if a.layout == "channels_last":
    model = model.to(memory_format=torch.channels_last)
    x = x.contiguous(memory_format=torch.channels_last)
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = torch.nn.CrossEntropyLoss()


def steps(n):
    for _ in range(n):
        optimizer.zero_grad()
        with torch.autocast(kind, dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            loss = criterion(model(x), y)
        loss.backward()
        optimizer.step()
    if kind == "cuda":
        torch.cuda.synchronize()


steps(a.warmup)
print(json.dumps({"ready": True}), flush=True)
for line in sys.stdin:
    n = int(line)
    t = time.perf_counter()
    steps(n)
    print(json.dumps({"images_per_s": n * a.batch / (time.perf_counter() - t)}), flush=True)
