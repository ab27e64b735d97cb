"""A transformer over the monthly series of one pixel, of several sensors, any of them absent.

G. Tseng, R. Cartuyvels, I. Zvonkov, M. Purohit, D. Rolnick, H. Kerner, "Lightweight, pre-trained
transformers for remote sensing timeseries", arXiv:2304.14065 (Presto). The encoder's parameters
bear the names and the shapes of the published ones, so that ``load_state_dict(weights,
strict=False)`` takes them over. Two things differ: tokens that are masked are left out by the
attention, not taken out of the sequence, so that samples with different masks share a batch; and
Dynamic World labels are taken as missing throughout.
"""

import math
from typing import List, Tuple

import torch
from torch import Tensor, nn

from .temporal import TransformerBlock, sinusoid

#: The bands in the order of the channels. NDVI is that of B8 and B4.
PRESTO_BANDS = (
    "VV VH B2 B3 B4 B5 B6 B7 B8 B8A B11 B12 "
    "temperature_2m total_precipitation elevation slope NDVI"
).split()

#: ``value_scaling`` of a contract, one entry a band, from the units that Presto was trained on:
#: backscatter in dB, reflectance x 10000, kelvins, metres of rain, metres, degrees, NDVI.
#: (x + 25) / 25 is the z-score of mean -25 and deviation 25.
PRESTO_SCALING = (
    [{"type": "z-score", "mean": -25.0, "stddev": 25.0}] * 2
    + [{"type": "scale", "value": 10000.0}] * 10
    + [
        {"type": "z-score", "mean": 272.15, "stddev": 35.0},
        {"type": "scale", "value": 0.03},
        {"type": "scale", "value": 2000.0},
        {"type": "scale", "value": 50.0},
        {"type": "scale", "value": 1.0},
    ]
)

#: Bands that share a token: name, first channel, number of channels.
GROUPS = (
    ("S1", 0, 2),
    ("S2_RGB", 2, 3),
    ("S2_Red_Edge", 5, 3),
    ("S2_NIR_10m", 8, 1),
    ("S2_NIR_20m", 9, 1),
    ("S2_SWIR", 10, 2),
    ("ERA5", 12, 2),
    ("SRTM", 14, 2),
    ("NDVI", 16, 1),
)


def month_table(size: int) -> Tensor:
    """(12, size): the sine of each month's angle in the first half, the cosine in the second."""
    angles = (torch.arange(12.0) * (2 * math.pi / 12)).unsqueeze(1).expand(12, size // 2)
    return torch.cat([angles.sin(), angles.cos()], dim=1)


class PrestoEncoder(nn.Module):
    """``forward(x, mask, latlons, month)``, as :class:`Presto`, to the embedding (B, width)."""

    def __init__(self, width: int, depth: int, heads: int, mlp_ratio: int, max_steps: int):
        super().__init__()
        self.max_steps = max_steps
        self.starts = [start for _, start, _ in GROUPS]
        self.sizes = [size for _, _, size in GROUPS]
        self.static = [name for name, _, _ in GROUPS].index("SRTM")
        self.eo_patch_embed = nn.ModuleDict({name: nn.Linear(n, width) for name, _, n in GROUPS})
        self.latlon_embed = nn.Linear(3, width)
        self.blocks = nn.ModuleList(
            TransformerBlock(width, heads, mlp_ratio * width) for _ in range(depth)
        )
        self.norm = nn.LayerNorm(width)
        # What a token is: month (a quarter of the channels), group of bands (a quarter), position.
        quarter = width // 4
        position = sinusoid(torch.arange(float(max_steps)), width - 2 * quarter).unsqueeze(0)
        self.pos_embed = nn.Parameter(position, requires_grad=False)
        self.month_embed = nn.Embedding.from_pretrained(month_table(quarter), freeze=True)
        self.channel_embed = nn.Embedding(len(GROUPS) + 1, quarter)  # the last: Dynamic World
        for module in self.modules():
            if isinstance(module, nn.Linear):
                nn.init.xavier_uniform_(module.weight)
                nn.init.zeros_(module.bias)

    def forward(self, x: Tensor, mask: Tensor, latlons: Tensor, month: Tensor) -> Tensor:
        batch, steps, _ = x.shape
        if steps > self.max_steps:
            raise RuntimeError("at most {} time steps, found {}".format(self.max_steps, steps))
        masked = mask != 0
        x = x.masked_fill(masked, 0.0)

        months = month.to(torch.int64).unsqueeze(1) + torch.arange(steps, device=x.device)
        when = self.month_embed(torch.remainder(months, 12))
        where = self.pos_embed[:, :steps].expand(batch, -1, -1)

        angles = latlons.to(x.dtype) * (math.pi / 180.0)
        cosine = torch.cos(angles[:, 0])
        place = [
            cosine * torch.cos(angles[:, 1]),
            cosine * torch.sin(angles[:, 1]),
            torch.sin(angles[:, 0]),
        ]
        tokens: List[Tensor] = [self.latlon_embed(torch.stack(place, dim=1)).unsqueeze(1)]
        kept: List[Tensor] = [torch.ones([batch, 1], dtype=torch.bool, device=x.device)]
        for group, embed in enumerate(self.eo_patch_embed.values()):
            start, stop = self.starts[group], self.starts[group] + self.sizes[group]
            token = embed(x[:, :, start:stop])
            present = masked[:, :, start:stop].any(dim=2).logical_not()
            kind = self.channel_embed.weight[group].expand(batch, steps, -1)
            if group == self.static:  # one token for all dates, of no month and no position
                about = torch.cat([torch.zeros_like(when), kind, torch.zeros_like(where)], dim=2)
                token, present, about = token[:, :1], present[:, :1], about[:, :1]
            else:
                about = torch.cat([when, kind, where], dim=2)
            tokens.append(token + about)
            kept.append(present)

        sequence, valid = torch.cat(tokens, dim=1), torch.cat(kept, dim=1)
        for block in self.blocks:
            sequence = block(sequence, valid)
        weight = valid.unsqueeze(2).to(sequence.dtype)
        return self.norm((sequence * weight).sum(dim=1) / weight.sum(dim=1))


class Presto(nn.Module):
    """``forward(x, mask, latlons, month)``: logits (B, classes) and embedding (B, width).

    ``x`` (B, T, 17), the bands of :data:`PRESTO_BANDS` scaled by :data:`PRESTO_SCALING`, a step a
    month, T up to ``max_steps``; ``mask`` (B, T, 17), 1 = masked (absent): a group of bands is left
    out at a step where any of its bands is; ``latlons`` (B, 2), latitude and longitude in degrees;
    ``month`` (B), 0..11, month of the first step. Elevation and slope are read at the first step.
    What is masked changes nothing, whatever it holds; all may be masked. Padding goes at the end.
    """

    def __init__(
        self,
        classes: int,
        width: int = 128,
        depth: int = 2,
        heads: int = 8,
        mlp_ratio: int = 2,
        max_steps: int = 24,
    ):
        super().__init__()
        self.encoder = PrestoEncoder(width, depth, heads, mlp_ratio, max_steps)
        self.head = nn.Linear(width, classes)

    def forward(
        self, x: Tensor, mask: Tensor, latlons: Tensor, month: Tensor
    ) -> Tuple[Tensor, Tensor]:
        embedding = self.encoder(x, mask, latlons, month)
        return self.head(embedding), embedding
