"""Projections that explain how learned features differ from the frozen CLIP's (FROSTER, Huang et
al., ICLR 2024, section 3.2). They are there for the training only.
"""

from __future__ import annotations

from torch import Tensor, nn
from torch.nn import functional as F

_SCALE = 0.1  # the authors'


class Residual(nn.Module):
    """The projections of both towers' features."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.video, self.text = ResidualProjection(embed_dim), ResidualProjection(embed_dim)


class ResidualProjection(nn.Module):
    """``z + 0.1 * up(GELU(down(z)))`` of normalized features. It starts as the identity."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.down = nn.Linear(embed_dim, embed_dim, bias=False)
        self.up = nn.Linear(embed_dim, embed_dim, bias=False)
        nn.init.kaiming_normal_(self.down.weight)
        nn.init.zeros_(self.up.weight)

    def forward(self, features: Tensor) -> Tensor:
        """``[..., E]`` -> ``[..., E]``."""
        normalized = F.normalize(features.float(), dim=-1)
        projected: Tensor = normalized + _SCALE * self.up(F.gelu(self.down(normalized)))
        return projected
