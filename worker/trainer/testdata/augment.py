"""What torchvision makes of images, for the tests of augment, torchx and train.

Reads one JSON object; answers those of its keys it finds, as one JSON object. Numbers travel as base64 of
little-endian bytes (uint8 or float32).

crops    {size, scale, n}: n draws of RandomResizedCrop -> [[left, top, width, height], ...]
stretch  {size, pixels: one uint8 image [size, size, 3], boxes: [[left, top, width, height, flip], ...]}: resized_crop and hflip
         -> uint8 images
warp     the same on floats in 0..1, and each turned by its angle: boxes end in an angle -> float images [size, size, 3]
colour   {size, pixels: uint8 images, orders: [...], factors: [[brightness, contrast, saturation, hue], ...]}
         -> for each order, float images in 0..1
cutmix   {boxes: [[width, height, lambda, rx, ry], ...]} -> [[x1, y1, x2, y2, lambda'], ...]
mixed    {classes, size, images: floats [n, 3, size, size], labels, logits: floats [n, classes], draws: [[lambda, rx, ry], ...]}
         -> for each of the draws, {images, loss}: soft cross entropy
"""
import base64, json, math, sys
import numpy as np, torch
import torchvision.transforms as T
import torchvision.transforms.functional as F

torch.set_num_threads(1)
torch.manual_seed(1)


def read(text, kind, *shape):
    return torch.from_numpy(np.frombuffer(base64.b64decode(text), dtype=kind).copy()).reshape(*shape)


def write(t):
    return base64.b64encode(t.contiguous().numpy().tobytes()).decode()


def floats(r):  # uint8 images, interleaved, to planes in 0..1
    return read(r["pixels"], "u1", -1, r["size"], r["size"], 3).permute(0, 3, 1, 2).float() / 255


def box(width, height, lam, r_x, r_y):
    """The formula of torchvision.transforms.v2.CutMix with its draws given."""
    r = 0.5 * math.sqrt(1.0 - lam)
    r_w_half = int(r * width)
    r_h_half = int(r * height)
    x1 = int(torch.clamp(torch.tensor(r_x - r_w_half), min=0))
    y1 = int(torch.clamp(torch.tensor(r_y - r_h_half), min=0))
    x2 = int(torch.clamp(torch.tensor(r_x + r_w_half), max=width))
    y2 = int(torch.clamp(torch.tensor(r_y + r_h_half), max=height))
    return x1, y1, x2, y2, float(1.0 - (x2 - x1) * (y2 - y1) / (width * height))


asked, answer = json.load(sys.stdin), {}

if "crops" in asked:
    r = asked["crops"]
    image = torch.empty(3, r["size"], r["size"])
    draws = (T.RandomResizedCrop.get_params(image, [r["scale"], 1.0], [3 / 4, 4 / 3]) for _ in range(r["n"]))
    answer["crops"] = [[j, i, w, h] for i, j, h, w in draws]

if "stretch" in asked:
    r = asked["stretch"]
    image = read(r["pixels"], "u1", r["size"], r["size"], 3).permute(2, 0, 1)
    out = []
    for left, top, width, height, flip in r["boxes"]:
        x = F.resized_crop(image, top, left, height, width, [r["size"]] * 2)
        out.append((F.hflip(x) if flip else x).permute(1, 2, 0))
    answer["stretch"] = write(torch.stack(out))

if "warp" in asked:
    r = asked["warp"]
    out = []
    for x, (left, top, width, height, flip, angle) in zip(floats(r), r["boxes"]):
        x = F.resized_crop(x, top, left, height, width, [r["size"]] * 2)
        x = F.hflip(x) if flip else x
        if angle:
            x = F.rotate(x, angle, interpolation=T.InterpolationMode.BILINEAR, fill=None)
        out.append(x.permute(1, 2, 0))
    answer["warp"] = write(torch.stack(out))

if "colour" in asked:
    r = asked["colour"]
    changes = [F.adjust_brightness, F.adjust_contrast, F.adjust_saturation, F.adjust_hue]
    answer["colour"] = []
    for order in r["orders"]:
        out = []
        for x, factors in zip(floats(r), r["factors"]):
            for k in order:
                x = changes[k](x, factors[k])
            out.append(x.permute(1, 2, 0))
        answer["colour"].append(write(torch.stack(out)))

if "cutmix" in asked:
    answer["cutmix"] = [box(*b) for b in asked["cutmix"]["boxes"]]

if "mixed" in asked:
    r = asked["mixed"]
    images = read(r["images"], "<f4", -1, 3, r["size"], r["size"])
    labels = torch.nn.functional.one_hot(torch.tensor(r["labels"]), r["classes"]).float()
    answer["mixed"] = []
    for draws in r["draws"]:
        x1, y1, x2, y2, lam = box(r["size"], r["size"], *draws)
        rolled, mixed = images.roll(1, 0), images.clone()
        mixed[..., y1:y2, x1:x2] = rolled[..., y1:y2, x1:x2]
        soft = labels.roll(1, 0).mul_(1.0 - lam).add_(labels.mul(lam))
        loss = torch.nn.functional.cross_entropy(read(r["logits"], "<f4", -1, r["classes"]), soft)
        answer["mixed"].append({"images": write(mixed), "loss": float(loss)})

json.dump(answer, sys.stdout)
