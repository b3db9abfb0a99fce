"""Tables of finished trials, and how values stand in them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from orchestrator.config import Scalar, StudyConfig
from orchestrator.evaluation.points import Spread, measures, points_over_seeds
from orchestrator.evaluation.ranking import best_first, pareto_set
from orchestrator.storage.records.trial import TrialResult
from vitaclip.table import Column, FittedTable


def trials_table(config: StudyConfig, results: Sequence[TrialResult]) -> FittedTable:
    """Finished trials, best first: what varied, the objectives, the benchmarks' top-1, state and
    time.
    """
    objectives = [objective.metric for objective in config.search.objectives]
    benchmarks = [benchmark.name for benchmark in config.benchmarks]
    front = pareto_set(config, results) if len(objectives) > 1 else None
    columns = [
        Column("trial"),
        *_parameter_columns(config),
        *map(Column, objectives),
        *(Column(name, importance=1) for name in benchmarks),
        Column("state", importance=3, is_text=True),
        Column("minutes", importance=4),
    ]
    rows = [
        [
            str(result.number),
            *(_cell(result.params.get(key, "-")) for key in config.search_space),
            *(map(_fraction, result.values or [None] * len(objectives))),
            *(_fraction(result.benchmarks.get(f"{name}/top1")) for name in benchmarks),
            result.state + (", on the Pareto front" if front and result.number in front else ""),
            f"{sum(result.durations.values()) / 60:.1f}",
        ]
        for result in best_first(config, results)
    ]
    return FittedTable(f"{config.name}: {len(results)} trials, best first", columns, rows)


def _parameter_columns(config: StudyConfig) -> list[Column]:
    """A column for each parameter that varies. Choices may be long texts."""
    return [
        Column(key.rpartition(".")[2], importance=2, is_text=distribution.type == "categorical")
        for key, distribution in config.search_space.items()
    ]


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


def points_table(config: StudyConfig, results: Sequence[TrialResult]) -> FittedTable:
    """Points that were run with several seeds: mean and standard deviation of each objective and of
    each benchmark's top-1, best first.
    """
    points = points_over_seeds(config, results)
    columns = [
        Column("point"),
        *_parameter_columns(config),
        *(Column(objective.metric) for objective in config.search.objectives),
        *(Column(benchmark.name, importance=1) for benchmark in config.benchmarks),
        Column("seeds", importance=3),
    ]
    rows = [
        [
            str(point.number),
            *(_cell(point.params.get(key, "-")) for key in config.search_space),
            *(_mean_and_spread(point.spreads.get(name)) for name in measures(config)),
            str(point.num_seeds),
        ]
        for point in points
    ]
    title = f"{config.name}: {len(points)} points, mean and standard deviation over seeds"
    return FittedTable(title, columns, rows)


def format_params(params: Mapping[str, Scalar]) -> str:
    """``depth=2, lr=0.0031``: the last part of each key."""
    return ", ".join(f"{key.rpartition('.')[2]}={_cell(value)}" for key, value in params.items())


def accuracy(metrics: Mapping[str, float], benchmark: str) -> str:
    """A benchmark's top-1 as text: mean, spread over splits, 95% interval; "-" if it was not
    scored.
    """
    found = {
        key: metrics.get(f"{benchmark}/{key}")
        for key in ("top1", "top1_std", "top1_ci95_low", "top1_ci95_high")
    }
    top1, std, low, high = found.values()
    if top1 is None:
        return "-"
    spread = "" if std is None else f" ± {std:.3f}"
    interval = "" if low is None or high is None else f" [{low:.3f}, {high:.3f}]"
    return f"{top1:.3f}{spread}{interval}"


def _cell(value: Scalar) -> str:
    return f"{value:.3g}" if isinstance(value, float) else str(value)


def _mean_and_spread(spread: Spread | None) -> str:
    return "-" if spread is None else f"{spread.mean:.3f} ± {spread.deviation:.3f}"


def _fraction(value: float | None) -> str:
    return "-" if value is None else f"{value:.3f}"
