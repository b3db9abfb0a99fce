"""What a model is built from: a backbone, the prompts beside it, and how it computes."""

from __future__ import annotations

from typing import Annotated, Literal, Self

from pydantic import Field, field_validator, model_validator

from vitaclip.config.base import Config
from vitaclip.config.data import DataConfig
from vitaclip.config.methods import MethodConfig
from vitaclip.config.regularizers import RegularizersConfig

Precision = Literal["fp32", "bf16", "fp16", "mixed"]
# Counts have limits far above what is of use, so that a slip or a foreign file cannot ask for all
# memory.
Layer = Annotated[int, Field(ge=0, le=1000)]
LayerRange = tuple[Layer, Layer]


class BackboneConfig(Config):
    """The CLIP that is adapted: a model name and a weights tag as open_clip spells them, or a local
    weights file.
    """

    name: str = Field(
        "ViT-B-16-quickgelu",
        max_length=200,
        description="The model's name as open_clip spells it, or 'quickstart-tiny'.",
    )
    pretrained: str = Field(
        "openai",
        max_length=4096,
        description="The weights: a tag of open_clip's, a local file, or 'random' for tests.",
    )
    image_size: int | None = Field(
        None,
        ge=1,
        le=1024,
        description="The width and height of frames in pixels. None takes the size that the "
        "weights were trained at.",
    )


class PromptConfig(Config):
    """Visual prompts of vita_clip (paper section 3.2). A count of 0, or False, switches a kind
    off.
    """

    num_global: int = Field(
        8,
        ge=0,
        le=1024,
        description="How many learned video-level prompts each layer gets. 0 switches this kind "
        "off.",
    )
    local: bool = Field(
        True,
        description="Whether each frame brings a prompt of its own, made from its class token.",
    )
    summary: bool = Field(
        True,
        description="Whether each frame has a summary token, computed by attention across all "
        "frames.",
    )
    depth: Layer | None = Field(
        None,
        description="How many layers carry visual prompts, counted from the first. None means all "
        "layers.",
    )
    global_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry global prompts, instead of those that "
        "depth names.",
    )
    local_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry local prompts, instead of those that "
        "depth names.",
    )
    summary_layers: LayerRange | None = Field(
        None,
        description="The layers [first, stop) that carry the summary token, instead of those that "
        "depth names.",
    )
    time_embedding: bool = Field(
        True,
        description="Whether a learned embedding of its time is added to every token of a frame.",
    )
    cls_proj: Literal["paper", "released"] = Field(
        "paper",
        description="Whether P_sum, the summary's projection, is trained as in the paper, or stays "
        "at its initialization as in the released code.",
    )


class TextConfig(Config):
    """Text prompts of vita_clip and text_prompts (paper section 3.3): learned context vectors
    around the class name.
    """

    num_context: int = Field(
        8,
        ge=0,
        le=70,
        description="How many learned context vectors stand beside a class name. 0 leaves the "
        "plain name.",
    )
    class_specific: bool = Field(
        True,
        description="Whether each class learns a context of its own (CSC). Otherwise all share one "
        "(unified, UC).",
    )
    position: Literal["end", "middle", "front"] = Field(
        "end", description="Where the class name stands among the context vectors."
    )
    init: str | None = Field(
        None,
        max_length=1000,
        description="Words whose embeddings start the context, such as 'a video of'. None starts "
        "it at random.",
    )
    depth: int = Field(
        1,
        ge=1,
        le=1000,
        description="How many text layers get a context of their own, as in MaPLe. 1 means the "
        "input only.",
    )


class ModelConfig(Config):
    """The part of a training config that methods read."""

    seed: int = Field(
        0, ge=0, le=2**32 - 1, description="The seed of everything random in a training."
    )
    backbone: BackboneConfig = Field(
        BackboneConfig(), description="The CLIP that is adapted to video."
    )
    method: MethodConfig = Field(MethodConfig(), description="How it is adapted.")
    regularizers: RegularizersConfig = Field(
        RegularizersConfig(), description="What keeps a training near the frozen CLIP."
    )
    prompts: PromptConfig = Field(PromptConfig(), description="The visual prompts.")
    text: TextConfig = Field(TextConfig(), description="The text prompts.")
    data: DataConfig = Field(
        DataConfig(), description="Which videos, and how a clip is drawn from each."
    )
    precision: Precision = Field(
        "fp32",
        description="The precision of matrix products. 'mixed' is bf16 where the hardware has it, "
        "else fp16 on a GPU.",
    )
    activation_checkpointing: bool = Field(
        False,
        description="Whether each vision layer is computed again in the backward pass: less "
        "memory, more time.",
    )
    compile: bool | None = Field(
        None,
        description="Whether layers are compiled in training. This takes a minute or more at first "
        "and makes steps faster. None: on a GPU, in trainings of at least 3,000 steps.",
    )

    @field_validator("method", mode="before")
    @classmethod
    def _name_is_enough(cls, found: object) -> object:
        """``method: x_clip`` says the same as ``method: {name: x_clip}``."""
        return {"name": found} if isinstance(found, str) else found

    @model_validator(mode="after")
    def _depth_and_ranges_agree(self) -> Self:
        for kind in ("global", "local", "summary"):
            layers = getattr(self.prompts, f"{kind}_layers")
            if layers is not None and layers[0] > layers[1]:
                raise ValueError(
                    f"prompts.{kind}_layers: found {list(layers)}, allowed [first, stop) with "
                    "first <= stop"
                )
        return self
