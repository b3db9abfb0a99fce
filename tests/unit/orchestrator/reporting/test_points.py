"""Points with several seeds: their means, in the page's figure and as a picture."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from orchestrator.evaluation.points import Spread, points_over_seeds
from orchestrator.reporting.points import points_figure, points_picture
from orchestrator.reporting.study_data import StudyData, read_study
from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import STARTED, study_config

BENCHMARK = {"dataset": "motions", "split": "val", "mode": "supervised"}


def data_of(record: StudyRecord, *values: float) -> StudyData:
    """Trial n has seed n % 2 of point n // 2."""
    data = read_study(record)
    config = study_config(
        search={"num_trials": len(values), "num_repeats": 2}, benchmarks=[BENCHMARK]
    )
    results = tuple(
        TrialResult(
            number=number,
            state="complete",
            params={"prompts.depth": number // 2},
            values=(value,),
            benchmarks={"supervised/motions/top1": 0.5} if number != 1 else {},
            proposed_at=STARTED,
            finished_at=STARTED,
        )
        for number, value in enumerate(values)
    )
    return replace(data, info=data.info.model_copy(update={"config": config}), results=results)


def test_a_point_is_the_mean_of_its_seeds(record: StudyRecord, tmp_path: Path) -> None:
    data = data_of(record, 0.1, 0.3, 0.6, 0.6, 0.9)
    alone, best, other = points_over_seeds(data.info.config, data.results)
    assert (alone.number, alone.num_seeds) == (2, 1)
    assert (best.params, best.num_seeds) == ({"prompts.depth": 1}, 2)
    assert best.spreads == {"val/top1": Spread(0.6, 0.0), "supervised/motions": Spread(0.5, 0.0)}
    # One of its seeds was not scored.
    assert other.spreads["val/top1"].mean == pytest.approx(0.2)
    assert other.spreads["val/top1"].deviation == pytest.approx(0.1414, abs=1e-4)
    assert other.spreads["supervised/motions"] == Spread(0.5, 0.0)
    # The fifth trial is the only one of its point so far, and is not drawn.
    first, second = points_figure(data).data
    assert (first.name, list(first.y)) == ("val/top1", ["depth=1", "depth=0"])
    assert second.name == "supervised/motions"
    picture = points_picture(data)
    assert picture is not None
    picture.savefig(tmp_path / "points.png")


def test_single_trials_are_no_points(record: StudyRecord) -> None:
    assert points_picture(data_of(record, 0.1)) is None
