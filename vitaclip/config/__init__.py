"""What one training run is: a frozen, validated ``TrainConfig``.

An experiment's YAML holds these fields under ``train:``; a search space names them by dotted path
(``prompts.depth``, ``optimizer.lr``). Nothing here says where data, weights or results live.

``model.py`` is what methods read, ``train.py`` all the rest.
"""

from vitaclip.config.base import MAX_DESCRIBED, Config, DatasetName, SplitName, describe
from vitaclip.config.data import AugmentConfig, DataConfig, EvalConfig
from vitaclip.config.methods import MethodConfig, MethodName
from vitaclip.config.model import (
    BackboneConfig,
    LayerRange,
    ModelConfig,
    Precision,
    PromptConfig,
    TextConfig,
)
from vitaclip.config.regularizers import RegularizersConfig
from vitaclip.config.train import OptimizerConfig, TrainConfig

__all__ = [
    "MAX_DESCRIBED",
    "AugmentConfig",
    "BackboneConfig",
    "Config",
    "DataConfig",
    "DatasetName",
    "EvalConfig",
    "LayerRange",
    "MethodConfig",
    "MethodName",
    "ModelConfig",
    "OptimizerConfig",
    "Precision",
    "PromptConfig",
    "RegularizersConfig",
    "SplitName",
    "TextConfig",
    "TrainConfig",
    "describe",
]
