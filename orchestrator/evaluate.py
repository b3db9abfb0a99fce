"""``vitaclip evaluate``, also ``python -m orchestrator.evaluate``."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Annotated

from typer import Argument, Option

from orchestrator.config import ProtocolName
from vitaclip.cli.options import Json, Views
from vitaclip.cli.run import run_alone
from vitaclip.config import EvalConfig


def evaluate(
    target: Annotated[str, Argument(metavar="TARGET")],
    on: Annotated[
        list[str] | None, Option(metavar="DATASET...", help="default: the study's benchmarks")
    ] = None,
    split: Annotated[
        list[str] | None,
        Option(metavar="SPLIT...", help="instead of the dataset's published protocol"),
    ] = None,
    mode: Annotated[ProtocolName, Option(help="with --split")] = "zero_shot",
    views: Views = "1x1",
    templates: Annotated[
        list[str] | None,
        Option(
            metavar="NAME|SENTENCE...",
            help="CLIP's own list for kinetics700 or ucf101, or sentences in which {} is the "
            "class name",
        ),
    ] = None,
    descriptions: Annotated[
        Path | None,
        Option(
            parser=Path,
            metavar="FILE",
            help="sentences to read instead of class names, .json or .csv",
        ),
    ] = None,
    json: Json = False,
) -> None:
    """Scores benchmarks of whatever has been trained.

    TARGET is a study, one of its trials (STUDY/NUMBER) or a checkpoint folder. Scores of trials
    are kept in the study's record: those that are there already are shown, not computed again.
    """
    eval_config = EvalConfig.parse(views)
    from orchestrator.commands.evaluate import NamedBenchmarks, evaluate_target

    named = NamedBenchmarks(
        datasets=on or (),
        splits=split or (),
        mode=mode,
        views=eval_config,
        templates=templates or (),
        descriptions=descriptions,
    )
    evaluate_target(target, named, as_json=json)


def main(arguments: Sequence[str] | None = None) -> int:
    """Runs the command alone; see :func:`vitaclip.cli.run.run` for what is returned."""
    return run_alone(evaluate, "python -m orchestrator.evaluate", arguments)


if __name__ == "__main__":
    sys.exit(main())
