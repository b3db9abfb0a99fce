"""CLIP's own weights, trained: ViFi-CLIP (Rasheed et al., CVPR 2023).

Features of the frames are averaged; nothing is added. ``method.full_finetune.tower`` says whether
the image tower, the text tower or both are trained (paper, table 1). What was trained may carry
prompts afterwards (the paper's "bridge and prompt"): ``vitaclip export-backbone`` writes it as a
weights file, and ``backbone.pretrained`` takes that file.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from torch import Tensor

from vitaclip.config.methods import Tower
from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone

# Of CLIP's parameters: the authors keep the embeddings of words, and the scale is the model's own.
_FIXED = ("token_embedding.weight", "logit_scale")


class FullFinetune(VideoModel):
    """CLIP over frames, with one or both of its towers trained."""

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        tower = config.method.full_finetune.tower
        for name, parameter in self.clip.named_parameters():
            parameter.requires_grad_(name not in _FIXED and tower in ("both", tower_of(name)))
        self.logit_scale.requires_grad_(tower == "both")
        self.learns_texts = tower != "image"
        self.template = config.method.full_finetune.template

    def frozen_counterparts(self, clip: VideoModel) -> Mapping[str, Tensor]:
        starts = dict(clip.named_parameters())
        return {name: starts[name] for name in self.trainable() if name in starts}

    def trained_texts(self) -> Sequence[str]:
        return [self.template.replace("{}", name) for name in self.class_names]


build = FullFinetune


def tower_of(name: str) -> Tower:
    """The tower to which one of CLIP's parameters belongs."""
    return "image" if name.startswith("visual.") else "text"
