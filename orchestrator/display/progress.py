"""What a running study shows: live lines on a terminal, a sparse log elsewhere."""

from __future__ import annotations

import time
from collections.abc import Mapping

from rich.console import Console, Group
from rich.live import Live
from rich.text import Text

from orchestrator.display.tables import format_params
from orchestrator.events.tally import RunningTrial, Tally
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from vitaclip.checkpoint_info import seconds_of
from vitaclip.terminal import shown

_PLAIN_INTERVAL_S = 10.0


class Progress(Tally):
    """Shows a study's events on a console."""

    def __init__(self, console: Console) -> None:
        super().__init__()
        self._console = console
        self._last_line = 0.0

    def opened(self, study: Study) -> None:
        super().opened(study)
        self._study = study
        self._live = Live(
            console=self._console, get_renderable=self.render, refresh_per_second=2, transient=True
        )
        if self._console.is_terminal:
            self._live.start()

    def closed(self) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, trial: TrialInfo) -> None:
        super().started(trial)
        self._say(f"trial {trial.number} starts: {format_params(trial.params)}")

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        super().epoch_ended(number, metrics)
        if time.monotonic() - self._last_line > _PLAIN_INTERVAL_S:
            self._say(self._line(self.running[number]).plain)

    def broke_off(self, number: int, reason: str) -> None:
        super().broke_off(number, reason)
        last_line = reason.splitlines()[-1]
        self._say(
            f"trial {number} broke off and goes on from its last checkpoint: {last_line}",
            always=True,
        )

    def paused(self, number: int) -> None:
        super().paused(number)
        self._say(f"trial {number} pauses: it goes on if it is among the best there")

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        values = {self._metric: result.values[0]} if result.values else {}
        shown = {
            **values,
            **{key: value for key, value in result.benchmarks.items() if key.endswith("/top1")},
        }
        text = (
            ", ".join(f"{key} {value:.3f}" for key, value in shown.items()) or result.reason or ""
        )
        count = f"{self.ended.total()}/{self._study.num_trials}"
        self._say(f"trial {result.number} {result.state} ({count}): {text}", always=True)

    @property
    def _metric(self) -> str:
        return self._study.config.search.objectives[0].metric

    def _say(self, line: str, *, always: bool = False) -> None:
        if always or not self._console.is_terminal:
            self._console.print(line, soft_wrap=True)
            self._last_line = time.monotonic()

    def render(self) -> Group:
        """The lines of the running trials, and the study's."""
        lines = [self._line(running) for _, running in sorted(self.running.items())]
        waiting = f", benchmarks of {len(self.scoring)} under way" if self.scoring else ""
        count = f"{self.ended.total()}/{self._study.num_trials}"
        total = f"{self._study.config.name}: {count} trials finished{waiting}"
        return Group(*lines, Text(shown(total), style="bold"))

    def _line(self, running: RunningTrial) -> Text:
        trial, metrics = running.trial, running.metrics
        epoch = int(metrics.get("epoch", 0))
        value = f"  {self._metric} {metrics[self._metric]:.3f}" if self._metric in metrics else ""
        if metrics:
            clock = f"{seconds_of(metrics) * (trial.last_epoch - epoch):.0f} s left"
        else:
            clock = f"{time.monotonic() - running.started:.0f} s"
        return Text(
            shown(
                f"  trial {trial.number}  epoch {epoch}/{trial.last_epoch}{value}  {clock}  "
                f"{format_params(trial.params)}"
            ),
            no_wrap=True,
            overflow="ellipsis",
        )
