"""One training run: ``fit`` trains what a method learns and validates after every epoch.

Runs in plain Python, under ``torchrun`` and inside a Ray Train worker alike: it only looks at
``torch.distributed``. The same config gives the same numbers, and a resumed run equals an
uninterrupted one (bit for bit on CPU).
"""

from __future__ import annotations

import logging
import math
import time
from collections import deque
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import torch
from torch import Tensor

from vitaclip.checkpoint import load_learned, load_optimizer, save_checkpoint
from vitaclip.checkpoint_info import CurvePoint, EpochMetrics, Progress, read_info
from vitaclip.config import TrainConfig
from vitaclip.data.datasets import load_dataset, load_training
from vitaclip.data.loader import Batch, check_broken, steps_per_epoch, train_epochs
from vitaclip.data.manifest import Manifest
from vitaclip.distributed import (
    average_over_workers,
    default_device,
    gather_from_workers,
    rank_and_world_size,
)
from vitaclip.errors import CheckpointError, InputError, NonFiniteLossError
from vitaclip.evaluation import (
    score_classifiers,
    supervised_classifier,
    zero_shot_classifier,
)
from vitaclip.gradient_exchange import GradientExchange
from vitaclip.methods.build import build_model, check_training
from vitaclip.methods.video_model import VideoModel
from vitaclip.model.compilation import is_worthwhile
from vitaclip.optimizer import (
    accumulate_gradients,
    apply_gradients,
    build_optimizer,
    check_finite,
    is_out_of_memory,
    learning_rate,
)
from vitaclip.regularizers.averaging import WeightAverage
from vitaclip.regularizers.distillation import Distillation
from vitaclip.regularizers.interpolation import Interpolation
from vitaclip.score import DEVELOPMENT_METRICS, VALIDATION_METRICS

_CURVE_POINTS = 50  # of an epoch; there may be one more
_logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class EpochEnd:
    """What ``fit`` tells after each epoch."""

    epoch: int  # epochs done
    metrics: EpochMetrics  # of this epoch
    history: tuple[EpochMetrics, ...]  # of every epoch so far, this one last
    # writes a checkpoint of this moment into a folder; call it on one rank
    save: Callable[[Path], None]


class TrainingInterruptedError(Exception):
    """``should_stop`` said yes, and every worker has stopped after the same optimizer step."""

    def __init__(self, message: str, progress: Progress, save: Callable[[Path], None]) -> None:
        super().__init__(message)
        self.progress = progress
        self.save = save  # writes a checkpoint that goes on at the next step; call it on one rank


@dataclass(frozen=True)
class FitResult:
    """A finished training: the model and the metrics of every epoch."""

    model: VideoModel
    history: tuple[EpochMetrics, ...]


def fit(
    config: TrainConfig,
    *,
    resume_from: Path | None = None,
    on_epoch_end: Callable[[EpochEnd], None] = lambda _: None,
    should_stop: Callable[[], bool] = lambda: False,
) -> FitResult:
    """Trains as ``config`` says and validates on ``data.val_split`` after every epoch.

    Metrics of an epoch: ``epoch``, ``train/loss``, ``val/top1``, ``val/top5``, ``val/loss``,
    ``val/broken``, ``lr`` (of its last step), ``data/broken``, and with ``data.development`` set
    ``development/top1`` and ``development/top5``, zero-shot. Under ``time/`` stands what differs
    from run to run: ``time/epoch_s`` and ``time/clips_per_s`` of the training alone,
    ``time/validation_s``, and of this worker ``time/data_wait_s``, how long it waited for batches,
    and ``time/cache_hit_rate``, the share of clips that came out of the frame cache. Where no epoch
    is left to train and none was validated (``epochs: 0``, or another training's checkpoint whose
    epochs are all done), the model is validated once as it is, as the last epoch done.

    When memory runs out in a step, its micro-batches are halved (the same step up to rounding), and
    the metric ``micro_batch_size`` says so from then on.

    Args:
        config: the run; ``config.seed`` decides every random choice.
        resume_from: a checkpoint of the same config to go on from.
        on_epoch_end: called on every rank after each epoch.
        should_stop: asked on every rank after each optimizer step; one yes stops all of them there.

    Raises:
        TrainingInterruptedError: stopped by ``should_stop``; holds what a resumed training needs.
        InputError: the config does not fit the backbone, the data, the number of workers or the
            memory.
        CheckpointError: ``resume_from`` is incomplete or of another run.
        DataError: more than ``data.max_broken`` of the clips cannot be read.
        NonFiniteLossError: the loss, or a trained weight, became NaN or infinite.
        WorkerLostError: another worker is gone or hangs.
    """
    if config.num_threads is not None:
        torch.set_num_threads(config.num_threads)
    run = _start(config, resume_from)
    batches = _remaining_batches(run)
    while run.progress.epoch < config.epochs or not run.progress.history:
        run.started = time.perf_counter() - run.progress.elapsed_s
        trained: EpochMetrics = {"epoch": run.progress.epoch, "time/epoch_s": 0.0}
        if run.progress.epoch < config.epochs:
            trained = _train_epoch(run, next(batches), should_stop)
            run.average.add(run.progress.epoch + 1)
        with run.average.applied():
            metrics = trained | _validate(run)
        run.finish_epoch(metrics)
        on_epoch_end(EpochEnd(run.progress.epoch, metrics, run.progress.history, run.save))
    run.average.keep()
    return FitResult(run.model, run.progress.history)


@dataclass
class _Run:
    """Everything that changes while a training goes on."""

    config: TrainConfig
    train: Manifest
    val: Manifest
    development: Manifest | None
    model: VideoModel
    optimizer: torch.optim.AdamW
    scaler: torch.amp.GradScaler | None
    average: WeightAverage
    interpolation: Interpolation | None
    distillation: Distillation | None
    exchange: GradientExchange
    progress: Progress
    started: float = 0.0  # when the epoch under way would have begun without an interruption

    @property
    def steps_per_epoch(self) -> int:
        return steps_per_epoch(self.train, self.config)

    @property
    def num_ahead(self) -> int:
        """How many steps are launched before the values of one are read. On an accelerator the host
        would wait for a step that it has only just launched.
        """
        return 0 if self.model.device.type == "cpu" else 1

    def global_step(self, step: int) -> int:
        """The number in the whole training of a step of the epoch under way."""
        return self.progress.epoch * self.steps_per_epoch + step

    @property
    def micro_batch_size(self) -> int | None:
        """Clips per forward pass; None: all at once."""
        return self.progress.micro_batch_size or self.config.micro_batch_size

    def set_micro_batch_size(self, size: int) -> None:
        self.progress = self.progress.model_copy(update={"micro_batch_size": size})

    def lr(self, step: int) -> float:
        """The learning rate of a step of the epoch under way."""
        num_steps = self.config.epochs * self.steps_per_epoch
        return learning_rate(self.config.optimizer, self.global_step(step), num_steps)

    def finish_step(self, loss: float, broken: Mapping[int, str]) -> None:
        """Takes note of the epoch's next step that has been read."""
        self._note_broken(broken)
        progress, step = self.progress, self.progress.step + 1
        curve = progress.curve
        if (
            step % math.ceil(self.steps_per_epoch / _CURVE_POINTS) == 0
            or step == self.steps_per_epoch
        ):
            lr = self.lr(progress.step)
            curve += (CurvePoint(progress.epoch + 1, self.global_step(step), loss, lr),)
        self.progress = progress.model_copy(
            update={
                "step": step,
                "curve": curve,
                "loss_sum": progress.loss_sum + loss,
            }
        )

    def _note_broken(self, found: Mapping[int, str]) -> None:
        """Takes note of broken clips that workers met. The epoch may hold no more of them than is
        allowed.
        """
        if not found:
            return
        known = dict.fromkeys(self.progress.broken, "was broken when it was met before")
        known = {index: f"{self.train.clips[index].path}: {why}" for index, why in known.items()}
        broken = known | dict(found)
        check_broken(broken, self.train, self.config.data)
        self.progress = self.progress.model_copy(update={"broken": tuple(sorted(broken))})

    def training_metrics(self) -> EpochMetrics:
        """Metrics of the epoch whose steps are all done."""
        seconds, steps = time.perf_counter() - self.started, self.progress.step
        metrics: EpochMetrics = {
            "epoch": self.progress.epoch + 1,
            "train/loss": self.progress.loss_sum / steps,
            "lr": self.lr(steps - 1),
            "data/broken": len(self.progress.broken),
            "time/epoch_s": seconds,
            "time/clips_per_s": steps * self.config.batch_size / seconds,
        }
        if self.progress.micro_batch_size is not None:
            metrics["micro_batch_size"] = self.progress.micro_batch_size
        return metrics

    def finish_epoch(self, metrics: EpochMetrics) -> None:
        history = (*self.progress.history, metrics)
        self.progress = Progress(
            epoch=int(metrics["epoch"]),
            history=history,
            curve=self.progress.curve,
            micro_batch_size=self.progress.micro_batch_size,
        )

    def interruption(self) -> TrainingInterruptedError:
        """To be raised at this moment."""
        elapsed_s = time.perf_counter() - self.started
        self.progress = self.progress.model_copy(update={"elapsed_s": elapsed_s})
        message = (
            f"stopped in epoch {self.progress.epoch + 1} after step {self.progress.step}, as asked"
        )
        return TrainingInterruptedError(message, self.progress, self.save)

    def save(self, folder: Path) -> None:
        """Writes a checkpoint of this moment."""
        scaler = self.scaler.state_dict() if self.scaler else None
        progress = self.progress.model_copy(update={"grad_scaler": scaler})
        with self.average.applied() as weights:
            save_checkpoint(folder, self.model, self.config, progress, self.optimizer, weights)


def _start(config: TrainConfig, resume_from: Path | None) -> _Run:
    train, val = load_training(config.data.dataset, config.data.train_split, config.data.val_split)
    _, world_size = rank_and_world_size()
    if config.batch_size % world_size:
        raise InputError(
            f"batch_size: found {config.batch_size}, allowed are multiples of the {world_size} "
            "workers"
        )
    model = build_model(config, train.classes).placed_on(default_device())
    check_training(config, model)
    if config.compile is None and config.epochs:
        num_steps = config.epochs * steps_per_epoch(train, config)
        model.compile_layers = is_worthwhile(model.device, num_steps)
    development = _load_development(config, train)
    optimizer = build_optimizer(model, config.optimizer)
    needs_scaler = model.autocast_dtype == torch.float16
    scaler = torch.amp.GradScaler(model.device.type) if needs_scaler else None
    run = _Run(
        config,
        train,
        val,
        development,
        model,
        optimizer,
        scaler,
        WeightAverage(model, config),
        Interpolation(model, config) if config.regularizers.interpolation else None,
        Distillation(model, config) if config.regularizers.distillation else None,
        GradientExchange(model.trainable().values()),
        Progress(),
    )
    if resume_from is not None:
        _restore(run, resume_from)
    return run


def _load_development(config: TrainConfig, train: Manifest) -> Manifest | None:
    if config.data.development is None:
        return None
    development = load_dataset(config.data.dataset, config.data.development)
    if shared := set(development.classes) & set(train.classes):
        raise InputError(
            f"data.development: split '{config.data.development}' of {config.data.dataset} shares "
            f"classes with training ({', '.join(sorted(shared)[:3])}); allowed are splits of other "
            "classes"
        )
    return development


def _restore(run: _Run, folder: Path) -> None:
    info = read_info(folder)
    if info.config != run.config:
        raise CheckpointError(
            f"{folder}: was written by another config; resume with the config it holds"
        )
    load_learned(run.model, folder)
    run.average.restore(info.progress.epoch)
    load_optimizer(run.model, run.optimizer, folder)
    run.progress = info.progress
    if run.scaler and info.progress.grad_scaler:
        run.scaler.load_state_dict(info.progress.grad_scaler)


def _remaining_batches(run: _Run) -> Iterator[Iterator[Batch]]:
    """For each epoch that is left its batches, from the step on at which the training stands."""
    rank, world_size = rank_and_world_size()
    return train_epochs(
        run.train,
        run.config,
        image_size=run.model.image_size,
        epochs=range(run.progress.epoch, run.config.epochs),
        start_step=run.progress.step,
        rank=rank,
        world_size=world_size,
    )


def _train_epoch(
    run: _Run, batches: Iterator[Batch], should_stop: Callable[[], bool]
) -> EpochMetrics:
    """Trains to the end of the epoch."""
    loading = _Loading(batches)
    launched: deque[_LaunchedStep] = deque()
    is_to_stop = False
    for step, batch in enumerate(loading, start=run.progress.step):
        launched.append(_launch_step(run, step, batch, should_stop))
        if len(launched) > run.num_ahead:
            is_to_stop = _read_step(run, launched.popleft())
        if is_to_stop:
            break
    while launched:
        is_to_stop = _read_step(run, launched.popleft()) or is_to_stop
    _check_weights(run)
    if is_to_stop:
        raise run.interruption()
    return run.training_metrics() | loading.metrics()


class _Loading:
    """Batches, and how loading them went."""

    def __init__(self, batches: Iterator[Batch]) -> None:
        self._batches = batches
        self._wait_s, self._num_clips, self._num_hits = 0.0, 0, 0

    def __iter__(self) -> Iterator[Batch]:
        while True:
            waits_since = time.perf_counter()
            batch = next(self._batches, None)
            self._wait_s += time.perf_counter() - waits_since
            if batch is None:
                return
            self._num_clips += len(batch.labels)
            self._num_hits += batch.num_cache_hits
            yield batch

    def metrics(self) -> EpochMetrics:
        hit_rate = self._num_hits / max(1, self._num_clips)
        return {"time/data_wait_s": self._wait_s, "time/cache_hit_rate": hit_rate}


@dataclass(frozen=True)
class _LaunchedStep:
    """An optimizer step that the device may still be working on."""

    number: int  # in the whole training
    # The mean loss over all workers, whether any of them is to stop, whether any met a broken clip.
    values: Tensor
    broken: Mapping[int, str]  # clips that this worker met


def _launch_step(
    run: _Run, step: int, batch: Batch, should_stop: Callable[[], bool]
) -> _LaunchedStep:
    """One optimizer step on this worker's share of the global batch. Nothing here waits for the
    device.
    """
    device = run.model.device
    loss = _accumulate(
        run,
        run.global_step(step),
        batch.video.to(device, non_blocking=True),
        batch.labels.to(device, non_blocking=True),
    )
    parameters = list(run.model.trainable().values())
    # They are averaged in every step: all workers stop at the same step, and hear of broken clips
    # in the same step.
    flags = torch.tensor([float(should_stop()), float(len(batch.broken))])
    values = torch.cat([loss[None], flags.to(device, non_blocking=True)])
    run.exchange.finish()
    average_over_workers([values])
    apply_gradients(
        parameters, run.optimizer, run.config.optimizer, lr=run.lr(step), scaler=run.scaler
    )
    return _LaunchedStep(run.global_step(step), values, batch.broken)


def _read_step(run: _Run, launched: _LaunchedStep) -> bool:
    """Waits for a step and takes note of it; returns whether a worker is to stop.

    Raises:
        NonFiniteLossError: its loss is NaN or infinite.
    """
    loss, stop, news = launched.values.tolist()
    check_finite(loss, launched.number)
    broken = dict(gather_from_workers(list(launched.broken.items()))) if news else {}
    run.finish_step(loss, broken)
    return bool(stop)


def _check_weights(run: _Run) -> None:
    """A step with a finite loss may still have left weights that are none: they must not become a
    checkpoint.
    """
    finite = [parameter.isfinite().all() for parameter in run.model.trainable().values()]
    if finite and not torch.stack(finite).all():
        raise NonFiniteLossError(
            f"step {run.global_step(run.progress.step) - 1}: it left trained weights that are NaN "
            "or infinite; lower optimizer.lr or set optimizer.clip_grad_norm"
        )


def _accumulate(run: _Run, step: int, video_BCTHW: Tensor, labels_B: Tensor) -> Tensor:
    """The gradients and the loss of this worker's clips; where memory runs out, in micro-batches of
    half the size.

    The step stays the same up to rounding. No worker waits for another in here, so each may halve
    on its own.
    """
    while True:
        size = run.micro_batch_size or len(labels_B)
        try:
            return _accumulate_losses(run, step, video_BCTHW, labels_B, size)
        except RuntimeError as error:
            if not is_out_of_memory(error):
                raise
            if size == 1:
                raise InputError(
                    "memory runs out with one clip at a time: set activation_checkpointing, lower "
                    "data.num_frames or the number of classes, or take a larger machine"
                ) from error
        # not above: while the error lives, so does what filled the memory
        run.model.zero_grad(set_to_none=True)
        run.exchange.begin_anew()
        run.set_micro_batch_size(size // 2)
        _logger.warning("memory ran out with %d clips at a time, going on with %d", size, size // 2)


def _accumulate_losses(
    run: _Run, step: int, video_BCTHW: Tensor, labels_B: Tensor, size: int
) -> Tensor:
    """The loss at the training's weights; gradients of the regularizers are added to its own.

    Args:
        run: the training.
        step: its number in it.
        video_BCTHW: this worker's clips.
        labels_B: their classes.
        size: how many clips pass through the model at once.
    """
    accumulate = partial(
        accumulate_gradients,
        run.model,
        video_BCTHW,
        labels_B,
        micro_batch_size=size,
        scaler=run.scaler,
    )
    if run.interpolation is not None:
        with run.interpolation.blended(step):
            accumulate(weight=run.interpolation.weight)
    return accumulate(penalty=run.distillation, before_last_backward=run.exchange.expect)


def _validate(run: _Run) -> EpochMetrics:
    started = time.perf_counter()
    trained = supervised_classifier(run.model, run.val.classes)
    score = score_classifiers([trained], run.val, run.config.data, run.config.validation)[0]
    metrics = {name: measure(score) for name, measure in VALIDATION_METRICS.items()}
    if run.development is not None:
        unseen = zero_shot_classifier(run.model, run.development.classes)
        score = score_classifiers(
            [unseen], run.development, run.config.data, run.config.validation
        )[0]
        metrics |= {name: measure(score) for name, measure in DEVELOPMENT_METRICS.items()}
    return metrics | {"time/validation_s": time.perf_counter() - started}
