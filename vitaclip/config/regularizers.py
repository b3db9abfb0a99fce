"""What keeps a training near the frozen CLIP, so that classes it never saw are still recognized."""

from __future__ import annotations

from pydantic import Field

from vitaclip.config.base import Config, Fraction


class RegularizersConfig(Config):
    """Each is off by default."""

    distillation: float = Field(
        0.0,
        ge=0,
        description="The weight of the distance to the frozen CLIP's features in the loss, behind "
        "a residual projection (FROSTER takes 2). 0 leaves it out.",
    )
    interpolation: float = Field(
        0.0,
        ge=0,
        description="The weight of a second loss, of CLIP's own weights moved back towards what "
        "they started from (Open-VCLIP takes 0.5). 0 leaves it out.",
    )
    interpolation_reach: float = Field(
        0.6,
        gt=0,
        le=1,
        description="How far these weights are moved back at most; each step draws a share from 0 "
        "to this.",
    )
    average_from: Fraction | None = Field(
        None,
        description="After which share of the epochs the weights of all further epochs are "
        "averaged; the average is validated and kept. None takes the last weights.",
    )
