"""Small U-Net that scores one direction of a pair, given the pair's own regression.

The pair is first standardised and regressed by itself, with no model file: each date is predicted
from the other one (see ``otbtorch.recipes.train_change``). The network then sees, for one
direction, what is there, what was to be expected, and from what:

=================  ================================================
channels           content (standardised bands)
=================  ================================================
0 to C             target: the date that is scored
C to 2C            the target as predicted from the other date
2C to 3C           source: the other date
3C to 4C           residual: target minus prediction
=================  ================================================

It works on a grid of half the resolution, as the changes sought are larger than a pixel and as the
score is smoothed anyway: that makes it four times as fast.
"""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


def _block(inputs: int, outputs: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
        nn.Conv2d(outputs, outputs, 3, padding=1, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(inplace=True),
    )


class ChangeRatio(nn.Module):
    """``forward(x)``: (N, 4 * bands, H, W) to change logits (N, 1, H, W).

    H and W are multiples of ``2 ** (depth + 1)``; with a depth of 2, an output pixel sees 48 pixels
    in each direction. Inputs are clamped to +-``limit``, so that a saturated pixel of a scene
    unlike those of the training does not run away.
    """

    def __init__(self, bands: int = 4, width: int = 32, depth: int = 2, limit: float = 6.0):
        super().__init__()
        self.limit = limit
        widths = [width * 2**i for i in range(depth + 1)]
        self.fold = nn.PixelUnshuffle(2)
        self.encoder = nn.ModuleList(
            _block(a, b) for a, b in zip([16 * bands] + widths, widths))
        self.decoder = nn.ModuleList(
            _block(widths[i + 1] + widths[i], widths[i]) for i in reversed(range(depth)))
        self.head = nn.Conv2d(width, 1, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = self.fold(x.clamp(-self.limit, self.limit))
        features = []
        for i, block in enumerate(self.encoder):
            if i > 0:
                x = F.max_pool2d(x, 2)
            x = block(x)
            features.append(x)
        for i, block in enumerate(self.decoder):
            x = F.interpolate(x, scale_factor=2.0, mode="nearest")
            x = block(torch.cat([x, features[len(features) - 2 - i]], dim=1))
        return F.interpolate(self.head(x), scale_factor=2.0, mode="bilinear", align_corners=False)
