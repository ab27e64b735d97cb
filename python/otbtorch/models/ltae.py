"""Lightweight temporal attention on the series of one pixel.

V. Sainte Fare Garnot, L. Landrieu, "Lightweight temporal self-attention for classifying satellite
images time series", AALTD 2020.
"""

from typing import Tuple

from torch import Tensor, nn

from .temporal import LightAttention


class LTAE(nn.Module):
    """``forward(x, dates, valid)``: logits (B, classes) and embedding (B, embedding).

    ``x`` (B, T, bands), scaled, T free; ``dates`` (B, T), day of the year (or any count of days),
    float or integer; ``valid`` (B, T), 1 = valid. Dates that are not valid, padding included,
    change nothing, whatever they hold; a series without any valid date gives finite outputs.
    ``d_model`` is a multiple of 2 * ``heads``.
    """

    def __init__(
        self,
        bands: int,
        classes: int,
        heads: int = 16,
        d_model: int = 128,
        d_k: int = 8,
        embedding: int = 64,
        dropout: float = 0.2,
    ):
        super().__init__()
        self.attention = LightAttention(bands, heads, d_model, d_k)
        self.mlp = nn.Sequential(
            nn.Linear(d_model, embedding),
            nn.BatchNorm1d(embedding),
            nn.ReLU(),
            nn.Dropout(dropout),
        )
        self.norm = nn.LayerNorm(embedding)
        self.head = nn.Linear(embedding, classes)

    def forward(self, x: Tensor, dates: Tensor, valid: Tensor) -> Tuple[Tensor, Tensor]:
        mixed, _ = self.attention(x, dates, valid != 0)
        embedding = self.norm(self.mlp(mixed))
        return self.head(embedding), embedding
