"""How fast a GPU trains, estimated from the towers' sizes. Nothing here needs torch.

The share of a GPU's peak that a step reaches is the one that ``python -m benchmarks.roofline``
computes kernel by kernel (docs/gpu.md). No figure here was measured on a GPU.
"""

from __future__ import annotations

from vitaclip.clip_config import read_clip_config
from vitaclip.config import ModelConfig

# Of an H100: FLOP/s of large matrix products, and the share of them that a step reaches.
_HALF_FLOPS, _HALF_SHARE, _HALF_SHARE_COMPILED = 798e12, 0.30, 0.41
_FULL_FLOPS, _FULL_SHARE = 52e12, 0.69


def flops_per_clip(config: ModelConfig) -> float:
    """FLOPs of a training step for one clip: both directions of the vision tower. The text tower
    runs once a step, which is a few percent of a large batch.
    """
    vision = read_clip_config(config.backbone)["vision_cfg"]
    width, num_layers, patch = vision["width"], vision["layers"], vision["patch_size"]
    tokens = (vision["image_size"] // patch) ** 2 + 1
    # A multiplication and an addition each: projections (4), MLP (8), and attention's two products.
    layer = 2 * tokens * 12 * width**2 + 4 * tokens**2 * width
    forward = 2 * (tokens - 1) * 3 * patch**2 * width + num_layers * layer
    # Backward, the frozen tower passes gradients on; a trained one computes its weights' as well.
    trains_vision = config.method.name == "full_finetune" and (
        config.method.full_finetune.tower != "text"
    )
    return float(config.data.num_frames * forward * (3 if trains_vision else 2))


def clips_per_second(config: ModelConfig) -> float:
    """What one H100 would train."""
    if config.precision == "fp32":
        speed = _FULL_FLOPS * _FULL_SHARE
    else:
        speed = _HALF_FLOPS * (_HALF_SHARE if config.compile is False else _HALF_SHARE_COMPILED)
    return speed / flops_per_clip(config)
