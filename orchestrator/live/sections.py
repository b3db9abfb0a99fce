"""What the page shows of a study: how it stands now, then all that its report has."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from html import escape
from typing import Any

from orchestrator.display.tables import format_params
from orchestrator.live.driver import Sign
from orchestrator.reporting.figures import figures, min_width
from orchestrator.reporting.html import header_row, note, row, table
from orchestrator.reporting.study_data import StudyData
from orchestrator.reporting.tables import tables
from orchestrator.search.outlook import next_judgment, outlook
from orchestrator.search.study import Study
from orchestrator.storage.journal import read_journal
from orchestrator.storage.records.decision import GaveUp, JournalEntry, Proposed
from orchestrator.storage.records.trial import TrialInfo

Section = dict[str, Any]  # id, title, and html or figure with min_width
_NUM_DECISIONS = 20


def html_section(title: str, html: str) -> Section:
    """A part of the page that is text."""
    return {"id": re.sub(r"\W+", "-", title.lower()), "title": title, "html": html}


def sections(study: Study, data: StudyData, sign: Sign, who: str) -> list[Section]:
    """The whole page, from top to bottom.

    Args:
        study: over the record, and only asked.
        data: the same study as its report reads it.
        sign: whether its driver is at work.
        who: the driver.
    """
    of_report = [html_section(*found) for found in tables(data)]
    found = [
        html_section("Now", _now(study, sign, who)),
        html_section("Trials that have not finished", _unfinished(study, data, sign)),
        of_report[0],
        html_section("Why trials were stopped or failed", _stopped(data)),
        *(_figure(title, figure) for title, figure in figures(data).items()),
        *of_report[1:],
    ]
    if entries := read_journal(study.record):
        found.append(html_section("Latest decisions", _decisions(entries[-_NUM_DECISIONS:])))
    return found


def _figure(title: str, figure: Any) -> Section:
    if isinstance(figure, str):
        return html_section(title, note(f"Not shown: {figure}"))
    drawn = {"figure": json.loads(figure.to_json()), "min_width": min_width(figure)}
    return html_section(title, "") | drawn


def _now(study: Study, sign: Sign, who: str) -> str:
    training, slots = len(study.training), study.config.resources.max_concurrent_trials
    runs = sign == "at work"
    counts = {
        "waiting": max(0, study.num_trials - study.num_proposed),
        "running" if runs else "interrupted": training,
        "paused": len(study.paused),
        "scoring": len(study.unscored),
        **{state: study.finished_states[state] for state in ("complete", "pruned", "failed")},
    }
    bar = "".join(
        f'<span class="state {state}" style="flex-grow: {count}">{state} {count}</span>'
        for state, count in counts.items()
        if count
    )
    used = f"{min(training, slots) if runs else 0} of {slots}"
    driver = f"Driver: {sign}{f' ({who})' if who else ''}. Slots that train: {used}."
    ahead = "".join(f"<li>{escape(sentence)}</li>" for sentence in outlook(study))
    return f'<div class="states">{bar}</div><p>{escape(driver)}</p><ul>{ahead}</ul>'


def _unfinished(study: Study, data: StudyData, sign: Sign) -> str:
    if not data.unfinished:
        return note("None.")
    names = ["trial", "state", "epoch", data.metric, "next", "parameters"]
    rows = [header_row(names)]
    infos = {trial.number: trial for trial in study.unfinished}
    for trial in data.unfinished:
        if (info := infos.get(trial.number)) is None:
            continue
        last = trial.history[-1] if trial.history else {}
        epoch = int(last.get("epoch", 0))
        state = _state(study, info, sign)
        value = f"{last[data.metric]:.3f}" if data.metric in last else "-"
        ahead = "benchmarks" if state == "scoring" else next_judgment(study, info, epoch)
        cells = [str(trial.number), state, f"{epoch}/{info.last_epoch}", value, ahead]
        rows.append(row([*cells, format_params(trial.params)], trial.number))
    return table(rows, "trials that have not finished", "words")


def _state(study: Study, trial: TrialInfo, sign: Sign) -> str:
    if trial.number in study.paused:
        return "paused"
    if trial.number in study.unscored:
        return "scoring"
    return "running" if sign == "at work" else "interrupted"


def _stopped(data: StudyData) -> str:
    rows = [
        row([str(result.number), result.state, result.reason or ""], result.number)
        for result in sorted(data.results, key=lambda result: -result.number)
        if result.state != "complete"
    ]
    if not rows:
        return note("None was.")
    rows.insert(0, header_row(["trial", "state", "why"]))
    return table(rows, "trials that were stopped", "words")


def _decisions(entries: Sequence[JournalEntry]) -> str:
    rows = [header_row(["decision", "at (UTC)", "what", "why"])]
    for entry in reversed(entries):
        what, why = _words(entry)
        rows.append(row([str(entry.number), f"{entry.decided_at:%H:%M:%S}", what, why]))
    return table(rows, "latest decisions, newest first", "words")


def _words(entry: JournalEntry) -> tuple[str, str]:
    decision = entry.decision
    if isinstance(decision, Proposed):
        return f"proposed trial {decision.trial}", format_params(decision.params)
    if isinstance(decision, GaveUp):
        numbers = ", ".join(map(str, decision.trials))
        return "ended the search", f"nothing else is left; paused: {numbers}"
    verbs = {"go_on": "goes on", "pause": "pauses", "stop": "stops", "promote": "is promoted"}
    return f"trial {decision.trial} {verbs[decision.kind]}", decision.why
