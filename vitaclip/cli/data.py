"""``vitaclip data check|prepare|show``: look after data sets."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Annotated, Literal

from typer import Argument, Option

from vitaclip.cli.run import new_app
from vitaclip.config import DataConfig, TrainConfig
from vitaclip.data.encoding import PrepareParameters

Dataset = Annotated[str, Argument(metavar="DATASET", help="its folder is VITACLIP_DATA_<DATASET>")]
Splits = Annotated[
    list[str] | None,
    Option("--split", help="default: every split that is there; may be repeated"),
]
Threads = Annotated[int, Option(help="default: all cores", show_default=False)]
_DATA, _ENCODING, _CORES = DataConfig(), PrepareParameters(), os.cpu_count() or 1


def check(
    dataset: Dataset,
    splits: Splits = None,
    threads: Threads = _CORES,
    report: Annotated[
        Path | None,
        Option(parser=Path, help="results, one JSON line per file (default: DATASET-check.jsonl)"),
    ] = None,
) -> None:
    """Tells whether every video exists, is whole, and decodes."""
    from vitaclip.data import commands

    ledger = report or Path(f"{dataset}-check.jsonl")
    commands.check(dataset, splits, ledger, num_threads=threads)


def prepare(
    dataset: Dataset,
    out: Annotated[str, Option(help="a folder, here or s3://bucket/prefix")],
    splits: Splits = None,
    threads: Threads = _CORES,
    short_side: Annotated[int, Option(help="pixels")] = _ENCODING.short_side,
    crf: Annotated[int, Option(help="x264's quality")] = _ENCODING.crf,
    group_size: Annotated[int, Option(help="frames per key frame")] = _ENCODING.group_size,
) -> None:
    """Encodes a data set again, once, so that training reads it fast."""
    from vitaclip.data import commands

    parameters = PrepareParameters(short_side, crf, group_size)
    commands.prepare_dataset(dataset, splits, out, parameters, num_threads=threads)


def show(
    dataset: Dataset,
    clip: Annotated[int, Option(help="the clip's position in the split, from 0")],
    out: Annotated[Path, Option(parser=Path, help="the picture, such as strip.png")],
    split: Annotated[str, Option()] = "train",
    num_frames: Annotated[int, Option()] = _DATA.num_frames,
    sampling: Annotated[Literal["dense", "uniform"], Option()] = _DATA.sampling,
    stride: Annotated[int, Option()] = _DATA.stride,
    image_size: Annotated[int, Option(help="pixels")] = 224,
    draws: Annotated[int, Option(help="augmented training draws below the test view")] = 2,
    seed: Annotated[int, Option()] = 0,
) -> None:
    """Draws a picture of a clip's frames as the model sees them."""
    from vitaclip.data import commands

    data = DataConfig(num_frames=num_frames, sampling=sampling, stride=stride, max_broken=0)
    config = TrainConfig(seed=seed, batch_size=1, data=data)
    commands.draw_clip(dataset, split, clip, out, config, image_size=image_size, num_draws=draws)


app = new_app(check, prepare, show, help="Checks, prepares and shows data sets.")
