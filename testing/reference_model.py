"""Vita-CLIP written the straightforward way, over the parameters of a
:class:`vitaclip.methods.vita_clip.VitaCLIP`.

It computes what the released code computes: all 77 text tokens, every prompt as a full token of its
layer (query, output projection and all), materialized attention by einsum, no shortcut in any last
layer. The product's model must agree with it in outputs and gradients, and
``benchmarks.train_step`` times the product against it.
"""

from __future__ import annotations

import open_clip
import torch
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.methods.vita_clip import VitaCLIP
from vitaclip.model.attention import FrameAttention
from vitaclip.model.text import tokenize_classes
from vitaclip.model.vision_prompts import LayerPrompts


def reference_step(
    model: VitaCLIP, video_BCTHW: Tensor, labels_B: Tensor, micro_batch_size: int
) -> Tensor:
    """Adds the gradients of one optimizer step, the text tower once per micro-batch; returns the
    loss.
    """
    micro_batches = zip(
        video_BCTHW.split(micro_batch_size), labels_B.split(micro_batch_size), strict=True
    )
    # What is made on the way is made where the clips are.
    with video_BCTHW.device:
        total = torch.zeros(())
        for video, labels in micro_batches:
            logits = reference_logits(model, video)
            loss = F.cross_entropy(logits, labels) * len(labels) / len(labels_B)
            loss.backward()
            total += loss.detach()
    return total


def reference_logits(model: VitaCLIP, video_BCTHW: Tensor) -> Tensor:
    """``[B, C]``"""
    video, text = reference_video(model, video_BCTHW), reference_text(model)
    return model.logit_scale.exp() * F.normalize(video, dim=-1) @ F.normalize(text, dim=-1).T


def reference_video(model: VitaCLIP, video_BCTHW: Tensor) -> Tensor:
    """``[B, E]``"""
    visual, prompts = model.clip.visual, model.vision_prompts
    batch, _, frames, _, _ = video_BCTHW.shape
    x = visual.conv1(video_BCTHW.transpose(1, 2).flatten(0, 1)).flatten(2).transpose(1, 2)
    x = (
        torch.cat([visual.class_embedding.expand(len(x), 1, -1), x], dim=1)
        + visual.positional_embedding
    )
    if prompts.time_embedding is not None:
        index = torch.arange(frames) * prompts.num_frames // frames
        x = x + prompts.time_embedding[index].repeat(batch, 1)[:, None]
    x = visual.ln_pre(x)
    for block, layer in zip(visual.transformer.resblocks, prompts.layers, strict=True):
        assert isinstance(layer, LayerPrompts)
        x = _vision_layer(block, layer, x)
    features: Tensor = visual.ln_post(x[:, 0]) @ visual.proj
    return features.view(batch, frames, -1).mean(dim=1)


def _vision_layer(block: ResidualAttentionBlock, layer: LayerPrompts, x: Tensor) -> Tensor:
    num_tokens, frames = x.shape[1], layer.num_frames
    extra = []
    if layer.global_prompts is not None:
        extra.append(layer.global_prompts.expand(len(x), -1, -1))
    if layer.cls_proj is not None:
        cls = layer.cls_proj(x[:, 0]).view(-1, frames, x.shape[-1])
        if layer.local_prompts is not None:
            local = layer.local_prompts + cls
            extra.append(local.repeat_interleave(frames, dim=0))
        if layer.summary_norm is not None and layer.summary_attention is not None:
            summary = cls + _summary_attention(layer.summary_attention, layer.summary_norm(cls))
            extra.append(summary.reshape(len(x), 1, -1))
    tokens = torch.cat([x, *extra], dim=1)
    tokens = tokens + _attention(block.attn, block.ln_1(tokens))
    return _add_mlp(block, tokens[:, :num_tokens])


def _add_mlp(block: ResidualAttentionBlock, x: Tensor) -> Tensor:
    hidden: Tensor = block.mlp(block.ln_2(x))
    return x + hidden


def _summary_attention(attention: FrameAttention, x: Tensor) -> Tensor:
    q, k, v = attention.q_proj(x), attention.k_proj(x), attention.v_proj(x)
    mixed: Tensor = attention.out_proj(_mix(q, k, v, attention.num_heads))
    return mixed


def _attention(attention: nn.MultiheadAttention, x: Tensor, mask: Tensor | None = None) -> Tensor:
    weights, biases = attention.in_proj_weight.chunk(3), attention.in_proj_bias.chunk(3)
    q, k, v = (F.linear(x, weight, bias) for weight, bias in zip(weights, biases, strict=True))
    mixed: Tensor = attention.out_proj(_mix(q, k, v, attention.num_heads, mask))
    return mixed


def _mix(q: Tensor, k: Tensor, v: Tensor, num_heads: int, mask: Tensor | None = None) -> Tensor:
    q, k, v = (t.view(*t.shape[:2], num_heads, -1) for t in (q, k, v))
    scores = torch.einsum("nqhc,nkhc->nqkh", q / q.shape[-1] ** 0.5, k)
    if mask is not None:
        scores = scores + mask[:, :, None]
    return torch.einsum("nqkh,nkhc->nqhc", scores.softmax(dim=-2), v).flatten(2)


def reference_text(model: VitaCLIP) -> Tensor:
    """``[C, E]`` over the full context length."""
    clip, prompts = model.clip, model.text_prompts
    length = clip.context_length
    num_context = prompts.num_context if prompts else 0
    x, context_places, eot = _text_input(model, num_context, length)
    x = x + clip.positional_embedding
    mask = torch.full((length, length), float("-inf"), dtype=x.dtype).triu(1)
    deep = list(prompts.deep_context) if prompts else []
    for index, block in enumerate(clip.transformer.resblocks):
        if 1 <= index <= len(deep):
            x = x.clone()
            x[torch.arange(len(x))[:, None], context_places] = _all_context(deep[index - 1], len(x))
        x = x + _attention(block.attn, block.ln_1(x), mask)
        x = _add_mlp(block, x)
    features: Tensor = clip.ln_final(x)[torch.arange(len(x)), eot] @ clip.text_projection
    return features


def _text_input(model: VitaCLIP, num_context: int, length: int) -> tuple[Tensor, Tensor, Tensor]:
    """Embeddings ``[C, 77, D]``, the places of the context ``[C, n]`` and of EOT ``[C]``, class by
    class.
    """
    clip, prompts = model.clip, model.text_prompts
    tokenizer = open_clip.tokenizer._tokenizer
    rows, places, ends = [], [], []
    for index, name in enumerate(model.class_names):
        name_ids, tail_ids = tokenize_classes([name], length, num_context)[0]
        before = {"end": num_context, "middle": num_context // 2, "front": 0}[
            prompts.position if prompts else "end"
        ]
        ids = [
            tokenizer.sot_token_id,
            *[0] * before,
            *name_ids,
            *[0] * (num_context - before),
            *tail_ids,
        ]
        place = [
            *range(1, 1 + before),
            *range(1 + before + len(name_ids), 1 + num_context + len(name_ids)),
        ]
        row = clip.token_embedding(torch.tensor(ids + [0] * (length - len(ids))))
        if prompts is not None:
            context = prompts.context[index] if prompts.context.ndim == 3 else prompts.context
            row = row.index_put((torch.tensor(place),), context)
        rows.append(row)
        places.append(place)
        ends.append(len(ids) - 1)
    return torch.stack(rows), torch.tensor(places), torch.tensor(ends)


def _all_context(context: Tensor, num_classes: int) -> Tensor:
    return context if context.ndim == 3 else context.expand(num_classes, -1, -1)
