"""What the page shows of one trial: its epochs, verdicts, attempts, config and log."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from html import escape

from orchestrator.display.tables import format_params
from orchestrator.dotted import flatten
from orchestrator.live.sections import Section, html_section
from orchestrator.reporting.html import header_row, note, row, table
from orchestrator.storage.study_record import StudyRecord
from orchestrator.storage.trial_record import TrialRecord

_NUM_LINES = 500
_TIMES = {"time", "event"}


def trial_sections(record: StudyRecord, number: int) -> list[Section]:
    """From top to bottom. Raises InputError if there is no such trial."""
    trial = record.trial(number)
    history = list(trial.result.history) if trial.result else trial.history
    return [
        html_section(f"Trial {number}", _head(trial)),
        html_section("Epochs", _epochs(history) if history else note("None has ended.")),
        html_section("Log", _log(trial.log)),
        html_section("Config", _config(trial)),
    ]


def _head(trial: TrialRecord) -> str:
    result = trial.result
    state = result.state if result else "not finished"
    reason = f": {result.reason}" if result and result.reason else ""
    lines = [f"{state}{reason}", format_params(trial.info.params)]
    lines += [
        f"After epoch {verdict.epoch}: {verdict.kind.replace('_', ' ')}, {verdict.why}"
        for verdict in trial.verdicts
    ]
    lines += [
        f"Attempt {attempt.number}: since {attempt.began_at:%Y-%m-%d %H:%M:%S} UTC on "
        f"{attempt.host}, code {attempt.code.name}"
        for attempt in trial.attempts
    ]
    return "".join(f"<p>{escape(line)}</p>" for line in lines) + '<p><a href="#">close</a></p>'


def _epochs(history: Sequence[Mapping[str, float]]) -> str:
    names = sorted({name for metrics in history for name in metrics} - {"epoch"}, key=_importance)
    rows = [header_row(["epoch", *names])]
    for metrics in history:
        values = (f"{metrics[name]:.4g}" if name in metrics else "-" for name in names)
        rows.append(row([f"{metrics['epoch']:.0f}", *values]))
    return table(rows, "epochs")


def _importance(name: str) -> tuple[bool, str]:
    return not name.startswith("val/"), name


def _log(text: str) -> str:
    lines = text.splitlines()
    shown = "\n".join(map(_line, lines[-_NUM_LINES:]))
    cut = f"The last {_NUM_LINES} of {len(lines)} lines." if len(lines) > _NUM_LINES else ""
    return (note(cut) if cut else "") + f'<pre class="scroll" tabindex="0">{escape(shown)}</pre>'


def _line(text: str) -> str:
    """``12:00:05 epoch val/top1=0.41``; what is none of ours is left as it is."""
    try:
        fields = json.loads(text)
        time, event = fields["time"], fields["event"]
        return " ".join([str(time)[11:19], str(event), *_words(fields)])
    except (ValueError, KeyError, TypeError, AttributeError):
        return text


def _words(fields: Mapping[str, object]) -> Iterator[str]:
    for name, value in flatten(dict(fields)).items():
        if name not in _TIMES:
            yield f"{name}={value:.4g}" if isinstance(value, float) else f"{name}={value}"


def _config(trial: TrialRecord) -> str:
    values = flatten(trial.info.train.model_dump(mode="json"))
    rows = [row([name, str(value)]) for name, value in values.items()]
    return f"<details><summary>all of it</summary>{table(rows, 'config', 'words')}</details>"
