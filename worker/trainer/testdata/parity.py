"""What torchvision and PyTorch say, for parity_test.go: one process for all architectures.

Reads one JSON request a line, answers with one JSON line each.

{"do": "make", "arch": A, "dir": D, "classes": C, "images": N, "optimisers": [...] or null}
    writes into D: weights.pth (of seed 5, after one training batch, so that running statistics are not trivial), input.f32
    (N images of 64 px), logits.f32 (evaluation mode), step.pth (gradients and running statistics of one training step,
    dropout and stochastic depth drawing from seed 9; of tensors beyond a million values every 16th).
    Answers {"initial": [[name, type, shape, SHA-256], ...] of the state drawn from seed 5,
             "loss": of that step, "losses": {optimiser: of 20 steps, each run from weights.pth and seed 9}}
{"do": "strict", "file": F, "dir": D}
    loads F strictly into the model made last, answers {"same": it holds weights.pth bit for bit}
{"do": "resume", "arch": A, "file": F, "classes": C}
    loads a training checkpoint strictly, its optimiser state too, and takes a step
"""
import hashlib, json, sys
import torch, torchvision

torch.set_num_threads(1)  # threads that wait for one another crawl on a busy machine
ce = torch.nn.CrossEntropyLoss()
made = {}


def build(r):
    return getattr(torchvision.models, r["arch"])(num_classes=r["classes"])


def make(r):
    torch.manual_seed(5)
    m = made["model"] = build(r)
    initial = [[k, str(v.dtype), list(v.shape), hashlib.sha256(v.numpy()).hexdigest()] for k, v in m.state_dict().items()]
    g = torch.Generator().manual_seed(1)
    x = torch.randn(r["images"], 3, 64, 64, generator=g)
    y = torch.arange(r["images"]) % r["classes"]
    m.train()
    with torch.no_grad():
        m(torch.randn(r["images"], 3, 64, 64, generator=g))
    weights = {k: v.clone() for k, v in m.state_dict().items()}
    torch.save(weights, r["dir"] + "/weights.pth")
    x.numpy().tofile(r["dir"] + "/input.f32")
    m.eval()
    with torch.no_grad():
        m(x).numpy().tofile(r["dir"] + "/logits.f32")
    m.train()
    torch.manual_seed(9)
    loss = ce(m(x), y)
    loss.backward()
    step = {n: p.grad for n, p in m.named_parameters()}
    step.update({n: b for n, b in m.named_buffers() if b.dtype == torch.float32})
    torch.save({n: (v.flatten()[::16] if v.numel() > 1 << 20 else v.flatten()).clone() for n, v in step.items()}, r["dir"] + "/step.pth")
    losses = {}
    for name, optimiser in {
        "sgd": lambda p: torch.optim.SGD(p, lr=0.004, momentum=0.9, weight_decay=1e-4),
        "adam": lambda p: torch.optim.Adam(p, lr=1e-4, weight_decay=1e-4),
        "adamw": lambda p: torch.optim.AdamW(p, lr=1e-4, weight_decay=1e-2),
    }.items():
        if name not in (r["optimisers"] or []):
            continue
        m.load_state_dict(weights)
        torch.manual_seed(9)
        o = optimiser(m.parameters())
        losses[name] = []
        for _ in range(20):
            o.zero_grad()
            each = ce(m(x), y)
            each.backward()
            o.step()
            losses[name].append(each.item())
    return {"initial": initial, "loss": loss.item(), "losses": losses}


def strict(r):
    m = made["model"]
    m.load_state_dict(torch.load(r["file"]), strict=True)
    want = torch.load(r["dir"] + "/weights.pth")
    return {"same": all(torch.equal(v, want[k]) for k, v in m.state_dict().items())}


def resume(r):
    d = torch.load(r["file"])
    m = build(r)
    m.load_state_dict(d["model_state_dict"], strict=True)
    o = torch.optim.Adam(m.parameters())
    o.load_state_dict(d["optimizer_state_dict"])
    ce(m(torch.randn(4, 3, 64, 64)), torch.tensor([0, 1, 2, 0])).backward()
    o.step()
    steps = {int(s["step"]) for s in o.state_dict()["state"].values()}
    return {"arch": d["arch"], "classes": d["class_to_idx"], "epoch": d["epoch"], "steps": sorted(steps)}


for line in sys.stdin:
    request = json.loads(line)
    print(json.dumps({"make": make, "strict": strict, "resume": resume}[request["do"]](request)), flush=True)
