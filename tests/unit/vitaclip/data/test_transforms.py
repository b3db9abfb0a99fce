"""Augmentation: seeded, and the same for every frame of a clip."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from testing.data_videos import moving_frames
from vitaclip.config import AugmentConfig
from vitaclip.data.transforms import TrainTransform, eval_views, train_short_side

NONE = {"rand_augment": None, "random_resized_crop": None}
AUGMENTS = {
    "recipe": AugmentConfig(),
    "crop": AugmentConfig(rand_augment=None),
    "flip": AugmentConfig(**NONE, horizontal_flip=1.0),
    "jitter": AugmentConfig(**NONE, color_jitter=0.5),
    "strongest": AugmentConfig(rand_augment="m10-n6", horizontal_flip=0.5, color_jitter=0.8),
}
STILL = np.repeat(moving_frames(1, 40, 56), 5, axis=0)


@pytest.mark.parametrize("name", AUGMENTS)
def test_every_frame_of_a_clip_gets_the_same_parameters(name):
    transform = TrainTransform(AUGMENTS[name], 32)
    for seed in range(30):
        clip_3THW = transform(STILL, seed)
        assert clip_3THW.shape == (3, 5, 32, 32)
        assert clip_3THW.dtype == torch.uint8
        assert all(torch.equal(clip_3THW[:, 0], clip_3THW[:, t]) for t in range(5))


@pytest.mark.parametrize("name", AUGMENTS)
def test_the_seed_decides_and_the_global_generator_does_not_move(name):
    transform = TrainTransform(AUGMENTS[name], 32)
    state = torch.get_rng_state()
    first, again = transform(STILL, 7), transform(STILL, 7)
    assert torch.equal(first, again)
    assert torch.equal(state, torch.get_rng_state())
    if name != "flip":  # which is certain here
        assert any(not torch.equal(first, transform(STILL, seed)) for seed in range(20))


def test_without_augmentation_the_centre_is_left():
    clip_3THW = TrainTransform(AugmentConfig(**NONE), 40)(STILL, 0)
    np.testing.assert_array_equal(clip_3THW.permute(1, 2, 3, 0).numpy(), STILL[:, :, 8:48])


def test_flip_mirrors():
    plain = TrainTransform(AugmentConfig(**NONE), 40)(STILL, 0)
    flipped = TrainTransform(AUGMENTS["flip"], 40)(STILL, 0)
    assert torch.equal(flipped, plain.flip(-1))


def test_recipe_strength_follows_the_magnitude():
    """RandAugment at m10 changes pixels more than at m1, over many seeds."""

    def change(recipe):
        transform = TrainTransform(AugmentConfig(rand_augment=recipe, random_resized_crop=None), 40)
        plain = TrainTransform(AugmentConfig(**NONE), 40)(STILL, 0).float()
        return np.mean(
            [(transform(STILL, seed).float() - plain).abs().mean() for seed in range(150)]
        )

    assert change("m10-n2") > 1.5 * change("m1-n2")


def test_random_crops_are_cut_from_larger_frames():
    assert train_short_side(AugmentConfig(), 224) == 256
    assert train_short_side(AugmentConfig(random_resized_crop=None), 224) == 224


def test_three_crops_of_a_wide_and_of_a_tall_video():
    wide = eval_views(STILL, 40, 3)
    tall = eval_views(np.ascontiguousarray(STILL.transpose(0, 2, 1, 3)), 40, 3)
    assert wide.shape == tall.shape == (3, 3, 5, 40, 40)
    assert torch.equal(wide, tall.transpose(-1, -2))
    assert torch.equal(wide[1], eval_views(STILL, 40, 1)[0])
