"""A dataset of real videos in which a square moves."""

from __future__ import annotations

import shutil
from pathlib import Path

import av
import numpy as np

from testing.data_videos import add_video
from vitaclip.data.datasets import load_dataset

MOTIONS = {
    "moving left": (0, -2),
    "moving right": (0, 2),
    "moving up": (-2, 0),
    "moving down": (2, 0),
}


def write_motions(root: Path, num_train: int, num_val: int) -> None:
    """A dataset of four classes of motion, with its splits ``train`` and ``val``."""
    (root / "classes.txt").write_text("\n".join(MOTIONS))
    rng = np.random.default_rng(0)
    for split, num_clips in (("train", num_train), ("val", num_val)):
        rows = [(f"{split}_{i}.mp4", list(MOTIONS)[i % 4]) for i in range(num_clips)]
        for name, motion in rows:
            write_square(root / name, MOTIONS[motion], start=rng.integers(14, 20, size=2))
        (root / f"{split}.csv").write_text("\n".join(f"{name},{motion}" for name, motion in rows))


def write_moving_square(path: Path, rng: np.random.Generator) -> Path:
    """A square that starts and moves as drawn; its folder is made."""
    path.parent.mkdir(parents=True, exist_ok=True)
    row, column = rng.integers(-2, 3, size=2)
    write_square(path, (int(row), int(column)), start=rng.integers(5, 30, size=2))
    return path


def write_square(
    path: Path, velocity: tuple[int, int], start: np.ndarray, num_frames: int = 8
) -> None:
    """A white square on gray, 48 pixels wide; H.264, in a WebM file VP9."""
    with av.open(str(path), "w") as container:
        # x264's rate control does not give the same bytes every time, least of all on a busy
        # machine
        x264, vp9 = ("libx264", {"qp": "18", "threads": "1"}), ("libvpx-vp9", {"crf": "18"})
        codec, options = vp9 if path.suffix == ".webm" else x264
        stream = add_video(container, codec, 8, options)
        stream.width = stream.height = 48
        stream.pix_fmt = "yuv420p"
        for t in range(num_frames):
            pixels = np.full((48, 48, 3), 90, dtype=np.uint8)
            row, column = (int(s + v * t) for s, v in zip(start, velocity, strict=True))
            pixels[max(0, row) : row + 10, max(0, column) : column + 10] = 255
            container.mux(stream.encode(av.VideoFrame.from_ndarray(pixels, format="rgb24")))
        container.mux(stream.encode())


def damaged_copy(dataset: str, folder: Path) -> None:
    """Copies a dataset of :func:`write_motions` with 24 training and 8 validation clips; an eighth
    of each is broken: 3 and 1.
    """
    source = Path(load_dataset(dataset, "val").clips[0].path).parent
    shutil.copytree(source, folder, ignore=shutil.ignore_patterns("cache"))
    for name in ("train_0", "train_5", "train_18", "val_6"):
        (folder / f"{name}.mp4").write_bytes(b"no video")
