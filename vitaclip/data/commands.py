"""What ``vitaclip data check|prepare|show`` do: look after data sets."""

from __future__ import annotations

import os
from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path

import numpy as np
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn
from rich.table import Table

from vitaclip.config import EvalConfig, TrainConfig
from vitaclip.data.check import FileReport, check_files
from vitaclip.data.datasets import available_splits, dataset_root, load_dataset, root_variable
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.folders import open_folder, read_remote
from vitaclip.data.loader import eval_batches, train_batches
from vitaclip.data.manifest import Manifest
from vitaclip.data.prepare import prepare
from vitaclip.errors import DataError, InputError
from vitaclip.terminal import Terminal, shown

MAX_LISTED = 20  # broken files that a report names
_console = Terminal(stderr=True)


def check(dataset: str, splits: Sequence[str] | None, ledger: Path, *, num_threads: int) -> None:
    """Reads every video of the splits (default: all) and prints a table of what was found.

    Args:
        dataset: its name; its folder is ``VITACLIP_DATA_<NAME>``.
        splits: those to read; None for every split that is there.
        ledger: the file for results, one JSON line per video; files it knows are not read again.
        num_threads: how many videos are read at once.

    Raises:
        InputError: there is no such data set or split.
        DataError: a video is broken or missing.
    """
    manifests = _load_splits(dataset, splits)
    paths = sorted({clip.path for manifest in manifests.values() for clip in manifest.clips})
    with _progress("checking", len(paths)) as advance:
        reports = check_files(paths, ledger, num_threads=num_threads, on_done=lambda _: advance())
    _print_check(manifests, reports)
    _console.print(f"every file's result: {ledger}")
    _refuse_broken(dataset, [report.error for report in reports])


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


def prepare_dataset(
    dataset: str,
    splits: Sequence[str] | None,
    out: str,
    parameters: PrepareParameters,
    *,
    num_threads: int,
) -> None:
    """Encodes the videos of the splits again and prints how to train on them.

    Args:
        dataset: its name; ``VITACLIP_DATA_<NAME>`` is its folder, here or in an object store.
        splits: those to prepare; None for every split that is there.
        out: the folder to write, here or ``s3://bucket/prefix``.
        parameters: how the videos are encoded.
        num_threads: how many videos are encoded at once.

    Raises:
        InputError: a parameter is out of range, or there is no such data set or split.
        DataError: a video is broken or missing.
    """
    _check_parameters(parameters)
    manifests = _load_source(dataset, splits)
    num_videos = len({clip.path for manifest in manifests.values() for clip in manifest.clips})
    with _progress("preparing", num_videos) as advance:
        results = prepare(
            manifests,
            open_folder(out),
            parameters,
            num_threads=num_threads,
            on_done=lambda _: advance(),
        )
    num_new = sum(result.is_new and result.error is None for result in results)
    num_broken = sum(result.error is not None for result in results)
    print(
        f"{num_new} videos prepared, {len(results) - num_new - num_broken} were ready, "
        f"{num_broken} broken"
    )
    print(shown(f"train on them with {root_variable(dataset)}={out}"))
    _refuse_broken(dataset, [result.error for result in results])


def _check_parameters(parameters: PrepareParameters) -> None:
    short_side, crf, group_size = parameters.short_side, parameters.crf, parameters.group_size
    if short_side < 16 or group_size < 1 or not 0 <= crf <= 51:
        raise InputError(
            f"prepare: found --short-side {short_side}, --group-size {group_size}, --crf {crf}; "
            "allowed: at least 16, at least 1, and 0..51"
        )


def _refuse_broken(dataset: str, errors: Sequence[str | None]) -> None:
    broken = [error for error in errors if error is not None]
    if broken:
        raise DataError(
            f"{dataset}: {len(broken)} of {len(errors)} videos are broken:{_listed(broken)}"
        )


def draw_clip(
    dataset: str,
    split: str,
    place: int,
    out: Path,
    config: TrainConfig,
    *,
    image_size: int,
    num_draws: int,
) -> None:
    """Draws a clip's test view and, below it, what training draws from it in its first epochs.

    Args:
        dataset: its name; its folder is ``VITACLIP_DATA_<NAME>``.
        split: the split that holds the clip.
        place: the clip's position in the split, from 0.
        out: the picture to write; its suffix decides the format.
        config: the training: its seed, and how clips are drawn.
        image_size: pixels a side of what the model sees.
        num_draws: how many training draws are shown.

    Raises:
        InputError: there is no such data set, split or clip.
        DataError: the clip's video is broken.
    """
    manifest = load_dataset(dataset, split)
    if not 0 <= place < len(manifest.clips):
        raise InputError(f"--clip: found {place}, allowed 0..{len(manifest.clips) - 1} ({split})")
    clip = manifest.clips[place]
    only = replace(manifest, clips=(clip,))
    test = next(eval_batches(only, config.data, EvalConfig(), image_size=image_size)).video[0, 0]
    draws = [
        next(train_batches(only, config, image_size=image_size, epoch=draw)).video[0]
        for draw in range(num_draws)
    ]
    rows_3THW = {"test": test, **{f"train {i}": draw for i, draw in enumerate(draws)}}
    strips = {name: video.permute(1, 2, 3, 0).numpy() for name, video in rows_3THW.items()}
    _write_picture(strips, f"{manifest.classes[clip.label]}  ({Path(clip.path).name})", out)
    print(shown(str(out)))


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
