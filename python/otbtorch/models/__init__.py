"""Small scriptable networks, for tests, examples and baselines."""

from .attention import PatchAttentionCD
from .fully_conv import FCEF, FCSiamConc, FCSiamDiff
from .ltae import LTAE
from .presto import PRESTO_BANDS, PRESTO_SCALING, Presto
from .tempcnn import TempCNN
from .token_cd import TokenCD
from .twinns import TWINNS, TWINNSSingle
from .ubarn import UBARN
from .unet import SiameseUNet, SiameseUNetSemantic
from .utae import UTAE

__all__ = [
    "FCEF",
    "FCSiamConc",
    "FCSiamDiff",
    "LTAE",
    "PRESTO_BANDS",
    "PRESTO_SCALING",
    "PatchAttentionCD",
    "Presto",
    "SiameseUNet",
    "SiameseUNetSemantic",
    "TempCNN",
    "TokenCD",
    "TWINNS",
    "TWINNSSingle",
    "UBARN",
    "UTAE",
]
