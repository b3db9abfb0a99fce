"""Sizes and frame indices beside the released code's: where they are the same, and where they
differ on purpose.

Each of its rules is stated here as plainly as it can be; docs/reference/video_data.md says why ours
is kept where they differ.
"""

from __future__ import annotations

from pathlib import Path
from typing import Literal

import numpy as np
import pytest
import torch
from torchvision.transforms.v2 import functional as tv

from testing.data_videos import moving_frames, write_video
from vitaclip.data.decode import decode_frames, scaled_size
from vitaclip.data.sampling import random_indices, uniform_indices, view_indices

LENGTHS = range(1, 150)
CLIPS = [(num_frames, stride) for num_frames in (1, 2, 4, 8, 16) for stride in (1, 2, 5, 16)]


@pytest.mark.parametrize("short_side", [64, 73, 224, 256])
def test_the_long_side_is_rounded_down(short_side: int) -> None:
    for shorter in range(short_side + 1, short_side + 200):
        for longer in range(shorter, shorter + 300, 7):
            expected = (short_side, longer * short_side // shorter)
            assert scaled_size(shorter, longer, short_side) == expected
            assert scaled_size(longer, shorter, short_side) == expected[::-1]


def test_torchvision_gives_the_same_sizes() -> None:
    for height, width in [(341, 256), (240, 320), (360, 638), (719, 405), (256, 257), (1080, 1920)]:
        scaled = tv.resize(torch.empty((1, height, width), dtype=torch.uint8, device="meta"), [224])
        assert scaled_size(height, width, 224) == tuple(scaled.shape[-2:])


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_decoded_frames_have_that_size(tmp_path: Path, decoder: Literal["pyav", "decord"]) -> None:
    path = write_video(tmp_path / "clip.mp4", moving_frames(3, 66, 98))
    # 98 * 40 / 66 is 59.4 and 98 * 44 / 66 is 65.3; 98 * 37 / 66 is 54.9
    for short_side, long_side in [(40, 59), (44, 65), (37, 54)]:
        frames = decode_frames(path, [0, 2], short_side=short_side, decoder=decoder)
        assert frames.shape == (2, short_side, long_side, 3)


def released_views(length: int, num_frames: int, stride: int, num_views: int) -> list[list[int]]:
    """The last frame is repeated until one window fits; starts are spread evenly, a single one is
    in the middle.
    """
    span = (num_frames - 1) * stride + 1
    padded = list(range(length)) + [length - 1] * max(0, span - length)
    free = len(padded) - span
    starts = (
        [free // 2]
        if num_views == 1
        else [round(free / (num_views - 1) * v) for v in range(num_views)]
    )
    return [padded[start : start + span : stride] for start in starts]


@pytest.mark.parametrize(("num_frames", "stride"), CLIPS)
def test_test_views_are_the_released_codes(num_frames: int, stride: int) -> None:
    for length in LENGTHS:
        for num_views in (1, 2, 3, 4, 5, 10):
            expected = released_views(length, num_frames, stride, num_views)
            assert view_indices(length, num_frames, "dense", stride, num_views) == expected


@pytest.mark.parametrize(("num_frames", "stride"), CLIPS)
def test_a_short_video_is_drawn_in_training_as_in_the_test(num_frames: int, stride: int) -> None:
    for length in range(1, (num_frames - 1) * stride + 2):
        drawn = random_indices(length, num_frames, "dense", stride, np.random.default_rng(length))
        assert drawn == released_views(length, num_frames, stride, 1)[0]
        # the released training repeats the last frame that it drew, a multiple of the stride
        released = [min(i * stride, (length - 1) // stride * stride) for i in range(num_frames)]
        differs = num_frames > 1 and (length - 1) % stride != 0
        assert (drawn != released) == differs


@pytest.mark.parametrize("num_frames", [1, 4, 8, 16])
def test_segments_are_equal_and_within_a_frame_of_the_released_codes(num_frames: int) -> None:
    for length in LENGTHS:
        first = uniform_indices(length, num_frames, [0.0] * num_frames)
        last = uniform_indices(length, num_frames, [1 - 1e-9] * num_frames)
        assert (first[0], last[-1]) == (0, length - 1)
        if length % num_frames == 0:
            assert first == list(range(0, length, length // num_frames))
            assert last == [start + length // num_frames - 1 for start in first]
        ends = [round((length - 1) / num_frames * i) for i in range(num_frames + 1)]
        assert all(
            abs(ours - released) <= 1 for ours, released in zip(first, ends[:-1], strict=True)
        )
        assert all(abs(ours - released) <= 1 for ours, released in zip(last, ends[1:], strict=True))
