"""The quickstart's world: same seed, same pixels; real mp4; whole or not there at all, whoever
calls or dies.
"""

from __future__ import annotations

import multiprocessing
import os
import signal
import time
from pathlib import Path

import numpy as np
import pytest

from vitaclip.data.decode import decode_frames
from vitaclip.data.manifest import read_class_list, read_list
from vitaclip.errors import InputError
from vitaclip.quickstart import world
from vitaclip.quickstart.render import (
    MOTIONS,
    SHAPES,
    Track,
    coverage,
    draw_clip,
    sample_scene,
    sample_track,
)
from vitaclip.quickstart.world import (
    BASE_ACTIONS,
    DEVELOPMENT_ACTIONS,
    HELD_OUT_ACTIONS,
    WorldSpec,
    ensure_world,
    render_action,
)

FEW = {"num_val_clips": 1, "num_zero_shot_clips": 1, "num_development_clips": 1}
SMALL = WorldSpec(num_train_clips=2, num_frames=8, frame_size=32, **FEW)
LARGER = WorldSpec(num_train_clips=5000, frame_size=64, **FEW)
SPAWN = multiprocessing.get_context("spawn")


@pytest.fixture(scope="module")
def small_world(tmp_path_factory: pytest.TempPathFactory) -> Path:
    root = tmp_path_factory.mktemp("world") / "quickstart"
    ensure_world(root, SMALL)
    return root


def files_of(root: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(root)): path.read_bytes()
        for path in sorted(root.rglob("*"))
        if path.is_file()
    }


def test_same_seed_gives_same_files(small_world: Path, tmp_path: Path) -> None:
    ensure_world(tmp_path / "again", SMALL)
    assert files_of(tmp_path / "again") == files_of(small_world)


def test_clips_differ_within_and_between_splits(small_world: Path) -> None:
    videos = [data for name, data in files_of(small_world).items() if name.endswith(".mp4")]
    assert (
        len(set(videos))
        == len(videos)
        == 3 * len(BASE_ACTIONS) + len(HELD_OUT_ACTIONS + DEVELOPMENT_ACTIONS)
    )


@pytest.mark.parametrize("decoder", ["decord", "pyav"])
def test_clips_decode_to_the_rendered_frames(small_world: Path, decoder: str) -> None:
    clips = read_list(small_world / "train.csv", read_class_list(small_world / "train_classes.txt"))
    frames = decode_frames(clips[3].path, range(SMALL.num_frames), decoder=decoder)  # type: ignore[arg-type]
    rendered = render_action(BASE_ACTIONS[1], SMALL, (SMALL.seed, 0, 1, 1))
    assert frames.shape == rendered.shape == (8, 32, 32, 3)
    # H.264 with halved color resolution is lossy
    assert np.abs(frames.astype(float) - rendered).mean() < 12


def test_lists_name_every_clip_and_class(small_world: Path) -> None:
    splits = ("train", "val", "zero_shot")
    train, val, zero_shot = classes = [
        read_class_list(small_world / f"{split}_classes.txt") for split in splits
    ]
    assert train == val
    assert not set(zero_shot) & set(train)
    clips = [
        read_list(small_world / f"{split}.csv", names)
        for split, names in zip(splits, classes, strict=True)
    ]
    assert [len(of_split) for of_split in clips] == [40, 20, 8]
    assert all(Path(clip.path).is_file() for of_split in clips for clip in of_split)


def test_held_out_halves_all_occur_alone_and_in_base_compositions() -> None:
    assert not set(DEVELOPMENT_ACTIONS) & {*BASE_ACTIONS, *HELD_OUT_ACTIONS}
    for half in {half for action in HELD_OUT_ACTIONS for half in action}:
        assert (half,) in BASE_ACTIONS
        assert sum(half in action for action in BASE_ACTIONS if len(action) == 2) == 2
        assert sum(half in action for action in HELD_OUT_ACTIONS) == 2


def test_a_world_that_stands_is_left_alone(small_world: Path) -> None:
    before = small_world.stat().st_ctime_ns
    ensure_world(small_world, SMALL)
    assert small_world.stat().st_ctime_ns == before


def test_another_spec_or_renderer_replaces_the_world(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    root = tmp_path / "quickstart"
    ensure_world(root, SMALL)
    before = (root / "world.json").read_text()
    monkeypatch.setattr(world, "RENDERER_SHA256", "another")
    ensure_world(root, SMALL)
    assert (root / "world.json").read_text() != before
    assert sorted(path.name for path in tmp_path.iterdir()) == [".quickstart.lock", "quickstart"]


def test_a_folder_with_other_files_is_refused(tmp_path: Path) -> None:
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "holiday.mp4").write_bytes(b"precious")
    with pytest.raises(InputError, match="holds other files"):
        ensure_world(tmp_path / "mine", SMALL)
    assert (tmp_path / "mine" / "holiday.mp4").read_bytes() == b"precious"


def test_a_place_that_cannot_be_written_is_named(tmp_path: Path) -> None:
    (tmp_path / "file").touch()
    with pytest.raises(InputError, match="VITACLIP_DATA_QUICKSTART"):
        ensure_world(tmp_path / "file" / "quickstart", SMALL)


def test_concurrent_callers_get_one_whole_world(small_world: Path, tmp_path: Path) -> None:
    root = tmp_path / "quickstart"
    callers = [SPAWN.Process(target=ensure_world, args=(root, SMALL)) for _ in range(3)]
    for caller in callers:
        caller.start()
    for caller in callers:
        caller.join()
    assert [caller.exitcode for caller in callers] == [0, 0, 0]
    assert files_of(root) == files_of(small_world)
    assert sorted(path.name for path in tmp_path.iterdir()) == [".quickstart.lock", "quickstart"]


def test_a_killed_render_leaves_nothing_taken_for_a_world(
    tmp_path: Path, small_world: Path
) -> None:
    root = tmp_path / "quickstart"
    caller = SPAWN.Process(target=ensure_world, args=(root, LARGER))
    caller.start()
    while not list(tmp_path.glob(".quickstart.part-*/train/*/*.mp4")):
        assert caller.is_alive()
        time.sleep(0.01)
    assert caller.pid is not None
    os.kill(caller.pid, signal.SIGKILL)
    caller.join()
    assert caller.exitcode == -signal.SIGKILL
    assert not root.exists()
    ensure_world(root, SMALL)
    assert files_of(root) == files_of(small_world)
    assert not list(tmp_path.glob(".quickstart.part-*"))


@pytest.mark.parametrize("motion", MOTIONS)
def test_every_motion_keeps_its_object_in_sight(motion: str) -> None:
    for seed in range(20):
        track = sample_track((motion,), 16, np.random.default_rng(seed))
        assert (np.abs(track.x - 0.5) < 0.5).all()
        assert (np.abs(track.y - 0.5) < 0.5).all()


def test_a_frame_still_shows_faintly_where_the_object_was() -> None:
    """The afterglow: a frame of a moving object differs from the object alone, one of a still
    object does not.
    """
    rng = np.random.default_rng(0)
    scene = sample_scene(32, rng, shape="square", color="white")
    background = scene.background_HW3.astype(np.uint8)
    lit = [
        (
            np.abs(
                draw_clip(scene, (name,), 4, np.random.default_rng(1))[-1].astype(int) - background
            )
            > 20
        ).mean()
        for name in ("moving left", "standing still")
    ]
    assert lit[0] > 1.5 * lit[1] > 0


@pytest.mark.parametrize("shape", SHAPES)
def test_spinning_shows_in_every_shape_at_8_frames(shape: str) -> None:
    """Between two sampled frames each shape differs more from itself than a still one does, and
    never aliases.
    """
    still = Track(*(np.full(1, value) for value in (0.5, 0.5, 0.2, 0.3, 1.0)))
    track = sample_track(("spinning",), 8, np.random.default_rng(0))
    step = abs(float(track.angle[1] - track.angle[0]))
    turned = Track(still.x, still.y, still.radius, still.angle + step, still.opacity)
    first, second = coverage(shape, still, 64), coverage(shape, turned, 64)
    assert np.abs(first - second).sum() > 0.03 * first.sum()
    # half of the star's period, the shortest among marked shapes' 2 pi and the cross's pi / 2
    assert step < np.pi / 5


def test_places_alone_do_not_tell_moving_left_from_right() -> None:
    """Over many clips the objects' places are alike: only their order, or the afterglow, tells the
    action.
    """
    rng = np.random.default_rng(0)
    left, right = (
        np.stack([sample_track((name,), 16, rng).x for _ in range(500)])
        for name in ("moving left", "moving right")
    )
    assert abs(left.mean() - right.mean()) < 0.02
    assert (np.diff(left, axis=1) < 0).all()
    assert (np.diff(right, axis=1) > 0).all()


def test_appearance_is_drawn_alike_for_every_action() -> None:
    scenes = [sample_scene(16, np.random.default_rng((0, i))) for i in range(300)]
    shapes = {scene.shape for scene in scenes}
    assert shapes == set(SHAPES)
