"""Ways of adapting CLIP to video, a file each.

A new method is a name in :data:`vitaclip.config.MethodName`, a file here, and its line below, which
mypy asks for.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import assert_never

import torch

from vitaclip.config import MethodName, TrainConfig
from vitaclip.methods import frozen_clip, vita_clip
from vitaclip.methods.video_model import Shapes, VideoModel, shapes_of
from vitaclip.model.backbone import Backbone, empty_backbone, load_backbone

Build = Callable[[Backbone, TrainConfig, Sequence[str]], VideoModel]


def build_model(config: TrainConfig, class_names: Sequence[str]) -> VideoModel:
    """The model of one training run, on the CPU; what is learned is initialized from
    ``config.seed``.
    """
    backbone = load_backbone(config.backbone, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return _build_of(config.method)(backbone, config, class_names)


def learned_shapes(config: TrainConfig, class_names: Sequence[str]) -> Shapes:
    """The shapes of the learned state of such a model, which takes neither weights nor memory."""
    backbone = empty_backbone(config.backbone)
    with torch.device("meta"):
        model = _build_of(config.method)(backbone, config, class_names)
    return shapes_of(model.learned_state())


def _build_of(method: MethodName) -> Build:
    match method:
        case "vita_clip":
            return vita_clip.build
        case "frozen_clip":
            return frozen_clip.build
        case unknown:
            assert_never(unknown)
