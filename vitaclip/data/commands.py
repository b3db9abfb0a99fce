"""``python -m vitaclip data check|prepare|show``: look after data sets."""

from __future__ import annotations

import argparse
import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vitaclip.config import AugmentConfig, DataConfig, EvalConfig, TrainConfig
from vitaclip.data.check import FileReport, check_files
from vitaclip.data.datasets import available_splits, dataset_root, load_dataset, root_variable
from vitaclip.data.folders import open_folder, read_remote
from vitaclip.data.loader import eval_batches, train_batches
from vitaclip.data.manifest import Manifest
from vitaclip.data.prepare import PrepareParameters, prepare
from vitaclip.errors import DataError, InputError
from vitaclip.terminal import Terminal, shown

MAX_LISTED = 20  # broken files that a report names
_console = Terminal(stderr=True)

# argparse offers no public name for what add_subparsers returns
Subparsers = argparse._SubParsersAction


def add_commands(subparsers: Subparsers[argparse.ArgumentParser]) -> None:
    """Adds ``data`` with its commands. Each sets ``run``, a function of the parsed arguments.

    The functions raise InputError for input that cannot be used, and DataError if a video is
    broken.
    """
    parser = subparsers.add_parser("data", help="check, prepare and show data sets")
    commands = parser.add_subparsers(required=True, metavar="COMMAND")
    _add_check(commands)
    _add_prepare(commands)
    _add_show(commands)


def _add_check(commands: Subparsers[argparse.ArgumentParser]) -> None:
    parser = commands.add_parser("check", help="whether every video exists, is whole, and decodes")
    _add_dataset(parser)
    parser.add_argument(
        "--report", type=Path, help="results, one JSON line per file (default: DATASET-check.jsonl)"
    )
    parser.set_defaults(run=_check)


def _add_prepare(commands: Subparsers[argparse.ArgumentParser]) -> None:
    defaults = PrepareParameters()
    parser = commands.add_parser(
        "prepare", help="re-encode a data set once, so that training reads it fast"
    )
    _add_dataset(parser)
    parser.add_argument("--out", required=True, help="a folder, here or s3://bucket/prefix")
    parser.add_argument(
        "--short-side", type=int, default=defaults.short_side, help="pixels (default: %(default)s)"
    )
    parser.add_argument(
        "--crf", type=int, default=defaults.crf, help="x264's quality (default: %(default)s)"
    )
    parser.add_argument(
        "--group-size", type=int, default=defaults.group_size, help="frames per key frame"
    )
    parser.set_defaults(run=_prepare)


def _add_show(commands: Subparsers[argparse.ArgumentParser]) -> None:
    data = DataConfig()
    parser = commands.add_parser("show", help="a picture of a clip's frames as the model sees them")
    parser.add_argument("dataset")
    parser.add_argument("--split", default="train", help="default: %(default)s")
    parser.add_argument(
        "--clip", type=int, required=True, help="the clip's position in the split, from 0"
    )
    parser.add_argument("--out", type=Path, required=True, help="the picture, such as strip.png")
    parser.add_argument("--num-frames", type=int, default=data.num_frames)
    parser.add_argument("--sampling", choices=("dense", "uniform"), default=data.sampling)
    parser.add_argument("--stride", type=int, default=data.stride)
    parser.add_argument("--image-size", type=int, default=224, help="pixels (default: %(default)s)")
    parser.add_argument(
        "--draws", type=int, default=2, help="augmented training draws below the test view"
    )
    parser.add_argument("--seed", type=int, default=0)
    parser.set_defaults(run=_show)


def _add_dataset(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("dataset", help="its folder is VITACLIP_DATA_<DATASET>")
    parser.add_argument(
        "--split", action="append", help="default: every split that is there; may be repeated"
    )
    parser.add_argument(
        "--threads", type=int, default=os.cpu_count() or 1, help="default: all cores"
    )


def _check(args: argparse.Namespace) -> None:
    splits = _load_splits(args.dataset, args.split)
    paths = sorted({clip.path for manifest in splits.values() for clip in manifest.clips})
    ledger = args.report or Path(f"{args.dataset}-check.jsonl")
    with _progress("checking", len(paths)) as advance:
        reports = check_files(paths, ledger, num_threads=args.threads, on_done=lambda _: advance())
    _print_check(splits, reports)
    _console.print(f"every file's result: {ledger}")
    broken = [report.error for report in reports if report.error is not None]
    if broken:
        raise DataError(
            f"{args.dataset}: {len(broken)} of {len(reports)} videos are broken:{_listed(broken)}"
        )


def _print_check(splits: dict[str, Manifest], reports: Sequence[FileReport]) -> None:
    by_path = {report.path: report for report in reports}
    table = Table(title="videos")
    for column in (
        "split",
        "classes",
        "good",
        "broken",
        "missing",
        "hours",
        "seconds",
        "GB",
        "sizes",
        "codecs",
    ):
        table.add_column(
            column, justify="left" if column in ("split", "sizes", "codecs") else "right"
        )
    for split, manifest in splits.items():
        found = [by_path[clip.path] for clip in manifest.clips]
        table.add_row(
            split, str(len(manifest.classes)), *_check_cells(found, len(manifest.missing))
        )
    Terminal().print(table)


def _check_cells(reports: Sequence[FileReport], num_unlisted: int) -> list[str]:
    good = [report for report in reports if report.error is None]
    num_missing = sum(report.error is not None and not report.mtime_ns for report in reports)
    seconds = [report.duration_s for report in good] or [0.0]
    return [
        str(len(good)),
        str(len(reports) - len(good) - num_missing),
        str(num_missing + num_unlisted),
        f"{sum(seconds) / 3600:.2f}",
        f"{min(seconds):.1f}-{np.median(seconds):.1f}-{max(seconds):.1f}",
        f"{sum(report.size_bytes for report in reports) / 1e9:.2f}",
        _most_common(f"{report.width}x{report.height}" for report in good),
        _most_common(report.codec for report in good),
    ]


def _most_common(values: Iterator[str]) -> str:
    counts = Counter(values).most_common()
    return ", ".join(value for value, _ in counts[:3]) + (
        f", {len(counts) - 3} more" if len(counts) > 3 else ""
    )


def _prepare(args: argparse.Namespace) -> None:
    if args.short_side < 16 or args.group_size < 1 or not 0 <= args.crf <= 51:
        raise InputError(
            f"prepare: found --short-side {args.short_side}, --group-size {args.group_size}, --crf "
            f"{args.crf}; "
            "allowed: at least 16, at least 1, and 0..51"
        )
    splits = _load_source(args.dataset, args.split)
    parameters = PrepareParameters(args.short_side, args.crf, args.group_size)
    num_videos = len({clip.path for manifest in splits.values() for clip in manifest.clips})
    with _progress("preparing", num_videos) as advance:
        results = prepare(
            splits,
            open_folder(args.out),
            parameters,
            num_threads=args.threads,
            on_done=lambda _: advance(),
        )
    num_new = sum(result.is_new and result.error is None for result in results)
    broken = [result.error for result in results if result.error is not None]
    print(
        f"{num_new} videos prepared, {len(results) - num_new - len(broken)} were ready, "
        f"{len(broken)} broken"
    )
    print(shown(f"train on them with {root_variable(args.dataset)}={args.out}"))
    if broken:
        raise DataError(
            f"{args.dataset}: {len(broken)} of {len(results)} videos are broken:{_listed(broken)}"
        )


def _show(args: argparse.Namespace) -> None:
    manifest = load_dataset(args.dataset, args.split)
    if not 0 <= args.clip < len(manifest.clips):
        raise InputError(
            f"--clip: found {args.clip}, allowed 0..{len(manifest.clips) - 1} ({args.split})"
        )
    clip = manifest.clips[args.clip]
    one = replace(manifest, clips=(clip,))
    data = DataConfig(
        num_frames=args.num_frames,
        sampling=args.sampling,
        stride=args.stride,
        augment=AugmentConfig(),
        max_broken=0,
    )
    test = next(eval_batches(one, data, EvalConfig(), image_size=args.image_size)).video[0, 0]
    config = TrainConfig(seed=args.seed, batch_size=1, data=data)
    draws = [
        next(train_batches(one, config, image_size=args.image_size, epoch=draw)).video[0]
        for draw in range(args.draws)
    ]
    rows_3THW = {"test": test, **{f"train {i}": draw for i, draw in enumerate(draws)}}
    strips = {name: video.permute(1, 2, 3, 0).numpy() for name, video in rows_3THW.items()}
    _write_picture(strips, f"{manifest.classes[clip.label]}  ({Path(clip.path).name})", args.out)
    print(shown(str(args.out)))


def _write_picture(strips_THWC: dict[str, np.ndarray], title: str, path: Path) -> None:
    from matplotlib.figure import Figure  # here: only this command draws

    num_frames = max(len(frames) for frames in strips_THWC.values())
    figure = Figure(figsize=(1.6 * num_frames, 1.7 * len(strips_THWC) + 0.4), layout="constrained")
    axes = figure.subplots(len(strips_THWC), num_frames, squeeze=False)
    for row, (name, frames) in zip(axes, strips_THWC.items(), strict=True):
        row[0].set_ylabel(name)
        for cell, frame in zip(row, frames, strict=True):
            cell.imshow(frame)
            cell.set_xticks([])
            cell.set_yticks([])
    figure.suptitle(title)
    path.parent.mkdir(parents=True, exist_ok=True)
    figure.savefig(path, dpi=120)


def _load_splits(dataset: str, splits: Sequence[str] | None) -> dict[str, Manifest]:
    root = dataset_root(dataset)
    return {
        split: load_dataset(dataset, split) for split in splits or available_splits(dataset, root)
    }


def _load_source(dataset: str, splits: Sequence[str] | None) -> dict[str, Manifest]:
    """What is to be prepared: here, or in an object store."""
    uri = os.environ.get(root_variable(dataset), "")
    return (
        read_remote(dataset, splits, uri)
        if uri.startswith("s3://")
        else _load_splits(dataset, splits)
    )


def _listed(reasons: Sequence[str]) -> str:
    more = f"\n  ... and {len(reasons) - MAX_LISTED} more" if len(reasons) > MAX_LISTED else ""
    return "".join(f"\n  {reason}" for reason in reasons[:MAX_LISTED]) + more


@contextmanager
def _progress(what: str, total: int) -> Iterator[Callable[[], None]]:
    columns = (
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TimeRemainingColumn(),
    )
    with Progress(*columns, console=_console) as progress:
        task = progress.add_task(what, total=total)
        yield lambda: progress.advance(task)
