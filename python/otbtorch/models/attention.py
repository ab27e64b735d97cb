"""A two-date network that normalises and attends over the whole patch.

Its output at a pixel depends on the whole patch: patches must be blended (``hann``), not cropped.
"""

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class GlobalSelfAttention(nn.Module):
    """Multi-head self-attention over all positions (Vaswani et al., NeurIPS 2017).

    The softmax is written out: LibTorch 1.13 has no ``scaled_dot_product_attention``.
    """

    def __init__(self, width: int, heads: int = 2):
        super().__init__()
        self.heads = heads
        self.norm = nn.GroupNorm(4, width)
        self.qkv = nn.Conv2d(width, 3 * width, 1)
        self.out = nn.Conv2d(width, width, 1)

    def forward(self, x: Tensor) -> Tensor:
        batch, width, height, columns = x.shape
        qkv = self.qkv(self.norm(x)).reshape(batch, 3, self.heads, width // self.heads, -1)
        q, k, v = qkv.unbind(1)  # each (B, heads, width / heads, H * W)
        scores = torch.matmul(q.transpose(-2, -1), k) / math.sqrt(q.shape[2])
        mixed = torch.matmul(v, torch.softmax(scores, dim=-1).transpose(-2, -1))
        return x + self.out(mixed.reshape(batch, width, height, columns))


class PatchAttentionCD(nn.Module):
    """``forward(x1, x2)``: two images (B, bands, H, W) to change logits (B, 1, H, W).

    A shared stem at full resolution, strided convolutions down to a grid of stride 4 on which the
    attention runs (memory grows with (H * W / 16)**2), nearest upsampling, a convolutional head.
    H and W are multiples of 4. ``width`` is a multiple of 4.
    """

    stride = 4

    def __init__(self, bands: int, width: int = 16):
        super().__init__()
        self.stem = nn.Sequential(
            nn.Conv2d(bands, width, 3, padding=1), nn.GroupNorm(4, width), nn.GELU()
        )
        self.down = nn.Sequential(
            nn.Conv2d(width, 2 * width, 2, stride=2),
            nn.GELU(),
            nn.Conv2d(2 * width, 2 * width, 2, stride=2),
            nn.GELU(),
        )
        self.attention = GlobalSelfAttention(2 * width)
        self.head = nn.Sequential(
            nn.Conv2d(3 * width, width, 3, padding=1),
            nn.GroupNorm(4, width),
            nn.GELU(),
            nn.Conv2d(width, 1, 1),
        )

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, second = self.stem(x1), self.stem(x2)
        coarse = self.attention((self.down(first) - self.down(second)).abs())
        coarse = F.interpolate(coarse, scale_factor=4.0, mode="nearest")
        return self.head(torch.cat([(first - second).abs(), coarse], dim=1))
