"""The visual prompts of Vita-CLIP (paper section 3.2).

Each layer attends, within every frame, over ``[cls | patches | local | global | summary]``. The
prompts are fresh in each layer and serve as keys and values only; what flows between frames goes
through ``local`` and ``summary``.

Shape legend: B clips, T frames, F = B * T frames, N = 1 + patches, D width, G global prompts.
"""

from __future__ import annotations

import math

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import LayerRange, PromptConfig
from vitaclip.errors import InputError
from vitaclip.model.attention import FrameAttention, KeyValue, block_forward, prompt_key_value


class LayerPrompts(nn.Module):
    """The prompts of one layer; a kind that is switched off has no parameters."""

    def __init__(
        self,
        visual: VisionTransformer,
        num_frames: int,
        *,
        num_global: int,
        local: bool,
        summary: bool,
    ) -> None:
        """Draws the prompts from PyTorch's global random numbers.

        Args:
            visual: the tower, for its sizes.
            num_frames: of a clip.
            num_global: how many global prompts there are.
            local: whether each frame brings a prompt.
            summary: whether each frame has a summary token.
        """
        super().__init__()
        width, num_heads = visual.conv1.out_channels, visual.transformer.resblocks[0].attn.num_heads
        bound = math.sqrt(6 / (3 * math.prod(visual.patch_size) + width))
        self.num_frames = num_frames
        self.global_prompts = _uniform(num_global, width, bound) if num_global else None
        self.local_prompts = _uniform(num_frames, width, bound) if local else None
        self.cls_proj = nn.Linear(width, width) if local or summary else None
        self.summary_norm = nn.LayerNorm(width) if summary else None
        self.summary_attention = FrameAttention(width, num_heads) if summary else None

    def forward(self, block: ResidualAttentionBlock, x_FND: Tensor, query: slice) -> Tensor:
        """The block, with this layer's prompts beside the tokens of every frame."""
        return block_forward(block, x_FND, self.key_values(block, x_FND), query=query)

    def key_values(self, block: ResidualAttentionBlock, x_FND: Tensor) -> list[KeyValue]:
        """Keys and values of this layer's prompts for every frame, each ``[F, H, prompts, K]``."""
        num_frames_total = x_FND.shape[0]
        prompts: list[KeyValue] = []
        if self.global_prompts is not None:  # computed once, shared by all frames and clips
            shared = prompt_key_value(block, self.global_prompts.unsqueeze(0))
            prompts.append(_expand(shared, num_frames_total))
        if self.cls_proj is None:
            return prompts
        # P_sum, un-normalized stream
        cls_BTD = self.cls_proj(x_FND[:, 0]).unflatten(0, (-1, self.num_frames))
        if self.local_prompts is not None:  # all T of a clip are given to each of its frames
            prompts.append(
                _repeat_frames(
                    prompt_key_value(block, self.local_prompts + cls_BTD), self.num_frames
                )
            )
        if self.summary_norm is not None and self.summary_attention is not None:
            summary_BTD = cls_BTD + self.summary_attention(self.summary_norm(cls_BTD))
            prompts.append(prompt_key_value(block, summary_BTD.reshape(num_frames_total, 1, -1)))
        return prompts


class VisionPrompts(nn.Module):
    """All learned parts of the vision tower: the time embedding and each layer's prompts."""

    def __init__(self, visual: VisionTransformer, config: PromptConfig, num_frames: int) -> None:
        super().__init__()
        num_layers = len(visual.transformer.resblocks)
        width = visual.conv1.out_channels
        self.num_frames = num_frames
        self.time_embedding = (
            nn.Parameter(torch.empty(num_frames, width).normal_(std=0.02))
            if config.time_embedding
            else None
        )
        with_global = _layers(config, "global", num_layers)
        with_local = _layers(config, "local", num_layers)
        with_summary = _layers(config, "summary", num_layers)
        self.layers = nn.ModuleList(
            LayerPrompts(
                visual,
                num_frames,
                num_global=config.num_global if layer in with_global else 0,
                local=config.local and layer in with_local,
                summary=config.summary and layer in with_summary,
            )
            for layer in range(num_layers)
        )
        if config.cls_proj == "released":
            for layer in self.layers:
                if layer.cls_proj is not None:
                    layer.cls_proj.requires_grad_(False)

    def add_time(self, x_FND: Tensor, num_frames: int) -> Tensor:
        """Adds frame t's embedding to every token of frame t; nearest-neighbor resize for other
        clip lengths.
        """
        if self.time_embedding is None:
            return x_FND
        time_TD: Tensor = self.time_embedding
        if num_frames != self.num_frames:
            time_TD = F.interpolate(time_TD.T.unsqueeze(0), size=num_frames, mode="nearest")[0].T
        timed: Tensor = (x_FND.unflatten(0, (-1, num_frames)) + time_TD[:, None]).flatten(0, 1)
        return timed


def _layers(config: PromptConfig, kind: str, num_layers: int) -> range:
    """The layers that carry prompts of one kind: its own range, or the first ``depth``."""
    own: LayerRange | None = getattr(config, f"{kind}_layers")
    first, stop = own or (0, num_layers if config.depth is None else config.depth)
    if stop > num_layers:
        name = f"prompts.{kind}_layers" if own else "prompts.depth"
        raise InputError(
            f"{name}: found {stop}, allowed is at most {num_layers}, the backbone's number of "
            "layers"
        )
    return range(first, stop)


def _uniform(count: int, width: int, bound: float) -> nn.Parameter:
    return nn.Parameter(torch.empty(count, width).uniform_(-bound, bound))


def _expand(shared: KeyValue, size: int) -> KeyValue:
    return KeyValue(shared.key.expand(size, -1, -1, -1), shared.value.expand(size, -1, -1, -1))


def _repeat_frames(per_clip: KeyValue, num_frames: int) -> KeyValue:
    """``[B, H, T, K]`` -> ``[B * T, H, T, K]``: each frame sees all T of its clip."""
    return KeyValue(*(part.repeat_interleave(num_frames, dim=0) for part in per_clip))
