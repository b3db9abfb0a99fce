"""Event files, read back by TensorBoard's own reader: each point as it is on record."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.plugins.hparams import metadata

from orchestrator.config import Scalar
from orchestrator.reporting.study_data import read_study
from orchestrator.reporting.tensorboard_view import write_event_files
from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import (
    begin,
    finish,
    new_record,
    propose,
    publish,
    run_trial,
    train_epochs,
)

Points = dict[str, list[tuple[int, float, float]]]
EVERYTHING = {"scalars": 0, "tensors": 0}


@pytest.fixture
def record(tmp_path: Path) -> StudyRecord:
    """Two trials with everything, a pruned one, a failed one, and one that trains."""
    record = new_record(LocalStore(tmp_path / "store"))
    run_trial(record, 0, tmp_path / "c", 0.2, 0.6, 0.5)
    run_trial(record, 1, tmp_path / "c", 0.3, 0.7)
    run_trial(record, 2, tmp_path / "c", 0.1, state="pruned")
    finish(record, propose(record, 3), "failed")
    train_epochs(record, propose(record, 4), tmp_path / "c", 0.4, 0.45)
    return record


def export(record: StudyRecord, folder: Path) -> None:
    write_event_files(read_study(record), folder)


def runs(folder: Path) -> dict[str, EventAccumulator]:
    """What TensorBoard reads of each run; the study's own is named ``.``."""
    found = {}
    for path in {file.parent for file in folder.rglob("events.out.tfevents.*")}:
        found[str(path.relative_to(folder))] = EventAccumulator(str(path), EVERYTHING).Reload()
    return found


def points(run: EventAccumulator) -> Points:
    """Step, value and wall time of each point, by tag."""
    return {
        tag: [(point.step, point.value, point.wall_time) for point in run.Scalars(tag)]
        for tag in run.Tags()["scalars"]
    }


def hparams(run: EventAccumulator) -> dict[str, Scalar]:
    content = run.SummaryMetadata(metadata.SESSION_START_INFO_TAG).plugin_data.content
    values = metadata.parse_session_start_info_plugin_data(content).hparams
    return {key: getattr(value, value.WhichOneof("kind")) for key, value in values.items()}


def columns(folder: Path) -> Any:
    """Of the table of trials."""
    content = runs(folder)["."].SummaryMetadata(metadata.EXPERIMENT_TAG).plugin_data.content
    return metadata.parse_experiment_plugin_data(content)


def expected(
    history: list[Mapping[str, float]], started_s: float, result: TrialResult | None
) -> Points:
    """A trial's points, from its record alone: an epoch takes its 2 s. A value has 32 bits."""
    found: Points = {}
    for number, metrics in enumerate(history, start=1):
        for tag in metrics.keys() - {"epoch"}:
            point = (number, float(np.float32(metrics[tag])), started_s + 2.0 * number)
            found.setdefault(tag, []).append(point)
    if result is not None and result.values is not None and result.best_epoch is not None:
        ends = {"best/val/top1": result.values[0], **result.benchmarks}
        del ends["zero_shot/quickstart/top5"]
        at_s = result.finished_at.timestamp()
        for tag, value in ends.items():
            found[tag] = [(result.best_epoch, float(np.float32(value)), at_s)]
    return found


def test_every_point_of_the_record_is_in_them_and_no_other(
    record: StudyRecord, tmp_path: Path
) -> None:
    export(record, tmp_path / "events")
    found = runs(tmp_path / "events")
    assert found.keys() == {".", *(f"trial_000{number}" for number in range(5))}
    assert points(found.pop(".")) == {}
    for number, run in enumerate(found[name] for name in sorted(found)):
        trial = record.trial(number)
        history = trial.result.history if trial.result else trial.history
        started_s = trial.info.proposed_at.timestamp()
        assert points(run) == expected(list(history), started_s, trial.result)
        if trial.result:
            assert hparams(run) == {**trial.info.params, "state": trial.result.state}
    assert len(points(found["trial_0000"])["train/loss"]) == 3
    assert len(points(found["trial_0004"])["time/epoch_s"]) == 2


def test_trials_are_compared_by_parameters_objectives_and_benchmarks(
    record: StudyRecord, tmp_path: Path
) -> None:
    export(record, tmp_path / "events")
    found = columns(tmp_path / "events")
    ends = {
        info.name: (info.domain_interval.min_value, info.domain_interval.max_value)
        for info in found.hparam_infos
    }
    assert ends == {"prompts.depth": (0, 8), "optimizer.lr": (1e-4, 1e-2), "state": (0, 0)}
    [state] = [info for info in found.hparam_infos if info.name == "state"]
    assert [value.string_value for value in state.domain_discrete.values] == [
        *("complete", "failed", "pruned")
    ]
    assert [info.name.tag for info in found.metric_infos] == [
        "best/val/top1",
        "zero_shot/quickstart/top1",
    ]


def test_choices_of_any_kind_are_texts(tmp_path: Path) -> None:
    choices = ["openai", None, True, 4]
    space = {"backbone.pretrained": {"type": "categorical", "choices": choices}}
    record = new_record(LocalStore(tmp_path / "store"), search_space=space)
    for number, choice in enumerate(choices):
        trial = propose(record, number)
        params = {"backbone.pretrained": choice}
        result = finish(record, trial, "failed", write=False)
        record.write_result(result.model_copy(update={"params": params}))
    export(record, tmp_path / "events")
    [info, _] = columns(tmp_path / "events").hparam_infos
    texts = ["openai", "null", "true", "4"]
    assert [value.string_value for value in info.domain_discrete.values] == sorted(texts)
    found = runs(tmp_path / "events")
    for number, text in enumerate(texts):
        assert hparams(found[f"trial_000{number}"])["backbone.pretrained"] == text


def test_a_study_that_runs_on_is_exported_again_and_no_point_twice(
    record: StudyRecord, tmp_path: Path
) -> None:
    folder = tmp_path / "events"
    export(record, folder)
    first = runs(folder)
    before = {name: points(run) for name, run in first.items()}
    export(record, folder)
    assert {name: points(run) for name, run in runs(folder).items()} == before

    trial = record.trial(4).info
    publish(record, trial, begin(record, 4), tmp_path / "c", 0.4, 0.45, 0.5)
    finish(record, trial, "complete", 0.4, 0.45, 0.5)
    propose(record, 5)
    export(record, folder)
    found = runs(folder)
    assert found.keys() == before.keys() | {"trial_0005"}
    assert [step for step, _, _ in points(found["trial_0004"])["val/top1"]] == [1, 2, 3]
    # so that a TensorBoard that is open, and keeps what it has read first, learns of the end
    assert metadata.SESSION_START_INFO_TAG not in first["trial_0004"].Tags()["tensors"]
    assert hparams(found["trial_0004"])["state"] == "complete"
    assert len(list(folder.rglob("events.*"))) == 7


def test_it_replaces_its_own_files_and_no_others(record: StudyRecord, tmp_path: Path) -> None:
    folder = tmp_path / "events"
    export(record, folder)
    others = [folder / "events.out.tfevents.1.host.2.0", folder / "trial_0009/notes.txt"]
    for path in others:
        path.parent.mkdir(exist_ok=True)
        path.touch()
    other = new_record(LocalStore(tmp_path / "store"), name="other")
    run_trial(other, 1, tmp_path / "c", 0.5)
    export(other, folder)
    assert all(path.exists() for path in others)
    assert {path.name for path in folder.iterdir() if path.is_dir()} == {
        "trial_0001",
        "trial_0009",
    }
    assert points(runs(folder)["trial_0001"])["val/top1"][0][1] == 0.5


def test_what_cannot_be_read_hides_no_other(record: StudyRecord, tmp_path: Path) -> None:
    for number, key in enumerate(["result.json", "trial.json"]):
        (Path(record.store.uri) / f"depth/trials/000{number}/{key}").write_text("{")
    path = Path(record.store.uri) / "depth/trials/0004/trial.json"
    content = json.loads(path.read_text())
    content["params"]["prompts.depth"] = None
    path.write_text(json.dumps(content))
    export(record, tmp_path / "events")
    assert runs(tmp_path / "events").keys() == {".", "trial_0002", "trial_0003", "trial_0004"}
