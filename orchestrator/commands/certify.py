"""A checkpoint beside what a paper printed of its method."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from typing import Any

from orchestrator.commands import common
from orchestrator.evaluation.certificate import Circumstance, Finding, certify
from orchestrator.evaluation.published import PublishedFigure, read_published
from vitaclip.checkpoint_info import read_info
from vitaclip.errors import InputError, suggest
from vitaclip.table import Column, FittedTable
from vitaclip.terminal import Terminal

VERDICTS = ("inside", "outside", "not scored")


def certify_checkpoint(
    folder: Path, method: str, benchmarks: Sequence[str], *, as_json: bool
) -> int:
    """Prints the certificate of a checkpoint folder.

    Args:
        folder: the checkpoint.
        method: whose figures it is set against, as ``PublishedFigure.key`` spells it.
        benchmarks: those to score; none: all that the method has figures of.
        as_json: print JSON.

    Returns:
        0 if every figure that was scored is inside its interval, 1 if one is outside, 2 if none
        could be scored.

    Raises:
        InputError: there are no such figures, or the folder is a file.
        CheckpointError: the checkpoint cannot be loaded.
    """
    if folder.is_file():
        raise InputError(
            f"{folder}: is a file, needed is a checkpoint folder; `vitaclip import-checkpoint` "
            "makes one of a released file"
        )
    figures = _figures(method, benchmarks)
    findings = [*certify(folder, figures)]
    if as_json:
        common.print_json(_as_json(folder, findings))
    else:
        _print(folder, method, findings)
    verdicts = {finding.verdict for finding in findings}
    return 1 if "outside" in verdicts else 0 if "inside" in verdicts else 2


def _figures(method: str, benchmarks: Sequence[str]) -> list[PublishedFigure]:
    methods = dict.fromkeys(figure.key for figure in read_published())
    if method not in methods:
        raise InputError(
            f"--paper: found {method!r}{suggest(method, methods)}, there are figures of: "
            f"{', '.join(methods)}"
        )
    figures = [figure for figure in read_published() if figure.key == method]
    known = dict.fromkeys(figure.benchmark for figure in figures)
    for name in benchmarks:
        if name not in known:
            raise InputError(
                f"--benchmark: found {name!r}{suggest(name, known)}, {method} has figures of: "
                f"{', '.join(known)}"
            )
    return [figure for figure in figures if not benchmarks or figure.benchmark in benchmarks]


def _as_json(folder: Path, findings: Sequence[Finding]) -> dict[str, Any]:
    info = read_info(folder)
    return {
        "checkpoint": str(folder),
        "backbone": info.config.backbone.model_dump() | {"sha256": info.backbone_sha256},
        "figures": [
            {
                **asdict(finding),
                "figure": finding.figure.model_dump(mode="json"),
                "verdict": finding.verdict,
            }
            for finding in findings
        ],
    }


def _print(folder: Path, method: str, findings: Sequence[Finding]) -> None:
    console, info = Terminal(), read_info(folder)
    console.print(
        f"{folder}: {info.config.backbone.name}/{info.config.backbone.pretrained}, SHA-256 "
        f"{info.backbone_sha256}",
        soft_wrap=True,
    )
    console.print(_verdicts(method, findings))
    if any(finding.differences for finding in findings):
        console.print(_differences(findings))
    for finding in findings:
        if finding.reason is not None:
            console.print(f"not scored: {_name(finding.figure)}: {finding.reason}", soft_wrap=True)
    count = Counter(finding.verdict for finding in findings)
    console.print(", ".join(f"{count[verdict]} {verdict}" for verdict in VERDICTS))


def _verdicts(method: str, findings: Sequence[Finding]) -> FittedTable:
    columns = [
        Column("benchmark"),
        Column("as published", importance=2, is_text=True),
        Column("published"),
        Column("measured [95% interval]"),
        Column("clips", importance=1),
        Column("verdict", is_text=True),
    ]
    rows = []
    for finding in findings:
        figure, measured = finding.figure, finding.measured
        shown, num_clips = "-", "-"
        if measured is not None:
            interval = f"[{measured.low:.1f}, {measured.high:.1f}]"
            shown, num_clips = f"{measured.percent:.1f} {interval}", str(measured.num_clips)
        rows.append(
            [
                figure.benchmark + ("" if figure.metric == "top1" else f" {figure.metric}"),
                figure.circumstances,
                figure.printed,
                shown,
                num_clips,
                finding.verdict,
            ]
        )
    return FittedTable(f"{method}, in percent", columns, rows)


def _differences(findings: Sequence[Finding]) -> FittedTable:
    """What is not as published, each once, with the figures that it belongs to."""
    figures: dict[Circumstance, list[str]] = {}
    for finding in findings:
        for difference in finding.differences:
            figures.setdefault(difference, []).append(finding.figure.benchmark)
    columns = [
        Column("differs"),
        Column("here", is_text=True),
        Column("as published", is_text=True),
        Column("of", importance=1, is_text=True),
    ]
    rows = [
        [
            difference.what,
            difference.here,
            difference.published or "not stated",
            ", ".join(dict.fromkeys(names)),
        ]
        for difference, names in figures.items()
    ]
    return FittedTable("what is not as published", columns, rows)


def _name(figure: PublishedFigure) -> str:
    return f"{figure.benchmark} {figure.printed} ({figure.circumstances or 'not described'})"
