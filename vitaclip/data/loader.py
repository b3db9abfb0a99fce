"""Batches of uint8 clips for training and evaluation.

The order of clips and every random draw depend only on (seed, epoch, place in the epoch's global
order): not on the number of workers or ranks, and not on where a run was resumed. Shapes: B clips,
V views, T frames.
"""

from __future__ import annotations

import itertools
import logging
import multiprocessing
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from multiprocessing.context import BaseContext
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

from vitaclip.config import DataConfig, EvalConfig, TrainConfig
from vitaclip.data.frame_cache import ReadFrames, open_frame_cache
from vitaclip.data.manifest import Manifest
from vitaclip.data.sampling import random_indices, view_indices
from vitaclip.data.transforms import TrainTransform, eval_views, train_short_side
from vitaclip.errors import DataError, InputError

MAX_LISTED = 20  # broken files that an error message names

_logger = logging.getLogger(__name__)
_logged: set[str] = set()  # broken files this process has logged: once each, over all epochs


@dataclass(frozen=True)
class Batch:
    """One rank's share of one step. ``indices`` are manifest positions, after broken clips were
    replaced.
    """

    video: Tensor  # uint8, training [B, 3, T, H, W], evaluation [B, V, 3, T, H, W]
    labels: Tensor  # int64 [B]
    indices: Tensor  # int64 [B]
    # positions of broken clips not met before, and why
    broken: Mapping[int, str] = field(default_factory=dict)
    num_cache_hits: int = 0  # files whose frames came out of the frame cache
    num_cache_misses: int = 0  # files that were decoded


class _Place(NamedTuple):
    """One clip of one batch."""

    epoch: int
    position: int  # in the epoch's order
    clip: int  # in the manifest


@dataclass(frozen=True)
class _Broken:
    index: int
    reason: str


@dataclass(frozen=True)
class _Sample:
    """What became of one place in the order. ``video`` is None if an evaluation clip is broken."""

    video: Tensor | None
    index: int
    broken: tuple[_Broken, ...]
    hit: bool


@dataclass(frozen=True)
class _Stacked:
    """The samples of a batch, stacked where they were decoded: one tensor between processes, not
    hundreds.
    """

    video: Tensor
    indices: list[int]
    broken: list[_Broken]
    num_hits: int

    def pin_memory(self) -> _Stacked:
        """The same in memory that an accelerator reads by itself (the DataLoader asks for it)."""
        return replace(self, video=self.video.pin_memory())


def train_epochs(
    manifest: Manifest,
    config: TrainConfig,
    *,
    image_size: int,
    epochs: range,
    start_step: int = 0,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Iterator[Batch]]:
    """Yields this rank's batches epoch by epoch; the incomplete last batch of each is dropped.
    Processes that decode are started once for all epochs, and work on the next one meanwhile.

    Broken clips are replaced by others of their class. Raises DataError once this rank alone has
    met more than ``config.data.max_broken`` of the clips as broken in an epoch (``check_broken`` is
    for those of all ranks), and InputError if the batch size cannot be shared out or exceeds the
    data set.

    Args:
        manifest: the clips to train on.
        config: how clips are drawn and augmented, the batch size and the seed.
        image_size: height and width of the frames, in pixels.
        epochs: each decides its order and its draws, with the seed.
        start_step: the first step that is wanted of the first epoch.
        rank: this worker's number.
        world_size: how many workers share each batch.
    """
    num_steps = steps_per_epoch(manifest, config)
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size: found {config.batch_size}, allowed multiples of the {world_size} workers"
        )
    share = config.batch_size // world_size

    def places() -> Iterator[list[_Place]]:
        for epoch in epochs:
            order = _epoch_order(manifest, config, epoch)
            for step in range(start_step if epoch == epochs.start else 0, num_steps):
                start = step * config.batch_size + rank * share
                yield [
                    _Place(epoch, place, int(order[place])) for place in range(start, start + share)
                ]

    stacked = iter(_loader(_TrainClips(manifest, config, image_size), places(), config.data))
    for epoch in epochs:
        remaining = num_steps - (start_step if epoch == epochs.start else 0)
        yield _batches(itertools.islice(stacked, remaining), manifest, config.data)


def train_batches(
    manifest: Manifest, config: TrainConfig, *, image_size: int, epoch: int = 0
) -> Iterator[Batch]:
    """The batches of one epoch, as one worker alone trains on them (:func:`train_epochs`).

    Args:
        manifest: the clips to train on.
        config: how clips are drawn and augmented, the batch size and the seed.
        image_size: height and width of the frames, in pixels.
        epoch: its number.
    """
    return next(
        train_epochs(manifest, config, image_size=image_size, epochs=range(epoch, epoch + 1))
    )


def eval_batches(
    manifest: Manifest,
    data: DataConfig,
    views: EvalConfig,
    *,
    image_size: int,
    rank: int = 0,
    world_size: int = 1,
) -> Iterator[Batch]:
    """Yields every ``world_size``-th clip, from ``rank`` on, in the manifest's order, each exactly
    once.

    A broken clip is left out of its batch and named there. Raises DataError once this rank alone
    has met more than ``data.max_broken`` of the clips as broken (``check_broken`` is for those of
    all ranks).

    Args:
        manifest: the clips.
        data: how clips are drawn.
        views: how each clip is viewed, and how many are a batch.
        image_size: height and width of the frames, in pixels.
        rank: this worker's number.
        world_size: how many workers share the clips.
    """
    indices = _used_clips(manifest, data)[rank::world_size].tolist()
    places = (
        [_Place(0, index, index) for index in indices[start : start + views.batch_size]]
        for start in range(0, len(indices), views.batch_size)
    )
    loader = _loader(_EvalClips(manifest, data, views, image_size), places, data)
    yield from _without_empty(_batches(iter(loader), manifest, data))


def steps_per_epoch(manifest: Manifest, config: TrainConfig) -> int:
    """Optimizer steps in an epoch: complete batches only. Raises InputError if there is none."""
    num_clips = len(_used_clips(manifest, config.data))
    if num_clips < config.batch_size:
        raise InputError(
            f"batch_size: found {config.batch_size}, allowed 1..{num_clips} (clips in "
            f"{manifest.name})"
        )
    return num_clips // config.batch_size


def _used_clips(manifest: Manifest, data: DataConfig) -> npt.NDArray[np.int64]:
    """Manifest positions in use: all, or a seeded draw of ``data.limit`` that is the same for every
    run.
    """
    num_clips = len(manifest.clips)
    if data.limit is None or data.limit >= num_clips:
        return np.arange(num_clips)
    return np.sort(np.random.default_rng(0).permutation(num_clips)[: data.limit])


def _epoch_order(manifest: Manifest, config: TrainConfig, epoch: int) -> npt.NDArray[np.int64]:
    return np.random.default_rng((config.seed, epoch)).permutation(
        _used_clips(manifest, config.data)
    )


class _TrainClips(Dataset[_Sample]):
    """Replaces broken clips."""

    def __init__(self, manifest: Manifest, config: TrainConfig, image_size: int) -> None:
        self._manifest, self._data, self._seed = manifest, config.data, config.seed
        self._transform = TrainTransform(config.data.augment, image_size)
        self._short_side = train_short_side(config.data.augment, image_size)
        self._cache = open_frame_cache()

    def __getitem__(self, place: _Place) -> _Sample:
        rng = np.random.default_rng((self._seed, place.epoch, place.position))
        frames_seed, transform_seed, replace_seed = rng.integers(2**63, size=3).tolist()
        broken = []
        for index in itertools.chain([place.clip], self._replacements(place.clip, replace_seed)):
            try:
                read = self._read(self._manifest.clips[index].path, frames_seed)
            except DataError as error:
                broken.append(_Broken(index, str(error)))
            else:
                return _Sample(
                    self._transform(read.frames, transform_seed), index, tuple(broken), read.hit
                )
        raise DataError(
            f"every video of the class of {self._manifest.clips[place.clip].path} is broken"
        )

    def _read(self, path: str, seed: int) -> ReadFrames:
        data = self._data

        def sampler(video_length: int) -> list[int]:
            rng = np.random.default_rng(seed)
            return random_indices(video_length, data.num_frames, data.sampling, data.stride, rng)

        return self._cache.read(path, sampler, self._short_side, data.decoder)

    def _replacements(self, index: int, seed: int) -> Iterator[int]:
        """The other clips of the same class, in a seeded random order."""
        label = self._manifest.clips[index].label
        used = _used_clips(self._manifest, self._data).tolist()
        same_class = [i for i in used if self._manifest.clips[i].label == label and i != index]
        yield from np.random.default_rng(seed).permutation(same_class).tolist()


class _EvalClips(Dataset[_Sample]):
    """Leaves out what is broken."""

    def __init__(
        self, manifest: Manifest, data: DataConfig, views: EvalConfig, image_size: int
    ) -> None:
        self._manifest, self._data, self._views, self._image_size = (
            manifest,
            data,
            views,
            image_size,
        )
        self._cache = open_frame_cache()

    def __getitem__(self, place: _Place) -> _Sample:
        index = place.clip
        path = self._manifest.clips[index].path
        try:
            read = self._cache.read(path, self._sampler, self._image_size, self._data.decoder)
        except DataError as error:
            return _Sample(None, index, (_Broken(index, str(error)),), hit=False)
        windows = np.split(read.frames, self._views.num_temporal_views)
        views = [
            eval_views(window, self._image_size, self._views.num_spatial_views)
            for window in windows
        ]
        return _Sample(torch.cat(views), index, (), read.hit)

    def _sampler(self, video_length: int) -> list[int]:
        data, num_views = self._data, self._views.num_temporal_views
        views = view_indices(video_length, data.num_frames, data.sampling, data.stride, num_views)
        return list(itertools.chain.from_iterable(views))


def _loader(
    dataset: Dataset[_Sample], places: Iterable[list[_Place]], data: DataConfig
) -> DataLoader[_Sample]:
    """Runs the dataset over batches of places, in this process or in ``data.num_workers``
    others.
    """
    has_accelerator = torch.cuda.is_available()
    return DataLoader(
        dataset,
        batch_sampler=places,
        num_workers=data.num_workers,
        collate_fn=_stack,
        # A process that uses an accelerator cannot be forked.
        multiprocessing_context=_forking_server() if data.num_workers and has_accelerator else None,
        # Copies to the accelerator then go on beside the computation.
        pin_memory=has_accelerator,
        # or iterating would draw from the global one, and disturb the model's
        generator=torch.Generator(),
    )


def _forking_server() -> BaseContext:
    """Starts processes from one that has imported this module and uses no accelerator."""
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload([__name__])
    return context


def _batches(
    stacked_batches: Iterator[_Stacked], manifest: Manifest, data: DataConfig
) -> Iterator[Batch]:
    known: dict[int, str] = {}
    for stacked in stacked_batches:
        broken = {b.index: b.reason for b in stacked.broken if b.index not in known}
        for reason in broken.values():
            _log_once(reason)
        known |= broken
        if broken:
            check_broken(known, manifest, data)
        yield Batch(
            video=stacked.video,
            labels=torch.tensor(
                [manifest.clips[i].label for i in stacked.indices], dtype=torch.int64
            ),
            indices=torch.tensor(stacked.indices, dtype=torch.int64),
            broken=broken,
            num_cache_hits=stacked.num_hits,
            num_cache_misses=len(stacked.indices) - stacked.num_hits,
        )


def _stack(samples: Sequence[_Sample]) -> _Stacked:
    decoded = [(sample.video, sample.index) for sample in samples if sample.video is not None]
    return _Stacked(
        video=torch.stack([video for video, _ in decoded])
        if decoded
        else torch.empty(0, dtype=torch.uint8),
        indices=[index for _, index in decoded],
        broken=[broken for sample in samples for broken in sample.broken],
        num_hits=sum(sample.hit for sample in samples),
    )


def _without_empty(batches: Iterator[Batch]) -> Iterator[Batch]:
    """Gives the broken clips of a batch in which nothing could be decoded to a neighbor, if there
    is one.
    """
    previous: Batch | None = None
    for batch in batches:
        if previous is None:
            previous = batch
        elif len(previous.labels) and len(batch.labels):
            yield previous
            previous = batch
        else:
            kept = previous if len(previous.labels) else batch
            previous = replace(kept, broken={**previous.broken, **batch.broken})
    if previous is not None:
        yield previous


def _log_once(reason: str) -> None:
    if reason not in _logged:
        _logged.add(reason)
        _logger.warning("broken video: %s", reason)


def check_broken(broken: Mapping[int, str], manifest: Manifest, data: DataConfig) -> None:
    """Raises DataError if more than ``data.max_broken`` of the clips in use are broken.

    Args:
        broken: position in the manifest -> why it is broken.
        manifest: holds the clips.
        data: says which of them are in use, and how many may be broken.
    """
    num_used = len(_used_clips(manifest, data))
    if len(broken) <= data.max_broken * num_used:
        return
    listed = "".join(f"\n  {reason}" for reason in sorted(broken.values())[:MAX_LISTED])
    more = f"\n  ... and {len(broken) - MAX_LISTED} more" if len(broken) > MAX_LISTED else ""
    raise DataError(
        f"{manifest.name}: {len(broken)} of {num_used} videos are broken, more than the "
        f"{data.max_broken:.1%} of data.max_broken; repair or remove them ('python -m vitaclip "
        f"data check' lists all), or raise it:{listed}{more}"
    )
