"""Which method adapts CLIP to video, and the settings that methods have of their own."""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from vitaclip.config.base import Config

# Each is the name of a file in ``vitaclip/methods/``.
MethodName = Literal[
    "vita_clip",
    "text_prompts",
    "frozen_clip",
    "linear_probe",
    "full_finetune",
    "x_clip",
    "st_adapter",
    "aim",
    "lora",
]
NumLayers = Annotated[int, Field(ge=0, le=100)]
Tower = Literal["image", "text", "both"]


class LinearProbeConfig(Config):
    """A classifier on the features of the frozen CLIP."""

    start: Literal["names", "random"] = Field(
        "names",
        description="What each class's weights start from: the features of its name, or random "
        "numbers.",
    )


class FullFinetuneConfig(Config):
    """CLIP's own weights are trained (ViFi-CLIP)."""

    tower: Tower = Field("both", description="Which of CLIP's towers are trained.")
    template: str = Field(
        "a photo of a {}.",
        max_length=500,
        pattern=r"^[^{}]*\{\}[^{}]*$",
        description="The sentence in which {} is the name of a trained class. New classes are read "
        "as plain names, or as a benchmark says.",
    )


class XClipConfig(Config):
    """X-CLIP's parts beside CLIP's image tower."""

    num_integration_layers: NumLayers = Field(
        1, description="How many layers the multi-frame integration transformer has."
    )
    num_prompt_layers: NumLayers = Field(
        2, description="How many layers make the video-specific text prompts."
    )
    prompt_scale: float = Field(
        0.1, description="The learned scale of the video-specific text prompts at the start."
    )


class STAdapterConfig(Config):
    """ST-Adapter: depth-wise convolutions over time, between two projections."""

    width: int = Field(384, ge=1, le=8192, description="The width of an adapter's convolution.")
    place: Literal["attention", "mlp", "both"] = Field(
        "both", description="Before which part of each block an adapter stands."
    )
    kernel_frames: Literal[1, 3, 5, 7] = Field(
        3, description="Over how many frames an adapter's convolution reaches."
    )


class AimConfig(Config):
    """AIM: bottleneck adapters, and attention over time with the block's own weights."""

    width_ratio: float = Field(
        0.25, gt=0, le=4, description="An adapter's width as a share of the tower's."
    )
    mlp_scale: float = Field(
        0.5, description="By how much the output of the adapter beside the MLP is multiplied."
    )
    num_temporal: Literal[1, 2] = Field(
        1, description="Whether an adapter stands after the attention over time, or on both sides."
    )


class LoraConfig(Config):
    """LoRA: learned low-rank changes of weight matrices (Hu et al., ICLR 2022)."""

    rank: int = Field(8, ge=1, le=1024, description="The rank of each change.")
    alpha: float = Field(16.0, gt=0, description="A change is multiplied by alpha / rank.")
    weights: Literal["attention", "mlp", "both"] = Field(
        "both", description="Which matrices of each block are changed."
    )
    tower: Tower = Field("image", description="Which of CLIP's towers are changed.")


class MethodConfig(Config):
    """The method by its name, and a section for each that has settings. Only the section of the
    named method counts.
    """

    name: MethodName = Field(
        "vita_clip",
        description="How CLIP is adapted to video. 'frozen_clip' leaves it as it is, and takes 0 "
        "epochs.",
    )
    linear_probe: LinearProbeConfig = Field(
        LinearProbeConfig(), description="Settings of linear_probe."
    )
    full_finetune: FullFinetuneConfig = Field(
        FullFinetuneConfig(), description="Settings of full_finetune."
    )
    x_clip: XClipConfig = Field(XClipConfig(), description="Settings of x_clip.")
    st_adapter: STAdapterConfig = Field(STAdapterConfig(), description="Settings of st_adapter.")
    aim: AimConfig = Field(AimConfig(), description="Settings of aim.")
    lora: LoraConfig = Field(LoraConfig(), description="Settings of lora.")
