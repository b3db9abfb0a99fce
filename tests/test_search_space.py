"""Search spaces: checked against the training config, proposed by every sampler, applied with validation."""

from __future__ import annotations

import optuna
import pytest
from hypothesis import given
from hypothesis import strategies as st

from orchestrator.search.search_space import apply, field_names, resolve, suggest_params
from tests.study_fixtures import study_config
from vitaclip.config import TrainConfig
from vitaclip.errors import InputError


def space_error(**space: object) -> str:
    config = study_config(search_space={key.replace("__", "."): value for key, value in space.items()})
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
        ({"prompts__local": {"type": "categorical", "choices": [True, True]}}, "each choice may stand once"),
        ({"text__num_context": int_range(1, 8, when={"text.position": "end"})}, "not in the search space"),
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
    assert apply(changed, {"prompts.depth": base.prompts.depth, "optimizer.lr": base.optimizer.lr}) == base


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
