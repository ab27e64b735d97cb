"""Twin streams for radar and optical series, around each pixel.

D. Ienco, R. Interdonato, R. Gaetano, D. Ho Tong Minh, "Combining Sentinel-1 and Sentinel-2
satellite image time series for land cover mapping via a multi-source deep learning architecture",
ISPRS Journal of Photogrammetry and Remote Sensing 158, 2019 (TWINNS). With one stream only the
idea is that of R. Interdonato et al., "DuPLO: a dual view point deep learning architecture for time
series classification", same journal, 149, 2019. Made smaller; widths are free.
"""

from typing import List, Tuple

import torch
from torch import Tensor, nn


class AttentiveConvGRU(nn.Module):
    """Convolutional GRU over (B, T, bands, k, k), attention over its states, mean over the window.

    Returns (B, width).
    """

    def __init__(self, bands: int, width: int):
        super().__init__()
        self.width = width
        self.inputs = nn.Conv2d(bands, 3 * width, 3, padding=1)
        self.gates = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.candidate = nn.Conv2d(width, width, 3, padding=1, bias=False)
        self.attention = nn.Linear(width, width)
        self.score = nn.Linear(width, 1, bias=False)

    def forward(self, x: Tensor) -> Tensor:
        batch, steps, bands, height, columns = x.shape
        drive = self.inputs(x.reshape(batch * steps, bands, height, columns))
        drive = drive.reshape(batch, steps, 3 * self.width, height, columns)
        state = torch.zeros(
            [batch, self.width, height, columns], dtype=drive.dtype, device=drive.device
        )
        states: List[Tensor] = []
        for t in range(steps):
            update, reset = torch.sigmoid(
                drive[:, t, : 2 * self.width] + self.gates(state)
            ).chunk(2, dim=1)
            proposal = torch.tanh(drive[:, t, 2 * self.width :] + self.candidate(reset * state))
            state = update * state + (1.0 - update) * proposal
            states.append(state.mean(dim=[2, 3]))
        over_time = torch.stack(states, dim=1)  # (B, T, width)
        weights = torch.softmax(self.score(torch.tanh(self.attention(over_time))), dim=1)
        return (weights * over_time).sum(dim=1)


class StackCNN(nn.Module):
    """Convolutions over the dates stacked as channels: (B, T, bands, k, k) to (B, 2 * width)."""

    def __init__(self, steps: int, bands: int, width: int):
        super().__init__()
        self.squeeze = block(steps * bands, width, 1)
        self.first = block(width, width, 3)
        self.second = block(width, width, 3)

    def forward(self, x: Tensor) -> Tensor:
        first = self.first(self.squeeze(x.flatten(1, 2)))
        return torch.cat([first, self.second(first)], dim=1).mean(dim=[2, 3])


def block(inputs: int, outputs: int, size: int) -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(inputs, outputs, size, padding=size // 2, bias=False),
        nn.BatchNorm2d(outputs),
        nn.ReLU(),
    )


class Stream(nn.Module):
    """One sensor: what the recurrent branch and the convolutional branch make of it.

    (B, T, bands, k, k) to (B, features), twice.
    """

    def __init__(
        self, steps: int, bands: int, window: int, width: int, features: int, dropout: float
    ):
        super().__init__()
        self.steps = steps
        self.window = window
        self.recurrent = nn.Sequential(
            AttentiveConvGRU(bands, width), nn.Linear(width, features), nn.ReLU()
        )
        self.convolutional = nn.Sequential(
            StackCNN(steps, bands, width), nn.Linear(2 * width, features), nn.ReLU()
        )
        self.dropout = nn.Dropout(dropout)

    def forward(self, x: Tensor) -> Tuple[Tensor, Tensor]:
        if x.shape[1] != self.steps or x.shape[3] != self.window or x.shape[4] != self.window:
            raise RuntimeError(
                "expected a series (B, {}, bands, {}, {}), found {}".format(
                    self.steps, self.window, self.window, x.shape
                )
            )
        return self.dropout(self.recurrent(x)), self.dropout(self.convolutional(x))


class TWINNS(nn.Module):
    """``forward(s1, s2)``: ``(logits, aux_s1, aux_s2, features)``.

    ``s1`` (B, s1_steps, s1_bands, window, window) and ``s2`` (B, s2_steps, s2_bands, window,
    window): a window around each pixel, gap-filled, each band brought to about 0..1 (min-max). The
    numbers of steps are fixed; only their order is known to the network. ``logits``, and those of
    the two auxiliary classifiers (one a sensor, for training), are (B, classes); ``features`` are
    (B, 4 * features): recurrent and convolutional ones of s1, then of s2.
    """

    def __init__(
        self,
        s1_steps: int,
        s2_steps: int,
        s1_bands: int,
        s2_bands: int,
        classes: int,
        window: int = 5,
        width: int = 32,
        features: int = 64,
        dropout: float = 0.4,
    ):
        super().__init__()
        self.s1 = Stream(s1_steps, s1_bands, window, width, features, dropout)
        self.s2 = Stream(s2_steps, s2_bands, window, width, features, dropout)
        self.aux_s1 = nn.Linear(2 * features, classes)
        self.aux_s2 = nn.Linear(2 * features, classes)
        self.head = nn.Linear(4 * features, classes)

    def forward(self, s1: Tensor, s2: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        radar = torch.cat(self.s1(s1), dim=1)
        optical = torch.cat(self.s2(s2), dim=1)
        features = torch.cat([radar, optical], dim=1)
        return self.head(features), self.aux_s1(radar), self.aux_s2(optical), features


class TWINNSSingle(nn.Module):
    """``forward(s2)``: ``(logits, aux_recurrent, aux_convolutional, features)``.

    One stream of :class:`TWINNS`, for one sensor: ``s2`` (B, steps, bands, window, window). The
    auxiliary classifiers are then one a branch, as in DuPLO; ``features`` are (B, 2 * features).
    """

    def __init__(
        self,
        steps: int,
        bands: int,
        classes: int,
        window: int = 5,
        width: int = 32,
        features: int = 64,
        dropout: float = 0.4,
    ):
        super().__init__()
        self.s2 = Stream(steps, bands, window, width, features, dropout)
        self.aux_recurrent = nn.Linear(features, classes)
        self.aux_convolutional = nn.Linear(features, classes)
        self.head = nn.Linear(2 * features, classes)

    def forward(self, s2: Tensor) -> Tuple[Tensor, Tensor, Tensor, Tensor]:
        recurrent, convolutional = self.s2(s2)
        features = torch.cat([recurrent, convolutional], dim=1)
        return (
            self.head(features),
            self.aux_recurrent(recurrent),
            self.aux_convolutional(convolutional),
            features,
        )
