"""Siamese U-Net with differences on the skip connections.

The architecture is FC-Siam-diff of R. Caye Daudt, B. Le Saux, A. Boulch, "Fully convolutional
siamese networks for change detection", ICIP 2018, made smaller. Two things differ: the width and
the depth are free, and upsampling is nearest-neighbour followed by convolutions, so that the
network commutes exactly with shifts by multiples of 2**depth (away from the borders).
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions with batch normalisation and ReLU: radius 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


def receptive_radius(depth: int) -> int:
    """Largest Chebyshev distance, in pixels, between an output pixel and an input pixel it sees.

    Follows the interval that one output pixel sees through the decoder, the bottleneck and the
    encoder, for each position of the pixel modulo 2**depth.
    """
    radius = 0
    for position in range(2**depth):
        low, high = position, position
        for _ in range(depth):  # decoder block, then nearest upsampling
            low, high = (low - 2) // 2, (high + 2) // 2
        low, high = low - 2, high + 2  # bottleneck
        for _ in range(depth):  # max pooling, then encoder block
            low, high = 2 * low - 2, 2 * high + 1 + 2
        radius = max(radius, position - low, high - position)
    return radius


class Encoder(nn.Module):
    """Features at strides 1, 2, ..., 2**depth."""

    def __init__(self, bands: int, width: int, depth: int):
        super().__init__()
        widths = [bands] + [width * 2**i for i in range(depth + 1)]
        self.blocks = nn.ModuleList(conv_block(a, b) for a, b in zip(widths, widths[1:]))
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> List[Tensor]:
        features: List[Tensor] = []
        for i, block in enumerate(self.blocks):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            features.append(x)
        return features


class Decoder(nn.Module):
    """From the features of an encoder back to full resolution; ``channels`` outputs."""

    def __init__(self, width: int, depth: int, channels: int):
        super().__init__()
        self.blocks = nn.ModuleList(
            conv_block(width * 2 ** (i + 1) + width * 2**i, width * 2**i)
            for i in reversed(range(depth))
        )
        self.up = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.head = nn.Conv2d(width, channels, 1)

    def forward(self, features: List[Tensor]) -> Tensor:
        x = features[-1]
        for i, block in enumerate(self.blocks):
            x = block(torch.cat([self.up(x), features[len(features) - 2 - i]], dim=1))
        return self.head(x)


class SiameseUNet(nn.Module):
    """``forward(x1, x2)``: two images (B, bands, H, W) to change logits (B, channels, H, W).

    H and W are multiples of 2**depth (RuntimeError otherwise). Swapping the dates does not change
    the output.
    """

    def __init__(self, bands: int, width: int = 16, depth: int = 3, channels: int = 1):
        super().__init__()
        self.encoder = Encoder(bands, width, depth)
        self.decoder = Decoder(width, depth, channels)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, second = self.encoder(x1), self.encoder(x2)
        return self.decoder([(a - b).abs() for a, b in zip(first, second)])


class SiameseUNetSemantic(nn.Module):
    """The same with one land-cover decoder, shared by the two dates.

    ``forward(x1, x2)`` returns change logits (B, 1, H, W) and the logits of ``classes`` classes at
    each date, (B, classes, H, W) twice.
    """

    def __init__(self, bands: int, classes: int, width: int = 16, depth: int = 3):
        super().__init__()
        self.encoder = Encoder(bands, width, depth)
        self.change = Decoder(width, depth, 1)
        self.semantic = Decoder(width, depth, classes)

    def forward(self, x1: Tensor, x2: Tensor) -> Tuple[Tensor, Tensor, Tensor]:
        first, second = self.encoder(x1), self.encoder(x2)
        change = self.change([(a - b).abs() for a, b in zip(first, second)])
        return change, self.semantic(first), self.semantic(second)
