"""Small scriptable networks, for tests, examples and baselines."""

from .attention import PatchAttentionCD
from .unet import SiameseUNet, SiameseUNetSemantic

__all__ = ["PatchAttentionCD", "SiameseUNet", "SiameseUNetSemantic"]
