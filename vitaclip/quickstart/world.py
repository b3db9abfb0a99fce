"""The quickstart's data set: short H.264 clips in which motion alone is the action, rendered at
first use.

A world is a folder of mp4 files with the list files that ``vitaclip.data`` reads: ``<split>.csv``
and ``<split>_classes.txt`` for ``train``, ``val`` (the same classes), ``zero_shot`` (held-out
compositions) and ``development`` (other compositions, for searches).
"""

from __future__ import annotations

import fcntl
import hashlib
import json
import os
import shutil
import uuid
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import av
import numpy as np

from vitaclip.errors import InputError
from vitaclip.quickstart import render

# Every composition joins a direction with a change; each direction and each change occurs in two
# base actions and in two held-out ones, so no half of a held-out name tells it from the others.
BASE_ACTIONS: tuple[tuple[str, ...], ...] = (
    *((motion,) for motion in render.MOTIONS),
    ("moving left", "growing"),
    ("moving left", "shaking"),
    ("moving right", "shrinking"),
    ("moving right", "blinking"),
    ("moving up", "growing"),
    ("moving up", "blinking"),
    ("moving down", "shrinking"),
    ("moving down", "shaking"),
)
HELD_OUT_ACTIONS: tuple[tuple[str, ...], ...] = (
    ("moving left", "shrinking"),
    ("moving left", "blinking"),
    ("moving right", "growing"),
    ("moving right", "shaking"),
    ("moving up", "shrinking"),
    ("moving up", "shaking"),
    ("moving down", "growing"),
    ("moving down", "blinking"),
)
# Joins two changes, never a direction: for choosing between trainings, so that the held-out actions
# stay unseen.
DEVELOPMENT_ACTIONS: tuple[tuple[str, ...], ...] = (
    ("growing", "shaking"),
    ("growing", "blinking"),
    ("shrinking", "shaking"),
    ("shrinking", "blinking"),
    ("bouncing", "growing"),
    ("bouncing", "blinking"),
    ("circling", "shrinking"),
    ("circling", "blinking"),
)
STAMP = "world.json"
FRAMES_PER_SECOND = 8
RENDERER_SHA256 = hashlib.sha256(Path(render.__file__).read_bytes()).hexdigest()


@dataclass(frozen=True)
class WorldSpec:
    """How much world to render; clips are counted per action."""

    num_train_clips: int = 40
    num_val_clips: int = 10
    num_zero_shot_clips: int = 25
    num_development_clips: int = 10
    num_frames: int = 16
    frame_size: int = 80  # pixels
    seed: int = 0


@dataclass(frozen=True)
class _Job:
    path: Path
    action: tuple[str, ...]
    seed: tuple[int, ...]


def action_name(action: tuple[str, ...]) -> str:
    """The class name: 'moving left and growing'."""
    return " and ".join(action)


def ensure_world(root: Path, spec: WorldSpec | None = None) -> None:
    """Renders the world into ``root`` unless it stands there whole; a world of other making is
    replaced.

    ``root`` appears by one rename when every file is written, so a killed call leaves nothing that
    could be taken for a world. Concurrent callers wait for the first one.

    Raises:
        InputError: ``root`` is something else than a world, or cannot be written.
    """
    spec = spec or WorldSpec()
    if _is_whole(root, spec):
        return
    try:
        root.parent.mkdir(parents=True, exist_ok=True)
        with _lock(root):
            if not _is_whole(root, spec):
                _replace(root, spec)
    except OSError as error:
        raise InputError(
            f"quickstart's world: {root} cannot be written ({error}); name another folder in "
            "VITACLIP_DATA_QUICKSTART"
        ) from error


def render_action(
    action: tuple[str, ...], spec: WorldSpec, seed: tuple[int, ...]
) -> render.Pictures:
    """The frames of one clip, uint8 ``[T, H, W, 3]``; the same seed gives the same pixels."""
    rng = np.random.default_rng(seed)
    scene = render.sample_scene(spec.frame_size, rng)
    return render.draw_clip(scene, action, spec.num_frames, rng)


def write_video(path: Path, frames_THWC: render.Pictures) -> None:
    """Writes an H.264 mp4 file."""
    height, width = frames_THWC.shape[1:3]
    # a fixed quantizer and one thread: x264's rate control does not give the same bytes every time
    options = {"preset": "veryfast", "qp": "22", "threads": "1"}
    with av.open(str(path), "w", format="mp4") as container:
        stream = container.add_stream("libx264", rate=FRAMES_PER_SECOND, options=options)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        for frame in frames_THWC:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))


def _stamp(spec: WorldSpec) -> dict[str, object]:
    actions = {
        "base": list(map(action_name, BASE_ACTIONS)),
        "held_out": list(map(action_name, HELD_OUT_ACTIONS)),
        "development": list(map(action_name, DEVELOPMENT_ACTIONS)),
    }
    return {"spec": asdict(spec), "actions": actions, "renderer_sha256": RENDERER_SHA256}


def _is_whole(root: Path, spec: WorldSpec) -> bool:
    try:
        return bool(json.loads((root / STAMP).read_text()) == _stamp(spec))
    except (OSError, ValueError):
        return False


@contextmanager
def _lock(root: Path) -> Iterator[None]:
    """Held by one process at a time; the system releases it when its holder dies."""
    with _beside(root, "lock").open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def _replace(root: Path, spec: WorldSpec) -> None:
    """Renders beside ``root`` and renames; what killed calls left is cleared first."""
    if root.is_dir() and any(root.iterdir()) and not (root / STAMP).is_file():
        raise InputError(
            f"quickstart's world: {root} holds other files; empty it or name another in "
            "VITACLIP_DATA_QUICKSTART"
        )
    for leftover in root.parent.glob(_beside(root, "part-*").name):
        shutil.rmtree(leftover)
    part = _beside(root, f"part-{uuid.uuid4().hex}")
    _render_world(part, spec)
    if root.exists():
        root.rename(_beside(root, f"part-{uuid.uuid4().hex}-old"))
    part.rename(root)
    for leftover in root.parent.glob(_beside(root, "part-*").name):
        shutil.rmtree(leftover)


def _beside(root: Path, suffix: str) -> Path:
    return root.parent / f".{root.name}.{suffix}"


def _render_world(root: Path, spec: WorldSpec) -> None:
    splits = {
        "train": (BASE_ACTIONS, spec.num_train_clips),
        "val": (BASE_ACTIONS, spec.num_val_clips),
        "zero_shot": (HELD_OUT_ACTIONS, spec.num_zero_shot_clips),
        "development": (DEVELOPMENT_ACTIONS, spec.num_development_clips),
    }
    jobs = []
    for number, (split, (actions, num_clips)) in enumerate(splits.items()):
        jobs += _write_lists(root, split, actions, num_clips, seed=(spec.seed, number))
    # threads: numpy and the encoder leave the interpreter free, and a killed caller leaves no
    # process behind
    with ThreadPoolExecutor(len(os.sched_getaffinity(0))) as pool:
        for _ in pool.map(
            lambda job: write_video(job.path, render_action(job.action, spec, job.seed)), jobs
        ):
            pass
    (root / STAMP).write_text(json.dumps(_stamp(spec), indent=1))


def _write_lists(
    root: Path,
    split: str,
    actions: tuple[tuple[str, ...], ...],
    num_clips: int,
    seed: tuple[int, ...],
) -> list[_Job]:
    """Writes a split's list files and makes its folders; returns the clips to render."""
    jobs, rows = [], []
    for number, action in enumerate(actions):
        folder = Path(split) / action_name(action).replace(" ", "_")
        (root / folder).mkdir(parents=True)
        for clip in range(num_clips):
            path = folder / f"{clip:03d}.mp4"
            jobs.append(_Job(root / path, action, (*seed, number, clip)))
            rows.append(f"{path},{action_name(action)}\n")
    (root / f"{split}.csv").write_text("".join(rows))
    (root / f"{split}_classes.txt").write_text(
        "".join(f"{action_name(action)}\n" for action in actions)
    )
    return jobs
