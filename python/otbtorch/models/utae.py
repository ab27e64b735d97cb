"""A U-Net with temporal attention, over series of patches.

V. Sainte Fare Garnot, L. Landrieu, "Panoptic segmentation of satellite image time series with
convolutional temporal attention networks", ICCV 2021 (U-TAE), made smaller. Each date is normalised
by itself before the attention, so that padded dates change nothing.
"""

from typing import List, Sequence

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .temporal import LightAttention

GROUPS = 4  # of the group normalisation of the encoder


def encoder_block(inputs: int, outputs: int, stride: int) -> nn.Sequential:
    first = nn.Conv2d(inputs, outputs, 3, padding=1)
    if stride == 2:
        first = nn.Conv2d(inputs, outputs, 4, stride=2, padding=1)
    return nn.Sequential(
        first,
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        nn.GroupNorm(GROUPS, outputs),
        nn.ReLU(),
    )


def collapse(features: Tensor, attention: Tensor) -> Tensor:
    """Mean over time weighted by attention: each head weighs its share of the channels.

    ``features`` (B, T, C, H, W), ``attention`` (B, heads, T, h, w), upsampled to H, W.
    """
    batch, steps, channels, height, width = features.shape
    heads = attention.shape[1]
    masks = F.interpolate(
        attention.flatten(1, 2), size=[height, width], mode="bilinear", align_corners=False
    ).reshape(batch, heads, steps, 1, height, width)
    grouped = features.reshape(batch, steps, heads, channels // heads, height, width)
    mean = (grouped.transpose(1, 2) * masks).sum(dim=2)
    return mean.reshape(batch, channels, height, width)


class DecoderBlock(nn.Module):
    """Twice as large, joined with the skip."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.up = nn.Sequential(
            nn.ConvTranspose2d(inputs, outputs, 4, stride=2, padding=1),
            nn.BatchNorm2d(outputs),
            nn.ReLU(),
        )
        self.join = nn.Sequential(
            nn.Conv2d(2 * outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )
        self.refine = nn.Sequential(
            nn.Conv2d(outputs, outputs, 3, padding=1), nn.BatchNorm2d(outputs), nn.ReLU()
        )

    def forward(self, x: Tensor, skip: Tensor) -> Tensor:
        x = self.join(torch.cat([self.up(x), skip], dim=1))
        return x + self.refine(x)


class UTAE(nn.Module):
    """``forward(x, batch_positions)``: logits (B, classes, H, W).

    ``x`` (B, T, bands, H, W), scaled, T free, H and W multiples of 2**(number of widths - 1);
    ``batch_positions`` (B, T), days since 2018-09-01, float or integer. A date is padding where its
    whole frame, all bands, equals ``pad_value``. Widths are multiples of ``heads`` and of 4. The
    encoder normalises over the whole patch: blend patches (``hann``).
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        widths: Sequence[int] = (32, 32, 32, 48),
        heads: int = 16,
        d_model: int = 128,
        d_k: int = 4,
        pad_value: float = 0.0,
    ):
        super().__init__()
        if any(w % heads or w % GROUPS for w in widths):
            raise ValueError(f"widths {tuple(widths)}: not multiples of {heads} and {GROUPS}")
        self.pad_value = float(pad_value)
        inputs = [bands] + list(widths)
        self.encoder = nn.ModuleList(
            encoder_block(a, b, 1 if i == 0 else 2)
            for i, (a, b) in enumerate(zip(inputs, inputs[1:]))
        )
        self.attention = LightAttention(widths[-1], heads, d_model, d_k)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, widths[-1]), nn.LayerNorm(widths[-1]), nn.ReLU()
        )
        self.decoder = nn.ModuleList(
            DecoderBlock(a, b) for a, b in zip(widths[:0:-1], widths[-2::-1])
        )
        self.head = nn.Conv2d(widths[0], classes, 1)

    def forward(self, x: Tensor, batch_positions: Tensor) -> Tensor:
        batch, steps = x.shape[0], x.shape[1]
        valid = (x == self.pad_value).flatten(2).all(dim=2).logical_not()

        frames = x.flatten(0, 1)
        features: List[Tensor] = []
        for block in self.encoder:
            frames = block(frames)
            features.append(frames.reshape(batch, steps, -1, frames.shape[2], frames.shape[3]))

        coarse = features[-1]  # to series, one a position
        height, width = coarse.shape[3], coarse.shape[4]
        count = height * width
        mixed, weights = self.attention(
            coarse.permute(0, 3, 4, 1, 2).reshape(batch * count, steps, coarse.shape[2]),
            batch_positions.repeat_interleave(count, dim=0),
            valid.repeat_interleave(count, dim=0),
        )
        out = self.mlp(mixed).reshape(batch, height, width, -1).permute(0, 3, 1, 2)
        attention = weights.reshape(batch, height, width, -1, steps).permute(0, 3, 4, 1, 2)

        for i, block in enumerate(self.decoder):
            out = block(out, collapse(features[len(features) - 2 - i], attention))
        return self.head(out)
