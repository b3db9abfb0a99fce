"""The frame cache: equal to decoding, bounded, and safe from crashes, damage and each other's
processes.
"""

from __future__ import annotations

import multiprocessing
import os
import random
import signal
import time

import numpy as np
import pytest

from testing.data_videos import moving_frames, write_video
from vitaclip.data import frame_cache
from vitaclip.data.decode import decode_frames
from vitaclip.data.frame_cache import FrameCache, evict
from vitaclip.errors import DataError

SIZE = 32  # frames of 64 x 80 are kept at 32 x 40: 3,840 bytes each
LIMIT = 10 << 20
DRAW = [0, 3, 3, 11]


def draw(video_length):
    return DRAW


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    folder = tmp_path_factory.mktemp("videos")
    return [write_video(folder / f"{i}.mp4", moving_frames(12, seed=i)) for i in range(8)]


@pytest.fixture(params=["whole", "clips"])
def kept(request, monkeypatch):
    """Both kinds of entries: small videos kept whole, and drawn frames of larger ones."""
    if request.param == "clips":
        monkeypatch.setattr(frame_cache, "WHOLE_VIDEO_BYTES", 0)
    return request.param


def entries(root):
    return [path for path in root.rglob("*") if path.is_file() and path.name != "lock"]


def test_cached_frames_equal_decoded_frames(videos, tmp_path, kept):
    for path in videos:
        expected = decode_frames(path, DRAW, short_side=SIZE)
        reads = [FrameCache(tmp_path, LIMIT).read(str(path), draw, SIZE, "auto") for _ in range(3)]
        assert [read.hit for read in reads] == [False, True, True]
        for read in reads:
            np.testing.assert_array_equal(read.frames, expected)
            assert read.frames.flags.writeable  # a copy: nobody can write into the cache


def test_another_draw_of_a_whole_video_hits_and_of_a_large_one_decodes(videos, tmp_path, kept):
    cache = FrameCache(tmp_path, LIMIT)
    cache.read(str(videos[0]), draw, SIZE, "auto")
    other = cache.read(str(videos[0]), lambda length: [length - 1, 5], SIZE, "auto")
    assert other.hit == (kept == "whole")
    np.testing.assert_array_equal(other.frames, decode_frames(videos[0], [11, 5], short_side=SIZE))


def test_size_and_decoder_are_part_of_the_key(videos, tmp_path):
    cache = FrameCache(tmp_path, LIMIT)
    cache.read(str(videos[0]), draw, SIZE, "auto")
    assert not cache.read(str(videos[0]), draw, SIZE - 1, "auto").hit
    assert not cache.read(str(videos[0]), draw, SIZE, "decord").hit


def test_a_changed_file_is_decoded_again(tmp_path):
    path, cache = tmp_path / "v.mp4", FrameCache(tmp_path / "cache", LIMIT)
    for seed, size, changed_at in ((1, 100_000, 1), (2, 100_000, 2), (3, 100_001, 2)):
        write_video(path, moving_frames(12, seed=seed))
        path.write_bytes(path.read_bytes().ljust(size, b"\0"))
        os.utime(path, (changed_at, changed_at))
        read = cache.read(str(path), draw, SIZE, "auto")
        assert not read.hit
        np.testing.assert_array_equal(read.frames, decode_frames(path, DRAW, short_side=SIZE))


def test_a_limit_of_zero_writes_nothing(videos, tmp_path):
    reads = [FrameCache(tmp_path, 0).read(str(videos[0]), draw, SIZE, "auto") for _ in range(2)]
    assert [read.hit for read in reads] == [False, False]
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize("damage", ["empty", "half", "header", "zeroed", "other", "longer"])
def test_damaged_entries_are_decoded_again_and_replaced(videos, tmp_path, damage, kept):
    cache = FrameCache(tmp_path, LIMIT)
    expected = cache.read(str(videos[0]), draw, SIZE, "auto").frames
    for path in entries(tmp_path):
        data = path.read_bytes()
        damaged = {
            "empty": b"",
            "half": data[: len(data) // 2],
            "header": data[:20],
            "zeroed": data[: len(data) // 2] + bytes(len(data) - len(data) // 2),
            "other": b"something else" * 99,
            "longer": data + b"\0",
        }
        path.write_bytes(damaged[damage])
    read = cache.read(str(videos[0]), draw, SIZE, "auto")
    np.testing.assert_array_equal(read.frames, expected)
    again = cache.read(str(videos[0]), draw, SIZE, "auto")
    assert again.hit
    np.testing.assert_array_equal(again.frames, expected)


def test_the_least_recently_used_entries_go_first(videos, tmp_path):
    cache = FrameCache(tmp_path, LIMIT)
    for age, path in enumerate(videos):
        cache.read(str(path), draw, SIZE, "auto")
        for entry in entries(tmp_path):  # so that times differ on any file system
            times = (entry.stat().st_atime_ns, entry.stat().st_mtime_ns - 10**9)
            os.utime(entry, ns=times)
        assert age + 1 == len(entries(tmp_path))
    assert cache.read(str(videos[0]), draw, SIZE, "auto").hit  # used just now
    size = entries(tmp_path)[0].stat().st_size
    evict(tmp_path, 4 * size)
    assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= 0.9 * 4 * size
    kept = [FrameCache(tmp_path, LIMIT).read(str(path), draw, SIZE, "auto").hit for path in videos]
    assert kept == [True, False, False, False, False, False, True, True]


def drawing(indices):
    """Wants the same frames of a video of any length."""
    return lambda length: indices


def test_the_limit_holds_while_writing(videos, tmp_path):
    limit = 4 * 12 * 32 * 40 * 3  # room for not quite four videos
    cache = FrameCache(tmp_path, limit)
    for round_ in range(3):
        for path in videos:
            cache.read(str(path), drawing([round_]), SIZE, "auto")
            assert sum(entry.stat().st_size for entry in entries(tmp_path)) <= limit * 1.05


def test_a_full_disk_evicts(videos, tmp_path, monkeypatch):
    FrameCache(tmp_path, LIMIT).read(str(videos[0]), draw, SIZE, "auto")
    monkeypatch.setattr(frame_cache, "KEEP_FREE_BYTES", 1 << 60)
    evict(tmp_path, LIMIT)
    assert not entries(tmp_path)


def test_a_cache_that_cannot_be_written_only_costs_speed(videos, tmp_path):
    (tmp_path / "file").write_text("in the way")
    read = FrameCache(tmp_path / "file", LIMIT).read(str(videos[0]), draw, SIZE, "auto")
    np.testing.assert_array_equal(read.frames, decode_frames(videos[0], DRAW, short_side=SIZE))


def test_a_missing_video_is_a_data_error(tmp_path):
    for limit in (0, LIMIT):
        with pytest.raises(DataError, match=r"gone\.mp4"):
            FrameCache(tmp_path, limit).read(str(tmp_path / "gone.mp4"), draw, SIZE, "auto")


def read_for_a_while(root, videos, seed):
    frame_cache.WHOLE_VIDEO_BYTES = 0 if seed % 2 else 4 << 20
    rng, cache = random.Random(seed), FrameCache(root, 6 * 12 * 32 * 40 * 3)
    while True:  # until it is killed
        drawn = sorted(rng.choices(range(12), k=4))
        cache.read(str(rng.choice(videos)), lambda length: drawn, SIZE, "auto")  # noqa: B023
        time.sleep(0.0005)  # leaves the processor to the one who kills


def test_readers_killed_at_random_points_leave_no_wrong_frame_and_nothing_to_clean(
    videos, tmp_path
):
    rng = random.Random(0)
    root = tmp_path / "cache"
    # quick to start, and the parent has no other threads
    fork = multiprocessing.get_context("fork")
    for round_ in range(10):  # two processes share the cache, and both die: 20 kills
        seeds = (2 * round_, 2 * round_ + 1)
        readers = [
            fork.Process(target=read_for_a_while, args=(root, videos, seed)) for seed in seeds
        ]
        for reader in readers:
            reader.start()
        for reader in readers:
            time.sleep(rng.uniform(0.01, 0.06))
            reader.kill()
        for reader in readers:
            reader.join()
            assert reader.exitcode == -signal.SIGKILL
        check_all_frames(videos, root)
    evict(root, 0)  # files that the killed left half-written go like all others
    assert not entries(root)


def check_all_frames(videos, root):
    cache = FrameCache(root, LIMIT)
    for path in videos:
        for indices in ([0, 4, 8, 11], [1, 2, 3, 5]):
            read = cache.read(str(path), drawing(indices), SIZE, "auto")
            np.testing.assert_array_equal(
                read.frames, decode_frames(path, indices, short_side=SIZE)
            )
