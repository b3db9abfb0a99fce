"""What a running study shows: live lines on a terminal, a sparse log elsewhere. And the table at
its end.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from statistics import fmean, stdev
from types import TracebackType
from typing import Self

from rich.console import Console, Group
from rich.live import Live
from rich.table import Table
from rich.text import Text

from orchestrator.config import Scalar, StudyConfig
from orchestrator.display.tally import RunningTrial, Tally
from orchestrator.evaluation.ranking import best_first, pareto_set
from orchestrator.storage.records import TrialRecord, TrialResult
from vitaclip.terminal import shown

_PLAIN_INTERVAL_S = 10.0


class Progress(Tally):
    """A context manager around a study's run; the driver tells it what happens."""

    def __init__(
        self,
        config: StudyConfig,
        console: Console,
        ended: Counter[str],
        num_trials: Callable[[], int],
    ) -> None:
        super().__init__(ended)
        self._config = config
        self._num_trials = num_trials
        self._console = console
        self._last_line = 0.0
        self._live = Live(
            console=console, get_renderable=self.render, refresh_per_second=2, transient=True
        )

    def __enter__(self) -> Self:
        if self._console.is_terminal:
            self._live.start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        if self._console.is_terminal:
            self._live.stop()

    def started(self, trial: TrialRecord) -> None:
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
        self._say(
            f"trial {result.number} {result.state} ({self.ended.total()}/{self._num_trials()}): "
            f"{text}",
            always=True,
        )

    @property
    def _metric(self) -> str:
        return self._config.search.objectives[0].metric

    def _say(self, line: str, *, always: bool = False) -> None:
        if always or not self._console.is_terminal:
            self._console.print(line, soft_wrap=True)
            self._last_line = time.monotonic()

    def render(self) -> Group:
        """The lines of the running trials, and the study's."""
        lines = [self._line(running) for _, running in sorted(self.running.items())]
        waiting = f", benchmarks of {len(self.scoring)} under way" if self.scoring else ""
        count = f"{self.ended.total()}/{self._num_trials()}"
        total = f"{self._config.name}: {count} trials finished{waiting}"
        return Group(*lines, Text(shown(total), style="bold"))

    def _line(self, running: RunningTrial) -> Text:
        trial, metrics = running.trial, running.metrics
        epoch = int(metrics.get("epoch", 0))
        value = f"  {self._metric} {metrics[self._metric]:.3f}" if self._metric in metrics else ""
        if metrics:
            clock = f"{metrics['time/epoch_s'] * (trial.last_epoch - epoch):.0f} s left"
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


def trials_table(config: StudyConfig, results: Sequence[TrialResult]) -> Table:
    """Finished trials, best first: what varied, the objectives, the benchmarks' top-1, state and
    time.
    """
    objectives = [objective.metric for objective in config.search.objectives]
    benchmarks = [benchmark.name for benchmark in config.benchmarks]
    table = Table(title=f"{config.name}: {len(results)} trials, best first")
    parameters = [key.rpartition(".")[2] for key in config.search_space]
    front = pareto_set(config, results) if len(objectives) > 1 else None
    for header in ("trial", *parameters, *objectives, *benchmarks, "state", "minutes"):
        table.add_column(header, justify="left" if header == "state" else "right", overflow="fold")
    for result in best_first(config, results):
        table.add_row(
            str(result.number),
            *(_cell(result.params.get(key, "-")) for key in config.search_space),
            *(map(_fraction, result.values or [None] * len(objectives))),
            *(_fraction(result.benchmarks.get(f"{name}/top1")) for name in benchmarks),
            result.state + (", on the Pareto front" if front and result.number in front else ""),
            f"{sum(result.durations.values()) / 60:.1f}",
        )
    return table


def code_lines(results: Sequence[TrialResult]) -> list[str]:
    """Which trials ran on which code, where they are not all of one version."""
    trials: dict[str, list[int]] = {}
    for result in results:
        trials.setdefault(", then ".join(result.code), []).append(result.number)
    if len(trials) < 2:
        return []
    return [
        f"code {code}: trials {', '.join(map(str, sorted(n)))}"
        for code, n in sorted(trials.items())
    ]


def points_table(config: StudyConfig, results: Sequence[TrialResult]) -> Table:
    """Points that were run with several seeds: mean and standard deviation of each objective, best
    first.
    """
    groups: dict[int, list[TrialResult]] = {}
    for result in best_first(config, results):
        if result.state == "complete":
            groups.setdefault(result.number // config.search.num_repeats, []).append(result)
    table = Table(
        title=f"{config.name}: {len(groups)} points, mean and standard deviation over seeds"
    )
    parameters = [key.rpartition(".")[2] for key in config.search_space]
    for header in (
        "point",
        *parameters,
        *(objective.metric for objective in config.search.objectives),
        "seeds",
    ):
        table.add_column(header, justify="right")
    sign = -1 if config.search.objectives[0].mode == "max" else 1
    for point, group in sorted(
        groups.items(), key=lambda item: sign * fmean(r.values[0] for r in item[1] if r.values)
    ):
        columns = zip(*(result.values or () for result in group), strict=True)
        table.add_row(
            str(point),
            *(_cell(group[0].params.get(key, "-")) for key in config.search_space),
            *(_mean_and_spread(values) for values in columns),
            str(len(group)),
        )
    return table


def format_params(params: Mapping[str, Scalar]) -> str:
    """``depth=2, lr=0.0031``: the last part of each key."""
    return ", ".join(f"{key.rpartition('.')[2]}={_cell(value)}" for key, value in params.items())


def _cell(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _mean_and_spread(values: Sequence[float]) -> str:
    return f"{fmean(values):.3f} ± {stdev(values) if len(values) > 1 else 0:.3f}"


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
