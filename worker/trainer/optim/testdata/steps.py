"""What PyTorch says, as JSON, for optim_test.go: 20 steps of each optimiser on a linear layer, and cross entropy."""
import json, math
import torch
from torch.optim.swa_utils import AveragedModel

torch.set_num_threads(1)
x = torch.tensor([math.sin(0.7 * i) for i in range(16 * 12)]).view(16, 12)
y = torch.arange(16) % 5
weight = torch.tensor([0.5, 1.0, 1.5, 2.0, 0.7])


def layer():
    m = torch.nn.Linear(12, 5)
    with torch.no_grad():
        m.weight.copy_(torch.tensor([0.3 * math.cos(i) for i in range(60)]).view(5, 12))
        m.bias.zero_()
    return m


def train(make, clip=0.0, decay=0.9):
    m, ce, losses = layer(), torch.nn.CrossEntropyLoss(weight=weight, label_smoothing=0.1), []
    o = make(m.parameters())
    average = AveragedModel(m, avg_fn=lambda a, p, n: decay * a + (1 - decay) * p, use_buffers=True)
    for _ in range(20):
        o.zero_grad()
        loss = ce(m(x), y)
        loss.backward()
        if clip:
            torch.nn.utils.clip_grad_norm_(m.parameters(), clip)
        o.step()
        average.update_parameters(m)
        losses.append(loss.item())
    return {"losses": losses, "weights": m.weight.flatten().tolist(), "average": average.module.weight.flatten().tolist()}


O = torch.optim
print(json.dumps({
    "sgd": train(lambda p: O.SGD(p, 0.1)),
    "sgd momentum": train(lambda p: O.SGD(p, 0.1, momentum=0.9, weight_decay=0.01)),
    "sgd nesterov": train(lambda p: O.SGD(p, 0.1, momentum=0.9, nesterov=True, weight_decay=0.01)),
    "sgd clipped": train(lambda p: O.SGD(p, 0.1, momentum=0.9), clip=0.05),
    "adam": train(lambda p: O.Adam(p, 0.01, weight_decay=0.01)),
    "adamw": train(lambda p: O.AdamW(p, 0.01, weight_decay=0.1)),
    "rmsprop": train(lambda p: O.RMSprop(p, 0.01, weight_decay=0.01)),
    "rmsprop momentum": train(lambda p: O.RMSprop(p, 0.001, momentum=0.9, weight_decay=0.01)),
    "loss": {"losses": [torch.nn.CrossEntropyLoss(weight=w, label_smoothing=s)(layer()(x), y).item()
                        for w in (None, weight) for s in (0.0, 0.1, 1.0)]},
}))
