"""Learning rates of torch.optim.lr_scheduler, the source of rates.json: python3 rates.py > rates.json"""
import json, sys
import torch
from torch.optim import lr_scheduler as S

UPDATES = 4  # an epoch
OBJECTIVE = [1.0, 0.9, 0.95, 0.91, 0.89995, 0.8, 0.8, 0.81, 0.7, 0.71, 0.72, 0.73]


def run(make, epochs, lr=0.1):
    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=lr)
    s, rates = make(o), []
    for _ in range(epochs * UPDATES):
        rates.append(o.param_groups[0]["lr"])
        o.step()
        s.step()
    return rates


def warm(o, n, then):
    return S.SequentialLR(o, [S.LinearLR(o, start_factor=1 / (n + 1), total_iters=n), then(o)], milestones=[n])


def plateau(mode, sign, **options):
    o = torch.optim.SGD([torch.zeros(1, requires_grad=True)], lr=0.1)
    s, rates = S.ReduceLROnPlateau(o, mode=mode, **options), []
    for value in OBJECTIVE:
        rates += [o.param_groups[0]["lr"]] * UPDATES
        s.step(sign * value if sign > 0 else 2 - value)
    return rates


json.dump({
    "objective": OBJECTIVE,
    "constant": run(lambda o: S.ConstantLR(o, factor=1), 3),
    "step": run(lambda o: S.StepLR(o, 2 * UPDATES, gamma=0.3), 7),
    "cosine": run(lambda o: S.CosineAnnealingLR(o, T_max=6 * UPDATES, eta_min=0.01), 6),
    "warm cosine": run(lambda o: warm(o, 6, lambda o: S.CosineAnnealingLR(o, T_max=6 * UPDATES - 6)), 6),
    "warm step": run(lambda o: warm(o, 4, lambda o: S.StepLR(o, 2 * UPDATES, gamma=0.3)), 7),
    "plateau": plateau("min", 1, factor=0.2, patience=1, min_lr=0.001),
    "plateau max": plateau("max", -1, factor=0.2, patience=1, min_lr=0.001),
}, sys.stdout, indent=None)
print()
