"""Networks of ``train_sits`` for several sensors at one pixel, on top of ``otbtorch.models``."""

from typing import Tuple

import torch
from torch import Tensor, nn


class Concat2(nn.Module):
    """``forward(a, b)``: series (B, T, bands) stacked as bands, then ``net``."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, a: Tensor, b: Tensor) -> Tensor:
        return self.net(torch.cat([a, b], dim=2))


class Concat3(nn.Module):
    """``forward(a, b, c)``: series (B, T, bands) stacked as bands, then ``net``."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return self.net(torch.cat([a, b, c], dim=2))


class Concat4(nn.Module):
    """``forward(a, b, c, d)``: series (B, T, bands) stacked as bands, then ``net``."""

    def __init__(self, net):
        super().__init__()
        self.net = net

    def forward(self, a: Tensor, b: Tensor, c: Tensor, d: Tensor) -> Tensor:
        return self.net(torch.cat([a, b, c, d], dim=2))


def concat(net, count):
    """``net`` behind a module of ``count`` (2 to 4) series."""
    return {2: Concat2, 3: Concat3, 4: Concat4}[count](net)


class Branch(nn.Module):
    """Temporal convolutions, then a dense layer: (B, T, bands) to (B, features)."""

    def __init__(self, bands: int, steps: int, width: int, kernel: int, features: int, drop: float):
        super().__init__()
        layers = []
        for inputs in (bands, width, width):
            layers += [nn.Conv1d(inputs, width, kernel, padding=kernel // 2),
                       nn.BatchNorm1d(width), nn.ReLU(), nn.Dropout(drop)]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(nn.Flatten(), nn.Linear(width * steps, features),
                                   nn.BatchNorm1d(features), nn.ReLU(), nn.Dropout(drop))

    def forward(self, x: Tensor) -> Tensor:
        return self.dense(self.convolutions(x.transpose(1, 2)))


class TwinTempCNN(nn.Module):
    """``forward(a, b)``: ``(logits, aux_a, aux_b, features)``.

    A branch of temporal convolutions a sensor, with their own bands and dates; the auxiliary
    classifiers (for training) see one branch each, as in TWINNS, which this is at one pixel.
    """

    def __init__(self, bands, steps, classes: int, width: int = 48, kernel: int = 5,
                 features: int = 96, dropout: float = 0.18):
        super().__init__()
        self.a = Branch(bands[0], steps[0], width, kernel, features, dropout)
        self.b = Branch(bands[1], steps[1], width, kernel, features, dropout)
        self.aux_a = nn.Linear(features, classes)
        self.aux_b = nn.Linear(features, classes)
        self.head = nn.Linear(2 * features, classes)

    def forward(self, a: Tensor, b: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        a, b = self.a(a), self.b(b)
        features = torch.cat([a, b], dim=1)
        return self.head(features), self.aux_a(a), self.aux_b(b), features
