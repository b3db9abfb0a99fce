"""A study as TensorBoard reads it: a run for each trial, in event files."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path

from tensorboard.compat.proto.event_pb2 import Event
from tensorboard.compat.proto.summary_pb2 import Summary
from tensorboard.plugins.hparams.summary_v2 import (
    Discrete,
    Domain,
    HParam,
    IntInterval,
    Metric,
    RealInterval,
    hparams_config_pb,
    hparams_pb,
)
from tensorboard.summary.writer.event_file_writer import EventFileWriter

from orchestrator.config import (
    CategoricalDistribution,
    Distribution,
    FloatDistribution,
    IntDistribution,
    Scalar,
)
from orchestrator.reporting.study_data import StudyData, UnfinishedTrial
from orchestrator.storage.records.trial import TrialResult
from vitaclip.checkpoint_info import seconds_of

_SUFFIX = ".vitaclip"  # tells our event files from others in the same folder
_FILES = f"events.out.tfevents.*{_SUFFIX}"
_STATES = ("complete", "pruned", "failed")


def write_event_files(data: StudyData, folder: Path) -> None:
    """Writes a study's event files into ``folder``, in place of those that were written before.

    The new ones have new names, and the old ones go last: a TensorBoard that is open reads them as
    a training that has begun again, and doubles no point.
    """
    old = [*folder.glob(_FILES), *folder.glob(f"trial_*/{_FILES}")]
    _write(folder, [Event(wall_time=data.info.created_at.timestamp(), summary=_columns(data))])
    trials: list[TrialResult | UnfinishedTrial] = [*data.results, *data.unfinished]
    for trial in sorted(trials, key=lambda trial: trial.number):
        _write(folder / _run(trial), _events(data, trial))
    for path in old:
        path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):  # it holds the trial's new file, or others'
            path.parent.rmdir()


def _write(folder: Path, events: Iterable[Event]) -> None:
    writer = EventFileWriter(str(folder), filename_suffix=_SUFFIX)
    try:
        for event in events:
            writer.add_event(event)
    finally:
        writer.close()


def _run(trial: TrialResult | UnfinishedTrial) -> str:
    return f"trial_{trial.number:04d}"


def _events(data: StudyData, trial: TrialResult | UnfinishedTrial) -> Iterator[Event]:
    """A trial's curves, a point after each epoch, and how it ended, if it has.

    An epoch's time is the proposal's plus that of training so far.
    """
    at_s = trial.proposed_at.timestamp()
    for metrics in trial.history:
        at_s += seconds_of(metrics)
        curves = {name: value for name, value in metrics.items() if name != "epoch"}
        yield _points(int(metrics["epoch"]), at_s, curves)
    if isinstance(trial, TrialResult):
        yield from _end(data, trial)


def _end(data: StudyData, result: TrialResult) -> Iterator[Event]:
    """The trial's row in the table. An open TensorBoard keeps the first that it has read."""
    space, at_s = data.info.config.search_space, result.finished_at.timestamp()
    row = {key: _value(space[key], value) for key, value in result.params.items()}
    row["state"] = result.state
    yield Event(
        wall_time=at_s, summary=hparams_pb(row, _run(result), result.proposed_at.timestamp())
    )
    if result.best_epoch is not None:
        yield _points(result.best_epoch, at_s, _compared(data, result))


def _points(step: int, at_s: float, values: Mapping[str, float]) -> Event:
    points = [Summary.Value(tag=tag, simple_value=value) for tag, value in values.items()]
    return Event(wall_time=at_s, step=step, summary=Summary(value=points))


def _compared(data: StudyData, result: TrialResult) -> dict[str, float]:
    """What trials are compared by: objectives at the best epoch, and benchmarks."""
    scores = data.metrics(result.number)
    return {
        **dict(zip(_objectives(data), result.values or (), strict=False)),
        **{name: scores[name] for name in _benchmarks(data) if name in scores},
    }


def _objectives(data: StudyData) -> list[str]:
    return [f"best/{objective.metric}" for objective in data.info.config.search.objectives]


def _benchmarks(data: StudyData) -> list[str]:
    return [f"{benchmark.name}/top1" for benchmark in data.info.config.benchmarks]


def _columns(data: StudyData) -> Summary:
    """Those of the table of trials that have ended (HPARAMS)."""
    space = data.info.config.search_space
    params = [HParam(key, _domain(distribution)) for key, distribution in space.items()]
    return hparams_config_pb(
        [*params, HParam("state", Discrete(_STATES))],
        [Metric(tag) for tag in (*_objectives(data), *_benchmarks(data))],
        data.info.created_at.timestamp(),
    )


def _domain(distribution: Distribution) -> Domain:
    match distribution:
        case IntDistribution(low=low, high=high):
            return IntInterval(low, int(high))
        case FloatDistribution(low=low, high=high):
            return RealInterval(low, high)
        case CategoricalDistribution(choices=choices):
            return Discrete([_value(distribution, choice) for choice in choices])


def _value(distribution: Distribution, value: Scalar) -> Scalar:
    """Choices are texts, for TensorBoard has neither null nor choices of several types."""
    is_choice = isinstance(distribution, CategoricalDistribution)
    return json.dumps(value) if is_choice and not isinstance(value, str) else value
