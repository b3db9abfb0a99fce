"""X-CLIP: a trained image tower whose frames exchange messages, a transformer over frames, and text
prompts made of the video (Ni et al., ECCV 2022).

The text tower stays frozen. Checked against the authors' code. Their drop path is left out, and
weight decay applies to all that is trained, as everywhere in this project. They train what is new
at ten times the learning rate of CLIP's weights: ``optimizer.clip_lr_scale: 0.1``.

Shape legend: B clips, C classes, T frames, F = B * T frames, N = 1 + P tokens, P patches, D width,
E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.attention import (
    block_forward,
    merge_heads,
    prompt_key_value,
    split_heads,
)
from vitaclip.model.backbone import Backbone
from vitaclip.model.vision import VisionLayer, project

_HEAD_WIDTH = 64


class XCLIP(VideoModel):
    """The whole model. A clip's features are ``[B, 1 + P, E]``: the video's, and those of its
    patches, of which the text prompts are made.
    """

    pooled_tokens = slice(None)

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        visual, settings = self.clip.visual, config.method.x_clip
        visual.requires_grad_(True)
        self.logit_scale.requires_grad_(False)
        width, embed_dim = visual.proj.shape
        heads = visual.transformer.resblocks[0].attn.num_heads
        self.layers = nn.ModuleList(
            CrossFrameLayer(width, heads, self.num_frames) for _ in visual.transformer.resblocks
        )
        self.integration = IntegrationTransformer(
            embed_dim, settings.num_integration_layers, self.num_frames
        )
        self.patch_norm = nn.LayerNorm(width)
        self.patch_proj = nn.Parameter(torch.randn(width, embed_dim))
        self.text_prompts = VideoSpecificPrompts(
            embed_dim, settings.num_prompt_layers, settings.prompt_scale
        )

    def vision_layers(self) -> Iterable[VisionLayer]:
        return self.layers

    def pool(self, x_FND: Tensor, num_frames: int) -> Tensor:
        frames_FE = project(self.clip.visual, x_FND[:, 0])
        segments = self.integration(frames_FE.unflatten(0, (-1, self.num_frames)))
        video_BE = segments.unflatten(0, (-1, num_frames // self.num_frames)).mean(dim=1)
        patches_FPE = self.patch_norm(x_FND[:, 1:]) @ self.patch_proj
        patches_BPE = patches_FPE.unflatten(0, (-1, num_frames)).mean(dim=1)
        return torch.cat([video_BE[:, None], patches_BPE], dim=1)

    def video_features(self, encoded: Tensor) -> Tensor:
        return encoded[:, 0]

    def read(self, encoded: Tensor, text_CE: Tensor) -> tuple[Tensor, Tensor]:
        video_BE, text_CE = super().read(encoded, text_CE)
        patches_BPE = encoded[:, 1:].to(text_CE.dtype)
        text_BCE = text_CE.expand(len(encoded), -1, -1)
        return video_BE, text_BCE + self.text_prompts(text_BCE, patches_BPE)


build = XCLIP


class CrossFrameLayer(nn.Module):
    """One block in which each frame attends to its message: its class token, after attention across
    the messages of all frames (paper section 3.2).
    """

    def __init__(self, width: int, num_heads: int, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.message_proj = nn.Linear(width, width)
        self.message_norm = nn.LayerNorm(width)
        self.message_attention = nn.MultiheadAttention(width, num_heads, batch_first=True)

    def forward(self, block: ResidualAttentionBlock, x_FND: Tensor, query: slice) -> Tensor:
        message_BTD = self.message_proj(x_FND[:, 0]).unflatten(0, (-1, self.num_frames))
        normed = self.message_norm(message_BTD)
        attended, _ = self.message_attention(normed, normed, normed, need_weights=False)
        message_F1D = (message_BTD + attended).flatten(0, 1).unsqueeze(1)
        return block_forward(block, x_FND, [prompt_key_value(block, message_F1D)], query=query)


class IntegrationTransformer(nn.Module):
    """The multi-frame integration transformer: features of frames become one of the video."""

    def __init__(self, embed_dim: int, num_layers: int, num_frames: int) -> None:
        super().__init__()
        self.position = nn.Parameter(torch.empty(num_frames, embed_dim))
        nn.init.trunc_normal_(self.position, std=0.02)
        self.blocks = nn.ModuleList(
            ResidualAttentionBlock(embed_dim, _num_heads(embed_dim), act_layer=QuickGELU)
            for _ in range(num_layers)
        )
        _initialize(self)

    def forward(self, frames_BTE: Tensor) -> Tensor:
        """``[B, T, E]`` -> ``[B, E]``."""
        x_BTE = frames_BTE + self.position
        for block in self.blocks:
            x_BTE = block_forward(block, x_BTE)
        return (frames_BTE + x_BTE).mean(dim=1)


class VideoSpecificPrompts(nn.Module):
    """What is added to each class's text features, made of the video's patches (paper section
    3.3).
    """

    def __init__(self, embed_dim: int, num_layers: int, scale: float) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(embed_dim)
        self.layers = nn.ModuleList(PromptLayer(embed_dim) for _ in range(num_layers))
        self.scale = nn.Parameter(torch.full((embed_dim,), scale))
        _initialize(self)

    def forward(self, text_BCE: Tensor, patches_BPE: Tensor) -> Tensor:
        """``[B, C, E]`` and ``[B, P, E]`` -> ``[B, C, E]``."""
        patches_BPE = self.norm(patches_BPE)
        for layer in self.layers:
            text_BCE = layer(text_BCE, patches_BPE)
        return self.scale * text_BCE


class PromptLayer(nn.Module):
    """Texts attend to patches."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.num_heads = _num_heads(embed_dim)
        self.q_proj, self.k_proj, self.v_proj = (
            nn.Linear(embed_dim, embed_dim, bias=False) for _ in range(3)
        )
        self.out_proj = nn.Linear(embed_dim, embed_dim)
        self.attention_norm, self.mlp_norm = nn.LayerNorm(embed_dim), nn.LayerNorm(embed_dim)
        self.mlp = nn.Sequential(
            nn.Linear(embed_dim, 4 * embed_dim), QuickGELU(), nn.Linear(4 * embed_dim, embed_dim)
        )

    def forward(self, text_BCE: Tensor, patches_BPE: Tensor) -> Tensor:
        q, k, v = (
            split_heads(projected, self.num_heads)
            for projected in (
                self.q_proj(self.attention_norm(text_BCE)),
                self.k_proj(patches_BPE),
                self.v_proj(patches_BPE),
            )
        )
        attended = self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        text_BCE = text_BCE + attended
        output: Tensor = text_BCE + self.mlp(self.mlp_norm(text_BCE))
        return output


def _num_heads(embed_dim: int) -> int:
    return max(1, embed_dim // _HEAD_WIDTH)


def _initialize(module: nn.Module) -> None:
    """As the authors' code does."""
    for part in module.modules():
        if isinstance(part, nn.Linear):
            nn.init.trunc_normal_(part.weight, std=0.02)
            if part.bias is not None:
                nn.init.zeros_(part.bias)
