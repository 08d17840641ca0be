"""A training from image folders as PyTorch users write it: torchvision's ImageFolder and transforms, DataLoader with two
workers, SGD with momentum, validation and a checkpoint each epoch. Prints a JSON line an epoch.

The peer of the trainer's end-to-end figure. The data loader's workers live through the whole run.
"""
import time

started = time.perf_counter()
import argparse, json, os
import torch, torchvision
import torchvision.transforms as T
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

p = argparse.ArgumentParser()
p.add_argument("--train", required=True)
p.add_argument("--validation", required=True)
p.add_argument("--out", required=True)
p.add_argument("--model", default="resnet18")
p.add_argument("--epochs", type=int, default=5)
p.add_argument("--batch-size", type=int, default=32)
p.add_argument("--size", type=int, default=64)
p.add_argument("--lr", type=float, default=0.01)
p.add_argument("--num-workers", type=int, default=2)
p.add_argument("--layout", choices=["default", "channels_last"], default="default")
p.add_argument("--precision", choices=["fp32", "bf16"], default="fp32")
a = p.parse_args()


def main():
    torch.manual_seed(1)
    norm = [T.ToTensor(), T.Normalize([0.485, 0.456, 0.406], [0.229, 0.224, 0.225])]
    resize = T.Resize((a.size, a.size))
    train = ImageFolder(a.train, T.Compose([resize, T.RandomCrop(a.size, padding=a.size // 8), T.RandomHorizontalFlip(),
                                            T.RandomRotation(10), T.ColorJitter(0.2, 0.2, 0.2, 0.05)] + norm))
    validation = ImageFolder(a.validation, T.Compose([resize] + norm))
    loader = DataLoader(train, a.batch_size, shuffle=True, num_workers=a.num_workers, persistent_workers=a.num_workers > 0)
    check = DataLoader(validation, a.batch_size, num_workers=a.num_workers, persistent_workers=a.num_workers > 0)
    model = getattr(torchvision.models, a.model)(num_classes=len(train.classes))
    last = torch.channels_last if a.layout == "channels_last" else torch.contiguous_format
    model = model.to(memory_format=last)
    optimizer = torch.optim.SGD(model.parameters(), lr=a.lr, momentum=0.9)
    criterion = torch.nn.CrossEntropyLoss()
    best = float("inf")

    def forward(x, y):
        with torch.autocast("cpu", dtype=torch.bfloat16, enabled=a.precision == "bf16"):
            logits = model(x.contiguous(memory_format=last))
            return logits, criterion(logits, y)

    print(json.dumps({"event": "ready", "at": time.perf_counter() - started}), flush=True)
    for epoch in range(1, a.epochs + 1):
        t = time.perf_counter()
        model.train()
        total = 0.0
        for x, y in loader:
            optimizer.zero_grad()
            _, loss = forward(x, y)
            loss.backward()
            optimizer.step()
            total += loss.item() * len(y)
        trained = time.perf_counter()
        model.eval()
        val, right = 0.0, 0
        with torch.no_grad():
            for x, y in check:
                logits, loss = forward(x, y)
                val += loss.item() * len(y)
                right += (logits.argmax(1) == y).sum().item()
        state = {"epoch": epoch, "model_state_dict": model.state_dict(), "optimizer_state_dict": optimizer.state_dict()}
        torch.save(state, os.path.join(a.out, "last.pth"))
        if val < best:
            best = val
            torch.save(state, os.path.join(a.out, "best.pth"))
        now = time.perf_counter()
        print(json.dumps({"event": "epoch", "epoch": epoch, "train_loss": total / len(train), "val_loss": val / len(validation),
                          "val_acc": right / len(validation), "seconds": now - t, "training_s": trained - t,
                          "at": now - started}), flush=True)


if __name__ == "__main__":
    main()
