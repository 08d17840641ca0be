"""load FILE OPTIMIZER: PyTorch goes on from a checkpoint's optimiser state and takes a step; prints the state's names."""
import json, sys
import torch

d = torch.load(sys.argv[1])
params = [v.clone().requires_grad_() for k, v in d["atelier"].get("trained_state_dict", d["model_state_dict"]).items()
          if v.is_floating_point() and "running" not in k]
o = getattr(torch.optim, sys.argv[2])(params, lr=1.0)
o.load_state_dict(d["optimizer_state_dict"])
before = [p.detach().clone() for p in params]
sum((p * p).sum() for p in params).backward()
o.step()
moved = all(bool((p != b).any()) for p, b in zip(params, before))
print(json.dumps({"moved": moved, "lr": o.param_groups[0]["lr"], "state": sorted(next(iter(o.state.values()), {}).keys())}))
