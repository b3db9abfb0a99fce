"""Prepare once, train fast: videos re-encoded so that a few frames anywhere in them cost little to
decode.

Each video becomes H.264 at a small short side with a key frame every ``GROUP_SIZE`` frames, always
three B-frames in a row that nothing refers to, and neither CABAC nor deblocking
(``docs/measurements/video.md`` has what was measured). Frames keep their number, order and times.
Beside ``name.mp4`` stands ``name.mp4.json``, written last: what it was made from and how, or why it
could not be made.
"""

from __future__ import annotations

import csv
import hashlib
import io
import json
import os
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from fractions import Fraction
from pathlib import Path, PurePosixPath
from typing import Any

import av
import torch
from av.video.reformatter import ColorRange
from torch import Tensor
from torch.nn.functional import adaptive_avg_pool2d

from vitaclip.data.decode import decode_frames, open_pyav, scaled_size, video_info
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.folders import Folder, file_stat, local_copy
from vitaclip.data.geometry import display_matrix
from vitaclip.data.manifest import Clip, Manifest, class_list_text
from vitaclip.data.pyav_video import PyAVVideo
from vitaclip.data.video import Frames
from vitaclip.errors import DataError

THUMBNAIL = (
    4  # cells a side: verification compares mean colors, which encoding and scaling leave alone
)
MAX_DIFFERENCE = (
    12.0  # mean absolute difference, of 255, between a frame's mean colors before and after
)
FORMAT = 3  # of the records; raise it when prepared videos of older versions should be made again


@dataclass(frozen=True)
class Prepared:
    """What became of one video: ``error`` is None if ``name`` is ready."""

    source: str
    name: str  # below the output folder
    is_new: bool  # False: an earlier run's work was good
    error: str | None


def prepare(
    splits: Mapping[str, Manifest],
    output: Folder,
    parameters: PrepareParameters,
    *,
    num_threads: int,
    on_done: Callable[[Prepared], None] = lambda _: None,
) -> list[Prepared]:
    """Prepares the videos of some splits into ``output``, which becomes a data set of list files.

    Finished work of earlier runs is kept where source and parameters are the same. Broken videos
    are reported and left out of the lists. Raises InputError if another process is preparing into
    the same local folder.

    Args:
        splits: the videos, by the splits' names.
        output: where the prepared data set goes.
        parameters: how videos are encoded.
        num_threads: how many videos are encoded at once.
        on_done: told of each result as it is known.
    """
    names = video_names(clip.path for manifest in splits.values() for clip in manifest.clips)
    results = []
    with output.locked():
        for done in _in_threads(
            lambda p: _prepare_video(p, output, names[p], parameters), names, num_threads
        ):
            on_done(done)
            results.append(done)
        ready = {done.source: done.name for done in results if done.error is None}
        for split, manifest in splits.items():
            _write_lists(output, split, manifest, ready)
    return results


def video_names(paths: Iterable[str]) -> dict[str, str]:
    """Maps each video's path to its prepared name: ``videos/`` and the path below the common
    folder.
    """
    unique = sorted(set(paths))
    common = os.path.commonpath([os.path.dirname(path) for path in unique])  # noqa: PTH120 (S3 too)
    names = {path: f"videos/{PurePosixPath(path).relative_to(common)}" for path in unique}
    return {path: name if name.endswith(".mp4") else f"{name}.mp4" for path, name in names.items()}


def _in_threads(
    work: Callable[[str], Prepared], items: Iterable[str], num_threads: int
) -> Iterator[Prepared]:
    """Encoding and decoding release Python's lock; threads, unlike processes, all end when this one
    is killed.
    """
    with ThreadPoolExecutor(num_threads) as pool:
        futures = [pool.submit(work, item) for item in items]
        try:
            for future in futures:
                yield future.result()
        finally:
            pool.shutdown(wait=False, cancel_futures=True)


def _prepare_video(path: str, output: Folder, name: str, parameters: PrepareParameters) -> Prepared:
    made_with = {"format": FORMAT, **asdict(parameters)}
    record = _read_record(output, name)
    if record.get("parameters") == made_with and _is_current(record, path, output, name):
        return Prepared(path, name, is_new=False, error=record["error"])
    source, made, error = {"path": path, "stat": file_stat(path)}, {}, None
    try:
        with local_copy(path) as local:
            source["sha256"] = _sha256(local)
            made = _encode_verified(str(local), output, name, parameters)
    except DataError as failure:
        error = str(failure).replace(str(local), path)
    record = {"source": source, "parameters": made_with, "error": error, **made}
    output.write(f"{name}.json", json.dumps(record, indent=1).encode())
    return Prepared(path, name, is_new=True, error=error)


def _read_record(output: Folder, name: str) -> dict[str, Any]:
    try:
        record = json.loads(output.read(f"{name}.json") or b"{}")
    except ValueError:  # not ours, or damaged: made again
        return {}
    return record if isinstance(record, dict) else {}


def _is_current(record: Mapping[str, Any], path: str, output: Folder, name: str) -> bool:
    """Whether an earlier run's result still stands: same source, and the prepared file is what was
    written.
    """
    if not _is_same(record.get("source", {}), path):
        return False
    return record.get("error") is not None or output.size(name) == record.get("size_bytes")


def _is_same(source: Mapping[str, Any], path: str) -> bool:
    """Whether a source is what it was: by size and time of change or, where these differ, by its
    hash.
    """
    stat = file_stat(path)
    if stat is None or source.get("stat") == stat:
        return stat is not None
    with local_copy(path) as local:
        return bool(source.get("sha256") == _sha256(local))


def _sha256(path: Path) -> str:
    try:
        with path.open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as error:
        raise DataError(f"{path}: cannot be opened: {error.strerror}") from error


def _encode_verified(
    path: str, output: Folder, name: str, parameters: PrepareParameters
) -> dict[str, Any]:
    with output.partial(name) as partial:
        num_frames = encode(path, partial, parameters)
        _verify(path, partial, num_frames)
        size_bytes = partial.stat().st_size
        output.put(partial, name)
    return {"num_frames": num_frames, "size_bytes": size_bytes}


def encode(path: str, output: Path, parameters: PrepareParameters) -> int:
    """Encodes a video's frames with their times; sound is dropped. Returns how many. Raises
    DataError.
    """
    with open_pyav(path) as video, av.open(str(output), "w", format="mp4") as target:
        video.count_pictures()
        encoder = None
        for index, picture in video.pictures(range(video.info.num_frames)):
            encoder = encoder or _add_encoder(target, video, picture, parameters)
            frame = picture.reformat(
                encoder.width, encoder.height, "yuv420p", dst_color_range=ColorRange.MPEG, threads=1
            )
            frame.pts = video.times[index] if video.times else index
            frame.time_base = encoder.codec_context.time_base
            frame.pict_type = 0  # the encoder chooses
            target.mux(encoder.encode(frame))
        assert encoder is not None  # a video has frames
        target.mux(encoder.encode(None))
        return video.info.num_frames


def _add_encoder(target: Any, video: PyAVVideo, picture: Any, parameters: PrepareParameters) -> Any:
    stream = video.stream
    rate = stream.average_rate or Fraction(25)
    encoder = target.add_stream("libx264", rate=rate, options=parameters.encoder_options())
    height, width = scaled_size(video.height, video.width, parameters.short_side)
    # 4:2:0 needs even sides
    encoder.height, encoder.width = (max(2, side // 2 * 2) for side in (height, width))
    encoder.pix_fmt = "yuv420p"
    context, decoded = encoder.codec_context, stream.codec_context
    # frames without times are equally far apart
    context.time_base = stream.time_base if video.times else 1 / rate
    for tag in ("colorspace", "color_primaries", "color_trc"):
        setattr(context, tag, getattr(decoded, tag))
    matrix = display_matrix(picture)
    if matrix is not None:
        encoder.set_display_matrix(matrix)
    return encoder


def _verify(path: str, prepared: Path, num_frames: int) -> None:
    """Raises DataError unless the prepared file holds every frame, and its ends look like the
    source's.
    """
    found = video_info(prepared).num_frames
    if found != num_frames:
        raise DataError(f"{path}: the prepared file holds {found} of {num_frames} frames")
    ends = [0, num_frames - 1]
    for index, frame, source in zip(
        ends, decode_frames(prepared, ends), decode_frames(path, ends), strict=True
    ):
        difference = float((_thumbnail(frame) - _thumbnail(source)).abs().mean())
        if difference > MAX_DIFFERENCE:
            raise DataError(
                f"{path}: prepared frame {index} differs by {difference:.0f} of 255 on average"
            )


def _thumbnail(frame_HW3: Frames) -> Tensor:
    """Mean colors of a coarse grid's cells: float [3, THUMBNAIL, THUMBNAIL]."""
    return adaptive_avg_pool2d(torch.from_numpy(frame_HW3).permute(2, 0, 1).float(), THUMBNAIL)


def _write_lists(output: Folder, split: str, manifest: Manifest, ready: Mapping[str, str]) -> None:
    rows = io.StringIO()
    kept = [Clip(ready[clip.path], clip.label) for clip in manifest.clips if clip.path in ready]
    csv.writer(rows, lineterminator="\n").writerows((clip.path, clip.label) for clip in kept)
    output.write(f"{split}.csv", rows.getvalue().encode())
    names = manifest.raw_classes or manifest.classes
    output.write(f"{split}_classes.txt", class_list_text(names).encode())
