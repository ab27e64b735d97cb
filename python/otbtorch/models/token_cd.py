"""Change detection by semantic tokens and a transformer decoder.

The idea is that of H. Chen, Z. Qi, Z. Shi, "Remote sensing image change detection with
transformers" (BIT), IEEE TGRS 2021 (arXiv:2103.00208): each date is summed up in a few tokens, a
transformer encoder lets the tokens of both dates speak with each other, a transformer decoder
writes what they know back into the pixels of each date, and the change head looks at the absolute
difference. Made smaller, and written from the paper: a stem of two strided residual blocks stands
where a ResNet-18 does.

A token sees the whole patch: patches are to be blended (``hann``), not cropped.
"""

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class _Residual(nn.Module):
    def __init__(self, inputs: int, outputs: int, stride: int):
        super().__init__()
        self.body = nn.Sequential(
            nn.Conv2d(inputs, outputs, 3, stride=stride, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
            nn.ReLU(inplace=True),
            nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
            nn.BatchNorm2d(outputs),
        )
        self.short = nn.Conv2d(inputs, outputs, 1, stride=stride, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        return torch.relu(self.body(x) + self.short(x))


class _Attention(nn.Module):
    """Multi-head attention of queries (N, Q, width) to a memory (N, M, width), written out: what
    a sample gives must not depend on the others in its batch."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.heads = heads
        self.query = nn.Linear(width, width, bias=False)
        self.key = nn.Linear(width, width, bias=False)
        self.value = nn.Linear(width, width, bias=False)
        self.out = nn.Linear(width, width)

    def split(self, x: Tensor) -> Tensor:
        n, count, width = x.shape
        return x.reshape(n, count, self.heads, width // self.heads).transpose(1, 2)

    def forward(self, queries: Tensor, memory: Tensor) -> Tensor:
        q = self.split(self.query(queries))
        k, v = self.split(self.key(memory)), self.split(self.value(memory))
        weights = torch.softmax(torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1]), -1)
        mixed = torch.matmul(weights, v).transpose(1, 2)
        return self.out(mixed.reshape(queries.shape))


class _Layer(nn.Module):
    """Pre-norm attention to the tokens and a perceptron, both residual."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.attention = _Attention(width, heads)
        self.mlp = nn.Sequential(
            nn.LayerNorm(width), nn.Linear(width, 2 * width), nn.GELU(), nn.Linear(2 * width, width)
        )

    def forward(self, x: Tensor, tokens: Tensor, own: bool) -> Tensor:
        normed = self.norm(x)
        x = x + self.attention(normed, normed if own else tokens)
        return x + self.mlp(x)


class TokenCD(nn.Module):
    """``forward(x1, x2)``: two images (N, bands, H, W) to logits (N, 2, H, W) of no change and
    change. H and W are multiples of 4; trained and run with patches of about the same size."""

    stride = 4

    def __init__(self, bands: int, width: int = 32, tokens: int = 4, heads: int = 4, depth: int = 2):
        super().__init__()
        self.stem = nn.Sequential(_Residual(bands, width // 2, 2), _Residual(width // 2, width, 2))
        self.tokens = nn.Conv2d(width, tokens, 1)
        self.positions = nn.Parameter(0.02 * torch.randn(1, 2 * tokens, width))
        self.encoder = _Layer(width, heads)
        self.decoder = nn.ModuleList(_Layer(width, heads) for _ in range(depth))
        self.head = nn.Sequential(
            nn.Conv2d(width, width, 3, padding=1, bias=False),
            nn.BatchNorm2d(width),
            nn.ReLU(inplace=True),
            nn.Conv2d(width, 2, 3, padding=1),
        )

    def summed_up(self, features: Tensor) -> Tensor:
        """Spatial attention: (N, width, h, w) to tokens (N, tokens, width)."""
        weights = torch.softmax(self.tokens(features).flatten(2), -1)
        return torch.matmul(weights, features.flatten(2).transpose(1, 2))

    def refined(self, features: Tensor, tokens: Tensor) -> Tensor:
        n, width, height, columns = features.shape
        x = features.flatten(2).transpose(1, 2)
        for layer in self.decoder:
            x = layer(x, tokens, False)
        return x.transpose(1, 2).reshape(n, width, height, columns)

    def forward(self, x1: Tensor, x2: Tensor) -> Tensor:
        first, second = self.stem(x1), self.stem(x2)
        tokens = torch.cat([self.summed_up(first), self.summed_up(second)], 1) + self.positions
        tokens = self.encoder(tokens, tokens, True)
        count = tokens.shape[1] // 2
        difference = self.refined(first, tokens[:, :count]) - self.refined(second, tokens[:, count:])
        x = F.interpolate(difference.abs(), scale_factor=4.0, mode="bilinear", align_corners=False)
        return self.head(x)
