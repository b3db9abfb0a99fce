"""From decoded frames to the pixels a model sees: crops and augmentation, still uint8.

Built on torchvision's transforms v2; all frames of a clip get the same parameters. Every random
choice comes from the clip's own seed. Shapes: T frames, 3 colors, H height, W width, V views.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Callable, Iterator

import torch
from torch import Tensor
from torchvision.transforms import v2

from vitaclip.config import AugmentConfig
from vitaclip.data.sampling import crop_offsets
from vitaclip.data.video import Frames

# random crops are cut from frames of this many times the image size (256 for 224)
CROP_MARGIN = 8 / 7
MAGNITUDE_BINS = (
    101  # torchvision's grid of RandAugment magnitudes; 0..10 of the recipe in steps of 0.1
)
MAGNITUDE_STD = 0.5  # of the recipe "rand-m7-n4-mstd0.5-inc1"
OPERATION_PROBABILITY = (
    0.5  # each of the n operations is applied this often (timm's RandAugment, which it names)
)
FILL = [122, 116, 104]  # CLIP's mean color


def train_short_side(augment: AugmentConfig, image_size: int) -> int:
    """The short side, in pixels, that training frames are decoded to."""
    return image_size if augment.random_resized_crop is None else round(image_size * CROP_MARGIN)


class TrainTransform:
    """Random resized crop, flip, color jitter and RandAugment, as ``AugmentConfig`` says."""

    def __init__(self, config: AugmentConfig, image_size: int) -> None:
        self._image_size = image_size
        self._steps: list[Callable[[Tensor], Tensor]] = []
        if config.random_resized_crop:
            size, area, ratio = image_size, config.random_resized_crop, config.aspect_ratio
            self._steps.append(v2.RandomResizedCrop(size, scale=area, ratio=ratio, antialias=True))
        if config.horizontal_flip:
            self._steps.append(v2.RandomHorizontalFlip(config.horizontal_flip))
        if config.color_jitter:
            self._steps.append(v2.ColorJitter(*[config.color_jitter] * 3))
        if config.rand_augment:
            self._steps.append(_RandAugment(config.rand_augment))

    def __call__(self, frames_THWC: Frames, seed: int) -> Tensor:
        """Returns uint8 [3, T, image_size, image_size]; the same seed gives the same pixels."""
        clip_T3HW = torch.from_numpy(frames_THWC).permute(0, 3, 1, 2)
        if self._steps:
            with _seeded(seed):
                for step in self._steps:
                    clip_T3HW = step(clip_T3HW)
        return _centre_crop(clip_T3HW, self._image_size).transpose(0, 1)


class _RandAugment:
    """RandAugment with the recipe's noise: magnitudes around m, each of n operations half of the
    time.
    """

    def __init__(self, recipe: str) -> None:
        self._magnitude, self._num_operations = map(int, re.findall(r"\d+", recipe))

    def __call__(self, clip_T3HW: Tensor) -> Tensor:
        for _ in range(self._num_operations):
            if torch.rand(()) < OPERATION_PROBABILITY:
                clip_T3HW = self._operation()(clip_T3HW)
        return clip_T3HW

    def _operation(self) -> Callable[[Tensor], Tensor]:
        magnitude = self._magnitude + MAGNITUDE_STD * float(torch.randn(()))
        step = round(min(max(magnitude, 0.0), 10.0) / 10 * (MAGNITUDE_BINS - 1))
        augment: Callable[[Tensor], Tensor] = v2.RandAugment(1, step, MAGNITUDE_BINS, fill=FILL)
        return augment


def eval_views(frames_THWC: Frames, image_size: int, num_spatial_views: int) -> Tensor:
    """Cuts the spatial test views: uint8 [V, 3, T, image_size, image_size]."""
    clip_T3HW = _at_least(torch.from_numpy(frames_THWC).permute(0, 3, 1, 2), image_size)
    height, width = clip_T3HW.shape[-2:]
    offsets = crop_offsets(height, width, image_size, 3 if num_spatial_views == 3 else 1)
    crops = [
        clip_T3HW[..., top : top + image_size, left : left + image_size] for top, left in offsets
    ]
    return torch.stack([crop.transpose(0, 1) for crop in crops])


def _centre_crop(clip_T3HW: Tensor, size: int) -> Tensor:
    clip_T3HW = _at_least(clip_T3HW, size)
    height, width = clip_T3HW.shape[-2:]
    ((top, left),) = crop_offsets(height, width, size, 1)
    return clip_T3HW[..., top : top + size, left : left + size]


def _at_least(clip_T3HW: Tensor, size: int) -> Tensor:
    """Scales clips of small videos up, so that a crop of ``size`` fits."""
    if min(clip_T3HW.shape[-2:]) >= size:
        return clip_T3HW
    scaled: Tensor = v2.functional.resize(clip_T3HW, [size], antialias=True)
    return scaled


@contextlib.contextmanager
def _seeded(seed: int) -> Iterator[None]:
    """Seeds PyTorch's CPU generator, which transforms v2 draws from, and restores it; not
    CUDA's.
    """
    generator = torch.default_generator
    state = generator.get_state()
    generator.manual_seed(seed)
    try:
        yield
    finally:
        generator.set_state(state)
