"""A study's record made by hand: what a sweep leaves behind, without training anything."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from orchestrator.config import StudyConfig
from orchestrator.evaluation.protocols.benchmark import BenchmarkConfig
from orchestrator.evaluation.protocols.zero_shot import ZeroShot
from orchestrator.storage.attempts import begin_attempt
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.checkpoints import publish_checkpoint
from orchestrator.storage.records.score import BenchmarkScore, ScoredModel
from orchestrator.storage.records.split_score import SplitScore
from orchestrator.storage.records.study import StudyInputs
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.stores.base import Store
from orchestrator.storage.study_record import StudyRecord
from vitaclip.checkpoint_info import CheckpointInfo, CurvePoint, Progress, write_info
from vitaclip.config import TrainConfig
from vitaclip.data.identity import DataIdentity

STARTED = datetime(2026, 1, 2, 3, 4, 5, tzinfo=UTC)
PROVENANCE = {"git_commit": "abc123", "source_sha256": "def456"}
TRAIN_DATA = DataIdentity(
    num_classes=3, num_clips=9, classes="c" * 16, labels="1" * 16, files="5" * 16
)
INPUTS = StudyInputs(data={"quickstart/train": TRAIN_DATA}, backbones={"tiny": "0" * 64})
ZERO_SHOT = {"dataset": "quickstart", "split": "zero_shot", "mode": "zero_shot"}


def study_config(**changes: object) -> StudyConfig:
    """A study of prompt depth and learning rate with one benchmark."""
    values: dict[str, Any] = {
        "name": "depth",
        "question": "How deep?",
        "hypothesis": "Deeper is better.",
        "train": {"epochs": 3},
        "search_space": {
            "prompts.depth": {"type": "int", "low": 0, "high": 8},
            "optimizer.lr": {"type": "float", "low": 1e-4, "high": 1e-2, "log": True},
        },
        "search": {"num_trials": 3},
        "benchmarks": [ZERO_SHOT],
    }
    values |= changes
    # of a fixed order, unless a test asks for lag: None
    values["search"] = {"lag": 4} | values["search"]
    return StudyConfig.model_validate(values)


def new_record(store: Store, **changes: object) -> StudyRecord:
    """A study that was just started."""
    config = study_config(**changes)
    record = StudyRecord(store, config.name)
    record.create_or_check(config, PROVENANCE, INPUTS)
    return record


def history_of(*top1: float) -> list[dict[str, float]]:
    """One epoch's metrics per validation accuracy."""
    return [
        {
            "epoch": epoch,
            "val/top1": value,
            "val/top5": 1.0,
            "train/loss": 1 / epoch,
            "time/epoch_s": 2.0,
        }
        for epoch, value in enumerate(top1, start=1)
    ]


def curve_of(num_epochs: int) -> tuple[CurvePoint, ...]:
    """Two optimizer steps per epoch."""
    return tuple(
        CurvePoint((step + 1) // 2, step, 1 / step, 1e-3) for step in range(1, 2 * num_epochs + 1)
    )


def propose(record: StudyRecord, number: int) -> TrialInfo:
    """Writes ``trial.json`` of a trial with depth = number."""
    params = {"prompts.depth": number, "optimizer.lr": 1e-3 * (number + 1)}
    train = TrainConfig.model_validate(
        {"epochs": 3, "prompts": {"depth": number}, "optimizer": {"lr": params["optimizer.lr"]}}
    )
    trial = TrialInfo(
        number=number, params=params, train=train, proposed_at=STARTED + timedelta(minutes=number)
    )
    record.write_trial(trial)
    return trial


def begin(record: StudyRecord, number: int) -> int:
    """Begins an attempt at a trial that has not finished; returns the attempt's number."""
    attempt = begin_attempt(record, number)
    assert attempt is not None
    return attempt.number


def train_epochs(record: StudyRecord, trial: TrialInfo, folder: Path, *top1: float) -> None:
    """Publishes a checkpoint (of no tensors) after each epoch, in a new attempt."""
    attempt = begin(record, trial.number)
    for num_epochs in range(1, len(top1) + 1):
        publish(record, trial, attempt, folder, *top1[:num_epochs])


def publish(
    record: StudyRecord, trial: TrialInfo, attempt: int, folder: Path, *top1: float
) -> None:
    """Publishes one checkpoint (of no tensors), after as many epochs as there are accuracies."""
    history = history_of(*top1)
    write_checkpoint(folder, trial.train, history)
    publish_checkpoint(record, trial.number, attempt, folder, history)


def write_checkpoint(folder: Path, config: TrainConfig, history: list[dict[str, float]]) -> None:
    """A checkpoint of no tensors."""
    folder.mkdir(parents=True, exist_ok=True)
    info = CheckpointInfo(
        config=config,
        class_names=("left", "right"),
        backbone_sha256="0" * 64,
        progress=Progress(epoch=len(history), history=tuple(history), curve=curve_of(len(history))),
    )
    write_info(folder, info)


def best_checkpoint(record: StudyRecord, number: int) -> str | None:
    """The key of the checkpoint that a trial is scored by."""
    return record.trial(number).best_checkpoint(record.objective)


def epochs_kept(record: StudyRecord, number: int) -> list[int]:
    """The epochs of whose ends a trial has whole checkpoints that count."""
    return [c.epoch for c in record.trial(number).checkpoints if not c.step]


def split_score(predicted: list[int], labels: list[int], split: str = "zero_shot") -> SplitScore:
    """A score on clips 0..n-1 of the classes left, right and up."""
    correct = [p == label for p, label in zip(predicted, labels, strict=True)]
    return SplitScore(
        split=split,
        data=TRAIN_DATA,
        top1=sum(correct) / len(correct),
        top5=1.0,
        num_broken=0,
        classes=("left", "right", "up"),
        clips=tuple(range(len(labels))),
        files=tuple(range(len(labels))),
        labels=tuple(labels),
        ranked=tuple((p, *(c for c in range(3) if c != p)) for p in predicted),
    )


def write_score(
    record: StudyRecord,
    model: ScoredModel,
    split: SplitScore,
    benchmark: BenchmarkConfig | None = None,
    scored_at: datetime = STARTED,
) -> dict[str, float]:
    """Writes a score (by default of zero_shot/quickstart) and returns its metrics."""
    benchmark = benchmark or ZeroShot.model_validate(ZERO_SHOT)
    metrics = {f"{benchmark.name}/top1": split.top1, f"{benchmark.name}/top5": split.top5}
    score = BenchmarkScore(
        benchmark=benchmark,
        checkpoint=best_checkpoint(record, model) if isinstance(model, int) else None,
        baseline=None if isinstance(model, int) else model,
        splits=(split,),
        metrics=metrics,
        scored_at=scored_at,
        duration_s=1.0,
    )
    record.scores(model).write(score)
    return metrics


def finish(
    record: StudyRecord, trial: TrialInfo, state: str, *top1: float, write: bool = True
) -> TrialResult:
    """Writes a score and, if asked to, ``result.json``."""
    history = history_of(*top1)
    epoch = best_epoch(history, record.objective) if history else None
    best = history[epoch - 1] if epoch else {}
    benchmarks = (
        write_score(record, trial.number, split_score([0, 1, trial.number % 3], [0, 1, 2]))
        if history
        else {}
    )
    result = TrialResult.model_validate(
        {
            "number": trial.number,
            "state": state,
            "reason": None if state == "complete" else "a reason",
            "params": trial.params,
            "values": [best["val/top1"]] if best and state != "failed" else None,
            "metrics": best,
            "history": history,
            "best_epoch": epoch,
            "checkpoint": best_checkpoint(record, trial.number),
            "benchmarks": benchmarks,
            "protocols": [score.benchmark for score in record.scores(trial.number).read_all()],
            "proposed_at": trial.proposed_at,
            "finished_at": trial.proposed_at + timedelta(seconds=30),
            "durations": {"train_s": 6.0},
        }
    )
    if write:
        record.write_result(result)
    return result


def run_trial(
    record: StudyRecord,
    number: int,
    folder: Path,
    *top1: float,
    state: str = "complete",
    write: bool = True,
) -> TrialResult:
    """Proposes, trains and finishes one trial."""
    trial = propose(record, number)
    train_epochs(record, trial, folder, *top1)
    return finish(record, trial, state, *top1, write=write)
