"""AIM: a frozen CLIP whose attention also runs over time, with bottleneck adapters (Yang et al.,
ICLR 2023).

Each block first attends over the frames at every place, with its own frozen weights, then within
each frame, and adapts both and its MLP by small bottlenecks. At the start it is the frozen block.
Where the authors train a classification head on the frames' mean, this project compares the mean
with class names. Their drop path (0.2 in training) is left out. Checked against the authors' code
up to the head.

Shape legend: B clips, T frames, F = B * T frames, N tokens of a frame, D width.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.methods import AimConfig
from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.attention import attend, mlp
from vitaclip.model.backbone import Backbone
from vitaclip.model.vision import VisionLayer


class AIM(VideoModel):
    """CLIP over frames and time."""

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        visual, settings = self.clip.visual, config.method.aim
        width = visual.conv1.out_channels
        # As the authors do, whose head comes behind it.
        visual.ln_post.requires_grad_(True)
        self.time_embedding = nn.Parameter(torch.zeros(self.num_frames, width))
        self.layers = nn.ModuleList(
            AimLayer(width, settings, self.num_frames) for _ in visual.transformer.resblocks
        )

    def vision_layers(self) -> Iterable[VisionLayer]:
        return self.layers

    def add_time(self, x_FND: Tensor, num_frames: int) -> Tensor:
        x_BTND = x_FND.unflatten(0, (-1, self.num_frames))
        timed: Tensor = (x_BTND + self.time_embedding[:, None]).flatten(0, 1)
        return timed


build = AIM


class AimLayer(nn.Module):
    """One block with its adaptation over time, within frames, and of the MLP."""

    def __init__(self, width: int, config: AimConfig, num_frames: int) -> None:
        super().__init__()
        self.num_frames = num_frames
        self.mlp_scale = config.mlp_scale
        hidden = max(1, int(width * config.width_ratio))
        self.before_time = Bottleneck(width, hidden) if config.num_temporal == 2 else None
        self.after_time = Bottleneck(width, hidden)
        self.after_space = Bottleneck(width, hidden)
        self.beside_mlp = Bottleneck(width, hidden)

    def forward(self, block: ResidualAttentionBlock, x_FND: Tensor, query: slice) -> Tensor:
        x_FND = x_FND + self._over_time(block, x_FND)
        attended = attend(block, block.ln_1(x_FND), query=query)
        x_FND = x_FND[:, query] + attended + self.after_space(attended)
        normed = block.ln_2(x_FND)
        adapted: Tensor = mlp(block, normed) + self.mlp_scale * self.beside_mlp(normed)
        return x_FND + adapted

    def _over_time(self, block: ResidualAttentionBlock, x_FND: Tensor) -> Tensor:
        """What the frames of a clip say to each other, place by place: ``[F, N, D]``."""
        num_tokens = x_FND.shape[1]
        x_BNTD = x_FND.unflatten(0, (-1, self.num_frames)).transpose(1, 2)
        normed = block.ln_1(x_BNTD.flatten(0, 1))
        if self.before_time is not None:
            normed = normed + self.before_time(normed)
        adapted = self.after_time(attend(block, normed)).unflatten(0, (-1, num_tokens))
        over_time: Tensor = adapted.transpose(1, 2).flatten(0, 1)
        return over_time


class Bottleneck(nn.Module):
    """Down, GELU, and up. It starts as zero."""

    def __init__(self, width: int, hidden: int) -> None:
        super().__init__()
        self.down, self.up = nn.Linear(width, hidden), nn.Linear(hidden, width)
        nn.init.trunc_normal_(self.down.weight, std=0.02)
        for zero in (self.down.bias, self.up.weight, self.up.bias):
            nn.init.zeros_(zero)

    def forward(self, x: Tensor) -> Tensor:
        """``[..., D]`` -> ``[..., D]``."""
        adapted: Tensor = self.up(F.gelu(self.down(x)))
        return adapted
