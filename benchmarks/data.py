"""``python -m benchmarks.data``: what reading training clips costs, the released code's way and
ours.

Makes Kinetics-like files (340x256, 10 s, 300 frames, H.264 with a key frame per 250 frames,
textured, moving, noisy), then decodes 8 frames of them at a short side of 224 in each way, in turns
and on one thread. Prints clips per second of processor time (medians), so that other programs on
the machine disturb little. A second table compares the two engines on each kind of file, which is
what ``decoder: auto`` rests on; a third one ways of encoding, which is where ``data prepare`` has
its options from.
"""

from __future__ import annotations

import argparse
import math
import os
import platform
import statistics
import tempfile
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import av
import numpy as np
import numpy.typing as npt
import torch
from rich.console import Console
from rich.table import Table

from testing.data_videos import add_video, leave_real_time
from vitaclip.data.decode import decode_frames, scale
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.frame_cache import FrameCache
from vitaclip.data.prepare import encode
from vitaclip.data.sampling import Sampling, random_indices
from vitaclip.data.video import Frames

HEIGHT, WIDTH, NUM_FRAMES, FPS = 256, 340, 300, 30
CLIP_FRAMES, STRIDE, SHORT_SIDE = 8, 16, 224
CLIP_SHAPE = (CLIP_FRAMES, SHORT_SIDE, WIDTH * SHORT_SIDE // HEIGHT, 3)  # as torchvision rounds
PLAIN = {"crf": "23", "preset": "medium", "g": "250"}
TARGETS = {  # of issue 4: speed relative to the released way, (dense, uniform)
    "ours, original": (1.7, 1.4),
    "ours, prepared": (5.0, 5.0),
    "ours, warm cache": (25.0, 25.0),
}
CODECS = {  # kind of file: encoder, suffix, options
    "H.264": ("libx264", ".mp4", {"g": "250"}),
    "H.264, open groups of 24": ("libx264", ".mp4", {"x264-params": "open-gop=1:keyint=24"}),
    "H.265": ("libx265", ".mp4", {"x265-params": "log-level=none:keyint=48"}),
    "VP9": ("libvpx-vp9", ".webm", {"g": "48", "deadline": "realtime", "cpu-used": "8"}),
    "MPEG-4 in AVI": ("mpeg4", ".avi", {"g": "12", "b": "1500000"}),
    "MJPEG in AVI": ("mjpeg", ".avi", {}),
    "AV1": ("libsvtav1", ".mp4", {"preset": "12", "g": "48"}),
}
NUM_CODEC_FRAMES = 100
FAST = "keyint={0}:min-keyint={0}:scenecut=0:bframes={1}:b-pyramid=none"
ENCODINGS = {  # libx264 at crf 23: tune, parameters
    "key frame per 8": ("", "keyint=8:min-keyint=8:scenecut=0"),
    "per 8, fastdecode": ("fastdecode", "keyint=8:min-keyint=8:scenecut=0"),
    "per 8, fastdecode, no B-frames": ("fastdecode", FAST.format(8, 0)),
    "per 8, fastdecode, 3 B-frames, no pyramid": ("fastdecode", FAST.format(8, 3)),
    "per 12, fastdecode, 3 B-frames, no pyramid": ("fastdecode", FAST.format(12, 3)),
    "per 12, fastdecode, always 3 B-frames, no pyramid": (
        "fastdecode",
        FAST.format(12, 3) + ":b-adapt=0",
    ),
    "per 12, fastdecode, 5 B-frames, no pyramid": ("fastdecode", FAST.format(12, 5)),
    "per 16, fastdecode, 3 B-frames, no pyramid": ("fastdecode", FAST.format(16, 3)),
}
Read = Callable[[list[int]], Frames]


@dataclass(frozen=True)
class Way:
    """One way of reading a clip, and the bytes on disk that it needs per video."""

    name: str
    read: Read
    size_bytes: int


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m benchmarks.data", description=__doc__)
    parser.add_argument("--videos", type=int, default=3, help="files to make (default: 3)")
    parser.add_argument(
        "--draws", type=int, default=8, help="clips drawn from each, per sampling (default: 8)"
    )
    args = parser.parse_args()
    torch.set_num_threads(1)
    with tempfile.TemporaryDirectory() as folder:
        videos = [_make_ways(Path(folder), seed) for seed in range(args.videos)]
        times = {
            sampling: _measure(videos, sampling, args.draws) for sampling in ("dense", "uniform")
        }
        _report(videos, times, args.videos * args.draws)
        _report_engines(Path(folder), args.draws)
        _report_encodings(Path(folder), args.draws)


def _make_ways(folder: Path, seed: int) -> list[Way]:
    original, plain, prepared = (
        folder / f"{seed}-{name}.mp4" for name in ("original", "plain", "prepared")
    )
    write_scene(original, seed)
    _reencode(original, plain, PLAIN)
    encode(str(original), prepared, PrepareParameters())
    cache = FrameCache(folder / "cache", 10 << 30)

    def cached(indices: list[int]) -> Frames:
        return cache.read(str(original), lambda _: indices, SHORT_SIDE, "auto").frames

    size, prepared_size = original.stat().st_size, prepared.stat().st_size
    return [
        Way("released code (PyAV, whole file)", lambda i: _whole_file(original, i), size),
        Way("decord get_batch (seeks)", lambda i: _decord_seeks(original, i), size),
        Way("plain re-encode, ours", partial(_ours, plain), plain.stat().st_size),
        Way("ours, original", partial(_ours, original), size),
        Way("ours, prepared", partial(_ours, prepared), prepared_size),
        Way("ours, warm cache", cached, size + math.prod(CLIP_SHAPE)),
    ]


def write_scene(path: Path, seed: int) -> None:
    """A Kinetics-like file."""
    _write(path, _scene(seed, NUM_FRAMES), "libx264", PLAIN)


def _scene(seed: int, num_frames: int) -> Iterator[Frames]:
    """A camera that wanders over a texture, an object that moves in front of it, and sensor
    noise.
    """
    rng = np.random.default_rng(seed)
    background = _texture(rng, 2 * HEIGHT, 2 * WIDTH, [(64, 30.0), (16, 16.0), (4, 8.0)])
    thing = _texture(rng, 96, 96, [(32, 40.0), (8, 20.0)])
    for time_step in range(num_frames):
        top, left = _path(time_step, 60, 47, HEIGHT, WIDTH)
        frame = background[top : top + HEIGHT, left : left + WIDTH].copy()
        top, left = _path(time_step, 13, 17, HEIGHT - 96, WIDTH - 96)
        frame[top : top + 96, left : left + 96] = thing
        frame += rng.normal(scale=7.0, size=frame.shape)
        yield np.clip(frame, 0, 255).astype(np.uint8)


def _write(path: Path, frames: Iterable[Frames], codec: str, options: Mapping[str, str]) -> None:
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, FPS, options)
        stream.height, stream.width = HEIGHT, WIDTH
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    leave_real_time()


def _texture(
    rng: np.random.Generator, height: int, width: int, scales: list[tuple[int, float]]
) -> npt.NDArray[np.float64]:
    """Smooth random color at several scales, (pixels, strength)."""
    total = torch.full((1, 3, height, width), 128.0, dtype=torch.float64)
    for pixels, strength in scales:
        coarse = torch.from_numpy(
            rng.normal(size=(1, 3, height // pixels + 2, width // pixels + 2))
        )
        total += strength * torch.nn.functional.interpolate(
            coarse, size=(height, width), mode="bicubic"
        )
    texture: npt.NDArray[np.float64] = total[0].permute(1, 2, 0).numpy()
    return texture


def _path(time_step: int, slow: int, fast: int, height: int, width: int) -> tuple[int, int]:
    return (
        int(height * (0.5 + 0.45 * np.sin(time_step / slow))),
        int(width * (0.5 + 0.45 * np.cos(time_step / fast))),
    )


def _reencode(source: Path, target: Path, options: Mapping[str, str]) -> None:
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = writer.add_stream("libx264", rate=FPS, options=dict(options))
        stream.height, stream.width, stream.pix_fmt = HEIGHT, WIDTH, "yuv420p"
        for frame in reader.decode(video=0):
            writer.mux(stream.encode(frame.reformat(format="yuv420p")))
        writer.mux(stream.encode(None))


def _whole_file(path: Path, indices: list[int]) -> Frames:
    """Decodes every frame and converts the wanted ones, as the released code does."""
    with av.open(str(path)) as container:
        frames = sorted(container.decode(video=0), key=_pts)
    return scale(np.stack([frames[index].to_rgb().to_ndarray() for index in indices]), SHORT_SIDE)


def _pts(frame: av.VideoFrame) -> int:
    assert frame.pts is not None
    return frame.pts


def _decord_seeks(path: Path, indices: list[int]) -> Frames:
    import decord  # here: it has no wheel for some platforms

    return scale(
        decord.VideoReader(str(path), num_threads=1).get_batch(indices).asnumpy(), SHORT_SIDE
    )


def _decord_in_order(path: Path, indices: list[int]) -> Frames:
    import decord

    reader = decord.VideoReader(str(path), num_threads=1)
    frames = [reader.next() for _ in range(max(indices) + 1)]
    return scale(np.stack([frames[index].asnumpy() for index in indices]), SHORT_SIDE)


def _measure(videos: list[list[Way]], sampling: Sampling, num_draws: int) -> dict[str, float]:
    """Median seconds of processor time per clip of each way; the ways take turns on the same
    draws.
    """
    times: dict[str, list[float]] = {way.name: [] for way in videos[0]}
    for ways in videos:
        for indices in _draws(sampling, num_draws):
            ways[-1].read(indices)  # warms the cache
            for way in ways:
                start = time.process_time()
                frames = way.read(indices)
                times[way.name].append(time.process_time() - start)
                assert frames.shape == CLIP_SHAPE
    return {name: statistics.median(values) for name, values in times.items()}


def _draws(sampling: Sampling, num_draws: int) -> Iterator[list[int]]:
    rng = np.random.default_rng(0)
    return (
        random_indices(NUM_FRAMES, CLIP_FRAMES, sampling, STRIDE, rng) for _ in range(num_draws)
    )


def _report(videos: list[list[Way]], times: dict[str, dict[str, float]], num_clips: int) -> None:
    table = Table(
        title=f"8 frames at {SHORT_SIDE} px, medians of {num_clips} clips; x: the released way"
    )
    for column in (
        "way",
        "dense clips/s",
        "x",
        "spread clips/s",
        "x",
        "kB per video",
        "size",
        "target x",
    ):
        table.add_column(column, justify="left" if column == "way" else "right")
    sizes = {
        way.name: sum(ways[i].size_bytes for ways in videos) / len(videos)
        for i, way in enumerate(videos[0])
    }
    base = videos[0][0].name
    for name in sizes:
        rates = [
            cell
            for s in times.values()
            for cell in (f"{1 / s[name]:.0f}", f"{s[base] / s[name]:.1f}")
        ]
        size = f"{sizes[name] / sizes['plain re-encode, ours']:.2f}"
        target = " / ".join(map(str, TARGETS[name])) if name in TARGETS else ""
        table.add_row(name, *rates, f"{sizes[name] / 1000:.0f}", size, target)
    console = Console(width=110)
    console.print(table)
    console.print(
        "size: relative to a plain re-encode (the warm cache: one draw of 8 raw frames beside the "
        "video)"
    )
    console.print(
        f"{platform.machine()}, {os.cpu_count()} cores, one thread used; PyAV {av.__version__}"
    )


def _report_engines(folder: Path, num_draws: int) -> None:
    """PyAV, decord read in order (the way our engine uses it), and decord's seeks, on each kind of
    file.
    """
    table = Table(title="8 frames spread over a file of 100, ms per clip")
    for column in (
        "kind of file",
        "PyAV",
        "decord in order",
        "decord seeks",
        "wrong frames of its seeks",
    ):
        table.add_column(column, justify="left" if column == "kind of file" else "right")
    for number, (kind, (codec, suffix, options)) in enumerate(CODECS.items()):
        path = folder / f"kind{number}{suffix}"
        _write(path, _scene(number, NUM_CODEC_FRAMES), codec, options)
        table.add_row(kind, *_engine_cells(path, num_draws))
    Console(width=110).print(table)


def _report_encodings(folder: Path, num_draws: int) -> None:
    """What key frames, B-frames and x264's ``fastdecode`` do to size and to reading time."""
    table = Table(title=f"encodings of {NUM_FRAMES} frames; size: relative to a plain re-encode")
    for column in ("encoding", "size", "dense ms", "spread ms"):
        table.add_column(column, justify="left" if column == "encoding" else "right")
    source, plain = folder / "0-original.mp4", folder / "0-plain.mp4"
    for number, (name, (tune, parameters)) in enumerate(ENCODINGS.items()):
        path = folder / f"encoding{number}.mp4"
        options = PLAIN | {"x264-params": parameters} | ({"tune": tune} if tune else {})
        _reencode(source, path, options)
        samplings: tuple[Sampling, ...] = ("dense", "uniform")
        seconds = [_timed(partial(_ours, path), list(_draws(s, num_draws)))[0] for s in samplings]
        size = path.stat().st_size / plain.stat().st_size
        table.add_row(name, f"{size:.2f}", *(f"{1000 * s:.1f}" for s in seconds))
    Console(width=110).print(table)


def _ours(path: Path, indices: list[int]) -> Frames:
    return decode_frames(path, indices, short_side=SHORT_SIDE)


def _engine_cells(path: Path, num_draws: int) -> list[str]:
    from decord import DECORDError

    rng = np.random.default_rng(0)
    draws = [
        random_indices(NUM_CODEC_FRAMES, CLIP_FRAMES, "uniform", 1, rng) for _ in range(num_draws)
    ]
    reads: list[Read] = [
        lambda indices: decode_frames(path, indices, short_side=SHORT_SIDE, decoder="pyav"),
        lambda indices: _decord_in_order(path, indices),
        lambda indices: _decord_seeks(path, indices),
    ]
    try:
        times, clips = zip(*(_timed(read, draws) for read in reads), strict=True)
    except DECORDError:
        return [f"{_timed(reads[0], draws)[0] * 1000:.0f}", "cannot", "cannot", ""]
    wrong = sum(
        np.abs(right.astype(int) - found).max() > 8  # colors may be rounded differently
        for right_clip, found_clip in zip(clips[0], clips[2], strict=True)
        for right, found in zip(right_clip, found_clip, strict=True)
    )
    return [
        *(f"{seconds * 1000:.0f}" for seconds in times),
        f"{wrong} of {num_draws * CLIP_FRAMES}",
    ]


def _timed(read: Read, draws: list[list[int]]) -> tuple[float, list[Frames]]:
    times, clips = [], []
    for indices in draws:
        start = time.process_time()
        clips.append(read(indices))
        times.append(time.process_time() - start)
    return statistics.median(times), clips


if __name__ == "__main__":
    main()
