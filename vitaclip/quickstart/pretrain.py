"""Trains the tiny CLIP from scratch on rendered pictures: ``python -m
vitaclip.quickstart.pretrain``.

Takes less than 10 CPU-minutes, writes ``quickstart-tiny.safetensors`` beside its model config and
prints its figures.

Shape legend: B pictures, L tokens, D width, E embedding, C candidates, H and W pixels.
"""

from __future__ import annotations

import copy
import json
import math
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Annotated, Any

import numpy as np
import open_clip
import torch
from open_clip.model import CLIP
from torch import Tensor, nn
from torch.nn import functional as F
from typer import Option

from vitaclip.cli.run import run_alone
from vitaclip.model.tensor_file import write_tensors
from vitaclip.quickstart import pictures
from vitaclip.quickstart.pictures import (
    LABELS,
    Backgrounds,
    Picture,
    place_name,
    sample_still,
    sample_trail,
)
from vitaclip.quickstart.world import BASE_ACTIONS, HELD_OUT_ACTIONS, action_name

FOLDER = Path(__file__).parent
MODEL_CONFIG = FOLDER / "quickstart-tiny.json"
WEIGHTS = FOLDER / "quickstart-tiny.safetensors"
TOKENIZER: open_clip.SimpleTokenizer = open_clip.tokenizer._tokenizer

NUM_STEPS = 1200
BATCH_SIZE = 96
PEAK_LR = 1.5e-3
WARMUP_STEPS = 60
WEIGHT_DECAY = 0.05
SHARE_OF_TRAILS = 0.6
SHARE_OF_ODD_COLORS = 0.55  # of the stills
LABEL_LOSS_WEIGHT = 0.3
PATCH_PLACE_GAIN = (
    5  # on open_clip's initial position embedding, too small for places to be learned in minutes
)
POSE_LOSS_WEIGHT = 8.0
SHARE_WITH_CONTEXT = 0.4  # of the steps: random vectors stand before the captions,
MAX_CONTEXT = 16  # as prompts may later, which are not to blot out the name
MAX_LOGIT_SCALE = math.log(50)
PICTURES_PER_FIGURE = 800

WORDS = [
    *pictures.SHAPES,
    *pictures.COLORS,
    *pictures.ROWS,
    *pictures.COLUMNS,
    *(w for m in pictures.SINGLES for w in m),
    *(synonym for synonyms in pictures.SYNONYMS.values() for synonym in synonyms),
    "a",
    "photo",
    "video",
    "of",
    "object",
    "and",
    "at",
    "the",
    "in",
    ".",
]
TOKEN_IDS = sorted(
    {token for word in WORDS for token in TOKENIZER.encode(word)}
    | {TOKENIZER.sot_token_id, TOKENIZER.eot_token_id}
)
ROW_OF_TOKEN = {token: row for row, token in enumerate(TOKEN_IDS)}


class Probes(nn.Module):
    """Linear readers of what the renderer knows; training aids, thrown away afterwards.

    ``labels`` read the features, pictures' and captions' alike, which makes those additive in what
    is shown. ``poses`` read the class token after every layer, so that it tells where and how large
    the object is from early on: prompts that compare frames have nothing else to look at.
    """

    def __init__(self, clip: CLIP) -> None:
        super().__init__()
        embed_dim, width = clip.text_projection.shape[1], clip.visual.conv1.out_channels
        self.labels = nn.ModuleDict(
            {name: nn.Linear(embed_dim, len(values)) for name, values in LABELS.items()}
        )
        self.poses = nn.ModuleList(nn.Linear(width, 5) for _ in clip.visual.transformer.resblocks)
        self.class_tokens: list[Tensor] = []
        for block in clip.visual.transformer.resblocks:
            block.register_forward_hook(
                lambda _block, _input, x_BND: self.class_tokens.append(x_BND[:, 0])
            )

    def label_loss(self, features_BE: Tensor, labels: dict[str, Tensor]) -> Tensor:
        """Cross-entropy summed over the labels that are known, mean over the batch."""
        features_BE = 10 * F.normalize(features_BE, dim=-1)
        heads = self.labels.items()
        losses = [
            F.cross_entropy(head(features_BE), labels[name], reduction="sum")
            for name, head in heads
        ]
        return torch.stack(losses).sum() / len(features_BE)

    def pose_loss(self, pose_BP: Tensor) -> Tensor:
        """Of the pictures that went through the vision tower last, where they have a pose; mean
        over layers.
        """
        is_known_B = ~pose_BP[:, 0].isnan()
        heads = zip(self.poses, self.class_tokens, strict=True)
        losses = [
            F.smooth_l1_loss(head(cls_BD[is_known_B]), pose_BP[is_known_B])
            for head, cls_BD in heads
        ]
        self.class_tokens.clear()
        return torch.stack(losses).mean()


def pretrain(
    seed: Annotated[int, Option()] = 0,
    out: Annotated[Path, Option(parser=Path, help="the safetensors file to write")] = WEIGHTS,
) -> None:
    """Trains, writes the weights and prints the figures."""
    torch.set_num_threads(1)  # the same sums, and so the same weights, on any number of cores
    started = time.process_time()
    clip = train(seed, on_step=_print_progress)
    print(f"trained in {(time.process_time() - started) / 60:.1f} CPU-minutes")
    save(clip, out)
    for name, value in figures(clip, seed=seed + 1).items():
        print(f"{name:45s} {value:.3f}")


def train(
    seed: int,
    *,
    num_steps: int = NUM_STEPS,
    on_step: Callable[[int, float], None] = lambda *_: None,
) -> CLIP:
    """Trains a CLIP whose vocabulary is ``TOKEN_IDS``."""
    torch.manual_seed(seed)
    rng = np.random.default_rng(seed)
    clip = build(json.loads(MODEL_CONFIG.read_text()))
    probes = Probes(clip)
    parameters = [*clip.parameters(), *probes.parameters()]
    optimizer = torch.optim.AdamW(
        parameters, lr=PEAK_LR, betas=(0.9, 0.98), weight_decay=WEIGHT_DECAY
    )
    backgrounds = Backgrounds(clip.visual.image_size[0], rng)
    for step in range(num_steps):
        optimizer.param_groups[0]["lr"] = PEAK_LR * _schedule(step, num_steps)
        loss = batch_loss(clip, probes, [_sample(backgrounds, rng) for _ in range(BATCH_SIZE)], rng)
        optimizer.zero_grad()
        loss.backward()
        nn.utils.clip_grad_norm_(parameters, 1.0)
        optimizer.step()
        clip.logit_scale.data.clamp_(max=MAX_LOGIT_SCALE)
        on_step(step, loss.item())
    return clip.eval()


def build(model_config: dict[str, Any]) -> CLIP:
    """The CLIP of ``model_config`` with the used tokens as its whole vocabulary."""
    model_config = copy.deepcopy(model_config)
    model_config["text_cfg"]["vocab_size"] = len(TOKEN_IDS)
    clip = CLIP(**model_config)
    clip.visual.positional_embedding.data *= PATCH_PLACE_GAIN
    return clip


def batch_loss(
    clip: CLIP, probes: Probes, batch: Sequence[Picture], rng: np.random.Generator
) -> Tensor:
    """Contrastive loss between pictures and captions, and the probes' losses.

    Args:
        clip: the model to train.
        probes: heads that read single properties of a picture.
        batch: pictures with their captions.
        rng: decides how long a random context stands beside the captions.
    """
    image_BE = clip.visual(to_pixels([picture.pixels for picture in batch]))
    num_context = int(rng.integers(1, MAX_CONTEXT + 1)) if rng.random() < SHARE_WITH_CONTEXT else 0
    captions = [picture.caption for picture in batch]
    text_BE = encode_captions(clip, captions, num_context=num_context)
    shown = {name: torch.tensor([p.labels[name] for p in batch]) for name in LABELS}
    is_told = {name: torch.tensor([name in p.named for p in batch]) for name in LABELS}
    told = {name: shown[name].where(is_told[name], pictures.UNKNOWN) for name in LABELS}
    by_label = probes.label_loss(image_BE, shown) + probes.label_loss(text_BE, told)
    by_pose = probes.pose_loss(torch.from_numpy(np.stack([picture.pose for picture in batch])))
    contrastive = contrastive_loss(clip, image_BE, text_BE, captions)
    return contrastive + LABEL_LOSS_WEIGHT * by_label + POSE_LOSS_WEIGHT * by_pose


def contrastive_loss(
    clip: CLIP, image_BE: Tensor, text_BE: Tensor, captions: Sequence[str]
) -> Tensor:
    """CLIP's loss, except that all pictures with the same caption count as right.

    Args:
        clip: for its logit scale.
        image_BE: the pictures' features.
        text_BE: the captions' features.
        captions: the captions, to see which are equal.
    """
    logits_BB = (
        clip.logit_scale.exp() * F.normalize(image_BE, dim=-1) @ F.normalize(text_BE, dim=-1).T
    )
    is_match_BB = torch.tensor([[caption == other for caption in captions] for other in captions])
    targets_BB = is_match_BB / is_match_BB.sum(1, keepdim=True)
    loss: Tensor = (
        F.cross_entropy(logits_BB, targets_BB) + F.cross_entropy(logits_BB.T, targets_BB)
    ) / 2
    return loss


def encode_captions(clip: CLIP, captions: Sequence[str], *, num_context: int = 0) -> Tensor:
    """Text features ``[B, E]``; ``num_context`` random vectors stand before each caption, and a
    full stop after it.
    """
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
        torch.tensor(s).view(3, 1, 1)
        for s in (open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD)
    )
    return (torch.from_numpy(np.stack(images)).permute(0, 3, 1, 2) / 255 - mean) / std


def save(clip: CLIP, path: Path) -> None:
    """Writes fp16 safetensors with open_clip's names; of the token embedding only ``token_ids``'
    rows.
    """
    tensors = {
        name: tensor.half() for name, tensor in clip.state_dict().items() if name != "attn_mask"
    }
    write_tensors(path, tensors | {"token_ids": torch.tensor(TOKEN_IDS)})


@torch.no_grad()
def figures(clip: CLIP, *, seed: int, num_pictures: int = PICTURES_PER_FIGURE) -> dict[str, float]:
    """Zero-shot accuracies on fresh pictures, fractions in [0, 1]; chance stands in the name."""
    rng = np.random.default_rng(seed)
    backgrounds = Backgrounds(clip.visual.image_size[0], rng)
    seen = [sample_still(backgrounds, rng) for _ in range(num_pictures)]
    unseen = [sample_still(backgrounds, rng, held_out=True) for _ in range(num_pictures)]
    pairs = [
        (shape, color)
        for shape in range(len(pictures.SHAPES))
        for color in range(len(pictures.COLORS))
    ]
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
        "shape and colour, seen pairs (chance .021)": accuracy(
            seen, pair_names, pairs, "shape", "color"
        ),
        "shape and colour, held-out pairs (chance .021)": accuracy(
            unseen, pair_names, pairs, "shape", "color"
        ),
        "colour (chance .125)": accuracy(
            seen, [f"a {c} object" for c in pictures.COLORS], colors, "color"
        ),
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
    sys.exit(run_alone(pretrain, "python -m vitaclip.quickstart.pretrain", None))
