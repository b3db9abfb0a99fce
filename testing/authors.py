"""What the authors' own code of other methods computes on small drawn weights: the form of the
records in ``testing/records/``, and the formula that draws their weights again.

A record holds no weights. Every parameter, every buffer that holds weights, and the video are drawn
from their name and shape alone by :func:`draw`, so that nothing is left zero that its authors
initialize with zeros (adapters, alphas), and a test loads the very same numbers into the product's
classes under the authors' names.

Each record was made once, outside this repository, by the model files of the repository and commit
that it names. A script imported the files unchanged, with stand-ins for what the computation does
not need (registries, loggers, tables of paths), built the model from the record's config, set each
parameter by :func:`draw`, and ran the authors' forward pass on the CPU in fp32 and eval mode. So
dropout, drop path, and the half precision that some of that code asks for have no part in it. Token
ids come from the authors' own tokenizers.

Each record holds:

- ``source``: the repository, commit, license and files.
- ``variants``: what was built, by name. Each has ``config``, ``parameters`` (the authors' names and
  shapes: what to draw), ``trained`` (the names that the authors' training moves, its
  classification head left out) and ``outputs``, rounded to 7 significant digits. Methods that read
  texts have ``class_names`` and ``texts``, the full strings as the tokenizer gets them. X-CLIP has
  ``optimizer_groups`` as well: the groups that its authors' optimizer makes. ViFi-CLIP, whose
  ``trained`` are both towers, has ``trained_tower`` for each of them alone.
- ``video_begins``: the first pixels that were drawn. Where :func:`draw` gives others, NumPy's
  generator has changed, and no output can agree.

Shape legend: B clips, C classes (or color channels in ``BCTHW``), T frames, P patches of a frame, E
embedding, D width. The video is ``[B, 3, T, H, W]``: already normalized, as the model takes it.
"""

from __future__ import annotations

import json
import zlib
from typing import Any

import numpy as np
import torch
from torch import Tensor

from testing.paths import ROOT


def draw(name: str, shape: tuple[int, ...] | list[int]) -> Tensor:
    """Normal numbers in fp32, the same wherever name and shape are the same: of deviation 0.05,
    around 1 for the weights of layer norms and around 0 for everything else.
    """
    rng = np.random.default_rng(zlib.crc32(name.encode()))
    values = torch.as_tensor(rng.standard_normal(tuple(shape))).float() * 0.05
    return values + 1 if _is_norm_weight(name) else values


def draw_weights(variant: dict[str, Any]) -> dict[str, Tensor]:
    """Every parameter of a record's variant, by its authors' name."""
    return {name: draw(name, shape) for name, shape in variant["parameters"].items()}


def draw_video(variant: dict[str, Any]) -> Tensor:
    """The clips ``[B, 3, T, H, W]`` that a record's outputs belong to."""
    config = variant["config"]
    size = config["image_size"]
    return draw("video", (config["batch"], 3, config["num_frames"], size, size))


def read_record(method: str) -> dict[str, Any]:
    """The record of a method. Raises FileNotFoundError where there is none of that name."""
    path = ROOT / "testing" / "records" / f"{method}.json"
    record: dict[str, Any] = json.loads(path.read_text())
    return record


def _is_norm_weight(name: str) -> bool:
    """Whether it is a layer norm's weight: ``ln_1.weight``, ``message_ln.weight``,
    ``norm3.weight``.
    """
    *_, module, leaf = ("", *name.split("."))
    return leaf == "weight" and ("ln" in module.split("_") or module.startswith("norm"))
