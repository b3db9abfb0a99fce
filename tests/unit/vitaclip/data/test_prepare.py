"""Preparing: the same frames in a file that is cheap to read, work never repeated, kills
survived.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import random
import signal
import time
from dataclasses import replace
from fractions import Fraction

import av
import numpy as np
import pytest

from testing.data_videos import CODECS, moving_frames, write_video
from vitaclip.config import AugmentConfig, DataConfig, TrainConfig
from vitaclip.data.datasets import load_dataset
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.folders import LocalFolder
from vitaclip.data.loader import train_batches
from vitaclip.data.manifest import Clip, Manifest
from vitaclip.data.prepare import encode, prepare, video_names
from vitaclip.errors import DataError, InputError

PARAMETERS = PrepareParameters(short_side=48, preset="ultrafast")


def dataset(root, num_videos=4, num_frames=30):
    clips = [
        Clip(
            str(write_video(root / f"class {i % 2}/{i}.mp4", moving_frames(num_frames, seed=i))),
            i % 2,
        )
        for i in range(num_videos)
    ]
    return Manifest("mine", ("jump up", "run"), tuple(clips), raw_classes=("jump_up", "run"))


def run(manifest, output, parameters=PARAMETERS, **options):
    return prepare(
        {"train": manifest}, LocalFolder(output), parameters, **{"num_threads": 2, **options}
    )


def difference(source, prepared, indices):
    """Mean absolute difference in brightness; the source's frames are scaled to the prepared
    size.
    """
    ours = decode_frames(prepared, indices)
    theirs = decode_frames(source, indices, short_side=min(ours.shape[1:3]))
    height, width = (min(a, b) for a, b in zip(ours.shape[1:3], theirs.shape[1:3], strict=True))
    ours, theirs = (frames[:, :height, :width].mean(axis=-1) for frames in (ours, theirs))
    return np.abs(ours - theirs).mean()


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_every_codec_is_prepared_to_the_same_frames(tmp_path, codec):
    name, suffix = CODECS[codec]
    quiet = {"h265": {"x265-params": "log-level=none"}, "av1": {"preset": "12"}}.get(codec, {})
    source = write_video(
        tmp_path / f"source{suffix}", moving_frames(30, 96, 128), name, options=quiet
    )
    assert encode(str(source), tmp_path / "prepared.mp4", PARAMETERS) == 30
    info = video_info(tmp_path / "prepared.mp4")
    assert (info.num_frames, info.height, info.width, info.codec) == (30, 48, 64, "h264")
    assert info.key_frames == (0, 12, 24)
    assert difference(source, tmp_path / "prepared.mp4", [0, 7, 15, 29]) < 6


def times(path):
    with av.open(str(path)) as container:
        found = [frame.time for frame in container.decode(video=0)]
    return np.array(found) - found[0]


def test_frame_times_are_kept(tmp_path):
    frames, gaps = moving_frames(20), np.random.default_rng(0).integers(1, 30, 20)
    source = tmp_path / "variable.mp4"
    with av.open(str(source), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for frame, frame_time in zip(frames, np.cumsum(gaps), strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = int(frame_time), Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    encode(str(source), tmp_path / "prepared.mp4", PARAMETERS)
    np.testing.assert_allclose(times(tmp_path / "prepared.mp4"), times(source), atol=1e-3)


def test_rotation_and_odd_sizes_are_kept(tmp_path):
    source = write_video(tmp_path / "turned.mp4", moving_frames(5, 64, 90), rotation=90)
    encode(str(source), tmp_path / "prepared.mp4", replace(PARAMETERS, short_side=37))
    assert decode_frames(tmp_path / "prepared.mp4", [0]).shape == (1, 52, 36, 3)
    assert difference(source, tmp_path / "prepared.mp4", [0, 4]) < 12


@pytest.mark.parametrize("num_frames", [1, 2])
def test_very_short_videos(tmp_path, num_frames):
    source = write_video(tmp_path / "short.mp4", moving_frames(num_frames))
    assert encode(str(source), tmp_path / "prepared.mp4", PARAMETERS) == num_frames


def test_the_output_is_a_data_set_that_trains(tmp_path, monkeypatch):
    manifest = dataset(tmp_path / "source")
    results = run(manifest, tmp_path / "out")
    assert [(done.is_new, done.error) for done in results] == [(True, None)] * 4
    assert results[0].name == "videos/class 0/0.mp4"
    monkeypatch.setenv("VITACLIP_DATA_MINE", str(tmp_path / "out"))
    monkeypatch.setenv("VITACLIP_FRAME_CACHE_GB", "0")
    prepared = load_dataset("mine", "train")
    assert prepared.classes == manifest.classes
    assert prepared.raw_classes == manifest.raw_classes
    assert [clip.label for clip in prepared.clips] == [clip.label for clip in manifest.clips]
    data = DataConfig(num_frames=4, stride=4, augment=AugmentConfig(rand_augment=None))
    config = TrainConfig(batch_size=4, data=data)
    ours, theirs = (
        next(train_batches(m, config, image_size=32, epoch=0)) for m in (prepared, manifest)
    )
    # the same frames, encoded once more
    assert (ours.video.float() - theirs.video.float()).abs().mean() < 10


def test_finished_work_is_kept_and_changes_are_noticed(tmp_path):
    manifest = dataset(tmp_path / "source")
    output = tmp_path / "out"
    run(manifest, output)

    def new(parameters=PARAMETERS):
        return [done.name for done in run(manifest, output, parameters) if done.is_new]

    assert new() == []
    first = manifest.clips[0].path
    os.utime(first, (1, 1))  # touched, not changed: its hash says so
    assert new() == []
    write_video(tmp_path / "source/class 0/0.mp4", moving_frames(20, seed=99))
    assert new() == ["videos/class 0/0.mp4"]
    (output / "videos/class 1/1.mp4").write_bytes(b"damaged")
    assert new() == ["videos/class 1/1.mp4"]
    (output / "videos/class 0/2.mp4").unlink()
    assert new() == ["videos/class 0/2.mp4"]
    (output / "videos/class 1/3.mp4.json").write_text("[not a record")
    assert new() == ["videos/class 1/3.mp4"]
    assert len(new(replace(PARAMETERS, crf=30))) == 4
    assert new(replace(PARAMETERS, crf=30)) == []


def test_broken_videos_are_reported_left_out_and_not_tried_again(tmp_path):
    manifest = dataset(tmp_path / "source")
    bad, gone = tmp_path / "source/class 0/bad.mp4", tmp_path / "source/gone.mp4"
    bad.write_bytes(b"not a video")
    manifest = replace(manifest, clips=(*manifest.clips, Clip(str(bad), 0), Clip(str(gone), 1)))
    for is_new in (True, False):
        results = {done.source: done for done in run(manifest, tmp_path / "out")}
        assert "bad.mp4: cannot be decoded" in results[str(bad)].error
        assert "gone.mp4" in results[str(gone)].error
        assert results[str(bad)].is_new == is_new
    assert len((tmp_path / "out/train.csv").read_text().splitlines()) == 4
    write_video(bad, moving_frames(5))
    repaired = {done.source: done for done in run(manifest, tmp_path / "out")}
    assert repaired[str(bad)].error is None


def test_a_wrong_result_would_be_noticed(tmp_path, monkeypatch):
    """An encoder that loses frames, or gives other pictures, does not get past the check."""
    manifest = dataset(tmp_path / "source", num_videos=1)
    other = write_video(tmp_path / "other.mp4", 255 - moving_frames(30))
    short = write_video(tmp_path / "short.mp4", moving_frames(29))
    for wrong, message in ((other, "differs by"), (short, "holds 29 of 30 frames")):

        def encode_wrongly(path, output, parameters, wrong=wrong):
            output.write_bytes(wrong.read_bytes())
            return 30

        monkeypatch.setattr("vitaclip.data.prepare.encode", encode_wrongly)
        (done,) = run(manifest, tmp_path / wrong.stem)
        assert message in done.error
        assert not (tmp_path / wrong.stem / done.name).exists()


def test_two_processes_cannot_write_into_one_folder(tmp_path):
    manifest = dataset(tmp_path / "source", num_videos=1)
    with (
        LocalFolder(tmp_path / "out").locked(),
        pytest.raises(InputError, match="another process is writing"),
    ):
        run(manifest, tmp_path / "out")


def test_names():
    names = video_names(["/d/train/a b/x.mp4", "/d/train/y.avi", "/d/val/x.mp4"])
    assert names == {
        "/d/train/a b/x.mp4": "videos/train/a b/x.mp4",
        "/d/train/y.avi": "videos/train/y.avi.mp4",
        "/d/val/x.mp4": "videos/val/x.mp4",
    }


def test_encode_refuses_files_without_video(tmp_path):
    (tmp_path / "text.mp4").write_bytes(b"nothing" * 100)
    with pytest.raises(DataError, match=r"text\.mp4: cannot be decoded"):
        encode(str(tmp_path / "text.mp4"), tmp_path / "out.mp4", PARAMETERS)


def test_kills_at_random_points_leave_nothing_wrong_and_nothing_to_clean(tmp_path):
    manifest = dataset(tmp_path / "source", num_videos=10, num_frames=60)
    slow, output = replace(PARAMETERS, preset="veryslow"), tmp_path / "out"
    fork = multiprocessing.get_context("fork")
    rng = random.Random(0)
    started = time.process_time()
    run(manifest, tmp_path / "measured", slow)
    whole_s = time.process_time() - started
    num_killed = 0
    for _ in range(20):
        worker = fork.Process(
            target=run_until_killed, args=(rng.uniform(0.0, whole_s / 8), manifest, output, slow)
        )
        worker.start()
        worker.join()
        num_killed += worker.exitcode == -signal.SIGPROF
        check_what_is_there(output, manifest)
    # each run may do an eighth of the work at most; the last ones found it done
    assert num_killed >= 5
    finished = run(manifest, output, slow)
    assert all(done.error is None for done in finished)
    check_what_is_there(output, manifest, complete=True)
    names = {path.name for path in output.rglob("*") if path.is_file()}
    videos = {f"{i}.mp4" for i in range(10)}
    assert names == {
        *videos,
        *(f"{v}.json" for v in videos),
        "train.csv",
        "train_classes.txt",
        ".lock",
    }


def run_until_killed(after_s, *arguments):
    """Killed after so many seconds of its own computing: however busy the machine is, it is the
    same moment.
    """
    signal.setitimer(signal.ITIMER_PROF, max(after_s, 1e-3))
    run(*arguments)


def check_what_is_there(output, manifest, complete=False):
    """Whatever has a video's name and record is that video, whole."""
    sources = {f"{path.split('/')[-1]}": path for path in (clip.path for clip in manifest.clips)}
    found = sorted((output / "videos").rglob("*.mp4")) if output.exists() else []
    for video in found:
        assert video_info(video).num_frames == 60
        assert difference(sources[video.name], video, [0, 59]) < 8
    for record in (output / "videos").rglob("*.json"):
        assert json.loads(record.read_text())["num_frames"] == 60
    assert not complete or len(found) == len(manifest.clips)
