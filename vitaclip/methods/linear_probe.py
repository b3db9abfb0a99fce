"""A classifier on the frozen CLIP's features, averaged over frames (linear probe).

Each trained class has a weight vector in place of its text features, compared by cosine and started
from the features of the class's name, as in WiSE-FT (Wortsman et al., CVPR 2022, section 3.1).
Names that were not trained are read as the frozen CLIP reads them.

Shape legend: C classes, E embedding.
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone


class LinearProbe(VideoModel):
    """The frozen CLIP with a weight vector for each class."""

    learns_texts = True

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        if config.method.linear_probe.start == "random":
            shape = (len(class_names), self.clip.text_projection.shape[1])
            weights_CE = torch.empty(shape).normal_(std=0.02)
        else:
            with torch.no_grad():
                weights_CE = self.encode_names(self.class_names).to(self.logit_scale.dtype)
        self.class_weights = nn.Parameter(weights_CE)

    def encode_classes(self) -> Tensor:
        return self.class_weights


build = LinearProbe
