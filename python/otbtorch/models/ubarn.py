"""A small U-Net at each date, then a transformer over time at each pixel.

I. Dumeur, S. Valero, J. Inglada, "Self-supervised spatio-temporal representation learning of
satellite image time series", IEEE JSTARS 17, 2024 (U-BARN), made smaller. Normalisations look at
the channels of one pixel only: the output at a pixel depends on what lies within
``receptive_radius(depth)`` (of :mod:`~otbtorch.models.unet`) and patches may be cropped.
"""

import math
from typing import List, Tuple

import torch
from torch import Tensor, nn

from .temporal import TransformerBlock, masked_softmax, sinusoid


class ChannelNorm(nn.Module):
    """Layer normalisation of (B, C, H, W) over its channels, pixel by pixel."""

    def __init__(self, channels: int):
        super().__init__()
        self.norm = nn.LayerNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


def conv_block(inputs: int, outputs: int) -> nn.Sequential:
    """Two 3 x 3 convolutions: radius 2."""
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1),
        ChannelNorm(outputs),
        nn.ReLU(),
        nn.Conv2d(outputs, outputs, 3, padding=1),
        ChannelNorm(outputs),
        nn.ReLU(),
    )


class SpatialEncoder(nn.Module):
    """U-Net of one date: (B, bands, H, W) to (B, outputs, H, W)."""

    def __init__(self, bands: int, outputs: int, width: int, depth: int):
        super().__init__()
        widths = [width * 2**i for i in range(depth + 1)]
        self.down = nn.ModuleList(conv_block(a, b) for a, b in zip([bands] + widths, widths))
        self.up = nn.ModuleList(
            conv_block(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(depth))
        )
        self.pool = nn.MaxPool2d(2)
        self.enlarge = nn.Upsample(scale_factor=2.0, mode="nearest")
        self.head = nn.Conv2d(width, outputs, 1)

    def forward(self, x: Tensor) -> Tensor:
        features: List[Tensor] = []
        for i, block in enumerate(self.down):
            if i > 0:
                x = self.pool(x)
            x = block(x)
            features.append(x)
        for i, block in enumerate(self.up):
            x = block(torch.cat([self.enlarge(x), features[len(features) - 2 - i]], dim=1))
        return self.head(x)


class UBARN(nn.Module):
    """``forward(x, doy, valid)``: logits (B, classes, H, W), embedding (B, d_model, H, W).

    ``x`` (B, T, bands, H, W), scaled, T free, H and W multiples of 2**``depth``; ``doy`` (B, T),
    day of the year, float or integer; ``valid`` (B, T), 1 = valid. Dates that are not valid,
    padding included, change nothing, whatever they hold. The transformer gives d_model features a
    date; a learned query (one a head) then takes the mean over time that it attends to.

    The attention takes 8 * B * H * W * heads * T**2 bytes: 64 x 64 patches of 40 dates, 210 MB.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        d_model: int = 64,
        hidden: int = 128,
        layers: int = 3,
        heads: int = 4,
        width: int = 16,
        depth: int = 2,
    ):
        super().__init__()
        if d_model % (2 * heads):
            raise ValueError(f"d_model {d_model} is not a multiple of twice heads {heads}")
        self.d_model = d_model
        self.heads = heads
        self.spatial = SpatialEncoder(bands, d_model, width, depth)
        self.blocks = nn.ModuleList(TransformerBlock(d_model, heads, hidden) for _ in range(layers))
        self.norm = nn.LayerNorm(d_model)
        self.key = nn.Linear(d_model, d_model)
        self.query = nn.Parameter(torch.randn(heads, d_model // heads))
        self.head = nn.Linear(d_model, classes)

    def forward(self, x: Tensor, doy: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
        batch, steps, _, height, width = x.shape
        keep = valid != 0
        drop = keep.logical_not()
        x = x.masked_fill(drop.unsqueeze(2).unsqueeze(3).unsqueeze(4), 0.0)
        frames = self.spatial(x.flatten(0, 1)).reshape(batch, steps, -1, height, width)
        when = sinusoid(doy.to(x.dtype).masked_fill(drop, 0.0), self.d_model)

        series = frames.permute(0, 3, 4, 1, 2).flatten(1, 2) + when.unsqueeze(1)
        series = series.flatten(0, 1)  # (B * H * W, T, d_model)
        keep = keep.repeat_interleave(height * width, dim=0)
        for block in self.blocks:
            series = block(series, keep)
        series = self.norm(series)

        share = self.d_model // self.heads
        keys = self.key(series).reshape(-1, steps, self.heads, share)
        scores = torch.einsum("nthd,hd->nht", keys, self.query) / math.sqrt(share)
        weights = masked_softmax(scores, keep.unsqueeze(1)).unsqueeze(2)  # (N, heads, 1, T)
        values = series.reshape(-1, steps, self.heads, share).transpose(1, 2)
        embedding = torch.matmul(weights, values).reshape(batch, height, width, self.d_model)
        return self.head(embedding).permute(0, 3, 1, 2), embedding.permute(0, 3, 1, 2)
