"""Experiment files: strict YAML, overlays, --set, and one clear line for every mistake."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.yaml_file import load_study, merge, parse_setting, read_yaml
from orchestrator.yaml_text import load_yaml
from vitaclip.errors import InputError

GOOD = """\
name: depth
question: How deep?
hypothesis: Deeper is better.
train:
  epochs: 3
  optimizer: {lr: 1e-4}
search_space:
  prompts.depth: {type: int, low: 0, high: 4}
search:
  num_trials: 8
"""


@pytest.fixture
def write(tmp_path: Path):
    def write(text: str, name: str = "study.yaml") -> Path:
        path = tmp_path / name
        path.write_text(text)
        return path

    return write


def message_of(*arguments: object) -> str:
    with pytest.raises(InputError) as caught:
        load_study(*arguments)  # type: ignore[arg-type]
    return str(caught.value)


BENCHMARK = "benchmarks: [{{dataset: {}, split: {}, mode: zero_shot}}]"


def test_a_file_becomes_a_study(write) -> None:
    config = load_study(write(GOOD))
    assert config.train.optimizer.lr == 1e-4
    assert config.search_space["prompts.depth"].type == "int"


def test_values_keep_the_types_of_yaml_1_2(write) -> None:
    content = read_yaml(write("a: 1e-4\nb: no\nc: off\nd: 010\ne: 1_000\nf: true\ng: null\n"))
    assert content == {"a": 1e-4, "b": "no", "c": "off", "d": 10, "e": 1000, "f": True, "g": None}


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("epochs: 3", "epochs: 3\n  epochs: 4", ["study.yaml, line 6", "duplicate key", "epochs"]),
        (
            "epochs: 3",
            "epoch: 3",
            ["study.yaml: train.epoch:", "no such key", "did you mean 'epochs'"],
        ),
        (
            "num_trials: 8",
            "num_trial: 8",
            ["search.num_trial:", "did you mean 'num_trials'", "is missing"],
        ),
        ("epochs: 3", "epochs: -1", ["train.epochs: found -1", "greater than or equal to 0"]),
        ("epochs: 3", "epochs: 2.5", ["train.epochs: found 2.5", "valid integer"]),
        ("epochs: 3", "epochs: '3'", ['train.epochs: found "3"', "valid integer"]),
        ("epochs: 3", "activation_checkpointing: no", ['found "no"', "valid boolean"]),
        ("high: 4", "hihg: 4", ["search_space.prompts.depth.hihg", "did you mean 'high'"]),
        ("type: int", "type: integer", ["search_space.prompts.depth", "integer", "'int'"]),
        ("name: depth", "name: Depth!", ["name:", '"Depth!"']),
        ("lr: 1e-4", "lr: .nan", ["train.optimizer.lr", "NaN", "allowed"]),
        ("name: depth", "name: [a", ["study.yaml, line"]),
        (
            "epochs: 3",
            "epochs: 3\n  data: {dataset: my clips}",
            ["train.data.dataset", '"my clips"', "A-Za-z0-9"],
        ),
        ("epochs: 3", "epochs: 3\n  data: {dataset: ../x}", ["train.data.dataset", '"../x"']),
        ("epochs: 3", "epochs: 3\n  data: {dataset: a/b}", ["train.data.dataset", '"a/b"']),
        (
            "num_trials: 8",
            f"num_trials: 8\n{BENCHMARK.format('é', 'val')}",
            ["benchmarks.0.dataset", "A-Za-z0-9"],
        ),
        (
            "num_trials: 8",
            f"num_trials: 8\n{BENCHMARK.format('a', '../val')}",
            ["benchmarks.0.split", "../val"],
        ),
        (
            "num_trials: 8",
            f"num_trials: 8\n{BENCHMARK.format('a', '[]')}",
            ["benchmarks.0.split", "at least 1"],
        ),
        (
            "num_trials: 8",
            f"num_trials: 8\n{BENCHMARK.format('a', 'val, veiws: {}')}",
            ["benchmarks.0.veiws: there is no such key", "did you mean 'views'"],
        ),
        (
            "num_trials: 8",
            f"num_trials: 8\n{BENCHMARK.format('a', 'val').replace('zero_', 'zer_')}",
            ["benchmarks.0: found", "'mode'", "'zero_shot', 'supervised'"],
        ),
        (
            "num_trials: 8",
            "num_trials: 8\n  lag: 4\nresources: {max_concurrent_trials: 9}",
            ["9", "search.lag (4)"],
        ),
    ],
)
def test_mistakes_name_place_and_what_is_allowed(write, old, new, expected) -> None:
    message = message_of(write(GOOD.replace(old, new)))
    for part in expected:
        assert part in message


def test_every_mistake_has_its_line(write) -> None:
    text = GOOD.replace("epochs: 3", "epochs: -1").replace("num_trials: 8", "num_trials: 0")
    assert len(message_of(write(text)).splitlines()) == 2


LAUGHS = "a: &a [x,x,x,x,x,x,x,x,x]\n" + "".join(
    f"{b}: &{b} [*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a},*{a}]\n"
    for a, b in zip("abcdefghi", "bcdefghij", strict=True)
)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        (LAUGHS, "line 5: found more than 50000 values"),
        ("a: &a [*a]", "line 1: *a stands inside of what it stands for"),
        ("a: &a {b: &b [*a]}", "stands inside"),
        ("a: *b", "line 1"),
        ("a: " + "[" * 900 + "]" * 900, "line 1: found more than 40 levels"),
        ("a: " + "{b: " * 900 + "1" + "}" * 900, "found more than 40 levels"),
        ("a: " + "[" * 100_000, "found more than 40 levels"),
        ("".join(f"{'  ' * n}a:\n" for n in range(300)), "found more than 40 levels"),
        ("a: " + "9" * 5000, "found a number of 5000 digits, allowed are 100"),
        ("a: 0x" + "f" * 5000, "found a number of 5002 digits"),
        ("? [a, b]\n: 1", "line 1: found a list or a mapping as a key"),
        ("{[a]: 1}", "found a list or a mapping as a key"),
        ("2001-01-01: 1", "found the key '2001-01-01', allowed are texts"),
        ("1: 1", "found the key '1', allowed are texts"),
        ("a: 2001-01-01", "found '2001-01-01', a date"),
        ("a: !!binary aGFsbG8=", "a bytes"),
        ("a: !!set {b, c}", "a set"),
        ("a: !!python/object/apply:os.system [ls]", "line 1"),
        ("a: [" + "1, " * 100_000 + "]", "characters, allowed are 262144"),
        ("a: [" + "1," * 60_000 + "]", "found more than 50000 values"),
        ("a: &a [1]\n" + "b: " + "[" + "*a, " * 30_000 + "]", "found more than 50000 values"),
        ("--- 1\n--- 2", "line 2"),
        ("a: \x00", "special characters are not allowed"),
    ],
)
def test_yaml_has_limits_that_are_met_before_it_is_expanded(
    write, text: str, expected: str
) -> None:
    assert expected in message_of(write(text))
    with pytest.raises(InputError):
        parse_setting(f"train={text}", {})


def test_anchors_and_merge_keys_work_within_the_limits() -> None:
    assert load_yaml("a: &a {x: 1}\nb: {<<: *a, y: 2}\nc: *a", "here") == {
        "a": {"x": 1},
        "b": {"x": 1, "y": 2},
        "c": {"x": 1},
    }


def test_many_mistakes_are_not_all_listed(write) -> None:
    text = GOOD.replace(
        "epochs: 3", "\n  ".join(["epochs: 3", *(f"key{n}: 1" for n in range(1000))])
    )
    lines = message_of(write(text)).splitlines()
    assert (len(lines), lines[-1]) == (21, "and 980 more mistakes")


@pytest.mark.parametrize(
    "setting", ["a." * 100_000 + "b=1", "=1", "a", "a=[", "\udcff=1", "name=\udcff"]
)
def test_settings_that_cannot_be_are_refused(write, setting: str) -> None:
    with pytest.raises(InputError):
        load_study(write(GOOD), settings=[setting])


@pytest.mark.parametrize(
    ("text", "found"), [("", "nothing"), ("- a\n", "a list"), ("abc", "a text")]
)
def test_a_file_must_hold_a_mapping(write, text: str, found: str) -> None:
    assert f"found {found}" in message_of(write(text))


def test_a_missing_file_is_named_with_its_nearest_neighbor(write, tmp_path: Path) -> None:
    write(GOOD, "prompt_depth.yaml")
    message = message_of(tmp_path / "prompt_dept.yaml")
    assert "there is no such file" in message
    assert "prompt_depth.yaml" in message


def test_overlays_merge_and_the_last_word_wins(write) -> None:
    overlay = write("train: {epochs: 30, batch_size: 64}\n", "overlay.yaml")
    config = load_study(write(GOOD), [overlay], ["train.epochs=5"])
    assert (config.train.epochs, config.train.batch_size, config.train.optimizer.lr) == (
        5,
        64,
        1e-4,
    )


def test_merging_replaces_lists_and_keeps_the_rest() -> None:
    base = {"a": {"b": [1, 2], "c": 1}, "d": 1}
    assert merge(base, {"a": {"b": [3]}}) == {"a": {"b": [3], "c": 1}, "d": 1}
    assert base == {"a": {"b": [1, 2], "c": 1}, "d": 1}


def test_set_reaches_keys_that_hold_dots_and_takes_any_yaml(write) -> None:
    settings = [
        "search_space.prompts.depth.high=2",
        "search_space.text={}",
        "search.objectives=[{metric: val/loss, mode: min}]",
    ]
    config = load_study(write(GOOD), [], settings[:1] + settings[2:])
    assert config.search_space["prompts.depth"].high == 2  # type: ignore[union-attr]
    assert config.search.objectives[0].mode == "min"
    assert "--set search_space.text={}: search_space.text" in message_of(write(GOOD), [], settings)


def test_an_overlay_s_mistake_names_the_overlay(write) -> None:
    overlay = write("train: {epochs: many}\n", "overlay.yaml")
    assert "overlay.yaml: train.epochs" in message_of(write(GOOD), [overlay])


def test_set_without_a_value_is_refused(write) -> None:
    assert "--set train.epochs" in message_of(write(GOOD), [], ["train.epochs"])
