"""What torchvision and PyTorch say, for parity_test.go.

make DIR ARCH CLASSES   writes into DIR: initial.pth (weights of seed 5), weights.pth (the same after a few batches, so
                        that running statistics are not trivial), input.f32 (8 images of 64 px), logits.f32 (evaluation
                        mode), gradients.pth (of one training step on the input), losses.json (20 steps of each optimiser)
load FILE ARCH CLASSES  loads a checkpoint of ours strictly, its optimiser state too, and takes a step
"""
import json, sys
import torch, torchvision

torch.set_num_threads(1)  # threads that wait for one another crawl on a busy machine
command, path, arch, classes = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
build = getattr(torchvision.models, arch)
ce = torch.nn.CrossEntropyLoss()

if command == "load":
    d = torch.load(path)
    m = build(num_classes=classes)
    m.load_state_dict(d["model_state_dict"], strict=True)
    o = torch.optim.Adam(m.parameters())
    o.load_state_dict(d["optimizer_state_dict"])
    ce(m(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    o.step()
    steps = {int(s["step"]) for s in o.state_dict()["state"].values()}
    print(json.dumps({"arch": d["arch"], "classes": d["class_to_idx"], "epoch": d["epoch"], "steps": sorted(steps)}))
    sys.exit()

torch.manual_seed(5)
m = build(num_classes=classes)
torch.save(m.state_dict(), path + "/initial.pth")
g = torch.Generator().manual_seed(1)
x = torch.randn(8, 3, 64, 64, generator=g)
y = torch.arange(8) % classes
m.train()
for _ in range(3):
    m(torch.randn(8, 3, 64, 64, generator=g))
torch.save(m.state_dict(), path + "/weights.pth")
weights = {k: v.clone() for k, v in m.state_dict().items()}
x.numpy().tofile(path + "/input.f32")
m.eval()
with torch.no_grad():
    m(x).numpy().tofile(path + "/logits.f32")
m.train()
ce(m(x), y).backward()
torch.save({n: p.grad for n, p in m.named_parameters()}, path + "/gradients.pth")
losses = {}
for name, make in {
    "sgd": lambda p: torch.optim.SGD(p, lr=0.004, momentum=0.9, weight_decay=1e-4),
    "adam": lambda p: torch.optim.Adam(p, lr=1e-4, weight_decay=1e-4),
}.items():
    m.load_state_dict(weights)
    o = make(m.parameters())
    losses[name] = []
    for _ in range(20):
        o.zero_grad()
        loss = ce(m(x), y)
        loss.backward()
        o.step()
        losses[name].append(loss.item())
json.dump(losses, open(path + "/losses.json", "w"))
