"""Temporal convolutions on the series of one pixel.

C. Pelletier, G. I. Webb, F. Petitjean, "Temporal convolutional neural network for the
classification of satellite image time series", Remote Sensing 11(5):523, 2019.
"""

from torch import Tensor, nn


class TempCNN(nn.Module):
    """``forward(x)``: series (B, steps, bands) to logits (B, classes).

    Three convolutions over time, a dense layer, a linear one. The number of steps is fixed, the
    network knows nothing of dates or clouds: feed it gap-filled series on a regular grid
    (``gapfill`` ``linear`` or ``grid``), each band brought to about 0..1, min-max between its 2nd
    and 98th percentile over all dates. ``kernel`` is odd.
    """

    def __init__(
        self,
        bands: int,
        steps: int,
        classes: int,
        width: int = 64,
        kernel: int = 5,
        dense: int = 256,
        dropout: float = 0.18,
    ):
        super().__init__()
        if kernel % 2 == 0:
            raise ValueError(f"kernel must be odd, not {kernel}")
        layers = []
        for inputs in (bands, width, width):
            layers += [
                nn.Conv1d(inputs, width, kernel, padding=kernel // 2),
                nn.BatchNorm1d(width),
                nn.ReLU(),
                nn.Dropout(dropout),
            ]
        self.convolutions = nn.Sequential(*layers)
        self.dense = nn.Sequential(
            nn.Flatten(),
            nn.Linear(width * steps, dense),
            nn.BatchNorm1d(dense),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.head = nn.Linear(dense, classes)

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.dense(self.convolutions(x.transpose(1, 2))))
