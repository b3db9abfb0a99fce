"""LoRA: learned low-rank changes of CLIP's weight matrices (Hu et al., ICLR 2022).

``W + alpha / rank * up @ down``, on the projections of the attention, the MLP, or both, in one
tower or both. At the start ``up`` is zero, so the model is the frozen CLIP.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrize import register_parametrization

from vitaclip.config.methods import LoraConfig
from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone


class LoRA(VideoModel):
    """CLIP over frames, with changes of its matrices."""

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        lora = config.method.lora
        for module, name in _matrices(self, lora):
            change = LowRankChange(getattr(module, name), lora)
            register_parametrization(module, name, change)
        self.learns_texts = lora.tower != "image"

    def frozen_counterparts(self, clip: VideoModel) -> Mapping[str, Tensor]:
        trained = self.trainable()
        changes = {name: torch.zeros_like(p) for name, p in trained.items() if name.endswith(".up")}
        return changes | {"logit_scale": clip.logit_scale}


build = LoRA


class LowRankChange(nn.Module):
    """What is added to one weight matrix."""

    def __init__(self, weight: Tensor, config: LoraConfig) -> None:
        super().__init__()
        num_out, num_in = weight.shape
        self.scale = config.alpha / config.rank
        self.down = nn.Parameter(torch.empty(config.rank, num_in))
        self.up = nn.Parameter(torch.zeros(num_out, config.rank))
        nn.init.kaiming_uniform_(self.down, a=math.sqrt(5))

    def forward(self, weight: Tensor) -> Tensor:
        """The changed matrix."""
        return weight + self.scale * self.up @ self.down


def _matrices(model: VideoModel, config: LoraConfig) -> Iterator[tuple[nn.Module, str]]:
    """The matrices that are changed: the modules that hold them, and their names there."""
    towers = {"image": model.clip.visual.transformer, "text": model.clip.transformer}
    for name, tower in towers.items():
        for block in tower.resblocks if config.tower in ("both", name) else ():
            if config.weights != "mlp":
                yield block.attn, "in_proj_weight"
                yield block.attn.out_proj, "weight"
            if config.weights != "attention":
                yield block.mlp.c_fc, "weight"
                yield block.mlp.c_proj, "weight"
