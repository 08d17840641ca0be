"""Training steps of PyTorch's DistributedDataParallel over Gloo, started by torchrun with a process per member.

Full steps (forward, cross entropy, backward with overlapped all-reduce, SGD with momentum) on input already in memory;
--batch is that of all processes together. The process of rank 0 speaks the protocol of atelier-trainer bench --paced:
{"ready": true} after the warm-up, then for each line with a number of steps {"images_per_s": rate of that block}, until
the lines end.
"""
import argparse, datetime, json, sys, time
import torch, torchvision
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

p = argparse.ArgumentParser()
p.add_argument("--model", default="resnet18")
p.add_argument("--size", type=int, default=64)
p.add_argument("--batch", type=int, default=32)
p.add_argument("--classes", type=int, default=3)
p.add_argument("--threads", type=int, default=1, help="of each process")
p.add_argument("--layout", choices=["default", "channels_last"], default="default")
p.add_argument("--warmup", type=int, default=3)
a = p.parse_args()

torch.set_num_threads(a.threads)
# Between two blocks other programs have the processor, for longer than the default time-out.
dist.init_process_group("gloo", timeout=datetime.timedelta(hours=6))
rank, members = dist.get_rank(), dist.get_world_size()
torch.manual_seed(0)
last = torch.channels_last if a.layout == "channels_last" else torch.contiguous_format
model = DistributedDataParallel(getattr(torchvision.models, a.model)(num_classes=a.classes).train().to(memory_format=last))
own = a.batch // members
x = torch.randn(own, 3, a.size, a.size).contiguous(memory_format=last)
y = torch.arange(own) % a.classes
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = torch.nn.CrossEntropyLoss()


def steps(n):
    for _ in range(n):
        optimizer.zero_grad()
        criterion(model(x), y).backward()
        optimizer.step()
    dist.barrier()


def agreed(n):
    """The number of steps that rank 0 read."""
    t = torch.tensor([n])
    dist.broadcast(t, 0)
    return int(t.item())


steps(a.warmup)
if rank == 0:
    print(json.dumps({"ready": True}), flush=True)
while True:
    line = sys.stdin.readline() if rank == 0 else ""
    n = agreed(int(line or 0))
    if n == 0:
        break
    t = time.perf_counter()
    steps(n)
    if rank == 0:
        print(json.dumps({"images_per_s": n * a.batch / (time.perf_counter() - t)}), flush=True)
dist.destroy_process_group()
