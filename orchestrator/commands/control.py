"""Pauses a study, or gives it more trials or points, while it runs."""

from __future__ import annotations

import math
from collections.abc import Sequence

from orchestrator.commands import common
from orchestrator.config import Scalar
from orchestrator.search.proposals import proposer_of
from orchestrator.search.search_space import check_point
from orchestrator.storage.records.control import ControlChange
from orchestrator.storage.study_record import StudyRecord
from orchestrator.yaml_text import load_yaml
from vitaclip.errors import InputError
from vitaclip.terminal import Terminal


def change_study(
    study: str, *, paused: bool | None, num_trials: int | None, points: Sequence[str]
) -> None:
    """Writes down what is to change and prints what holds from now on.

    Args:
        study: the name of a study in the store.
        paused: whether no further trial is started; None leaves it as it is.
        num_trials: the study's number of trials from now on; None leaves it as it is.
        points: points to try next, each a YAML mapping.

    Raises:
        InputError: there is no such study, or it cannot have this number or these points.
    """
    record = common.open_record(study)
    change = ControlChange(
        paused=paused,
        num_trials=None if num_trials is None else _checked_number(num_trials, record),
        points=tuple(_parse_point(text, record) for text in points),
    )
    if change != ControlChange():
        record.add_change(change)
    control = record.control()
    Terminal().print(
        f"{record.name}: {'paused' if control.paused else 'not paused'}, "
        f"{control.num_trials} trials, {len(control.points)} extra points",
    )


def _checked_number(number: int, record: StudyRecord) -> int:
    fewest, most = max(1, len(record.trials())), proposer_of(record.info.config).max_trials
    if not fewest <= number <= most:
        end = "or more" if most == math.inf else f"to {most}, all that this search can have"
        raise InputError(
            f"--num-trials: found {number}, allowed are {fewest} (already proposed) {end}"
        )
    return number


def _parse_point(text: str, record: StudyRecord) -> dict[str, Scalar]:
    point = load_yaml(text, f"--point {text[:80]}")
    if not isinstance(point, dict):
        raise InputError(f"--point {text}: allowed is a mapping such as '{{prompts.depth: 2}}'")
    check_point("--point", point, record.info.config)
    return point
