"""The trainer's baseline model in PyTorch: VanillaCNN with the same layers, names, shapes and initialisation."""
from torch import nn


class VanillaCNN(nn.Module):
    """Four blocks of convolution 3x3, batch normalisation, ReLU and pooling (32, 64, 128, 256 channels), then global
    average pooling, dropout 0.2 and one linear layer. Input [n, 3, size, size], output [n, num_classes]."""

    def __init__(self, num_classes):
        super().__init__()
        layers, before = [], 3
        for width in (32, 64, 128, 256):
            conv = nn.Conv2d(before, width, 3, padding=1, bias=False)
            nn.init.kaiming_normal_(conv.weight, mode="fan_out", nonlinearity="relu")
            layers += [conv, nn.BatchNorm2d(width), nn.ReLU(inplace=True), nn.MaxPool2d(2)]
            before = width
        self.features = nn.Sequential(*layers)
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.classifier = nn.Sequential(nn.Dropout(0.2), nn.Linear(before, num_classes))

    def forward(self, x):
        return self.classifier(self.pool(self.features(x)).flatten(1))
