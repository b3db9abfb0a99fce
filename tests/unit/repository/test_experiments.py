"""The files in experiments/ are valid, say what they ask, and can be run at both scales."""

from __future__ import annotations

from pathlib import Path

import pytest

from orchestrator.search.resolve import resolve
from orchestrator.sweep import main
from orchestrator.yaml_file import load_study
from testing.paths import ROOT

EXPERIMENTS = ROOT / "experiments"
STUDIES = sorted(EXPERIMENTS.glob("*.yaml"))
PAPER_TABLES = sorted((EXPERIMENTS / "paper").glob("*.yaml"))
PAPER_SCALE = EXPERIMENTS / "overlays" / "paper_scale.yaml"


def test_the_papers_studies_are_there() -> None:
    names = {path.stem for path in STUDIES}
    assert names >= {
        "prompt_depth",
        "global_prompts",
        "text_context",
        "ablation",
        "learning_rate",
        "supervised_vs_zero_shot",
        "frames",
        "methods",
    }


@pytest.mark.parametrize("path", STUDIES, ids=lambda path: path.stem)
def test_a_study_dry_runs_as_it_is_and_at_paper_scale(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    for overlay in ([], ["--overlay", str(PAPER_SCALE)]):
        assert main([str(path), *overlay, "--dry-run"]) == 0
    assert "kinetics400/train with ViT-B-16" in capsys.readouterr().out


@pytest.mark.parametrize("path", PAPER_TABLES, ids=lambda path: path.stem)
def test_the_papers_tables_dry_run(
    path: Path, capsys: pytest.CaptureFixture[str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("VITACLIP_STORE", str(tmp_path / "store"))
    assert main([str(path), "--dry-run"]) == 0
    assert "estimated for an H100: 582 clips/s each" in capsys.readouterr().out


@pytest.mark.parametrize("path", [*STUDIES, *PAPER_TABLES], ids=lambda path: path.stem)
def test_a_study_opens_with_its_question(path: Path) -> None:
    text = path.read_text()
    assert text.startswith("# ")
    assert text.index("question:") < text.index("hypothesis:") < text.index("train:")
    config = load_study(path)
    assert config.name == path.stem
    assert config.benchmarks


def test_paper_scale_changes_no_question_and_no_recipe_that_is_searched() -> None:
    small = resolve(load_study(STUDIES[0]))
    large = resolve(load_study(STUDIES[0], [PAPER_SCALE]))
    assert (small.name, small.question, small.search_space.keys()) == (
        large.name,
        large.question,
        large.search_space.keys(),
    )
    assert large.train.backbone.name == "ViT-B-16-quickgelu"
    assert (small.train.prompts, small.train.text) == (large.train.prompts, large.train.text)
