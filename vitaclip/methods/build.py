"""The model of a training config, by its method."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from importlib import import_module

import torch

from vitaclip.config import MethodName, ModelConfig, TrainConfig
from vitaclip.errors import InputError
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.backbone import Backbone, empty_backbone, load_backbone
from vitaclip.regularizers.interpolation import check_interpolation

Build = Callable[[Backbone, ModelConfig, Sequence[str]], VideoModel]


def builder(method: MethodName) -> Build:
    """What makes the models of a method, of a backbone, a config and the trained classes: ``build``
    in the file that has the method's name, a class or a function.
    """
    build: Build = import_module(f"vitaclip.methods.{method}").build
    return build


def build_model(config: TrainConfig, class_names: Sequence[str]) -> VideoModel:
    """The model of one training run, on the CPU; what is learned is initialized from
    ``config.seed``.
    """
    backbone = load_backbone(config.backbone, seed=config.seed)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(config.seed)
        return builder(config.method.name)(backbone, config, class_names)


def empty_model(config: TrainConfig, class_names: Sequence[str]) -> VideoModel:
    """Such a model of shapes alone, which takes neither weights nor memory."""
    backbone = empty_backbone(config.backbone)
    with torch.device("meta"):
        return builder(config.method.name)(backbone, config, class_names)


def check_model(config: TrainConfig, class_names: Sequence[str]) -> None:
    """Looks for what a training would find at its start, without weights.

    Raises:
        InputError: the method does not take the config, or not these classes.
    """
    check_training(config, empty_model(config, class_names))


def check_training(config: TrainConfig, model: VideoModel) -> None:
    """Raises InputError if epochs are wanted of a model that has nothing to train, or interpolation
    of one whose CLIP stays as it is.
    """
    check_interpolation(model, config)
    if config.epochs and not model.trainable():
        raise InputError(
            f"epochs: found {config.epochs}, {config.method.name} trains nothing; allowed is 0"
        )
