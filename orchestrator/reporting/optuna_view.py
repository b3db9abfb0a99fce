"""A study as Optuna's plots and its dashboard read it."""

from __future__ import annotations

from typing import Any, cast

import optuna
from optuna.trial import TrialState

from orchestrator.reporting.study_data import StudyData
from orchestrator.search.proposals.optuna_sampler import directions, suggest_params

optuna.logging.set_verbosity(optuna.logging.WARNING)

_STATES = {"complete": TrialState.COMPLETE, "pruned": TrialState.PRUNED, "failed": TrialState.FAIL}


def optuna_study(data: StudyData, storage: str | None = None) -> optuna.Study:
    """The study in Optuna's own terms; with ``storage`` it opens in optuna-dashboard."""
    config = data.info.config
    study = optuna.create_study(
        directions=directions(config.search.objectives), storage=storage, study_name=data.name
    )
    for result in sorted(data.results, key=lambda result: result.number):
        point = optuna.trial.FixedTrial(dict(result.params), result.number)
        suggest_params(cast(optuna.Trial, point), config.search_space)
        steps = {int(m["epoch"]): m[data.metric] for m in result.history if data.metric in m}
        several = len(study.directions) > 1
        trial = optuna.trial.create_trial(
            state=_STATES[result.state],
            values=result.values if result.state == "complete" else None,
            params=point.params,
            distributions=point.distributions,
            intermediate_values={} if several else steps,
            user_attrs={"number": result.number, **result.benchmarks},
        )
        # Optuna's times have no zone, and are this machine's
        trial.datetime_start = result.proposed_at.astimezone().replace(tzinfo=None)
        trial.datetime_complete = result.finished_at.astimezone().replace(tzinfo=None)
        study.add_trial(trial)
    return study


def first_objective(data: StudyData, study: optuna.Study) -> dict[str, Any]:
    """What Optuna's plots of one value want to be told where there are several."""
    several = len(study.directions) > 1
    return {"target": lambda trial: trial.values[0], "target_name": data.metric} if several else {}
