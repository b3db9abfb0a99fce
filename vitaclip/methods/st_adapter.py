"""ST-Adapter: a frozen CLIP with spatio-temporal adapters in its image tower (Pan et al., NeurIPS
2022).

An adapter projects the patch tokens down, convolves each channel over time, projects up, and adds
the result; the class token passes by. At the start it adds nothing. Where the authors train a
classification head on the mean of the frames' class tokens, this project projects that mean into
CLIP's embedding and compares it with class names, so that a zero-shot score is defined. Checked
against the authors' code up to that head.

Shape legend: B clips, T frames, F = B * T frames, N = 1 + P tokens, P patches, D width, A adapter
width, E embedding.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn

from vitaclip.config.model import ModelConfig
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.attention import attend, mlp
from vitaclip.model.backbone import Backbone
from vitaclip.model.vision import VisionLayer, project


class STAdapter(VideoModel):
    """CLIP over frames, with adapters before the attention and the MLP of its blocks."""

    def __init__(
        self, backbone: Backbone, config: ModelConfig, class_names: Sequence[str] = ()
    ) -> None:
        super().__init__(backbone, config, class_names)
        settings, blocks = config.method.st_adapter, self.clip.visual.transformer.resblocks
        width = self.clip.visual.conv1.out_channels

        def adapter() -> Adapter:
            return Adapter(width, settings.width, settings.kernel_frames, self.num_frames)

        self.layers = nn.ModuleList(
            AdapterLayer(
                adapter() if settings.place != "mlp" else None,
                # The last block's would change patches, of which nothing is read any more.
                adapter() if settings.place != "attention" and block is not blocks[-1] else None,
            )
            for block in blocks
        )

    def vision_layers(self) -> Iterable[VisionLayer]:
        return self.layers

    def pool(self, x_FND: Tensor, num_frames: int) -> Tensor:
        cls_BD = x_FND[:, 0].unflatten(0, (-1, num_frames)).mean(dim=1)
        return project(self.clip.visual, cls_BD)


build = STAdapter


class AdapterLayer(nn.Module):
    """One block with its adapters."""

    def __init__(self, before_attention: Adapter | None, before_mlp: Adapter | None) -> None:
        super().__init__()
        self.before_attention = before_attention
        self.before_mlp = before_mlp

    def forward(self, block: ResidualAttentionBlock, x_FND: Tensor, query: slice) -> Tensor:
        if self.before_attention is not None:
            x_FND = self.before_attention(x_FND)
        x_FND = x_FND[:, query] + attend(block, block.ln_1(x_FND), query=query)
        if self.before_mlp is not None:
            x_FND = self.before_mlp(x_FND)
        return x_FND + mlp(block, block.ln_2(x_FND))


class Adapter(nn.Module):
    """Down, a depth-wise convolution over time, and up, beside the patch tokens."""

    def __init__(self, width: int, adapter_width: int, kernel_frames: int, num_frames: int) -> None:
        """Starts as the identity.

        Args:
            width: the tower's.
            adapter_width: of the convolution.
            kernel_frames: over how many frames it reaches; an odd number.
            num_frames: of a clip.
        """
        super().__init__()
        self.num_frames = num_frames
        self.down = nn.Linear(width, adapter_width)
        self.conv = nn.Conv1d(
            adapter_width,
            adapter_width,
            kernel_frames,
            padding=kernel_frames // 2,
            groups=adapter_width,
        )
        self.up = nn.Linear(adapter_width, width)
        nn.init.zeros_(self.conv.weight)
        for name, parameter in self.named_parameters():
            if name.endswith("bias"):
                nn.init.zeros_(parameter)

    def forward(self, x_FND: Tensor) -> Tensor:
        """``[F, N, D]`` -> ``[F, N, D]``."""
        cls_F1D, patches_FPD = x_FND[:, :1], x_FND[:, 1:]
        down_BTPA = self.down(patches_FPD).unflatten(0, (-1, self.num_frames))
        num_patches = down_BTPA.shape[2]
        over_time = self.conv(down_BTPA.permute(0, 2, 3, 1).flatten(0, 1))  # [B * P, A, T]
        mixed_BTPA = over_time.unflatten(0, (-1, num_patches)).permute(0, 3, 1, 2)
        return torch.cat([cls_F1D, patches_FPD + self.up(mixed_BTPA.flatten(0, 1))], dim=1)
