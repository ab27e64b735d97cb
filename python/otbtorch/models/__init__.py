"""Small scriptable networks, for tests, examples and baselines."""

from .attention import PatchAttentionCD
from .ltae import LTAE
from .presto import PRESTO_BANDS, PRESTO_SCALING, Presto
from .tempcnn import TempCNN
from .twinns import TWINNS, TWINNSSingle
from .ubarn import UBARN
from .unet import SiameseUNet, SiameseUNetSemantic
from .utae import UTAE

__all__ = [
    "LTAE",
    "PRESTO_BANDS",
    "PRESTO_SCALING",
    "PatchAttentionCD",
    "Presto",
    "SiameseUNet",
    "SiameseUNetSemantic",
    "TempCNN",
    "TWINNS",
    "TWINNSSingle",
    "UBARN",
    "UTAE",
]
