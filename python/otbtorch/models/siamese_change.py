"""Built-up change between two dates of Sentinel-2: a U-Net, a regression and land cover.

The score is a sum of three terms:

* the *regression score* ``s``, which needs no training: how badly each date is predicted from the
  other one, over the scene;
* the *density ratio*: the logit of a ``ChangeRatio`` that sees target, prediction, source and
  residual, with the same weights for both directions, averaged and smoothed;
* *land cover*, in fixed units: what is green at both dates (fields, forests, lawns) or blue at both
  dates (water, shadow) is less likely to have been built upon. Each date is smoothed, and the lower
  index of the two counts.

Swapping the dates gives the same result, but for rounding.
"""

from typing import List

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def normalised_difference(a: Tensor, b: Tensor) -> Tensor:
    """(a - b) / (a + b) of reflectances, in [-1, 1]; 0 where both are 0."""
    return ((a - b) / (a + b).clamp(min=1e-3)).clamp(-1.0, 1.0)


class Blur(nn.Module):
    """Gaussian of one channel, cut at 3 sigma (at ``radius`` pixels), reflected at the borders."""

    def __init__(self, sigma: float):
        super().__init__()
        self.radius = int(3 * sigma + 0.5)
        at = torch.arange(-self.radius, self.radius + 1, dtype=torch.float64)
        weights = torch.exp(-0.5 * (at / sigma) ** 2)
        self.register_buffer("weights", (weights / weights.sum()).float())

    def forward(self, x: Tensor) -> Tensor:
        r = self.radius
        x = F.pad(x, [r, r, r, r], mode="reflect")
        x = F.conv2d(x, self.weights.view(1, 1, 1, -1))
        return F.conv2d(x, self.weights.view(1, 1, -1, 1))


class SiameseChange(nn.Module):
    """``forward(x1, x2, r2, r1, s)``: change logits (N, 1, H, W); H and W are multiples of 8.

    ``x1``, ``x2`` (N, 4, H, W): blue, green, red and near infrared of each date, reflectance (0 to
    1). ``r2``, ``r1`` (N, 16, H, W): target, prediction, source and residual, with date 2 and with
    date 1 as the target. ``s`` (N, 1, H, W): the regression score, of mean 0 and deviation 1.

    ``ratio``: a ``ChangeRatio``. ``weights``: of the ratio, of green and of blue. ``moments``: mean
    and deviation of the smoothed logit of the ratio over a scene. ``zero``: the score of
    probability 0.5; ``deviation``: that of the score over a scene, one unit of the logits.
    """

    def __init__(self, ratio: nn.Module, weights: List[float], moments: List[float], zero: float,
                 deviation: float, sigma: float = 2.5):
        super().__init__()
        self.ratio = ratio
        self.blur = Blur(sigma)
        self.factor = float(weights[0]) / float(moments[1])
        self.level = float(moments[0])
        self.green = float(weights[1])
        self.blue = float(weights[2])
        self.zero = float(zero)
        self.deviation = float(deviation)

    def cover(self, x1: Tensor, x2: Tensor) -> Tensor:
        """How unlikely it is, by land cover, that something was built: (N, 1, H, W)."""
        # Channels: blue 0, red 2, near infrared 3.
        green1 = self.blur(normalised_difference(x1[:, 3:4], x1[:, 2:3]))
        green2 = self.blur(normalised_difference(x2[:, 3:4], x2[:, 2:3]))
        blue1 = self.blur(normalised_difference(x1[:, 0:1], x1[:, 2:3]))
        blue2 = self.blur(normalised_difference(x2[:, 0:1], x2[:, 2:3]))
        return (self.green * torch.minimum(green1, green2)
                + self.blue * torch.minimum(blue1, blue2))

    def score(self, x1: Tensor, x2: Tensor, r2: Tensor, r1: Tensor, s: Tensor) -> Tensor:
        """The sum of the three terms: (N, 1, H, W)."""
        logit = self.blur(0.5 * (self.ratio(r2) + self.ratio(r1)))
        return s + self.factor * (logit - self.level) - self.cover(x1, x2)

    def forward(self, x1: Tensor, x2: Tensor, r2: Tensor, r1: Tensor, s: Tensor) -> Tensor:
        return (self.score(x1, x2, r2, r1, s) - self.zero) / self.deviation
