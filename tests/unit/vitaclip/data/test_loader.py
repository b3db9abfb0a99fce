"""The loader on real files: one order for every way of running it, views, and broken videos."""

from __future__ import annotations

import logging
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch.utils.data import DataLoader

from testing.data_videos import small_dataset
from vitaclip.config import AugmentConfig, DataConfig, EvalConfig, TrainConfig
from vitaclip.data import loader
from vitaclip.data.decode import decode_frames
from vitaclip.data.loader import (
    eval_batches,
    steps_per_epoch,
    train_batches,
    train_epochs,
)
from vitaclip.data.manifest import Clip
from vitaclip.data.sampling import view_indices
from vitaclip.errors import DataError, InputError

PLAIN = AugmentConfig(rand_augment=None, random_resized_crop=None)
FULL = AugmentConfig(horizontal_flip=0.5, color_jitter=0.4)
SIZE = 32


@pytest.fixture(scope="module")
def manifest(tmp_path_factory):
    return small_dataset(tmp_path_factory.mktemp("small"))


@pytest.fixture(autouse=True)
def cache_folder(tmp_path, monkeypatch):
    monkeypatch.setenv("VITACLIP_FRAME_CACHE", str(tmp_path / "cache"))
    loader._logged.clear()


def config(augment=FULL, batch_size=4, seed=1, **data):
    data = {"num_frames": 4, "stride": 2, "augment": augment, **data}
    return TrainConfig(seed=seed, batch_size=batch_size, data=DataConfig(**data))


def batches(manifest, train_config, epoch=0, **options):
    epochs = range(epoch, epoch + 1)
    return list(
        next(train_epochs(manifest, train_config, image_size=SIZE, epochs=epochs, **options))
    )


def same(first, second):
    return all(
        torch.equal(getattr(first, f), getattr(second, f)) for f in ("video", "labels", "indices")
    )


def test_shapes_and_labels(manifest):
    found = batches(manifest, config())
    assert len(found) == steps_per_epoch(manifest, config()) == 3
    assert found[0].video.shape == (4, 3, 4, SIZE, SIZE)
    assert found[0].video.dtype == torch.uint8
    assert found[0].labels.tolist() == [manifest.clips[i].label for i in found[0].indices]
    assert sorted(torch.cat([batch.indices for batch in found]).tolist()) == list(range(12))


def test_an_incomplete_last_batch_is_dropped(manifest):
    assert [len(batch.labels) for batch in batches(manifest, config(batch_size=5))] == [5, 5]


def test_epochs_and_seeds_differ_in_order_and_pixels(manifest):
    first = batches(manifest, config())[0]
    for other in (batches(manifest, config(), epoch=1)[0], batches(manifest, config(seed=2))[0]):
        assert not torch.equal(first.indices, other.indices)


def test_the_same_clip_is_drawn_differently_in_each_epoch_and_with_each_seed(manifest):
    alone = replace(manifest, clips=manifest.clips[:1])  # at the same place in every epoch

    def clip_of(epoch, seed):
        [batch] = batches(alone, config(batch_size=1, seed=seed), epoch=epoch)
        return batch.video

    assert torch.equal(clip_of(0, 1), clip_of(0, 1))
    assert not torch.equal(clip_of(0, 1), clip_of(1, 1))
    assert not torch.equal(clip_of(0, 1), clip_of(0, 2))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_the_order_does_not_depend_on_workers_or_on_the_global_generator(manifest, num_workers):
    torch.manual_seed(0)
    expected = batches(manifest, config())
    torch.manual_seed(99)
    state = torch.get_rng_state()
    found = batches(manifest, config(num_workers=num_workers))
    assert all(map(same, expected, found))
    assert torch.equal(
        state, torch.get_rng_state()
    )  # and the loader leaves the model's randomness alone


def test_resuming_at_a_step_gives_the_rest_of_the_epoch(manifest):
    expected = batches(manifest, config())
    for step in range(4):
        assert all(map(same, expected[step:], batches(manifest, config(), start_step=step)))
        assert len(batches(manifest, config(), start_step=step)) == 3 - step


def test_two_ranks_share_the_batches_of_one(manifest):
    whole = batches(manifest, config())
    shares = [batches(manifest, config(), rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        joined = {
            f: torch.cat([getattr(first, f), getattr(second, f)])
            for f in ("video", "labels", "indices")
        }
        assert same(batch, replace(batch, **joined))


def test_a_batch_that_ranks_cannot_share_is_refused(manifest):
    with pytest.raises(InputError, match="batch_size: found 4, allowed multiples of the 3 workers"):
        batches(manifest, config(), world_size=3)


def test_a_batch_larger_than_the_data_is_refused(manifest):
    with pytest.raises(InputError, match=r"batch_size: found 13, allowed 1\.\.12"):
        steps_per_epoch(manifest, config(batch_size=13))


def test_limit_uses_the_same_few_clips_everywhere(manifest):
    used = [batches(manifest, config(limit=4, seed=seed))[0].indices for seed in (1, 2)]
    assert set(used[0].tolist()) == set(used[1].tolist())
    evaluated = list(eval_batches(manifest, DataConfig(limit=4), EvalConfig(), image_size=SIZE))
    assert set(evaluated[0].indices.tolist()) == set(used[0].tolist())


def test_evaluation_sees_every_clip_once_and_keeps_the_last_batch(manifest):
    data = DataConfig(num_frames=4, stride=2)
    found = list(eval_batches(manifest, data, EvalConfig(batch_size=5), image_size=SIZE))
    assert [len(batch.labels) for batch in found] == [5, 5, 2]
    assert torch.cat([batch.indices for batch in found]).tolist() == list(range(12))
    ranks = [
        list(eval_batches(manifest, data, EvalConfig(), image_size=SIZE, rank=r, world_size=5))
        for r in range(5)
    ]
    assert sorted(i for rank in ranks for batch in rank for i in batch.indices.tolist()) == list(
        range(12)
    )


@pytest.mark.parametrize("sampling", ["dense", "uniform"])
@pytest.mark.parametrize(("num_temporal", "num_spatial"), [(1, 1), (2, 1), (1, 3), (3, 3)])
def test_views_hold_the_pixels_of_their_windows_and_crops(
    manifest, sampling, num_temporal, num_spatial
):
    data = DataConfig(num_frames=4, stride=2, sampling=sampling)
    views = EvalConfig(num_temporal_views=num_temporal, num_spatial_views=num_spatial, batch_size=2)
    video_BV3THW = next(iter(eval_batches(manifest, data, views, image_size=SIZE))).video
    assert video_BV3THW.shape == (2, num_temporal * num_spatial, 3, 4, SIZE, SIZE)
    windows = view_indices(12, 4, sampling, 2, num_temporal)
    lefts = [4] if num_spatial == 1 else [0, 4, 8]  # frames of 64 x 80 become 32 x 40
    expected = [
        decode_frames(manifest.clips[1].path, window, short_side=SIZE)[:, :, left : left + SIZE]
        for window in windows
        for left in lefts
    ]
    np.testing.assert_array_equal(
        video_BV3THW[1].permute(0, 2, 3, 4, 1).numpy(), np.stack(expected)
    )


def test_videos_smaller_than_the_model_are_enlarged(manifest):
    train = next(iter(train_batches(manifest, config(PLAIN), image_size=128, epoch=0)))
    test = next(iter(eval_batches(manifest, DataConfig(), EvalConfig(), image_size=128)))
    assert train.video.shape[-2:] == test.video.shape[-2:] == (128, 128)


def with_broken(manifest, tmp_path, *positions):
    clips = list(manifest.clips)
    for position in positions:
        path = tmp_path / f"broken{position}.mp4"
        path.write_bytes(b"not a video")
        clips[position] = Clip(str(path), clips[position].label)
    return replace(manifest, clips=tuple(clips))


def test_a_broken_clip_is_replaced_by_its_class_counted_and_logged_once(manifest, tmp_path, caplog):
    broken = with_broken(manifest, tmp_path, 5)
    train_config = config(max_broken=0.1)
    with caplog.at_level(logging.WARNING):
        epochs = [batches(broken, train_config, epoch=epoch) for epoch in (0, 0, 1)]
    assert [sum(len(batch.broken) for batch in epoch) for epoch in epochs] == [1, 1, 1]
    (record,) = caplog.records
    assert "broken5.mp4: cannot be decoded: Invalid data found" in record.message
    assert all(map(same, epochs[0], epochs[1]))
    clean = batches(manifest, train_config)
    for batch, expected in zip(epochs[0], clean, strict=True):
        changed = [
            (b, e)
            for b, e in zip(batch.indices.tolist(), expected.indices.tolist(), strict=True)
            if b != e
        ]
        assert all(e == 5 and b != 5 for b, e in changed)
        assert torch.equal(batch.labels, expected.labels)


def test_processes_that_decode_are_started_once_for_all_epochs(manifest, monkeypatch):
    train_config = config(num_workers=2)
    starts = []
    start = DataLoader.__iter__

    def started(self):
        starts.append(self)
        return start(self)

    monkeypatch.setattr(DataLoader, "__iter__", started)
    epochs = train_epochs(manifest, train_config, image_size=SIZE, epochs=range(1, 3), start_step=2)
    found = [list(epoch) for epoch in epochs]
    assert len(starts) == 1
    wanted = [batches(manifest, config(), epoch=1)[2:], batches(manifest, config(), epoch=2)]
    for epoch, expected in zip(found, wanted, strict=True):
        assert all(map(same, epoch, expected))
        assert len(epoch) == len(expected)


def test_beside_an_accelerator_processes_are_not_forked(manifest, monkeypatch):
    """A forked copy of a process that uses CUDA cannot use it; memory is pinned there."""
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    made = loader._loader(
        loader._TrainClips(manifest, config(), SIZE), [], DataConfig(num_workers=2)
    )
    assert made.pin_memory
    assert made.multiprocessing_context.get_start_method() == "forkserver"


def test_a_server_of_processes_gives_the_same_batches(manifest):
    context = loader._forking_server()
    made = DataLoader(
        loader._TrainClips(manifest, config(), SIZE),
        batch_sampler=[[loader._Place(0, 0, 3), loader._Place(0, 1, 5)]],
        num_workers=1,
        collate_fn=loader._stack,
        multiprocessing_context=context,
    )
    (stacked,) = made
    assert stacked.indices == [3, 5]


def test_two_ranks_replace_alike(manifest, tmp_path):
    broken = with_broken(manifest, tmp_path, 5)
    whole = batches(broken, config(max_broken=0.2))
    shares = [batches(broken, config(max_broken=0.2), rank=rank, world_size=2) for rank in (0, 1)]
    for batch, first, second in zip(whole, *shares, strict=True):
        assert torch.equal(batch.video, torch.cat([first.video, second.video]))


@pytest.mark.parametrize("num_workers", [0, 2])
def test_too_many_broken_clips_stop_the_run_with_a_list(manifest, tmp_path, num_workers):
    broken = with_broken(manifest, tmp_path, 2, 7)
    with pytest.raises(DataError) as error:
        batches(broken, config(max_broken=0.1, num_workers=num_workers))
    message = str(error.value)
    assert message.startswith(
        "small: 2 of 12 videos are broken, more than the 10.0% of data.max_broken"
    )
    assert "broken2.mp4" in message
    assert "broken7.mp4" in message


def test_a_class_without_a_readable_clip_stops_the_run(manifest, tmp_path):
    broken = with_broken(manifest, tmp_path, 0, 3, 6, 9)
    with pytest.raises(DataError, match="every video of the class of .* is broken"):
        batches(broken, config(max_broken=1.0))


@pytest.mark.parametrize("positions", [(0,), (4,), (11,), (0, 1, 2), (9, 10, 11), (3, 4, 5)])
def test_evaluation_leaves_broken_clips_out_and_counts_them(manifest, tmp_path, positions):
    broken = with_broken(manifest, tmp_path, *positions)
    data = DataConfig(num_frames=4, max_broken=0.5)
    found = list(eval_batches(broken, data, EvalConfig(batch_size=3), image_size=SIZE))
    kept = [i for i in range(12) if i not in positions]
    assert torch.cat([batch.indices for batch in found]).tolist() == kept
    assert all(len(batch.labels) == len(batch.video) > 0 for batch in found)
    assert sum(len(batch.broken) for batch in found) == len(positions)


def test_evaluation_stops_too(manifest, tmp_path):
    with pytest.raises(DataError, match="1 of 12 videos are broken"):
        list(
            eval_batches(
                with_broken(manifest, tmp_path, 5), DataConfig(), EvalConfig(), image_size=SIZE
            )
        )


def test_the_cache_is_counted_and_changes_nothing(manifest, monkeypatch):
    first, second = batches(manifest, config()), batches(manifest, config())
    assert [batch.num_cache_misses for batch in first] == [4, 4, 4]
    assert [batch.num_cache_hits for batch in second] == [4, 4, 4]
    monkeypatch.setenv("VITACLIP_FRAME_CACHE_GB", "0")
    uncached = batches(manifest, config())
    assert sum(batch.num_cache_hits for batch in uncached) == 0
    assert all(map(same, first, uncached))
    assert all(map(same, second, uncached))
