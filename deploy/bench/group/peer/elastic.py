"""A training under torchrun's elastic agent, as PyTorch's documentation shows it: DistributedDataParallel over Gloo,
a checkpoint of model and optimizer each --every steps, which a restarted process group resumes from.

Each process writes its id into --dir/pid-RANK, so that a measurement can kill one. Rank 0 prints a JSON line at each
start ("resumed": the step it begins at) and at the end.
"""
import argparse, json, os, time
import torch, torchvision
import torch.distributed as dist
from torch.nn.parallel import DistributedDataParallel

p = argparse.ArgumentParser()
p.add_argument("--dir", required=True)
p.add_argument("--model", default="resnet18")
p.add_argument("--size", type=int, default=64)
p.add_argument("--batch", type=int, default=16)
p.add_argument("--classes", type=int, default=3)
p.add_argument("--steps", type=int, default=1500)
p.add_argument("--every", type=int, default=100)
a = p.parse_args()

torch.set_num_threads(1)
dist.init_process_group("gloo")
rank, members = dist.get_rank(), dist.get_world_size()
with open(os.path.join(a.dir, "pid-%d" % rank), "w") as f:
    f.write(str(os.getpid()))
torch.manual_seed(0)
model = DistributedDataParallel(getattr(torchvision.models, a.model)(num_classes=a.classes).train())
optimizer = torch.optim.SGD(model.parameters(), lr=0.01, momentum=0.9)
criterion = torch.nn.CrossEntropyLoss()
x, y = torch.randn(a.batch // members, 3, a.size, a.size), torch.arange(a.batch // members) % a.classes
path, step = os.path.join(a.dir, "checkpoint.pt"), 0
if os.path.exists(path):
    saved = torch.load(path)
    model.module.load_state_dict(saved["model"])
    optimizer.load_state_dict(saved["optimizer"])
    step = saved["step"]
if rank == 0:
    print(json.dumps({"resumed": step, "at": time.time()}), flush=True)
while step < a.steps:
    optimizer.zero_grad()
    criterion(model(x), y).backward()
    optimizer.step()
    step += 1
    if step % a.every == 0 and rank == 0:
        torch.save({"model": model.module.state_dict(), "optimizer": optimizer.state_dict(), "step": step}, path + ".new")
        os.replace(path + ".new", path)
dist.barrier()
if rank == 0:
    print(json.dumps({"steps": step, "at": time.time()}), flush=True)
