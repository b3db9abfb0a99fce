"""Sampling: properties that hold for every video length, and the cases worked out by hand."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from vitaclip.data.sampling import (
    crop_offsets,
    dense_indices,
    last_dense_start,
    random_indices,
    uniform_indices,
    view_indices,
)

lengths = st.integers(1, 2000)
counts = st.integers(1, 64)
strides = st.integers(1, 40)
seeds = st.integers(0, 2**32)
samplings = st.sampled_from(["dense", "uniform"])


@given(lengths, counts, strides, samplings, seeds)
def test_random_clips_are_sorted_frames_of_the_video_and_repeat_with_the_seed(
    length, num_frames, stride, sampling, seed
):
    draw = [
        random_indices(length, num_frames, sampling, stride, np.random.default_rng(seed))
        for _ in range(2)
    ]
    assert draw[0] == draw[1] == sorted(draw[0])
    assert len(draw[0]) == num_frames
    assert draw[0][0] >= 0
    assert draw[0][-1] < length


@given(lengths, counts, strides, seeds)
def test_a_dense_clip_keeps_its_stride_where_the_video_is_long_enough(
    length, num_frames, stride, seed
):
    indices = random_indices(length, num_frames, "dense", stride, np.random.default_rng(seed))
    if length > (num_frames - 1) * stride:
        assert indices == list(range(indices[0], indices[0] + num_frames * stride, stride))
    else:
        assert indices == [min(i * stride, length - 1) for i in range(num_frames)]


@given(lengths, counts, seeds)
def test_a_uniform_clip_takes_one_frame_of_each_segment(length, num_frames, seed):
    indices = random_indices(length, num_frames, "uniform", 1, np.random.default_rng(seed))
    for i, index in enumerate(indices):
        assert int(i * length / num_frames) <= index <= (i + 1) * length / num_frames


@given(lengths, counts, strides, samplings, st.integers(1, 10))
def test_views_are_symmetric_in_number_and_order(length, num_frames, stride, sampling, num_views):
    views = view_indices(length, num_frames, sampling, stride, num_views)
    assert len(views) == num_views
    assert views == sorted(views)
    assert all(len(view) == num_frames and 0 <= min(view) <= max(view) < length for view in views)
    if sampling == "dense" and num_views > 1:
        assert views[0][0] == 0
        assert views[-1][0] == last_dense_start(length, num_frames, stride)


def test_every_dense_start_is_drawn():
    starts = {
        random_indices(20, 4, "dense", 5, np.random.default_rng(seed))[0] for seed in range(200)
    }
    assert starts == {0, 1, 2, 3, 4}  # 4 frames at stride 5 span 16 frames


def test_worked_examples():
    assert dense_indices(100, 4, 16, start=10) == [10, 26, 42, 58]
    assert dense_indices(30, 4, 16, start=0) == [0, 16, 29, 29]
    assert uniform_indices(80, 4, [0.5] * 4) == [10, 30, 50, 70]
    assert uniform_indices(1, 4, [0.0, 0.3, 0.6, 0.99]) == [0, 0, 0, 0]
    assert view_indices(100, 8, "dense", 4, 1) == [[35, 39, 43, 47, 51, 55, 59, 63]]
    assert [view[0] for view in view_indices(129, 8, "dense", 4, 3)] == [0, 50, 100]
    assert view_indices(80, 4, "uniform", 1, 1) == [[10, 30, 50, 70]]


@given(st.integers(16, 400), st.integers(16, 400), st.sampled_from([1, 3]))
def test_crops_lie_inside_the_frame_and_reach_both_ends(height, width, num_crops):
    size = 16
    offsets = crop_offsets(height, width, size, num_crops)
    assert len(offsets) == num_crops
    assert all(0 <= top <= height - size and 0 <= left <= width - size for top, left in offsets)
    if num_crops == 3:
        (first_top, first_left), _, (last_top, last_left) = offsets
        spans = {last_top - first_top, last_left - first_left}
        assert max(spans) == max(height, width) - size


@pytest.mark.parametrize(
    "call", [lambda: dense_indices(0, 8, 1, 0), lambda: uniform_indices(5, 0, [])]
)
def test_empty_videos_and_clips_are_refused(call):
    with pytest.raises(ValueError, match="at least 1"):
        call()


def test_a_crop_larger_than_the_frame_is_refused():
    with pytest.raises(ValueError, match="at least as large"):
        crop_offsets(10, 100, 16, 1)
