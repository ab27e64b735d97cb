"""Two small generative networks of pairs of dates: a conditional flow and a masked autoencoder.

Both are the same U-Net: pixels are folded two by two into channels, and two average poolings
follow, so that it works at strides 2, 4 and 8. It has no normalisation layer: what comes out at a
pixel depends on a window around it and on nothing else (the halo of the contract), and is a
differentiable function of it. Nothing in it is random.
"""

import math
from typing import List, Optional

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class Block(nn.Module):
    """Residual block of two 3 x 3 convolutions; an embedding scales and shifts what is between."""

    def __init__(self, inputs: int, outputs: int, embedding: int):
        super().__init__()
        self.first = nn.Conv2d(inputs, outputs, 3, padding=1)
        self.second = nn.Conv2d(outputs, outputs, 3, padding=1)
        self.skip = nn.Conv2d(inputs, outputs, 1)
        self.film = nn.Linear(embedding, 2 * outputs) if embedding > 0 else None
        nn.init.zeros_(self.second.weight)
        nn.init.zeros_(self.second.bias)

    def forward(self, x: Tensor, embedding: Optional[Tensor]) -> Tensor:
        y = self.first(F.silu(x))
        if self.film is not None:
            assert embedding is not None
            terms = self.film(embedding)[:, :, None, None]
            scale, shift = terms.chunk(2, dim=1)
            y = y * (1.0 + scale) + shift
        return self.skip(x) + self.second(F.silu(y))


class FoldedUNet(nn.Module):
    """(N, inputs, H / 2, W / 2), folded, to (N, outputs, H, W); H and W are multiples of 8."""

    def __init__(self, inputs: int, outputs: int, widths: List[int], embedding: int):
        super().__init__()
        a, b, c = widths
        self.stem = nn.Conv2d(inputs, a, 3, padding=1)
        self.down0 = Block(a, a, embedding)
        self.down1 = Block(a, b, embedding)
        self.middle = Block(b, c, embedding)
        self.up1 = Block(c + b, b, embedding)
        self.up0 = Block(b + a, a, embedding)
        self.head = nn.Conv2d(a, 4 * outputs, 3, padding=1)
        nn.init.zeros_(self.head.weight)
        nn.init.zeros_(self.head.bias)

    def encode(self, x: Tensor, embedding: Optional[Tensor]) -> List[Tensor]:
        """Features at strides 2 and 4: on the way down, and on the way up at stride 4."""
        fine = self.down0(self.stem(x), embedding)
        half = self.down1(F.avg_pool2d(fine, 2), embedding)
        y = self.middle(F.avg_pool2d(half, 2), embedding)
        y = F.interpolate(y, scale_factor=2.0, mode="nearest")
        return [fine, self.up1(torch.cat([y, half], dim=1), embedding)]

    def forward(self, x: Tensor, embedding: Optional[Tensor]) -> Tensor:
        fine, coarse = self.encode(x, embedding)
        y = F.interpolate(coarse, scale_factor=2.0, mode="nearest")
        y = self.up0(torch.cat([y, fine], dim=1), embedding)
        return F.pixel_shuffle(self.head(F.silu(y)), 2)


class PairFlow(nn.Module):
    """Flow matching of one date, given the other one or not.

    ``forward(x, t, condition, flag)``: the velocity x1 - e at x = t x1 + (1 - t) e, where x1 is the
    scaled image (t = 1), e standard Gaussian noise (t = 0), ``condition`` the other date, scaled
    alike, and ``flag`` 1, or 0 where there is none. With s^2 = t^2 + (1 - t)^2 the velocity is

        (2 t - 1) / s^2 x + F(x / s) / s

    of which the first term is the best linear guess where data have unit variance, and F, the
    U-Net, has a target of unit variance at all noise levels. The network is told the log-SNR,
    2 ln(t / (1 - t)), within +-``range``; inputs of F are limited to +-``limit``, so that a pixel
    unlike all others does not run away.

    ``features(x)``: activations of a clean image at stride 4 on the way up, at log-SNR
    ``features_at`` and without condition, centred and scaled channel by channel.
    """

    def __init__(
        self,
        bands: int = 4,
        widths: Optional[List[int]] = None,
        embedding: int = 48,
        frequencies: int = 8,
        limit: float = 8.0,
        low: float = -7.0,
        high: float = 9.0,
        features_at: float = 4.0,
    ):
        super().__init__()
        widths = widths or [40, 64, 88]
        self.bands, self.limit, self.low, self.high = bands, limit, low, high
        self.features_at = features_at
        self.net = FoldedUNet(8 * bands + 1, bands, widths, embedding)
        self.embed = nn.Sequential(
            nn.Linear(2 * frequencies + 2, embedding),
            nn.SiLU(),
            nn.Linear(embedding, embedding),
            nn.SiLU(),
        )
        rates = math.pi / 16.0 * torch.arange(1, frequencies + 1, dtype=torch.float32)
        self.register_buffer("rates", rates)
        self.register_buffer("centre", torch.zeros(1, widths[1], 1, 1))
        self.register_buffer("spread", torch.ones(1, widths[1], 1, 1))

    def fold(self, x: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
        """What the U-Net takes of the images: both limited and folded, and the flag."""
        told = flag.reshape(-1, 1, 1, 1).to(x.dtype)
        x = F.pixel_unshuffle(x.clamp(-self.limit, self.limit), 2)
        other = F.pixel_unshuffle(condition.clamp(-self.limit, self.limit), 2) * told
        plane = torch.ones_like(x[:, :1]) * told
        return torch.cat([x, other, plane], dim=1)

    def embedding(self, logsnr: Tensor, flag: Tensor) -> Tensor:
        """What the blocks are told of noise level and flag."""
        level = logsnr.clamp(self.low, self.high)[:, None]
        phase = level * self.rates[None, :]
        told = flag[:, None].to(level.dtype)
        return self.embed(torch.cat([phase.cos(), phase.sin(), level / 8.0, told], dim=1))

    def forward(self, x: Tensor, t: Tensor, condition: Tensor, flag: Tensor) -> Tensor:
        within = t.clamp(1e-4, 1.0 - 1e-4)
        logsnr = 2.0 * torch.log(within / (1.0 - within))
        time = t[:, None, None, None]
        square = time * time + (1.0 - time) * (1.0 - time)
        scale = torch.sqrt(square)
        out = self.net(self.fold(x / scale, condition, flag), self.embedding(logsnr, flag))
        return (2.0 * time - 1.0) / square * x + out / scale

    @torch.jit.export
    def features(self, x: Tensor) -> Tensor:
        none = torch.zeros_like(x[:, 0, 0, 0])
        t = 1.0 / (1.0 + math.exp(-0.5 * self.features_at))
        scale = math.sqrt(t * t + (1.0 - t) * (1.0 - t))
        folded = self.fold(x * (t / scale), torch.zeros_like(x), none)
        found = self.net.encode(folded, self.embedding(none + self.features_at, none))[1]
        return (found - self.centre) / self.spread


class PairMasked(nn.Module):
    """Masked autoencoder of one date, given the other one.

    ``forward(x, mask, condition)``: the image, from its visible tokens (``mask`` 0) and from the
    other date. What x holds in hidden tokens (``mask`` 1) is not looked at. The U-Net adds to the
    visible pixels and, where there are none, to the other date.
    """

    def __init__(self, bands: int = 4, widths: Optional[List[int]] = None, limit: float = 8.0):
        super().__init__()
        self.limit = limit
        self.net = FoldedUNet(8 * bands + 4, bands, widths or [32, 48, 72], 0)

    def forward(self, x: Tensor, mask: Tensor, condition: Tensor) -> Tensor:
        x = (x * (1.0 - mask)).clamp(-self.limit, self.limit)
        condition = condition.clamp(-self.limit, self.limit)
        folded = F.pixel_unshuffle(torch.cat([x, condition, mask], dim=1), 2)
        return x + mask * condition + self.net(folded, None)
