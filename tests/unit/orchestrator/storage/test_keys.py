"""The layout of a record: other programs, and studies of earlier versions, have it so."""

from __future__ import annotations

import pytest

from orchestrator.storage.keys import (
    Checkpoint,
    StudyKeys,
    is_attempt,
    is_log,
    number_of,
    score_key,
    study_of,
    trial_of,
)

STUDY = StudyKeys("depth")
TRIAL = STUDY.trial(3)


def test_a_study_is_laid_out_as_ever() -> None:
    assert STUDY.info == "depth/study.json"
    assert STUDY.change(1) == "depth/control/000001.json"
    assert STUDY.lease(2) == "depth/leases/000002.json"
    assert score_key(STUDY.baseline_scores("8-dense-0"), "zero_shot/quickstart") == (
        "depth/baselines/8-dense-0/scores/zero_shot-quickstart.json"
    )


def test_a_trial_is_laid_out_as_ever() -> None:
    assert TRIAL.info == "depth/trials/0003/trial.json"
    assert TRIAL.result == "depth/trials/0003/result.json"
    assert TRIAL.attempt(2) == "depth/trials/0003/attempts/0002.json"
    assert TRIAL.log(2) == "depth/trials/0003/attempts/0002.jsonl"
    assert score_key(TRIAL.scores, "supervised/ssv2") == (
        "depth/trials/0003/scores/supervised-ssv2.json"
    )
    of_epoch, within = TRIAL.checkpoint(2, 4), TRIAL.checkpoint(2, 4, 7)
    assert of_epoch.key == "depth/trials/0003/checkpoints/attempt-0002/epoch-0004"
    assert within.key == "depth/trials/0003/checkpoints/attempt-0002/epoch-0004-step-000007"


@pytest.mark.parametrize("step", [0, 7])
def test_a_key_tells_what_it_belongs_to(step: int) -> None:
    checkpoint = TRIAL.checkpoint(12345, 4, step)
    assert Checkpoint.of(checkpoint.key) == checkpoint
    assert Checkpoint.of(f"{checkpoint.key}/deep/learned.safetensors") == checkpoint
    assert Checkpoint.of(TRIAL.info) is None
    assert (trial_of(TRIAL.info), trial_of(TRIAL.result), trial_of(TRIAL.attempt(1))) == (
        3,
        3,
        None,
    )
    assert (study_of(STUDY.info), study_of(TRIAL.info)) == ("depth", None)
    assert [number_of(key) for key in (STUDY.change(7), STUDY.lease(8), TRIAL.attempt(9))] == [
        7,
        8,
        9,
    ]
    assert (is_attempt(TRIAL.attempt(1)), is_attempt(TRIAL.log(1))) == (True, False)
    assert (is_log(TRIAL.attempt(1)), is_log(TRIAL.log(1))) == (False, True)
