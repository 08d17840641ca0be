#!/usr/bin/python3
"""Grad-CAM by hooks, one image and one class at a time, as PyTorch users write it. Usage: peer.py ARCH CLASSES DIR.

Reads DIR/weights.pth (a state), DIR/input.f32 (N images of 64 px), DIR/classes.json ([[class, ...] an image]).
Prints {"probs": [[...]], "maps": [[64*64 numbers a class] an image], "only": [...], "hidden": [...]}; the last two of each image's first class.
"""
import json, sys
import numpy as np, torch, torchvision
import torch.nn.functional as F

torch.set_num_threads(1)
arch, classes, folder = sys.argv[1], int(sys.argv[2]), sys.argv[3]


def vanilla(classes):
    """The baseline, written again from its description."""
    layers, last = [], 3
    for width in (32, 64, 128, 256):
        layers += [torch.nn.Conv2d(last, width, 3, padding=1, bias=False), torch.nn.BatchNorm2d(width), torch.nn.ReLU(), torch.nn.MaxPool2d(2)]
        last = width
    m = torch.nn.Sequential()
    m.features = torch.nn.Sequential(*layers)
    m.pool = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten())
    m.classifier = torch.nn.Sequential(torch.nn.Dropout(0.2), torch.nn.Linear(last, classes))
    return m


m = vanilla(classes) if arch == "vanilla" else getattr(torchvision.models, arch)(num_classes=classes)
m.load_state_dict(torch.load(folder + "/weights.pth"))
m.eval()
x = torch.from_numpy(np.fromfile(folder + "/input.f32", dtype="<f4").reshape(-1, 3, 64, 64))
target = m.layer4[-1] if arch.startswith("resnet") else m.features[14] if arch == "vanilla" else m.features[-1]
kept = {}


def hook(module, inputs, output):
    kept["activation"] = output
    output.register_hook(lambda g: kept.__setitem__("gradient", g))


def cam(image, cls):
    h = target.register_forward_hook(hook)
    logits = m(image)
    m.zero_grad()
    logits[0, cls].backward()
    h.remove()
    a, g = kept["activation"].detach(), kept["gradient"]
    c = F.relu((g.mean(dim=(2, 3), keepdim=True) * a).sum(dim=1, keepdim=True))
    c = (c - c.min()) / (c.max() - c.min() + 1e-7)
    return F.interpolate(c, size=image.shape[2:], mode="bilinear", align_corners=False)[0, 0]


out = dict(probs=[], maps=[], only=[], hidden=[])
for image, wanted in zip(x, json.load(open(folder + "/classes.json"))):
    image = image[None]
    with torch.no_grad():
        out["probs"].append(F.softmax(m(image).double(), 1)[0].tolist())
    maps = [cam(image, c) for c in wanted]
    out["maps"].append([c.flatten().tolist() for c in maps])
    with torch.no_grad():
        out["only"].append(F.softmax(m(image * maps[0]).double(), 1)[0, wanted[0]].item())
        out["hidden"].append(F.softmax(m(image * (1 - maps[0])).double(), 1)[0, wanted[0]].item())
print(json.dumps(out))
