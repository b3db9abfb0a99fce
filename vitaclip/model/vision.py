"""The vision tower: CLIP's ViT over the frames of a clip, layer by layer.

A method gives a layer for each block, which says what happens beside the block's own work.

Shape legend: B clips, T frames, F = B * T frames, N = 1 + patches, D width, E embedding, C color
channels, H and W pixels.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable

import torch
from open_clip.transformer import ResidualAttentionBlock, VisionTransformer
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from vitaclip.model import compilation
from vitaclip.model.attention import block_forward

CLS_TOKEN = slice(0, 1)

# Called with a block, the tokens ``[F, N, D]`` and those whose output is wanted.
VisionLayer = Callable[[ResidualAttentionBlock, Tensor, slice], Tensor]


class PlainLayer(nn.Module):
    """A block as it is."""

    def forward(self, block: ResidualAttentionBlock, x_FND: Tensor, query: slice) -> Tensor:
        return block_forward(block, x_FND, query=query)


def embed_frames(
    visual: VisionTransformer, frames_FCHW: Tensor, mean_C: Tensor, std_C: Tensor
) -> Tensor:
    """Patches and class token of each frame with their positions, before the first LayerNorm:
    ``[F, N, D]``.

    Args:
        visual: the tower.
        frames_FCHW: uint8 pixels, or floats that are normalized already.
        mean_C: of pixels between 0 and 1.
        std_C: their deviation.
    """
    if frames_FCHW.dtype == torch.uint8:
        mean, std = mean_C.view(-1, 1, 1), std_C.view(-1, 1, 1)
        frames_FCHW = (frames_FCHW * (1 / (255 * std))).sub_(mean / std)
    patches_FND = visual.conv1(frames_FCHW).flatten(2).transpose(1, 2)
    cls_F1D = visual.class_embedding.expand(len(frames_FCHW), 1, -1)
    tokens_FND = torch.cat([cls_F1D.to(patches_FND.dtype), patches_FND], dim=1)
    embedded: Tensor = tokens_FND + visual.positional_embedding
    return embedded


def run_layers(
    visual: VisionTransformer,
    layers: Iterable[VisionLayer],
    x_FND: Tensor,
    *,
    query: slice = CLS_TOKEN,
    activation_checkpointing: bool = False,
    compile_layers: bool = False,
) -> Tensor:
    """The tokens after the last layer, those selected by ``query`` alone: ``[F, queried, D]``.

    Args:
        visual: whose blocks run.
        layers: one for each block, called as ``layer(block, x_FND, query)``.
        x_FND: the tokens behind the first LayerNorm.
        query: the tokens of the last layer that are read.
        activation_checkpointing: recompute each layer in the backward pass.
        compile_layers: compile each layer with ``torch.compile``.
    """
    blocks = list(visual.transformer.resblocks)
    layer_forward = compilation.compiled(_layer_forward) if compile_layers else _layer_forward
    for block, layer in zip(blocks, layers, strict=True):
        queried = query if block is blocks[-1] else slice(None)
        if activation_checkpointing:
            x_FND = checkpoint(layer_forward, block, layer, x_FND, queried, use_reentrant=False)
        else:
            x_FND = layer_forward(block, layer, x_FND, queried)
    return x_FND


def _layer_forward(
    block: ResidualAttentionBlock, layer: VisionLayer, x_FND: Tensor, query: slice
) -> Tensor:
    return layer(block, x_FND, query)


def project(visual: VisionTransformer, cls_FD: Tensor) -> Tensor:
    """Class tokens of the last layer as features of the embedding shared with texts: ``[F, E]``."""
    features_FE: Tensor = visual.ln_post(cls_FD) @ visual.proj
    return features_FE
