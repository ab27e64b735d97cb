"""The three fully convolutional networks for change detection of Daudt et al. (2018).

R. Caye Daudt, B. Le Saux, A. Boulch, "Fully convolutional siamese networks for change detection",
ICIP 2018 (arXiv:1810.08462), written from the paper: four levels of 16, 32, 64 and 128 channels,
two or three convolutions each with batch normalisation, ReLU and dropout, max pooling, transposed
convolutions upwards. FCEF stacks the dates before the first convolution; the Siamese ones share the
encoder and join its features on the skip connections: FCSiamConc both, FCSiamDiff their absolute
difference.

All are ``forward(x1, x2)``: two images (N, bands, H, W) to logits (N, 2, H, W) of no change and
change; H and W are multiples of 16 (images of other sizes are padded by whoever calls).
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn

WIDTHS = (16, 32, 64, 128)
#: H and W are multiples of this.
STRIDE = 16


def _layer(inputs: int, outputs: int, dropout: float, transposed: bool) -> nn.Sequential:
    convolution = nn.ConvTranspose2d if transposed else nn.Conv2d
    return nn.Sequential(
        convolution(inputs, outputs, 3, padding=1),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Dropout2d(dropout),
    )


class _Encoder(nn.Module):
    """Features of the four levels, each before its pooling, and what is left after the last."""

    def __init__(self, bands: int, dropout: float):
        super().__init__()
        blocks = []
        for inputs, outputs, depth in zip((bands,) + WIDTHS, WIDTHS, (2, 2, 3, 3)):
            layers = [_layer(inputs, outputs, dropout, False)]
            layers += [_layer(outputs, outputs, dropout, False) for _ in range(depth - 1)]
            blocks.append(nn.Sequential(*layers))
        self.blocks = nn.ModuleList(blocks)
        self.pool = nn.MaxPool2d(2)

    def forward(self, x: Tensor) -> Tuple[List[Tensor], Tensor]:
        features: List[Tensor] = []
        for block in self.blocks:
            x = block(x)
            features.append(x)
            x = self.pool(x)
        return features, x


class _Decoder(nn.Module):
    """From the deepest features and four skips (``copies`` times as wide as a level) to logits."""

    def __init__(self, copies: int, dropout: float):
        super().__init__()
        ups, blocks = [], []
        for level in (3, 2, 1, 0):
            width = WIDTHS[level]
            out = WIDTHS[max(level - 1, 0)]
            ups.append(nn.ConvTranspose2d(width, width, 3, padding=1, stride=2, output_padding=1))
            inner = [width] if level < 2 else [width, width]
            layers, inputs = [], width * (1 + copies)
            for outputs in inner + ([out] if level > 0 else []):
                layers.append(_layer(inputs, outputs, dropout, True))
                inputs = outputs
            blocks.append(nn.Sequential(*layers))
        self.ups = nn.ModuleList(ups)
        self.blocks = nn.ModuleList(blocks)
        self.head = nn.ConvTranspose2d(WIDTHS[0], 2, 3, padding=1)

    def forward(self, skips: List[Tensor], x: Tensor) -> Tensor:
        level = len(skips) - 1
        for up, block in zip(self.ups, self.blocks):
            x = block(torch.cat([up(x), skips[level]], dim=1))
            level -= 1
        return self.head(x)


class FCEF(nn.Module):
    """Early fusion."""

    def __init__(self, bands: int, dropout: float = 0.2):
        super().__init__()
        self.encoder = _Encoder(2 * bands, dropout)
        self.decoder = _Decoder(1, dropout)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        features, x = self.encoder(torch.cat([x1, x2], dim=1))
        return self.decoder(features, x)


class FCSiamConc(nn.Module):
    """Siamese, both dates' features on the skip connections."""

    def __init__(self, bands: int, dropout: float = 0.2):
        super().__init__()
        self.encoder = _Encoder(bands, dropout)
        self.decoder = _Decoder(2, dropout)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, _ = self.encoder(x1)
        second, x = self.encoder(x2)
        return self.decoder([torch.cat([a, b], dim=1) for a, b in zip(first, second)], x)


class FCSiamDiff(nn.Module):
    """Siamese, the absolute difference of the dates' features on the skip connections."""

    def __init__(self, bands: int, dropout: float = 0.2):
        super().__init__()
        self.encoder = _Encoder(bands, dropout)
        self.decoder = _Decoder(1, dropout)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, _ = self.encoder(x1)
        second, x = self.encoder(x2)
        return self.decoder([(a - b).abs() for a, b in zip(first, second)], x)
