"""Small real video files, made by the tests."""

from __future__ import annotations

import os
from collections.abc import Callable, Mapping
from pathlib import Path

import av
import numpy as np
from av.container import OutputContainer
from av.packet import Packet
from av.video.stream import VideoStream

from vitaclip.data.manifest import Clip, Manifest
from vitaclip.data.video import Frames

CODECS = {  # codec -> (encoder, container): every kind of file that the data sets come in
    "h264": ("libx264", ".mp4"),
    "h265": ("libx265", ".mp4"),
    "vp9": ("libvpx-vp9", ".webm"),
    "mpeg4": ("mpeg4", ".avi"),
    "mjpeg": ("mjpeg", ".avi"),
    "av1": ("libsvtav1", ".mp4"),
}


def moving_frames(num_frames: int, height: int = 64, width: int = 80, seed: int = 0) -> Frames:
    """A textured picture that moves two pixels a frame, lighter with every frame: no two are
    alike.
    """
    rng = np.random.default_rng(seed)
    coarse = rng.integers(0, 200, (height // 8 + 1, width // 8 + 1, 3), dtype=np.uint8)
    picture = np.kron(coarse, np.ones((8, 8, 1), np.uint8))[:height, :width]
    lighter = [np.uint8(40 * i // max(1, num_frames - 1)) for i in range(num_frames)]
    return np.stack([np.roll(picture, 2 * i, axis=1) + lighter[i] for i in range(num_frames)])


def add_video(
    container: OutputContainer, codec: str, fps: int, options: Mapping[str, str] | None = None
) -> VideoStream:
    """A new video stream of a file that is being written.

    Args:
        container: the file.
        codec: FFmpeg's name of the encoder.
        fps: frames per second.
        options: of the encoder.

    Raises:
        AssertionError: it is an audio codec.
    """
    stream = container.add_stream(codec, rate=fps, options=dict(options or {}))
    assert isinstance(stream, VideoStream), f"{codec} is no video codec"
    return stream


def write_video(
    path: Path,
    frames: Frames,
    codec: str = "libx264",
    fps: int = 25,
    options: Mapping[str, str] | None = None,
    rotation: int = 0,
) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, fps, options)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.thread_count = 1
        if rotation:
            stream.set_display_rotation(rotation)
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    leave_real_time()
    return path


def write_packets(
    source: Path,
    target: Path,
    change: Callable[[list[Packet[VideoStream]]], list[Packet[VideoStream]]],
    options: Mapping[str, str] | None = None,
) -> Path:
    """Copies the packets of a video, changed, into another container without encoding them
    again.
    """
    with (
        av.open(str(source)) as reader,
        av.open(str(target), "w", options=dict(options or {})) as writer,
    ):
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        for packet in change([packet for packet in reader.demux(stream) if packet.size]):
            packet.stream = copy
            writer.mux(packet)
    return target


def whole_file(path: Path) -> Frames:
    """Every frame, decoded in order: what random access must agree with."""
    with av.open(str(path), metadata_errors="ignore") as container:
        container.streams.video[0].codec_context.thread_count = 1
        return np.stack([frame.to_ndarray(format="rgb24") for frame in container.decode(video=0)])


def leave_real_time() -> None:
    """Back to normal scheduling: as root, SVT-AV1 gives its caller SCHED_FIFO 99, which starves all
    others.
    """
    if hasattr(os, "sched_setscheduler"):
        os.sched_setscheduler(0, os.SCHED_OTHER, os.sched_param(0))


def small_dataset(
    root: Path, num_clips: int = 12, num_classes: int = 3, num_frames: int = 12
) -> Manifest:
    clips = [
        Clip(
            str(write_video(root / f"{i}.mp4", moving_frames(num_frames, seed=i))), i % num_classes
        )
        for i in range(num_clips)
    ]
    return Manifest("small", tuple(f"class {c}" for c in range(num_classes)), tuple(clips))
