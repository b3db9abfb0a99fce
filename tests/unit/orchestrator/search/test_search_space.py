"""Search spaces: checked against the training config, proposed by every sampler, applied with
validation.
"""

from __future__ import annotations

import hashlib
import re
from pathlib import Path
from typing import Any, get_args

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import ValidationError

from orchestrator.config import SamplerConfig
from orchestrator.search.outcome import PointOutcome
from orchestrator.search.proposals import proposer_of
from orchestrator.search.proposals.optuna_sampler import suggest_params
from orchestrator.search.resolve import resolve
from orchestrator.search.search_space import Params, apply, field_names
from testing.study_fixtures import study_config
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError


def space_error(**space: object) -> str:
    config = study_config(
        search_space={key.replace("__", "."): value for key, value in space.items()}
    )
    with pytest.raises(InputError) as caught:
        resolve(config)
    return str(caught.value)


def int_range(low: int, high: int, **more: object) -> dict[str, object]:
    return {"type": "int", "low": low, "high": high} | more


def test_num_layers_becomes_the_backbones_number() -> None:
    config = study_config(
        train={"backbone": {"name": "ViT-B-16", "pretrained": "random"}},
        search_space={"prompts.depth": int_range(0, 1) | {"high": "num_layers"}},
    )
    assert resolve(config).search_space["prompts.depth"].high == 12  # type: ignore[union-attr]


def test_benchmarks_are_bound_to_the_descriptions_that_are_there(tmp_path: Path) -> None:
    path = tmp_path / "found.json"
    path.write_text('{"wave": "A person waves."}')
    benchmark = {"dataset": "hmdb51", "split": "test_1", "mode": "zero_shot"}
    config = study_config(benchmarks=[benchmark | {"descriptions": str(path)}])
    first = resolve(config).benchmarks[0]
    assert first.descriptions_sha256 == hashlib.sha256(path.read_bytes()).hexdigest()
    path.write_text('{"wave": "Somebody waves."}')
    assert resolve(config).benchmarks[0] != first
    with pytest.raises(InputError, match="has other content than benchmark zero_shot/hmdb51 was"):
        resolve(config.model_copy(update={"benchmarks": (first,)}))


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        ({"prompts__dept": int_range(0, 2)}, "did you mean 'prompts.depth'"),
        ({"prompts": int_range(0, 2)}, "no such field"),
        ({"prompts__depth": int_range(-1, 2)}, "found -1"),
        ({"text__num_context": int_range(0, 71)}, "found 71"),
        ({"prompts__depth": int_range(3, 2)}, "low 3 above high 2"),
        ({"prompts__num_global": int_range(0, 8, log=True)}, "a log scale allows numbers above 0"),
        ({"prompts__num_global": int_range(1, 8, log=True, step=2)}, "step and log"),
        ({"optimizer__lr": {"type": "float", "low": 0.0, "high": 1.0}}, "found 0.0"),
        ({"prompts__local": {"type": "categorical", "choices": [True, "no"]}}, 'found "no"'),
        (
            {"prompts__local": {"type": "categorical", "choices": [True, True]}},
            "each choice may stand once",
        ),
        (
            {"text__num_context": int_range(1, 8, when={"text.position": "end"})},
            "not in the search space",
        ),
        (
            {
                "prompts__local": {"type": "categorical", "choices": [True, False]},
                "text__num_context": int_range(1, 8, when={"prompts.local": 3}),
            },
            "3 is no value of 'prompts.local'",
        ),
        (
            {
                "prompts__depth": int_range(0, 2, when={"prompts.num_global": 1}),
                "prompts__num_global": int_range(0, 2, when={"prompts.depth": 1}),
            },
            "circle",
        ),
    ],
)
def test_spaces_that_cannot_work_are_refused(space: dict[str, object], expected: str) -> None:
    assert expected in space_error(**space)


@pytest.mark.parametrize(
    ("point", "expected"),
    [
        ({"prompts.dept": 1}, "did you mean"),
        ({"prompts.depth": 9}, "outside"),
        ({"prompts.depth": 1.5}, "outside"),
    ],
)
def test_first_points_must_lie_in_the_space(point: dict[str, object], expected: str) -> None:
    config = study_config(search={"num_trials": 3, "first_points": [point]})
    with pytest.raises(InputError, match=expected):
        resolve(config)


def test_a_grid_needs_finitely_many_values() -> None:
    config = study_config(search={"num_trials": 3, "sampler": {"name": "grid"}})
    with pytest.raises(InputError, match=r"optimizer\.lr.*step"):
        resolve(config)


def test_a_grid_has_an_end() -> None:
    config = study_config(
        search_space={"prompts.depth": int_range(0, 4, step=2)},
        search={"num_trials": 4, "sampler": {"name": "grid"}},
    )
    with pytest.raises(InputError, match="found 4, the grid has 3 points"):
        resolve(config)


def test_field_names_are_the_leaves() -> None:
    names = set(field_names())
    assert {"epochs", "prompts.depth", "data.augment.horizontal_flip"} <= names
    assert "prompts" not in names


@given(st.integers(0, 4), st.floats(1e-4, 1e-2))
def test_applied_values_are_in_the_config_and_nothing_else_changes(depth: int, lr: float) -> None:
    base = TrainConfig(epochs=3)
    changed = apply(base, {"prompts.depth": depth, "optimizer.lr": lr})
    assert (changed.prompts.depth, changed.optimizer.lr) == (depth, lr)
    assert (
        apply(changed, {"prompts.depth": base.prompts.depth, "optimizer.lr": base.optimizer.lr})
        == base
    )


def test_conditional_parameters_exist_only_when_their_condition_holds() -> None:
    config = resolve(
        study_config(
            search_space={
                "text.num_context": int_range(1, 8, when={"text.class_specific": True}),
                "text.class_specific": {"type": "categorical", "choices": [True, False]},
            }
        )
    )
    study = optuna.create_study(sampler=optuna.samplers.RandomSampler(seed=0))
    points = [suggest_params(study.ask(), config.search_space) for _ in range(20)]
    assert {point["text.class_specific"] for point in points} == {True, False}
    assert all(("text.num_context" in point) == point["text.class_specific"] for point in points)


BIG = 10**18
TWO = {"objectives": [{"metric": "val/top1"}, {"metric": "val/loss", "mode": "min"}]}


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        (
            {"search": {"objectives": [{"metric": "val/top_1"}]}},
            "found 'val/top_1' (did you mean 'val/top1'?)",
        ),
        (
            {"search": {"objectives": [{"metric": "development/top1"}]}},
            "allowed are the metrics of training",
        ),
        (
            {"search": {"objectives": [{"metric": "train/loss"}]}, "train": {"epochs": 0}},
            "found 'train/loss'",
        ),
        ({"search": {"objectives": [{}, {}]}}, "each metric may stand once"),
        ({"search": {"sampler": {"name": "cmaes"}} | TWO}, "'cmaes', which takes one objective"),
        ({"search": {"num_trials": BIG}}, "search.num_trials"),
        ({"search": {"seed": 2**32}}, "search.seed"),
        ({"search": {"lag": BIG}}, "search.lag"),
        ({"search": {"patience": BIG}}, "search.patience"),
        ({"search": {"num_repeats": BIG}}, "search.num_repeats"),
        ({"search": {"max_wall_hours": float("inf")}}, "search.max_wall_hours"),
        ({"search": {"scheduler": {"population": BIG}}}, "search.scheduler.population"),
        (
            {"train": {"seed": 2**32 - 1}, "search": {"num_repeats": 2}},
            "train.seed: found 4294967295, with 2 repeats",
        ),
        ({"train": {"epochs": 10**80}}, "train.epochs"),
        ({"train": {"batch_size": BIG}}, "train.batch_size"),
        ({"resources": {"num_workers": BIG}}, "resources.num_workers"),
        ({"resources": {"cpus_per_worker": BIG}}, "resources.cpus_per_worker"),
        ({"resources": {"gpus_per_worker": 1.5}}, "found 1.5, allowed are whole numbers"),
        ({"resources": {"gpus_per_worker": 1e-9}}, "allowed are 0 and 0.0001 or more"),
        ({"resources": {"custom_per_worker": {"GPU": 1}}}, "custom_per_worker: found GPU"),
        ({"resources": {"custom_per_worker": {"": 1}}}, "resources.custom_per_worker"),
        ({"resources": {"epoch_timeout_s": 1e30}}, "resources.epoch_timeout_s"),
        (
            {"benchmarks": [{"dataset": "a", "split": ["x", "x"], "mode": "zero_shot"}]},
            "each may stand once",
        ),
        ({"question": "?" * 5001}, "question"),
        ({"search_space": {"epochs": int_range(1, 10**15)}}, "search_space.epochs"),
        (
            {"search_space": {"epochs": {"type": "categorical", "choices": list(range(10_001))}}},
            "choices",
        ),
        (
            {"search_space": {"batch_size": int_range(8, 16)}, "resources": {"num_workers": 2}},
            "found 9, allowed are",
        ),
        (
            {
                "search_space": {"epochs": int_range(0, 5)},
                "search": {"objectives": [{"metric": "lr"}]},
            },
            "found 'lr'",
        ),
    ],
)
def test_what_would_burn_trials_is_refused_before_any(
    changes: dict[str, Any], expected: str
) -> None:
    changes = {**changes, "search": {"num_trials": 3, **changes.get("search", {})}}
    with pytest.raises((InputError, ValidationError)) as caught:
        resolve(study_config(**changes))
    error = caught.value
    places = (
        [".".join(map(str, detail["loc"])) for detail in error.errors()]
        if isinstance(error, ValidationError)
        else []
    )
    assert expected in " ".join([*places, str(error)])


@pytest.mark.parametrize(
    ("space", "search", "expected"),
    [
        (
            {"epochs": int_range(1, 3000), "prompts.depth": int_range(0, 900)},
            {},
            "the grid has 2.7e+06 points",
        ),
        (
            {"epochs": {"type": "float", "low": 1, "high": 2, "step": 1e-300}},
            {},
            "points, allowed are up to 100000",
        ),
        (
            {"epochs": int_range(1, 4), "prompts.depth": int_range(0, 2)},
            {"first_points": [{"epochs": 1}]},
            "lacks",
        ),
    ],
)
def test_grids_that_cannot_be_walked_are_refused(
    space: dict[str, Any], search: dict[str, Any], expected: str
) -> None:
    search = {"num_trials": 2, "sampler": {"name": "grid"}} | search
    with pytest.raises(InputError, match=re.escape(expected)):
        resolve(study_config(search_space=space, search=search))


@pytest.mark.parametrize("sampler", get_args(SamplerConfig.model_fields["name"].annotation))
@pytest.mark.parametrize("objectives", [{}, TWO])
def test_every_sampler_that_is_allowed_proposes(sampler: str, objectives: dict[str, Any]) -> None:
    search = {
        "num_trials": 6,
        "sampler": {"name": sampler, "num_startup_trials": 2},
        "seed": 2**32 - 1,
    } | objectives
    try:
        config = resolve(
            study_config(search_space={"prompts.depth": int_range(0, 5)}, search=search)
        )
    except InputError:
        assert (sampler, objectives) == ("cmaes", TWO)
        return
    proposer = proposer_of(config)
    tried: list[Params] = []
    for number in range(6):
        values = tuple(float(number) for _ in config.search.objectives)
        ended = [PointOutcome("complete", values)] * number
        tried.append(proposer.propose(tried, ended, None).params)
        assert tried[-1].keys() == {"prompts.depth"}
