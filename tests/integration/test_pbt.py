"""Population-based training: who goes on from whom, and a member that is never replaced trains as
if alone.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from orchestrator.config import StudyConfig
from orchestrator.execution.worker import Job, train_worker
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.proposer import Proposal
from orchestrator.search.resolve import resolve
from orchestrator.search.search_space import Params
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo
from orchestrator.storage.stores.local import LocalStore
from orchestrator.storage.study_record import StudyRecord
from testing.study_fixtures import PROVENANCE, study_config
from testing.sweeps import untimed
from vitaclip.errors import InputError
from vitaclip.train import fit

LR = {"type": "float", "low": 1e-3, "high": 1e-1, "log": True}


def pbt_config(**changes: Any) -> StudyConfig:
    search = {"num_trials": 8, "scheduler": {"name": "pbt", "population": 4}}
    return study_config(**{"search_space": {"optimizer.lr": LR}, "search": search} | changes)


def ended(*values: float | None) -> list[PointOutcome]:
    """A generation of these objectives; None: failed."""
    return [
        PointOutcome("failed") if value is None else PointOutcome("complete", (value,))
        for value in values
    ]


def test_the_worst_quarter_goes_on_from_the_best_with_other_parameters() -> None:
    proposer = proposer_of(pbt_config())
    params: list[Params] = [{"optimizer.lr": lr} for lr in (0.01, 0.02, 0.09, 0.04)]
    outcomes = ended(0.1, 0.5, 0.9, 0.3)

    def propose(number: int) -> Proposal:
        generation, member = divmod(number, 4)
        tried = params * generation + [{}] * member
        return proposer.propose(tried, outcomes * generation, None)

    assert [propose(number) for number in (5, 6, 7)] == [
        Proposal(params[member], parent=member, stop_epoch=2) for member in (1, 2, 3)
    ]
    replaced = propose(4)
    assert replaced.parent == 2
    assert replaced.params != params[2]
    assert propose(4) == replaced
    tried = [propose(number).params["optimizer.lr"] for number in range(4, 400, 4)]
    # a fifth down, and up to the end
    assert {lr for lr in tried if lr in (0.072, 0.1)} == {0.072, 0.1}
    assert all(isinstance(lr, float) and 1e-3 <= lr <= 1e-1 for lr in tried)


def test_the_failed_are_replaced_and_if_all_have_failed_begin_anew() -> None:
    proposer = proposer_of(pbt_config())
    generation: list[Params] = [{"optimizer.lr": lr} for lr in (0.01, 0.02, 0.03, 0.04)]
    params = generation * 2
    outcomes = ended(None, 0.2, None, 0.1) * 2
    parents = [
        proposer.propose(params + [{}] * member, outcomes, None).parent for member in range(4)
    ]
    assert parents == [5, 5, 5, 7]
    begun_anew = proposer.propose([*params, {}], ended(*[None] * 8), None)
    assert begun_anew == Proposal(params[1], parent=None, stop_epoch=3)


def test_what_it_cannot_do_is_refused() -> None:
    depth = {"prompts.depth": {"type": "int", "low": 1, "high": 4}}
    with pytest.raises(InputError, match=r"prompts\.depth: pbt changes parameters in mid-training"):
        resolve(pbt_config(search_space=depth))
    search = {"num_trials": 13, "scheduler": {"name": "pbt", "population": 4}}
    with pytest.raises(InputError, match="last epoch after 12"):
        resolve(pbt_config(search=search))


@pytest.fixture
def config(small_training: dict[str, Any]) -> StudyConfig:
    """Three generations of two members, of one epoch each."""
    train = small_training | {"prompts": {"num_global": 2}, "epochs": 3}
    search = {"num_trials": 6, "scheduler": {"name": "pbt", "population": 2}}
    return pbt_config(train=train, search=search, benchmarks=[])


def test_generations_go_on_where_their_parents_ended(config: StudyConfig, tmp_path: Path) -> None:
    record = StudyRecord(LocalStore(tmp_path / "store"), config.name)
    record.create_or_check(config, PROVENANCE)
    study = Study(config, record)
    for _ in range(6):
        trial = study.next_trial()
        assert isinstance(trial, TrialInfo)
        train_worker(Job(record.store.uri, record.name, trial.number), lambda metrics: None)
        outcome = study.training_ended(trial.number)
        assert outcome is not None
        assert outcome.state == "complete"
        study.finish(trial.number)
    assert study.next_trial() is None
    histories = [list(result.history) for result in record.results()]
    assert [[metrics["epoch"] for metrics in history] for history in histories] == [
        [1],
        [1],
        [2],
        [2],
        [3],
        [3],
    ]
    for generation in ((0, 1), (2, 3)):
        values = {number: record.trial(number).result.values for number in generation}  # type: ignore[union-attr]
        best = max(generation, key=lambda number: (values[number], -number))
        children = [record.trial(number).info for number in (generation[0] + 2, generation[1] + 2)]
        assert [child.parent for child in children] == [best, best]
        assert children[best % 2].params == record.trial(best).info.params
        assert children[1 - best % 2].params != record.trial(best).info.params
    best = max((0, 1), key=lambda number: (record.trial(number).result.values, -number))  # type: ignore[union-attr]
    survivor = record.trial(best).info
    alone = fit(survivor.train).history
    assert untimed([histories[survivor.number][0], histories[survivor.number + 2][0]]) == untimed(
        list(alone[:2])
    )


class WorkerLostError(Exception):
    """As when a worker's process ends; what it published stays."""


@pytest.mark.parametrize("ended_by", ["generation", "threshold"])
def test_a_worker_lost_after_its_last_checkpoint_trains_no_further_epoch(
    config: StudyConfig, tmp_path: Path, ended_by: str
) -> None:
    record = StudyRecord(LocalStore(tmp_path / "store"), config.name)
    record.create_or_check(config, PROVENANCE)
    trial = Study(config, record).next_trial()
    assert isinstance(trial, TrialInfo)
    job = Job(record.store.uri, record.name, 0)
    if ended_by == "threshold":
        job = Job(record.store.uri, record.name, 1)
        record.write_trial(
            trial.model_copy(update={"number": 1, "stop_epoch": None, "thresholds": {1: 2.0}})
        )

    def lose_worker(_: dict[str, float]) -> None:
        raise WorkerLostError

    with pytest.raises(WorkerLostError):
        train_worker(job, lose_worker)
    wanted = record.trial(job.number).history
    train_worker(job, lambda metrics: pytest.fail(f"trained on: {metrics}"))
    assert [metrics["epoch"] for metrics in wanted] == [1]
    assert record.trial(job.number).history == wanted
