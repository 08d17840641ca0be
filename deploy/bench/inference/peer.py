#!/usr/bin/python3
"""Production inference as PyTorch users write it: one image at a time, Grad-CAM by hooks, two more passes for the quality
metrics, a picture of four panels each. Drawing is Pillow's alone, which is several times faster than a matplotlib figure.

Usage: peer.py CHECKPOINT IMAGES OUT THREADS LIMIT. Prints {"seconds": of everything after the imports, "images": N}.
"""
import glob, json, os, sys, time
import numpy as np, torch, torchvision
import torch.nn.functional as F
from PIL import Image, ImageDraw

checkpoint, folder, out, threads = sys.argv[1], sys.argv[2], sys.argv[3], int(sys.argv[4])
began = time.perf_counter()
torch.set_num_threads(threads)
saved = torch.load(checkpoint, map_location="cpu")
classes = sorted(saved["class_to_idx"], key=saved["class_to_idx"].get)
model = getattr(torchvision.models, saved["arch"])(num_classes=len(classes))
model.load_state_dict(saved["model_state_dict"])
model.eval()
size = saved["image_size"]
norm = saved["normalisation"]
prepare = torchvision.transforms.Compose([
    torchvision.transforms.Resize(size), torchvision.transforms.CenterCrop(size), torchvision.transforms.ToTensor(),
    torchvision.transforms.Normalize(norm["mean"].tolist(), norm["std"].tolist())])
kept = {}


def hook(module, inputs, output):
    if not output.requires_grad:
        return  # a pass without gradients
    kept["activation"] = output
    output.register_hook(lambda g: kept.__setitem__("gradient", g))


model.layer4[-1].register_forward_hook(hook)


def jet(v):
    c = lambda centre: np.clip(1.5 - np.abs(4 * v - centre), 0, 1)
    return (np.stack([c(3), c(2), c(1)], -1) * 255).astype(np.uint8)


def gini(v):
    v = np.sort(v.flatten())
    n = len(v)
    return 2 * (np.arange(1, n + 1) * v).sum() / (n * v.sum() + 1e-12) - (n + 1) / n


os.makedirs(out + "/heatmaps", exist_ok=True)
files = sorted(glob.glob(folder + "/**/*.*", recursive=True))[:int(sys.argv[5])]
with open(out + "/inference_metadata.jsonl", "w") as rows:
    for i, path in enumerate(files):
        if i and i % 100 == 0:
            print(f"         {i} of {len(files)} pictures in {time.perf_counter() - began:.0f} s", file=sys.stderr)
        image = Image.open(path).convert("RGB")
        x = prepare(image)[None]
        logits = model(x)
        probs = F.softmax(logits, 1)[0]
        best = int(probs.argmax())
        model.zero_grad()
        logits[0, best].backward()
        a, g = kept["activation"].detach(), kept["gradient"]
        m = F.relu((g.mean(dim=(2, 3), keepdim=True) * a).sum(1, keepdim=True))
        m = (m - m.min()) / (m.max() - m.min() + 1e-7)
        m = F.interpolate(m, size=(size, size), mode="bilinear", align_corners=False)
        with torch.no_grad():
            only = F.softmax(model(x * m), 1)[0, best].item()
            hidden = F.softmax(model(x * (1 - m)), 1)[0, best].item()
        h = m[0, 0].numpy()
        side = 280
        shown = torchvision.transforms.functional.center_crop(torchvision.transforms.functional.resize(image, side), side)
        heat = Image.fromarray(jet(np.asarray(Image.fromarray(h).resize((side, side), Image.BILINEAR))))
        sheet = Image.new("RGB", (4 * side + 80, side + 100), "white")
        for k, panel in enumerate([shown, heat, Image.blend(shown, heat, 0.5)]):
            sheet.paste(panel, (16 + k * (side + 16), 58))
        draw = ImageDraw.Draw(sheet)
        draw.text((16, 8), f"{classes[best]}, {100 * probs[best]:.1f} %", fill="black")
        top = probs.argsort(descending=True)[:5].tolist()
        for k, c in enumerate(top):
            y = 58 + 52 * k
            draw.text((16 + 3 * (side + 16), y), f"{classes[c]} {100 * probs[c]:.1f} %", fill="black")
            draw.rectangle([16 + 3 * (side + 16), y + 17, 16 + 3 * (side + 16) + int(side * probs[c]), y + 44], fill=(0, 114, 178))
        sheet.save(f"{out}/heatmaps/{i + 1:04d}.png", compress_level=1)
        full = probs[best].item()
        rows.write(json.dumps(dict(image_path=path, predicted_class=classes[best], confidence=full, top_k=[[classes[c], probs[c].item()] for c in top],
                                   confidence_drop=100 * (full - only) / full, confidence_increase=100 * (hidden - full) / full,
                                   concentration=float(gini(h)), coverage=float((h >= 0.5).mean()))) + "\n")
print(json.dumps(dict(seconds=time.perf_counter() - began, images=len(files))))
