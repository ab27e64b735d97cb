"""What the networks of time series share: encodings of dates, attention that leaves steps out.

Attention is written out (``softmax``): LibTorch 1.13 has no ``scaled_dot_product_attention``. A
step left out has a weight of exactly 0: neither its values nor its presence change the result.
"""

import math
from typing import Tuple

import torch
from torch import Tensor, nn


def sinusoid(positions: Tensor, size: int, base: float = 1000.0) -> Tensor:
    """Sines and cosines of ``positions`` (any shape, float): one more axis, of ``size`` (even).

    Channels 2i and 2i + 1 hold the sine and the cosine of positions / base**(2i / size)
    (Vaswani et al., NeurIPS 2017; ``base`` 1000 as in networks of image time series).
    """
    half = torch.arange(size // 2, device=positions.device).to(positions.dtype)
    angles = positions.unsqueeze(-1) * torch.exp(half * (-2.0 * math.log(base) / size))
    return torch.stack([torch.sin(angles), torch.cos(angles)], dim=-1).flatten(-2)


def masked_softmax(scores: Tensor, valid: Tensor) -> Tensor:
    """Softmax over the last axis among ``valid`` (bool, broadcast); 0 where nothing is valid."""
    some = valid.any(dim=-1, keepdim=True)
    left_out = torch.logical_and(valid.logical_not(), some)  # never all: no 0 / 0, forward or back
    weights = torch.softmax(scores.masked_fill(left_out, -float("inf")), dim=-1)
    return weights * valid.to(weights.dtype)


class MaskedSelfAttention(nn.Module):
    """Multi-head self-attention: x (N, S, width), valid (N, S) bool, to (N, S, width)."""

    def __init__(self, width: int, heads: int):
        super().__init__()
        if width % heads:
            raise ValueError(f"width {width} is not a multiple of heads {heads}")
        self.heads = heads
        self.qkv = nn.Linear(width, 3 * width)
        self.proj = nn.Linear(width, width)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        count, steps, width = x.shape
        qkv = self.qkv(x).reshape(count, steps, 3, self.heads, width // self.heads)
        q, k, v = qkv.permute(2, 0, 3, 1, 4).unbind(0)  # each (N, heads, S, width / heads)
        scores = torch.matmul(q, k.transpose(-2, -1)) / math.sqrt(q.shape[-1])
        mixed = torch.matmul(masked_softmax(scores, valid.unsqueeze(1).unsqueeze(1)), v)
        return self.proj(mixed.transpose(1, 2).reshape(count, steps, width))


class Mlp(nn.Module):
    """Two linear layers with a GELU between them."""

    def __init__(self, width: int, hidden: int):
        super().__init__()
        self.fc1 = nn.Linear(width, hidden)
        self.act = nn.GELU()
        self.fc2 = nn.Linear(hidden, width)

    def forward(self, x: Tensor) -> Tensor:
        return self.fc2(self.act(self.fc1(x)))


class TransformerBlock(nn.Module):
    """Pre-norm transformer layer over (N, S, width), steps not ``valid`` (N, S) left out."""

    def __init__(self, width: int, heads: int, hidden: int):
        super().__init__()
        self.norm1 = nn.LayerNorm(width)
        self.attn = MaskedSelfAttention(width, heads)
        self.norm2 = nn.LayerNorm(width)
        self.mlp = Mlp(width, hidden)

    def forward(self, x: Tensor, valid: Tensor) -> Tensor:
        x = x + self.attn(self.norm1(x), valid)
        return x + self.mlp(self.norm2(x))


class LightAttention(nn.Module):
    """Lightweight temporal attention: x (N, T, inputs), dates (N, T), valid (N, T) bool.

    V. Sainte Fare Garnot, L. Landrieu, "Lightweight temporal self-attention for classifying
    satellite images time series", AALTD 2020: one learned query a head, and values that are the
    ``d_model / heads`` channels of the head, not projected. Returns the heads side by side,
    (N, d_model), and the attention, (N, heads, T), 0 at steps left out. Each date is normalised by
    itself (a layer norm), not over time, so that the other dates do not depend on those left out.
    """

    def __init__(self, inputs: int, heads: int, d_model: int, d_k: int, base: float = 1000.0):
        super().__init__()
        if d_model % (2 * heads):
            raise ValueError(f"d_model {d_model} is not a multiple of twice heads {heads}")
        self.heads = heads
        self.d_model = d_model
        self.d_k = d_k
        self.base = base
        self.embed = nn.Linear(inputs, d_model)
        self.norm = nn.LayerNorm(d_model)
        self.query = nn.Parameter(torch.randn(heads, d_k) * math.sqrt(2.0 / d_k))
        self.key = nn.Linear(d_model, heads * d_k)

    def forward(self, x: Tensor, dates: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
        count, steps, _ = x.shape
        size = self.d_model // self.heads
        when = dates.to(x.dtype).masked_fill(valid.logical_not(), 0.0)
        x = x.masked_fill(valid.logical_not().unsqueeze(-1), 0.0)
        x = self.norm(self.embed(x)) + sinusoid(when, size, self.base).repeat(1, 1, self.heads)
        keys = self.key(x).reshape(count, steps, self.heads, self.d_k)
        scores = torch.einsum("nthd,hd->nht", keys, self.query) / math.sqrt(self.d_k)
        weights = masked_softmax(scores, valid.unsqueeze(1))  # (N, heads, T)
        values = x.reshape(count, steps, self.heads, size).transpose(1, 2)
        mixed = torch.matmul(weights.unsqueeze(2), values).squeeze(2)  # (N, heads, size)
        return mixed.reshape(count, self.d_model), weights
