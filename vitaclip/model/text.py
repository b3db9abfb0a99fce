"""The text tower: CLIP's frozen causal transformer over class names with learned context (paper
section 3.3).

The texts are packed one behind the other, without padding, and only the attention sees them apart:
the causal mask makes whatever stands behind a text irrelevant to it. The last layer computes what
the end-of-text tokens need. Both are exact.

Shape legend: C classes, S tokens of all classes together, L tokens of the longest, n context
vectors, D width, E embedding.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from typing import NamedTuple

import open_clip
import torch
from open_clip.model import CLIP
from open_clip.transformer import ResidualAttentionBlock
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.config.model import TextConfig
from vitaclip.errors import InputError
from vitaclip.model import compilation
from vitaclip.model.attention import merge_heads, mlp, split_heads

TOKENIZER: open_clip.SimpleTokenizer = open_clip.tokenizer._tokenizer  # CLIP's own BPE, lower-cased


class ClassTokens(NamedTuple):
    """A class as tokens. The whole text is ``SOT, context and name, tail``."""

    name: list[int]
    tail: list[int]  # what follows the name: "." if there is context, then EOT


class TextPrompts(nn.Module):
    """Learned context vectors, class-specific ``[C, n, D]`` or unified ``[n, D]``, at the input
    and, with ``depth > 1``, anew at each of the first layers (as MaPLe replaces them).
    """

    def __init__(self, clip: CLIP, config: TextConfig, num_classes: int) -> None:
        super().__init__()
        self.position = config.position
        self.num_context = config.num_context
        num_layers, width = len(clip.transformer.resblocks), clip.token_embedding.embedding_dim
        if config.depth > num_layers:
            raise InputError(
                f"text.depth: found {config.depth}, allowed is at most {num_layers}, the text "
                "layers"
            )
        classes = (num_classes,) if config.class_specific else ()
        shape = (*classes, config.num_context, width)
        self.context = nn.Parameter(torch.empty(shape).normal_(std=0.02))
        self.deep_context = nn.ParameterList(
            nn.Parameter(torch.empty(shape).normal_(std=0.02)) for _ in range(config.depth - 1)
        )
        if config.init is not None:
            with torch.no_grad():
                self.context.copy_(_word_embeddings(clip, config).expand(shape))

    def pack(self, classes: Sequence[ClassTokens]) -> PackedTexts:
        """The classes' texts, with room for the context."""
        before = {"end": self.num_context, "middle": self.num_context // 2, "front": 0}
        num_before = before[self.position]
        return PackedTexts(classes, num_before, self.num_context - num_before)

    def insert(self, context: Tensor, x_SD: Tensor, texts: PackedTexts) -> Tensor:
        """The tokens with the context in its places."""
        context_CnD = context.expand(texts.num_texts, -1, -1)
        return x_SD.index_copy(0, texts.context_Cn.flatten(), context_CnD.flatten(0, 1))


def tokenize_classes(
    names: Sequence[str], context_length: int, num_context: int
) -> list[ClassTokens]:
    """With context a text is ``SOT, context and name, ".", EOT``; without, ``SOT, name, EOT``: the
    plain name.

    Raises:
        InputError: a name leaves no room for itself in the context length.
    """
    tokens = [_tokenize(name, with_full_stop=num_context > 0) for name in names]
    for class_name, (name, tail) in zip(names, tokens, strict=True):
        length = 1 + num_context + len(name) + len(tail)
        if length > context_length:
            with_context = f" with {num_context} context vectors" if num_context else ""
            or_lower = " or lower text.num_context" if num_context else ""
            raise InputError(
                f"class name '{class_name}': {length} tokens{with_context}, allowed are "
                f"{context_length}; shorten the name{or_lower}"
            )
    return tokens


class PackedTexts(nn.Module):
    """The texts of all classes, one behind the other: their tokens, and where these belong."""

    token_ids_S: Tensor  # of the context's tokens: any
    places_S: Tensor  # in a grid ``[C * L]`` in which each text has a row
    ends_C: Tensor  # of the end-of-text tokens among all tokens
    context_Cn: Tensor  # of the context's tokens among all tokens

    def __init__(self, classes: Sequence[ClassTokens], num_before: int, num_after: int) -> None:
        """``num_before`` and ``num_after`` context vectors stand before and after each name."""
        super().__init__()
        rows: list[list[int]] = []
        context: list[list[int]] = []
        start = 0
        for name, tail in classes:
            row = [TOKENIZER.sot_token_id, *[0] * num_before, *name, *[0] * num_after, *tail]
            after = start + 1 + num_before + len(name)
            rows.append(row)
            context.append(
                [*range(start + 1, start + 1 + num_before), *range(after, after + num_after)]
            )
            start += len(row)
        self.num_texts, self.max_length = len(rows), max(map(len, rows), default=0)
        places = [
            index * self.max_length + position
            for index, row in enumerate(rows)
            for position in range(len(row))
        ]
        ends = [end - 1 for end in itertools.accumulate(map(len, rows))]
        # They follow the model to its device, and no checkpoint needs them.
        self._hold("token_ids_S", [*itertools.chain.from_iterable(rows)])
        self._hold("places_S", places)
        self._hold("ends_C", ends)
        self._hold("context_Cn", context)

    def _hold(self, name: str, values: Sequence[int] | Sequence[Sequence[int]]) -> None:
        self.register_buffer(name, torch.tensor(values, dtype=torch.long), persistent=False)


def pack_names(names: Sequence[str], context_length: int) -> PackedTexts:
    """Plain names. Raises InputError if one is too long."""
    return PackedTexts(tokenize_classes(names, context_length, 0), 0, 0)


def encode_text(
    clip: CLIP,
    texts: PackedTexts,
    prompts: TextPrompts | None = None,
    *,
    compile_layers: bool = False,
) -> Tensor:
    """Text features ``[C, E]``, not yet normalized.

    Args:
        clip: whose text tower encodes.
        texts: on the tower's device, with room for the prompts' context.
        prompts: the learned context; None: plain names.
        compile_layers: compile each layer with ``torch.compile``.
    """
    layer_forward = compilation.compiled(_layer_forward) if compile_layers else _layer_forward
    positions_S = texts.places_S % texts.max_length
    x_SD = clip.token_embedding(texts.token_ids_S)
    if prompts is not None:
        x_SD = prompts.insert(prompts.context, x_SD, texts)
    x_SD = x_SD + clip.positional_embedding[positions_S]
    deep = list(prompts.deep_context) if prompts else []
    blocks = list(clip.transformer.resblocks)
    for layer, block in enumerate(blocks):
        if prompts is not None and 1 <= layer <= len(deep):
            x_SD = prompts.insert(deep[layer - 1], x_SD, texts)
        ends_C = texts.ends_C if block is blocks[-1] else None
        x_SD = layer_forward(block, x_SD, texts.places_S, texts.num_texts, texts.max_length, ends_C)
    features: Tensor = clip.ln_final(x_SD) @ clip.text_projection
    return features


def _layer_forward(
    block: ResidualAttentionBlock,
    x_SD: Tensor,
    places_S: Tensor,
    num_texts: int,
    max_length: int,
    ends_C: Tensor | None,
) -> Tensor:
    """One block over all texts, each token attending to its own text up to itself.

    Args:
        block: its weights.
        x_SD: the tokens of all texts.
        places_S: where they stand in a grid of texts.
        num_texts: the grid's rows.
        max_length: the grid's columns.
        ends_C: the tokens whose output is wanted; None: all.
    """
    normed_SD = block.ln_1(x_SD)
    qkv = F.linear(normed_SD, block.attn.in_proj_weight, block.attn.in_proj_bias)
    grid = qkv.new_zeros(num_texts * max_length, qkv.shape[1]).index_copy(0, places_S, qkv)
    q, k, v = (
        split_heads(part, block.attn.num_heads)
        for part in grid.view(num_texts, max_length, -1).chunk(3, dim=-1)
    )
    mixed = merge_heads(F.scaled_dot_product_attention(q, k, v, is_causal=True)).flatten(0, 1)
    if ends_C is not None:
        x_SD, places_S = x_SD[ends_C], places_S[ends_C]
    x_SD = x_SD + block.attn.out_proj(mixed.index_select(0, places_S))
    return x_SD + mlp(block, block.ln_2(x_SD))


def _tokenize(name: str, *, with_full_stop: bool) -> ClassTokens:
    """Token ids of the name, and of what follows it up to EOT. Underscores read as spaces (released
    code).
    """
    words = name.replace("_", " ")
    name_ids = TOKENIZER.encode(words)
    all_ids = TOKENIZER.encode(words + ".") if with_full_stop else name_ids
    if not name_ids:
        raise InputError(f"class name '{name}': found no word in it, needed is at least one")
    tail = [*all_ids[len(name_ids) :], TOKENIZER.eot_token_id]
    return ClassTokens(all_ids[: len(name_ids)], tail)


def _word_embeddings(clip: CLIP, config: TextConfig) -> Tensor:
    tokens = TOKENIZER.encode(config.init or "")
    if len(tokens) != config.num_context:
        raise InputError(
            f"text.init: '{config.init}' has {len(tokens)} tokens, text.num_context is "
            f"{config.num_context}; make them equal"
        )
    embeddings: Tensor = clip.token_embedding(
        torch.tensor(tokens, device=clip.token_embedding.weight.device)
    )
    return embeddings
