"""What both towers share: one frozen CLIP block, computed for the queries that are needed only.

Shape legend: B batch, N tokens with a query, S all tokens (keys and values), H heads, D width, K =
D / H.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, NamedTuple

import torch
from open_clip.transformer import QuickGELU, ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

_SLOPE = 1.702  # QuickGELU's


class KeyValue(NamedTuple):
    """Keys and values of some tokens, each ``[B, H, S, K]``."""

    key: Tensor
    value: Tensor


def split_heads(x_BND: Tensor, num_heads: int) -> Tensor:
    """``[B, N, D]`` -> ``[B, H, N, K]``."""
    heads: Tensor = x_BND.unflatten(-1, (num_heads, -1)).transpose(1, 2)
    return heads


def merge_heads(x_BHNK: Tensor) -> Tensor:
    """``[B, H, N, K]`` -> ``[B, N, D]``."""
    return x_BHNK.transpose(1, 2).flatten(2)


def prompt_key_value(block: ResidualAttentionBlock, prompts_BSD: Tensor) -> KeyValue:
    """Keys and values of prompt tokens.

    Prompts are dropped after the attention, so their queries, output projection and MLP are never
    computed.
    """
    width = prompts_BSD.shape[-1]
    weight, bias = block.attn.in_proj_weight[width:], block.attn.in_proj_bias[width:]
    key, value = F.linear(block.ln_1(prompts_BSD), weight, bias).chunk(2, dim=-1)
    num_heads = block.attn.num_heads
    return KeyValue(split_heads(key, num_heads), split_heads(value, num_heads))


def block_forward(
    block: ResidualAttentionBlock,
    x_BND: Tensor,
    prompts: Sequence[KeyValue] = (),
    *,
    query: slice = slice(None),
) -> Tensor:
    """One CLIP block over ``x`` and prompt keys/values; the output has only the tokens selected by
    ``query``.

    Args:
        block: its weights.
        x_BND: the tokens.
        prompts: keys and values that all tokens attend to, beside their own.
        query: the tokens whose output is wanted.
    """
    attended_BND = attend(block, block.ln_1(x_BND), prompts, query=query)
    x_BND = x_BND[:, query] + attended_BND
    return x_BND + mlp(block, block.ln_2(x_BND))


def attend(
    block: ResidualAttentionBlock,
    normed_BND: Tensor,
    prompts: Sequence[KeyValue] = (),
    *,
    query: slice = slice(None),
) -> Tensor:
    """The attention of a CLIP block, without its residual: the output of the queried tokens.

    Args:
        block: its weights.
        normed_BND: the tokens behind the block's first LayerNorm.
        prompts: keys and values that all tokens attend to, beside their own.
        query: the tokens whose output is wanted.
    """
    weight, bias = block.attn.in_proj_weight, block.attn.in_proj_bias
    if query == slice(None):
        q, k, v = F.linear(normed_BND, weight, bias).chunk(3, dim=-1)
    else:  # a last layer: keys and values of all tokens, the query of some
        width = normed_BND.shape[-1]
        q = F.linear(normed_BND[:, query], weight[:width], bias[:width])
        k, v = F.linear(normed_BND, weight[width:], bias[width:]).chunk(2, dim=-1)
    num_heads = block.attn.num_heads
    own = KeyValue(split_heads(k, num_heads), split_heads(v, num_heads))
    key, value = (
        (torch.cat(parts, dim=2) for parts in zip(own, *prompts, strict=True)) if prompts else own
    )
    mixed = F.scaled_dot_product_attention(split_heads(q, num_heads), key, value)
    out_BND: Tensor = block.attn.out_proj(merge_heads(mixed))
    return out_BND


def mlp(block: ResidualAttentionBlock, normed_BND: Tensor) -> Tensor:
    """The MLP of a CLIP block, without its residual, of tokens behind its second LayerNorm."""
    hidden = block.mlp.c_fc(normed_BND)
    is_quick = isinstance(block.mlp.gelu, QuickGELU)
    hidden = _QuickGELU.apply(hidden) if is_quick else block.mlp.gelu(hidden)
    out_BND: Tensor = block.mlp.c_proj(hidden)
    return out_BND


class _QuickGELU(torch.autograd.Function):
    """``x * sigmoid(1.702 x)`` as ``silu(1.702 x) / 1.702``: few passes over memory, and one tensor
    kept for the backward pass.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return F.silu(x * _SLOPE, inplace=True).mul_(1 / _SLOPE)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        slope: Tensor = torch.ops.aten.silu_backward(grad, x * _SLOPE)
        return slope


class FrameAttention(nn.Module):
    """Multi-head self-attention with separate projections: the summary token's, across the T frames
    of a clip.

    Initialized Xavier-uniform with zero biases (released code).
    """

    def __init__(self, width: int, num_heads: int) -> None:
        super().__init__()
        self.num_heads = num_heads
        self.q_proj, self.k_proj = nn.Linear(width, width), nn.Linear(width, width)
        self.v_proj, self.out_proj = nn.Linear(width, width), nn.Linear(width, width)
        for projection in (self.q_proj, self.k_proj, self.v_proj, self.out_proj):
            nn.init.xavier_uniform_(projection.weight)
            nn.init.zeros_(projection.bias)

    def forward(self, x_BTD: Tensor) -> Tensor:
        """``[B, T, D]`` -> ``[B, T, D]``."""
        # One product instead of three small ones.
        projections = (self.q_proj, self.k_proj, self.v_proj)
        weight = torch.cat([projection.weight for projection in projections])
        bias = torch.cat([projection.bias for projection in projections])
        q, k, v = (
            split_heads(part, self.num_heads)
            for part in F.linear(x_BTD, weight, bias).chunk(3, dim=-1)
        )
        mixed: Tensor = self.out_proj(merge_heads(F.scaled_dot_product_attention(q, k, v)))
        return mixed
