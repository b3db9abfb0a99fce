"""The visual prompts of Vita-CLIP (paper section 3.2).

Each layer attends, within every frame, over ``[cls | patches | local | global | summary]``. The
prompts are fresh in each layer and serve as keys and values only; what flows between frames goes
through ``local`` and ``summary``.

Shape legend: B clips, T frames, F = B * T frames, N = 1 + patches, D width, G global prompts.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from functools import partial

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import LayerRange, PromptConfig
from vitaclip.errors import InputError
from vitaclip.model.attention import FrameAttention, KeyValue, block_forward, prompt_key_value
from vitaclip.model.vision import VisionLayer


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

    def forward(
        self,
        global_prompts_GD: Tensor | None,
        block: ResidualAttentionBlock,
        x_FND: Tensor,
        query: slice,
    ) -> Tensor:
        """The block, with this layer's prompts beside the tokens of every frame.

        Args:
            global_prompts_GD: this layer's.
            block: its weights.
            x_FND: the tokens.
            query: the tokens whose output is wanted.
        """
        prompts = self._prompts(global_prompts_GD, x_FND)
        return block_forward(
            block, x_FND, self._key_values(block, prompts, len(x_FND)), query=query
        )

    def global_prompts_as_argument(self) -> Tensor | None:
        """The global prompts, no longer as a parameter."""
        prompts = self.global_prompts
        return None if prompts is None else prompts.view_as(prompts)

    def _key_values(
        self, block: ResidualAttentionBlock, prompts: dict[str, Tensor], num_frames_total: int
    ) -> list[KeyValue]:
        """Keys and values of this layer's prompts for every frame, each ``[F, H, prompts, K]``."""
        if not prompts:
            return []
        # One product for all kinds of prompts, each of which is computed once.
        tokens_PD = torch.cat([kind.flatten(0, 1) for kind in prompts.values()])
        numbers = [kind.shape[0] * kind.shape[1] for kind in prompts.values()]
        key, value = prompt_key_value(block, tokens_PD.unsqueeze(0))
        parts = zip(key.split(numbers, dim=2), value.split(numbers, dim=2), strict=True)
        return [
            KeyValue(*(self._for_frames(name, part, num_frames_total) for part in pair))
            for name, pair in zip(prompts, parts, strict=True)
        ]

    def _prompts(self, global_prompts_GD: Tensor | None, x_FND: Tensor) -> dict[str, Tensor]:
        """The prompts of each kind: ``global`` ``[1, G, D]``, shared by all clips, ``local`` ``[B,
        T, D]``, shared by a clip's frames, ``summary`` ``[F, 1, D]``.
        """
        prompts = {}
        if global_prompts_GD is not None:
            prompts["global"] = global_prompts_GD.unsqueeze(0)
        if self.cls_proj is None:
            return prompts
        # P_sum, un-normalized stream
        cls_BTD = self.cls_proj(x_FND[:, 0]).unflatten(0, (-1, self.num_frames))
        if self.local_prompts is not None:
            prompts["local"] = self.local_prompts + cls_BTD
        if self.summary_norm is not None and self.summary_attention is not None:
            summary_BTD = cls_BTD + self.summary_attention(self.summary_norm(cls_BTD))
            prompts["summary"] = summary_BTD.flatten(0, 1).unsqueeze(1)
        return prompts

    def _for_frames(self, name: str, part_1HPK: Tensor, num_frames_total: int) -> Tensor:
        """Keys or values of one kind of prompts, for each of all frames: ``[F, H, prompts, K]``."""
        part_HPK = part_1HPK[0]
        if name == "global":
            return part_HPK.expand(num_frames_total, -1, -1, -1)
        if name == "summary":
            return part_HPK.transpose(0, 1).unsqueeze(2)
        per_clip_BHTK = part_HPK.unflatten(1, (-1, self.num_frames)).transpose(0, 1)
        repeated: Tensor = per_clip_BHTK.repeat_interleave(self.num_frames, dim=0)
        return repeated


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
        layers = [
            LayerPrompts(
                visual,
                num_frames,
                num_global=config.num_global if layer in with_global else 0,
                local=config.local and layer in with_local,
                summary=config.summary and layer in with_summary,
            )
            for layer in range(num_layers)
        ]
        self.layers = nn.ModuleList(layers)
        if config.cls_proj == "released":
            for layer in self.layers:
                if layer.cls_proj is not None:
                    layer.cls_proj.requires_grad_(False)

    def with_global_prompts(self) -> Iterator[VisionLayer]:
        """The layers, each with its global prompts as an argument: a compiler takes the parameters
        of a module to have one size in all models.
        """
        for layer in self.layers:
            assert isinstance(layer, LayerPrompts)
            # Not before its turn: in the backward pass its gradient would come last.
            yield partial(layer, layer.global_prompts_as_argument())

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
