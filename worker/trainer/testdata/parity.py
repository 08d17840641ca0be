"""What torchvision and PyTorch say, for the trainer's tests: one process for all of them.

Reads one JSON request a line, answers with one JSON line each.

{"do": "make", "arch": A, "dir": D, "classes": C}
    draws A from seed 5 and writes into D: weights.pth (after one training batch, so that running statistics are not trivial),
    input.f32 (4 images of 64 px), logits.f32 (of evaluation mode); and for the learning: start.pth (see condition),
    batches.f32 (4 batches of 8 images of 32 px; of models without normalisations the first is clear of kinks).
    Answers {"initial": [[name, type, shape, SHA-256], ...] of the state drawn from seed 5}
{"do": "learn", "dir": D, "rates": {optimiser: lr}, "spread": bool}
    the model made last, from start.pth. Writes D/step-default.pth and D/step-channels_last.pth: gradients and running statistics of
    one training step on the first batch in that layout (of tensors beyond a million values every 16th). Then 20 steps of each optimiser on the batches in turn.
    Dropout and stochastic depth draw from seed 9 each time.
    Answers {"loss": of the step, "losses": {optimiser: of the 20 steps}, "norm": of the whole gradient, and where spread is asked
             for, "spread": how far PyTorch is from itself when each weight is moved by at most one last bit:
             {"gradient": relative, optimiser: greatest difference of the 20 losses}}
{"do": "strict", "file": F, "dir": D}
    loads F strictly into the model made last, answers {"same": it holds weights.pth bit for bit}
{"do": "resume", "arch": A, "file": F, "classes": C}
    loads a training checkpoint strictly, its optimiser state too, and takes a step
{"do": "go on", "file": F, "optimiser": O}
    loads a training checkpoint's optimiser state into torch.optim.O, takes a step, answers what the state is called
{"do": "open", "file": F, "input": X, "shape": S}
    opens a model file as Python should, weights_only=True, strictly into torchvision's model; answers what it says and its logits
"""
import hashlib, json, sys
import torch, torchvision
from torch import nn

torch.set_num_threads(1)  # threads that wait for one another crawl on a busy machine
ce = nn.CrossEntropyLoss()
made = {}


def build(arch, classes):
    return getattr(torchvision.models, arch)(num_classes=classes)


def images(g, n, side):
    return torch.randn(n, 3, side, side, generator=g)


def condition(m):
    """Weights from which rounding stays small, as it does in nets that have learnt something.

    From freshly drawn ones it does not: a unit of ReLU within a last bit of zero is on here and off there, which moves a
    gradient by per cents, and the batch normalisations of a deep net multiply what little differs, so that PyTorch is soon far from
    itself. Here most units stand clear of their kinks, residual branches are a small part of their sums, and logits are small.
    """
    with torch.no_grad():
        for b in m.modules():
            if isinstance(b, nn.BatchNorm2d):
                b.bias.fill_(2.5)
        for b in m.modules():  # hardswish bends at -3 and 3: as far from both as can be
            if isinstance(b, nn.Sequential):
                for norm, act in zip(list(b), list(b)[1:]):
                    if isinstance(norm, nn.BatchNorm2d) and isinstance(act, nn.Hardswish):
                        norm.bias.zero_()
        for b in m.modules():
            if type(b).__name__ in ("BasicBlock", "Bottleneck", "InvertedResidual", "MBConv"):
                norm = [x for n, x in b.named_modules() if isinstance(x, nn.BatchNorm2d) and "downsample" not in n][-1]
                norm.weight.mul_(0.25)
                norm.bias.mul_(0.25)
        if any(isinstance(b, nn.BatchNorm2d) for b in m.modules()):
            [x for x in m.modules() if isinstance(x, nn.Linear)][-1].weight.mul_(0.1)


def clearance(m, x):
    """How far the nearest unit stands from its kink in a training step on x: ReLUs from zero, the two greatest of a pool's window from each
    other, in units of the layer's root mean square. What is exactly zero is so in every order of summation, and counts for nothing.
    """
    least = [float("inf")]

    def relu(_, args):
        z = args[0].detach()
        least[0] = min(least[0], (z[z != 0].abs().min() / z.square().mean().sqrt()).item())

    def pool(layer, args):
        z = args[0].detach()
        two = nn.functional.unfold(z.flatten(0, 1)[:, None], layer.kernel_size, stride=layer.stride).topk(2, 1).values
        gap = (two[:, 0] - two[:, 1])[two[:, 0] > 0]
        least[0] = min(least[0], (gap.min() / z.square().mean().sqrt()).item())

    hooks = [b.register_forward_pre_hook(relu if isinstance(b, nn.ReLU) else pool) for b in m.modules() if isinstance(b, (nn.ReLU, nn.MaxPool2d))]
    torch.manual_seed(9)
    with torch.no_grad():
        m(x)
    for h in hooks:
        h.remove()
    return least[0]


def saved(m, path):
    torch.save({k: v.clone() for k, v in m.state_dict().items()}, path)


def make(r):
    torch.manual_seed(5)
    m = made["model"] = build(r["arch"], r["classes"])
    initial = [[k, str(v.dtype), list(v.shape), hashlib.sha256(v.numpy()).hexdigest()] for k, v in m.state_dict().items()]
    g = torch.Generator().manual_seed(1)
    x, batches = images(g, 4, 64), [images(g, 8, 32) for _ in range(4)]
    x.numpy().tofile(r["dir"] + "/input.f32")
    m.train()
    with torch.no_grad():
        m(images(g, 4, 64))
    saved(m, r["dir"] + "/weights.pth")
    m.eval()
    with torch.no_grad():
        m(x).numpy().tofile(r["dir"] + "/logits.f32")
    condition(m)
    saved(m, r["dir"] + "/start.pth")
    if not any(isinstance(b, nn.BatchNorm2d) for b in m.modules()):
        # Nothing to condition: of two million units about one is within a last bit of its kink, and each moves a gradient by a
        # thousandth or more. The first batch, which gradients are taken of, is therefore the clearest of several.
        m.train()
        batches[0] = max((images(torch.Generator().manual_seed(100 + k), 8, 32) for k in range(16)), key=lambda x: clearance(m, x))
    made["batches"], made["labels"] = batches, torch.arange(8) % r["classes"]
    torch.cat(batches).numpy().tofile(r["dir"] + "/batches.f32")
    return {"initial": initial}


def nudge(m):
    """Moves each weight by one last bit up, down, or not."""
    g = torch.Generator().manual_seed(3)
    with torch.no_grad():
        for p in m.parameters():
            p.mul_(1 + (torch.randint(0, 3, p.shape, generator=g) - 1) * 2.0**-23)


def step(m, start, nudged=False, layout=torch.contiguous_format):
    m.load_state_dict(start)
    m.to(memory_format=layout)
    if nudged:
        nudge(m)
    m.zero_grad(set_to_none=True)
    torch.manual_seed(9)
    loss = ce(m(made["batches"][0].contiguous(memory_format=layout)), made["labels"])
    loss.backward()
    return loss.item()


def follow(m, start, name, lr, nudged=False):
    m.load_state_dict(start)
    if nudged:
        nudge(m)
    m.zero_grad(set_to_none=True)
    params = [p for p in m.parameters() if p.requires_grad]
    o = {"sgd": lambda: torch.optim.SGD(params, lr=lr, momentum=0.9, weight_decay=1e-4),
         "adamw": lambda: torch.optim.AdamW(params, lr=lr, weight_decay=1e-2)}[name]()
    torch.manual_seed(9)
    losses = []
    for i in range(20):
        o.zero_grad(set_to_none=True)
        loss = ce(m(made["batches"][i % 4]), made["labels"])
        loss.backward()
        o.step()
        losses.append(loss.item())
    return losses


def learn(r):
    m = made["model"].train()
    start = torch.load(r["dir"] + "/start.pth")
    for name, layout in (("channels_last", torch.channels_last), ("default", torch.contiguous_format)):
        loss = step(m, start, layout=layout)
        values = {n: p.grad for n, p in m.named_parameters()}
        norm = sum(v.double().norm() ** 2 for v in values.values()).sqrt().item()
        values.update({n: b for n, b in m.named_buffers() if b.dtype == torch.float32})
        torch.save({n: (v.flatten()[::16] if v.numel() > 1 << 20 else v.flatten()).clone() for n, v in values.items()}, r["dir"] + f"/step-{name}.pth")
    for n, p in m.named_parameters():
        p.requires_grad_(n not in r["rest"])
    answer = {"loss": loss, "norm": norm, "losses": {o: follow(m, start, o, lr) for o, lr in r["rates"].items()}}
    if r["spread"]:
        moving = [(n, p) for n, p in m.named_parameters() if p.requires_grad]
        first = {n: p.grad.clone() for n, p in moving} if step(m, start) else {}
        step(m, start, nudged=True)
        spread = {"gradient": sum((p.grad - first[n]).double().norm() ** 2 for n, p in moving).sqrt().item() / norm}
        for o, lr in r["rates"].items():
            spread[o] = max(abs(a - b) for a, b in zip(answer["losses"][o], follow(m, start, o, lr, nudged=True)))
        answer["spread"] = spread
    m.requires_grad_()
    return answer


def strict(r):
    m = made["model"]
    m.load_state_dict(torch.load(r["file"]), strict=True)
    want = torch.load(r["dir"] + "/weights.pth")
    return {"same": all(torch.equal(v, want[k]) for k, v in m.state_dict().items())}


def resume(r):
    d = torch.load(r["file"])
    m = build(r["arch"], r["classes"])
    m.load_state_dict(d["model_state_dict"], strict=True)
    o = torch.optim.Adam(m.parameters())
    o.load_state_dict(d["optimizer_state_dict"])
    ce(m(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    o.step()
    steps = {int(s["step"]) for s in o.state_dict()["state"].values()}
    return {"arch": d["arch"], "classes": d["class_to_idx"], "epoch": d["epoch"], "steps": sorted(steps)}


def go_on(r):
    d = torch.load(r["file"])
    params = [v.clone().requires_grad_() for k, v in d["atelier"].get("trained_state_dict", d["model_state_dict"]).items()
              if v.is_floating_point() and "running" not in k]
    o = getattr(torch.optim, r["optimiser"])(params, lr=1.0)
    o.load_state_dict(d["optimizer_state_dict"])
    before = [p.detach().clone() for p in params]
    sum((p * p).sum() for p in params).backward()
    o.step()
    moved = all(bool((p != b).any()) for p, b in zip(params, before))
    return {"moved": moved, "lr": o.param_groups[0]["lr"], "state": sorted(next(iter(o.state.values()), {}).keys())}


def opened(r):
    d = torch.load(r["file"], weights_only=True)
    m = build(d["arch"], d["num_classes"])
    m.load_state_dict(d["model_state_dict"], strict=True)
    x = torch.frombuffer(bytearray(open(r["input"], "rb").read()), dtype=torch.float32).view(r["shape"])
    with torch.no_grad():
        logits = m.eval()(x)
    return {"keys": list(d), "classes": d["class_to_idx"], "image_size": d["image_size"], "mean": d["normalisation"]["mean"].tolist(), "epoch": d["epoch"],
            "best_val_loss": d["best_val_loss"].item(), "config": json.loads(d["config"]), "logits": logits.tolist()}


requests = {"make": make, "learn": learn, "strict": strict, "resume": resume, "go on": go_on, "open": opened}
for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps(requests[request["do"]](request)), flush=True)
