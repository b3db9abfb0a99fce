"""Damaged files: 200 made by cutting, flipping bits and swapping heads never crash or hang the
loader.
"""

from __future__ import annotations

import multiprocessing
import random

import pytest

from testing.data_videos import CODECS, moving_frames, write_video
from testing.paths import SHARED_CLIPS
from vitaclip.config import AugmentConfig, DataConfig, EvalConfig, TrainConfig
from vitaclip.data.loader import eval_batches, train_batches
from vitaclip.data.manifest import Clip, Manifest

NUM_FILES = 200
TIMEOUT_S = 250


def damaged(files, rng):
    """One file's bytes, damaged in one of several ways."""
    data = bytearray(rng.choice(files))
    kind = rng.choice(["cut", "cut head", "bits", "many bits", "swap head", "hole", "repeat"])
    if kind == "cut":
        return data[: rng.randrange(len(data))]
    if kind == "cut head":
        return data[rng.randrange(min(2000, len(data))) :]
    if kind in ("bits", "many bits"):
        for _ in range(1 if kind == "bits" else rng.randrange(2, 200)):
            data[rng.randrange(len(data))] ^= 1 << rng.randrange(8)
        return data
    if kind == "swap head":
        other, length = rng.choice(files), rng.randrange(8, 4000)
        return other[:length] + data[length:]
    start, length = rng.randrange(len(data)), rng.randrange(1, 5000)
    if kind == "hole":
        data[start : start + length] = bytes(min(length, len(data) - start))
        return data
    return data[: start + length] + data[start:]


def sound_files(folder):
    options = {"h265": {"x265-params": "log-level=none"}, "av1": {"preset": "12"}}
    frames = moving_frames(24, 96, 128)
    paths = [
        write_video(folder / f"{name}{suffix}", frames, codec, options=options.get(name))
        for name, (codec, suffix) in CODECS.items()
    ]
    real = sorted(p for p in SHARED_CLIPS.glob("*.*") if p.suffix in (".avi", ".mp4"))
    return [path.read_bytes() for path in [*paths, *real]]


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    folder = tmp_path_factory.mktemp("fuzz")
    rng = random.Random(0)
    files = sound_files(folder)
    clips = []
    for i in range(NUM_FILES):
        (folder / f"fuzz{i}").write_bytes(damaged(files, rng))
        clips.append(Clip(str(folder / f"fuzz{i}"), 0))
    sound = write_video(folder / "sound.mp4", moving_frames(24))
    return Manifest("fuzz", ("one",), (*clips, Clip(str(sound), 0)))


def in_a_process(function, *arguments):
    """The function's result; fails if the process crashes or does not come back."""
    fork = multiprocessing.get_context("fork")
    receiver, sender = fork.Pipe(duplex=False)
    process = fork.Process(target=lambda: sender.send(function(*arguments)))
    process.start()
    sender.close()  # so that a crash ends the wait
    try:
        assert receiver.poll(TIMEOUT_S), "the loader hung"
        return receiver.recv()
    except EOFError:
        pytest.fail("the loader crashed")
    finally:
        process.kill()
        process.join()


def evaluate(manifest, decoder, limit):
    data = DataConfig(num_frames=4, max_broken=1.0, decoder=decoder, limit=limit)
    batches = list(eval_batches(manifest, data, EvalConfig(), image_size=32))
    return sum(len(batch.labels) for batch in batches), sum(len(batch.broken) for batch in batches)


@pytest.mark.parametrize(("decoder", "limit"), [("auto", NUM_FILES + 1), ("decord", 60)])
def test_each_file_is_decoded_or_counted_broken(manifest, decoder, limit, monkeypatch, tmp_path):
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    num_decoded, num_broken = in_a_process(evaluate, manifest, decoder, limit)
    assert num_decoded + num_broken == limit
    assert num_decoded > limit / 10
    assert num_broken > limit / 10


def train(manifest):
    data = DataConfig(
        num_frames=4, max_broken=1.0, augment=AugmentConfig(rand_augment=None), limit=60
    )
    config = TrainConfig(batch_size=20, data=data)
    batches = list(train_batches(manifest, config, image_size=32, epoch=0))
    return [(tuple(batch.video.shape), len(batch.broken)) for batch in batches]


def test_training_replaces_what_is_broken(manifest, monkeypatch, tmp_path):
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    batches = in_a_process(train, manifest)
    assert [shape for shape, _ in batches] == [(20, 3, 4, 32, 32)] * 3
    assert sum(num_broken for _, num_broken in batches) > 10
