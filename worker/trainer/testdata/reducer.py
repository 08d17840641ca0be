"""One of two processes of DistributedDataParallel over Gloo: the gradients that c10d's Reducer comes to.

reducer.py DIR RANK, RANK 0 or 1. Of DIR it reads
    state.f32   resnet18's parameters and buffers at 7 classes, in its order, counters left out
    images.f32  a batch [8, 3, 64, 64]; the loss of half RANK of it is mean(logits^2)
and, RANK 0, writes
    gradients.f32  in the order of parameters(): the mean over the processes
"""
import os, sys
import numpy as np, torch, torchvision

folder, rank = sys.argv[1], int(sys.argv[2])
torch.set_num_threads(1)
torch.distributed.init_process_group("gloo", init_method="file://" + os.path.join(folder, "store"), rank=rank, world_size=2)


def floats(name):
    return torch.from_numpy(np.fromfile(os.path.join(folder, name), dtype="<f4"))


model = torchvision.models.resnet18(num_classes=7)
state, at = floats("state.f32"), 0
for t in model.state_dict().values():
    if t.is_floating_point():
        t.copy_(state[at:at + t.numel()].reshape(t.shape))
        at += t.numel()
assert at == state.numel()

model = torch.nn.parallel.DistributedDataParallel(model)
images = floats("images.f32").reshape(2, 4, 3, 64, 64)[rank]
(model(images) ** 2).mean().backward()
if rank == 0:
    np.concatenate([p.grad.numpy().ravel() for p in model.parameters()]).tofile(os.path.join(folder, "gradients.f32"))
torch.distributed.barrier()
