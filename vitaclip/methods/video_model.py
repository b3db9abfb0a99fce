"""What training, evaluation and checkpoints ask of a model, whichever method made it.

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, F = B * T frames, N =
1 + patches, D width, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, MutableMapping, Sequence
from typing import Self

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import ModelConfig
from vitaclip.distributed import mixed_precision
from vitaclip.errors import InputError
from vitaclip.model import compilation
from vitaclip.model.backbone import Backbone
from vitaclip.model.residual import Residual
from vitaclip.model.text import encode_text, pack_names
from vitaclip.model.vision import (
    CLS_TOKEN,
    PlainLayer,
    VisionLayer,
    embed_frames,
    project,
    run_layers,
)

CLIP_PREFIX = "clip."

Shapes = dict[str, tuple[int, ...]]
# A backbone's hash, a parameter's name and its type -> the frozen weights.
FrozenWeights = MutableMapping[tuple[str, str, torch.dtype], nn.Parameter]


class VideoModel(nn.Module):
    """A CLIP, and what a method changes in it or learns beside it.

    As it stands here, it is the frozen CLIP: the mean over frames of their features, against plain
    class names. A method replaces what it does otherwise. What it wants to train of CLIP's own
    weights, it sets to ``requires_grad``; everything that it adds is trained.
    """

    # The tokens of the last layer that ``pool`` reads.
    pooled_tokens: slice = CLS_TOKEN
    # Whether training changes how its classes are read.
    learns_texts: bool = False

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        """``class_names`` are those of the training; none: it has learned no classes."""
        super().__init__()
        self.clip = backbone.clip
        self.backbone_sha256 = backbone.sha256
        self.class_names = tuple(class_names)
        self.num_frames = config.data.num_frames
        self.precision = config.precision
        self.activation_checkpointing = config.activation_checkpointing
        # None in the config leaves it to the training, which knows how many steps there are.
        self.compile_layers = bool(config.compile)
        self.logit_scale = nn.Parameter(self.clip.logit_scale.detach().clone())
        self.pixel_mean: Tensor
        self.pixel_std: Tensor
        self.register_buffer("pixel_mean", torch.tensor(backbone.pixel_mean), persistent=False)
        self.register_buffer("pixel_std", torch.tensor(backbone.pixel_std), persistent=False)
        self._class_features: Tensor | None = None
        embed_dim = self.clip.visual.proj.shape[1]
        self.residual = Residual(embed_dim) if config.regularizers.distillation else None

    def vision_layers(self) -> Iterable[VisionLayer]:
        """For each block of the vision tower what runs it, called as ``layer(block, x_FND,
        query)``.
        """
        return [PlainLayer() for _ in self.clip.visual.transformer.resblocks]

    def add_time(self, x_FND: Tensor, num_frames: int) -> Tensor:
        """The tokens of clips of ``num_frames`` frames with the time that the method gives them."""
        return x_FND

    def pool(self, x_FND: Tensor, num_frames: int) -> Tensor:
        """Video features ``[B, E]`` of the last layer's ``pooled_tokens``."""
        features_FE = project(self.clip.visual, x_FND[:, 0])
        features_BE: Tensor = features_FE.unflatten(0, (-1, num_frames)).mean(dim=1)
        return features_BE

    def encode_video(self, video_BCTHW: Tensor) -> Tensor:
        """Video features ``[B, E]``, or whatever ``logits`` takes, not normalized, of uint8 pixels
        or of already normalized floats.

        A clip of a multiple of ``data.num_frames`` frames is read as consecutive segments. What a
        method does over time, it does within a segment.

        Raises:
            InputError: the number of frames is no such multiple.
        """
        num_frames = video_BCTHW.shape[2]
        if num_frames % self.num_frames:
            raise InputError(
                f"a clip has {num_frames} frames, allowed are multiples of data.num_frames = "
                f"{self.num_frames}"
            )
        visual = self.clip.visual
        embed = compilation.compiled(embed_frames) if self.runs_compiled else embed_frames
        frames_FCHW = video_BCTHW.transpose(1, 2).flatten(0, 1).contiguous()
        with self.autocast():
            embedded_FND = embed(visual, frames_FCHW, self.pixel_mean, self.pixel_std)
            x_FND = self.add_time(embedded_FND, num_frames)
            x_FND = run_layers(
                visual,
                self.vision_layers(),
                visual.ln_pre(x_FND),
                query=self.pooled_tokens,
                activation_checkpointing=self.activation_checkpointing,
                compile_layers=self.runs_compiled,
            )
            return self.pool(x_FND, num_frames)

    def video_features(self, encoded: Tensor) -> Tensor:
        """Of what ``encode_video`` gives, the features ``[B, E]`` of the videos as a whole."""
        return encoded

    def encode_classes(self) -> Tensor:
        """Text features ``[C, E]`` of the training classes as the method learned to read them, not
        normalized.
        """
        if self.learns_texts:
            return self.encode_names(self.trained_texts())
        # They stay as they are: a training asks for them at every step.
        if self._class_features is None or self._class_features.device != self.device:
            with torch.no_grad():
                self._class_features = self.encode_names(self.trained_texts())
        return self._class_features

    def trained_texts(self) -> Sequence[str]:
        """What is read for each training class."""
        return self.class_names

    def encode_names(self, names: Sequence[str]) -> Tensor:
        """Text features ``[C, E]`` of plain names (zero-shot protocol), not normalized."""
        texts = pack_names(names, self.clip.context_length).to(self.device)
        with self.autocast():
            return encode_text(self.clip, texts)

    def logits(self, encoded: Tensor, text_CE: Tensor) -> Tensor:
        """``exp(logit_scale) * cos(video, text)``: ``[B, C]``, of what ``encode_video`` gives and
        the classes' features.
        """
        return scaled_cosines(*self.read(encoded, text_CE), self.logit_scale.exp())

    def read(self, encoded: Tensor, text_CE: Tensor) -> tuple[Tensor, Tensor]:
        """Features ``[B, E]`` of the videos, and of the texts that they are compared with: ``[C,
        E]``, or ``[B, C, E]`` where each clip has texts of its own. In full precision: bf16 would
        round a logit of 60 to 60.5.
        """
        dtype = self.logit_scale.dtype
        return self.video_features(encoded).to(dtype), text_CE.to(dtype)

    def frozen_counterparts(self, clip: VideoModel) -> Mapping[str, Tensor] | None:
        """For each trained parameter what it is in the frozen CLIP, if the model is that CLIP with
        other weights; None: it has parts that the frozen CLIP has not.
        """
        return None

    def learned_state(self) -> dict[str, Tensor]:
        """Everything that the backbone's file does not hold: what was added, and CLIP's own weights
        where they are trained.
        """
        trained = self.trainable()
        return {
            name: value
            for name, value in self.state_dict().items()
            if name in trained or not name.startswith(CLIP_PREFIX)
        }

    def trainable(self) -> dict[str, nn.Parameter]:
        """The parameters that an optimizer moves, by name: what was added first, then CLIP's
        own.
        """
        found = [
            (name, parameter)
            for name, parameter in self.named_parameters()
            if parameter.requires_grad
        ]
        return dict(sorted(found, key=lambda item: is_clips_own(item[0])))

    def share_frozen(self, pool: FrozenWeights) -> None:
        """Takes frozen weights that another model brought already, and brings its own: memory holds
        each once.
        """
        for name, parameter in list(self.clip.named_parameters()):
            if parameter.requires_grad:
                continue
            module, _, attribute = name.rpartition(".")
            key = (self.backbone_sha256, pretrained_name(name), parameter.dtype)
            setattr(self.clip.get_submodule(module), attribute, pool.setdefault(key, parameter))

    def placed_on(self, device: torch.device) -> Self:
        """Moves the model to a device, ready to compute there."""
        self.to(device).hold_frozen_as_computed()
        return self

    def hold_frozen_as_computed(self) -> None:
        """Converts frozen weights of matrix products to the type that these are computed in.
        Autocast would convert them anew in every step, to the same numbers.
        """
        if (dtype := self.autocast_dtype) is None:
            return
        products = (nn.Linear, nn.Conv2d, nn.MultiheadAttention)
        modules = [module for module in self.clip.modules() if isinstance(module, products)]
        factors = [
            (module, name)
            for module in modules
            for name, _ in module.named_parameters(recurse=False)
        ]
        for module, name in [*factors, (self.clip.visual, "proj"), (self.clip, "text_projection")]:
            weight = getattr(module, name)
            if not weight.requires_grad:
                setattr(module, name, nn.Parameter(weight.to(dtype), requires_grad=False))

    @property
    def image_size(self) -> int:
        """Height and width in pixels of the frames that it takes."""
        return int(self.clip.visual.image_size[0])

    @property
    def device(self) -> torch.device:
        """Where it computes."""
        return self.logit_scale.device

    @property
    def runs_compiled(self) -> bool:
        """Whether layers are compiled: in training steps only. Evaluation would need a compilation
        of its own, which takes longer than it saves.
        """
        return self.compile_layers and torch.is_grad_enabled()

    @property
    def autocast_dtype(self) -> torch.dtype | None:
        """What matrix products are computed in on the model's device; None: the weights' own
        type.
        """
        if self.precision == "mixed":
            return mixed_precision(self.device)
        return {"fp32": None, "bf16": torch.bfloat16, "fp16": torch.float16}[self.precision]

    def autocast(self) -> torch.autocast:
        """The context in which the towers compute."""
        # Shapes alone have no device that could compute them in another type.
        device_type = "cpu" if self.device.type == "meta" else self.device.type
        dtype = self.autocast_dtype
        return torch.autocast(device_type, dtype, enabled=dtype is not None)


def scaled_cosines(video_BE: Tensor, texts: Tensor, scale: Tensor) -> Tensor:
    """``[B, C]``, of ``[B, E]`` and of ``[C, E]`` or ``[B, C, E]``."""
    video_BE, texts = scale * F.normalize(video_BE, dim=-1), F.normalize(texts, dim=-1)
    if texts.ndim == 2:
        return video_BE @ texts.T
    return (texts @ video_BE[:, :, None])[:, :, 0]


def pretrained_name(name: str) -> str:
    """A parameter's name in the backbone's file, whether or not a change is learned beside it (as
    ``torch.nn.utils.parametrize`` names them).
    """
    return name.replace("parametrizations.", "").replace(".original", "")


def is_clips_own(name: str) -> bool:
    """Whether a model's parameter stood in the backbone's file."""
    return name.startswith(CLIP_PREFIX) and (
        "parametrizations." not in name or name.endswith(".original")
    )


def shapes_of(tensors: Mapping[str, Tensor]) -> Shapes:
    """Their shapes by name."""
    return {name: tuple(tensor.shape) for name, tensor in tensors.items()}
