"""The text tower: CLIP's frozen causal transformer over class names with learned context (paper
section 3.3).

Sequences are grouped by length, so nothing is padded and the end-of-text token is always last: the
causal mask makes later tokens irrelevant, and the last layer needs that one query only. Both are
exact.

Shape legend: C classes (of one group), L tokens, n context vectors, D width, E embedding.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Sequence
from dataclasses import dataclass, fields

import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn

from vitaclip.config.model import TextConfig
from vitaclip.errors import InputError
from vitaclip.model.attention import block_forward, compiled

LAST_TOKEN = slice(-1, None)
TOKENIZER: open_clip.SimpleTokenizer = open_clip.tokenizer._tokenizer  # CLIP's own BPE, lower-cased


@dataclass(frozen=True)
class TextGroup:
    """Classes whose prompts have the same layout: ``[SOT] head <context> ... tail [EOT]``."""

    indices: Tensor  # [C] positions in the list of all classes
    name_CL: Tensor  # token ids of the class name
    tail_CL: Tensor  # token ids after the name: "." if there is context, then EOT

    def to(self, device: torch.device) -> TextGroup:
        """The same group on another device."""
        return TextGroup(*(getattr(self, field.name).to(device) for field in fields(self)))


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

    def select(self, context: Tensor, indices: Tensor) -> Tensor:
        """The context of some classes: ``[C, n, D]``."""
        return context[indices] if context.ndim == 3 else context.expand(len(indices), -1, -1)

    def split(self, context_CnD: Tensor) -> tuple[Tensor, Tensor]:
        """Context before and after the class name."""
        before = {"end": self.num_context, "middle": self.num_context // 2, "front": 0}[
            self.position
        ]
        return context_CnD[:, :before], context_CnD[:, before:]


def group_prompts(names: Sequence[str], context_length: int, num_context: int) -> list[TextGroup]:
    """Tokenizes class names and groups them by layout.

    With context the sequence is ``SOT, context and name, ".", EOT``; without, ``SOT, name, EOT``:
    the plain name.

    Raises:
        InputError: a name leaves no room for itself in the context length.
    """
    layouts: dict[tuple[int, int], list[int]] = defaultdict(list)
    tokens = [_tokenize(name, with_full_stop=num_context > 0) for name in names]
    for index, (name, tail) in enumerate(tokens):
        length = 1 + num_context + len(name) + len(tail)
        if length > context_length:
            with_context = f" with {num_context} context vectors" if num_context else ""
            or_lower = " or lower text.num_context" if num_context else ""
            raise InputError(
                f"class name '{names[index]}': {length} tokens{with_context}, allowed are "
                f"{context_length}; shorten the name{or_lower}"
            )
        layouts[len(name), len(tail)].append(index)
    return [
        TextGroup(
            indices=torch.tensor(indices),
            name_CL=torch.tensor([tokens[i][0] for i in indices]),
            tail_CL=torch.tensor([tokens[i][1] for i in indices]),
        )
        for indices in layouts.values()
    ]


def encode_text(
    clip: CLIP,
    groups: list[TextGroup],
    prompts: TextPrompts | None,
    *,
    compile_layers: bool = False,
) -> Tensor:
    """Text features ``[C, E]`` of all classes, not yet normalized; ``prompts=None`` encodes plain
    names.

    Args:
        clip: whose text tower encodes.
        groups: the classes' names as tokens, grouped by length.
        prompts: the learned context; None: plain names.
        compile_layers: compile each layer with ``torch.compile``.
    """
    device = clip.positional_embedding.device
    layer_forward = compiled(block_forward) if compile_layers else block_forward
    features = torch.cat(
        [_encode_group(clip, group.to(device), prompts, layer_forward) for group in groups]
    )
    order = torch.cat([group.indices for group in groups]).argsort()
    return features[order.to(device)]


def _encode_group(
    clip: CLIP, group: TextGroup, prompts: TextPrompts | None, layer_forward: Callable[..., Tensor]
) -> Tensor:
    x_CLD = _assemble(clip, group, prompts) + clip.positional_embedding[: _length(group, prompts)]
    blocks = list(clip.transformer.resblocks)
    deep = list(prompts.deep_context) if prompts else []
    for layer, block in enumerate(blocks):
        if prompts and 1 <= layer <= len(deep):
            x_CLD = _replace_context(x_CLD, group, prompts, deep[layer - 1])
        query = LAST_TOKEN if layer == len(blocks) - 1 else slice(None)
        x_CLD = layer_forward(block, x_CLD, [], query=query, is_causal=query != LAST_TOKEN)
    features: Tensor = clip.ln_final(x_CLD[:, -1]) @ clip.text_projection
    return features


def _assemble(clip: CLIP, group: TextGroup, prompts: TextPrompts | None) -> Tensor:
    """Token and context embeddings in their order: ``[C, L, D]``."""
    sot = clip.token_embedding(torch.full_like(group.indices, TOKENIZER.sot_token_id)).unsqueeze(1)
    name, tail = clip.token_embedding(group.name_CL), clip.token_embedding(group.tail_CL)
    if prompts is None:
        return torch.cat([sot, name, tail], dim=1)
    before, after = prompts.split(prompts.select(prompts.context, group.indices))
    return torch.cat([sot, before, name, after, tail], dim=1)


def _replace_context(
    x_CLD: Tensor, group: TextGroup, prompts: TextPrompts, context: Tensor
) -> Tensor:
    before, after = prompts.split(prompts.select(context, group.indices))
    name_start, name_end = 1 + before.shape[1], 1 + before.shape[1] + group.name_CL.shape[1]
    tail_start = name_end + after.shape[1]
    parts = [x_CLD[:, :1], before, x_CLD[:, name_start:name_end], after, x_CLD[:, tail_start:]]
    return torch.cat(parts, dim=1)


def _length(group: TextGroup, prompts: TextPrompts | None) -> int:
    return (
        1
        + (prompts.num_context if prompts else 0)
        + group.name_CL.shape[1]
        + group.tail_CL.shape[1]
    )


def _tokenize(name: str, *, with_full_stop: bool) -> tuple[list[int], list[int]]:
    """Token ids of the name, and of what follows it up to EOT. Underscores read as spaces (released
    code).
    """
    words = name.replace("_", " ")
    name_ids = TOKENIZER.encode(words)
    all_ids = TOKENIZER.encode(words + ".") if with_full_stop else name_ids
    if not name_ids:
        raise InputError(f"class name '{name}': found no word in it, needed is at least one")
    return all_ids[: len(name_ids)], [*all_ids[len(name_ids) :], TOKENIZER.eot_token_id]


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
