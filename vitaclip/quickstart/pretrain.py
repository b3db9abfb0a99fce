"""Trains the tiny CLIP from scratch on rendered pictures: ``python -m vitaclip.quickstart.pretrain``.

Takes less than 10 CPU-minutes, writes ``quickstart-tiny.safetensors`` beside its model config and prints its figures.

Shape legend: B pictures, L tokens, D width, E embedding, C candidates, H and W pixels.
"""

from __future__ import annotations

import argparse
import copy
import json
import math
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from safetensors.torch import save_file
from torch import Tensor, nn
from torch.nn import functional as F

from vitaclip.quickstart import pictures
from vitaclip.quickstart.pictures import LABELS, Backgrounds, Picture, place_name, sample_still, sample_trail
from vitaclip.quickstart.world import BASE_ACTIONS, HELD_OUT_ACTIONS, action_name

FOLDER = Path(__file__).parent
MODEL_CONFIG = FOLDER / "quickstart-tiny.json"
WEIGHTS = FOLDER / "quickstart-tiny.safetensors"
TOKENIZER: open_clip.SimpleTokenizer = open_clip.tokenizer._tokenizer

NUM_STEPS = 500
BATCH_SIZE = 256
PEAK_LR = 1.5e-3
WARMUP_STEPS = 40
WEIGHT_DECAY = 0.05
SHARE_OF_TRAILS = 0.6
SHARE_OF_ODD_COLORS = 0.55  # of the stills
LABEL_LOSS_WEIGHT = 0.5
MAX_CONTEXT = (
    16  # noise tokens before a caption, so that prompts learned there later do not blot out the name
)
MAX_LOGIT_SCALE = math.log(50)
PICTURES_PER_FIGURE = 800

WORDS = [
    *pictures.SHAPES, *pictures.COLORS, *pictures.ROWS, *pictures.COLUMNS, *(w for m in pictures.SINGLES for w in m),
    *(synonym for synonyms in pictures.SYNONYMS.values() for synonym in synonyms),
    "a", "photo", "video", "of", "object", "and", "at", "the", "in", ".",
]  # fmt: skip
TOKEN_IDS = sorted(
    {token for word in WORDS for token in TOKENIZER.encode(word)}
    | {TOKENIZER.sot_token_id, TOKENIZER.eot_token_id}
)
ROW_OF_TOKEN = {token: row for row, token in enumerate(TOKEN_IDS)}


class LabelHeads(nn.Module):
    """Linear readers of the picture's labels, the same for picture and text features; thrown away after training."""

    def __init__(self, embed_dim: int) -> None:
        super().__init__()
        self.heads = nn.ModuleDict(
            {name: nn.Linear(embed_dim, len(values)) for name, values in LABELS.items()}
        )

    def loss(self, features_BE: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Mean cross-entropy over the labels that are known."""
        losses = [
            F.cross_entropy(head(features_BE), labels[name], reduction="sum")
            for name, head in self.heads.items()
        ]
        return torch.stack(losses).sum() / len(features_BE)


def main() -> None:
    """Trains, writes the weights and prints the figures."""
    parser = argparse.ArgumentParser(prog="python -m vitaclip.quickstart.pretrain", description=__doc__)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=WEIGHTS, help="the safetensors file to write")
    args = parser.parse_args()
    started = time.process_time()
    clip = train(args.seed, on_step=_print_progress)
    print(f"trained in {(time.process_time() - started) / 60:.1f} CPU-minutes")
    save(clip, args.out)
    for name, value in figures(clip, seed=args.seed + 1).items():
        print(f"{name:45s} {value:.3f}")


def train(
    seed: int, *, num_steps: int = NUM_STEPS, on_step: Callable[[int, float], None] = lambda *_: None
) -> CLIP:
    """Trains a CLIP whose vocabulary is ``TOKEN_IDS``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clip = build(json.loads(MODEL_CONFIG.read_text()))
    heads = LabelHeads(clip.text_projection.shape[1])
    parameters = [*clip.parameters(), *heads.parameters()]
    optimizer = torch.optim.AdamW(parameters, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY)
    backgrounds = Backgrounds(clip.visual.image_size[0], rng)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = PEAK_LR * _schedule(step, num_steps)
        loss = batch_loss(clip, heads, [_sample(backgrounds, rng) for _ in range(BATCH_SIZE)], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clip.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        on_step(step, float(loss))
    return clip.eval()


def build(model_config: dict[str, Any]) -> CLIP:
    """The CLIP of ``model_config`` with the used tokens as its whole vocabulary."""
    model_config = copy.deepcopy(model_config)
    model_config["text_cfg"]["vocab_size"] = len(TOKEN_IDS)
    return CLIP(**model_config)


def batch_loss(clip: CLIP, heads: LabelHeads, batch: Sequence[Picture], rng: np.random.Generator) -> Tensor:
    """Contrastive loss between pictures and captions (equal captions all count as right), and the labels' loss."""
    image_BE = F.normalize(clip.visual(to_pixels([picture.pixels for picture in batch])), dim=-1)
    num_context = int(rng.integers(1, MAX_CONTEXT + 1)) if rng.random() < 0.4 else 0
    captions = [picture.caption for picture in batch]
    text_BE = F.normalize(encode_captions(clip, captions, num_context=num_context), dim=-1)
    logits_BB = clip.logit_scale.exp() * image_BE @ text_BE.T
    is_match_BB = torch.tensor([[one == other for one in captions] for other in captions])
    targets_BB = is_match_BB / is_match_BB.sum(1, keepdim=True)
    contrastive = (F.cross_entropy(logits_BB, targets_BB) + F.cross_entropy(logits_BB.T, targets_BB)) / 2
    shown = {name: torch.tensor([p.labels[name] for p in batch]) for name in LABELS}
    told = {
        name: torch.tensor([p.labels[name] if name in p.named else pictures.UNKNOWN for p in batch])
        for name in LABELS
    }
    scale = 10.0  # features have length 1
    by_label = heads.loss(scale * image_BE, shown) + heads.loss(scale * text_BE, told)
    return contrastive + LABEL_LOSS_WEIGHT * by_label


def encode_captions(clip: CLIP, captions: Sequence[str], *, num_context: int = 0) -> Tensor:
    """Text features ``[B, E]``; ``num_context`` random vectors stand before each caption, and a full stop after it."""
    tail = [TOKENIZER.encode(".")[0]] if num_context else []
    ids = [
        [ROW_OF_TOKEN[i] for i in [*TOKENIZER.encode(caption), *tail, TOKENIZER.eot_token_id]]
        for caption in captions
    ]
    padded_BL = nn.utils.rnn.pad_sequence([torch.tensor(row) for row in ids], batch_first=True)
    sot_B1D = clip.token_embedding(torch.full((len(ids), 1), ROW_OF_TOKEN[TOKENIZER.sot_token_id]))
    words_BLD = clip.token_embedding(padded_BL)
    noise_std = 0.02 + 0.5 * float(clip.token_embedding.weight.detach().std())
    context_BnD = noise_std * torch.randn(len(ids), num_context, words_BLD.shape[-1])
    x_BLD = torch.cat([sot_B1D, context_BnD, words_BLD], dim=1)
    length = x_BLD.shape[1]
    x_BLD = clip.transformer(
        x_BLD + clip.positional_embedding[:length], attn_mask=clip.attn_mask[:length, :length]
    )
    end_B = torch.tensor([num_context + len(row) for row in ids])
    features: Tensor = clip.ln_final(x_BLD[torch.arange(len(ids)), end_B]) @ clip.text_projection
    return features


def to_pixels(images: Sequence[np.ndarray]) -> Tensor:
    """uint8 ``[H, W, 3]`` pictures as CLIP takes them: ``[B, 3, H, W]``."""
    mean, std = (
        torch.tensor(s).view(3, 1, 1) for s in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std


def save(clip: CLIP, path: Path) -> None:
    """Writes fp16 safetensors with open_clip's names; of the token embedding only ``token_ids``' rows."""
    tensors = {
        name: tensor.half().contiguous() for name, tensor in clip.state_dict().items() if name != "attn_mask"
    }
    save_file(tensors | {"token_ids": torch.tensor(TOKEN_IDS)}, path)


@torch.no_grad()
def figures(clip: CLIP, *, seed: int, num_pictures: int = PICTURES_PER_FIGURE) -> dict[str, float]:
    """Zero-shot accuracies on fresh pictures, fractions in [0, 1]; chance stands in the name."""
    rng = np.random.default_rng(seed)
    backgrounds = Backgrounds(clip.visual.image_size[0], rng)
    seen = [sample_still(backgrounds, rng) for _ in range(num_pictures)]
    unseen = [sample_still(backgrounds, rng, held_out=True) for _ in range(num_pictures)]
    pairs = [(shape, color) for shape in range(len(pictures.SHAPES)) for color in range(len(pictures.COLORS))]
    pair_names = [f"a {pictures.COLORS[color]} {pictures.SHAPES[shape]}" for shape, color in pairs]
    places = [(row, column) for row in range(3) for column in range(3)]
    place_names = [f"a object {place_name(*place)}" for place in places]

    def accuracy(batch: list[Picture], names: list[str], keys: list[Any], *labels: str) -> float:
        image_BE = clip.visual(to_pixels([p.pixels for p in batch]))
        text_CE = F.normalize(encode_captions(clip, names), dim=-1)
        found = (image_BE @ text_CE.T).argmax(-1).tolist()
        wanted = [keys.index(tuple(p.labels[name] for name in labels)) for p in batch]
        return float(np.mean([f == w for f, w in zip(found, wanted, strict=True)]))

    def motion_accuracy(actions: Sequence[tuple[str, ...]]) -> float:
        trails = [
            (i, sample_trail(action, backgrounds, rng))
            for i, action in enumerate(actions)
            for _ in range(num_pictures // len(actions))
        ]
        image_BE = clip.visual(to_pixels([trail.pixels for _, trail in trails]))
        text_CE = F.normalize(encode_captions(clip, list(map(action_name, actions))), dim=-1)
        found = (image_BE @ text_CE.T).argmax(-1).tolist()
        return float(np.mean([f == i for f, (i, _) in zip(found, trails, strict=True)]))

    colors = [(color,) for color in range(len(pictures.COLORS))]
    return {
        "shape and colour, seen pairs (chance .021)": accuracy(seen, pair_names, pairs, "shape", "color"),
        "shape and colour, held-out pairs (chance .021)": accuracy(
            unseen, pair_names, pairs, "shape", "color"
        ),
        "colour (chance .125)": accuracy(seen, [f"a {c} object" for c in pictures.COLORS], colors, "color"),
        "position (chance .111)": accuracy(seen, place_names, places, "row", "column"),
        "trails of base actions (chance .050)": motion_accuracy(BASE_ACTIONS),
        "trails of held-out actions (chance .125)": motion_accuracy(HELD_OUT_ACTIONS),
    }


def _sample(backgrounds: Backgrounds, rng: np.random.Generator) -> Picture:
    if rng.random() < SHARE_OF_TRAILS:
        return sample_trail(pictures.sample_motions(rng), backgrounds, rng)
    return sample_still(backgrounds, rng, share_of_odd_colors=SHARE_OF_ODD_COLORS)


def _schedule(step: int, num_steps: int) -> float:
    if step < WARMUP_STEPS:
        return (step + 1) / WARMUP_STEPS
    return 0.5 * (1 + math.cos(math.pi * (step - WARMUP_STEPS) / (num_steps - WARMUP_STEPS)))


def _print_progress(step: int, loss: float) -> None:
    if step % 50 == 0:
        print(f"step {step}/{NUM_STEPS}  loss {loss:.2f}", flush=True)


if __name__ == "__main__":
    main()
