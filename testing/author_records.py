"""What the authors' public code of other methods computes, on weights that anyone can draw again.

``testing/records/authors.json`` holds names and shapes of the weights, and outputs. It was made
once outside of this repository: the authors' model was built for frames of 32 x 32 pixels, patches
of 16, width 128, two layers, an embedding of 128, a text tower of width 64, and clips of four
frames; every parameter was set by :func:`draw`, whatever it starts from in training; then two clips
went through it, in eval mode and full precision. Only figures were kept. Each case names its
source, the commit and the license.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from testing.paths import ROOT

RECORDS: Mapping[str, Any] = json.loads((ROOT / "testing/records/authors.json").read_text())
CLIP_CONFIG = {
    "embed_dim": 128,
    "quick_gelu": True,
    "vision_cfg": {"image_size": 32, "patch_size": 16, "width": 128, "layers": 2, "head_width": 64},
    "text_cfg": {"width": 64, "heads": 1, "layers": 2},
}
NORMS = ("ln_", "norm", "_ln.")  # what the authors call LayerNorms


def draw(name: str, shape: tuple[int, ...]) -> Tensor:
    """The weights of this name: normal numbers of deviation 0.05, around 1 for a LayerNorm."""
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = np.asarray(0.05 * rng.standard_normal(shape)).astype(np.float32)
    is_norm = name.endswith(".weight") and any(part in name for part in NORMS)
    return torch.from_numpy(values) + float(is_norm)


def weights_of(case: str) -> dict[str, Tensor]:
    """All weights of a case, by the authors' names."""
    return {name: draw(name, tuple(shape)) for name, shape in RECORDS[case]["weights"].items()}


def video_of(case: str) -> Tensor:
    """The normalized pixels ``[2, 3, T, 32, 32]``."""
    return 20 * draw("video", (2, 3, RECORDS[case]["num_frames"], 32, 32))
