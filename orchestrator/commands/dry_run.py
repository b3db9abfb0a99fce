"""``vitaclip sweep --dry-run``: what a sweep would do, said in under a second."""

from __future__ import annotations

from collections.abc import Sequence

from rich.console import Console

from orchestrator.commands.gpu_estimate import gpu_estimate
from orchestrator.config import ResourcesConfig, StudyConfig
from orchestrator.settings import Settings, without_password
from orchestrator.storage.records.trial import TrialResult
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord
from vitaclip.table import Column, FittedTable


def describe(config: StudyConfig, settings: Settings, console: Console) -> None:
    """Prints what a sweep would do and where it would write."""
    record = StudyRecord(open_store(settings.store_uri), config.name)
    results = record.results() if record.exists() else []
    num_trials = record.control().num_trials if record.exists() else config.search.num_trials
    search, resources, train = config.search, config.resources, config.train
    scored = [f"{b.name} on {', '.join(b.splits)}" for b in config.benchmarks]
    lines = {
        "study": config.name,
        "question": config.question.strip(),
        "hypothesis": config.hypothesis.strip(),
        "trials": f"{num_trials}, {len(results)} of them finished, "
        f"{resources.max_concurrent_trials} at once",
        "each trial": f"{train.epochs} epochs on {_training_clips(config)} "
        f"with {train.backbone.name}, "
        f"{_worker_range(resources)} worker(s) of {resources.cpus_per_worker} CPU, "
        f"{resources.gpus_per_worker:g} GPU",
        "time": expected_time(config, results, num_trials),
        **({"GPUs": gpu_estimate(config)} if resources.gpus_per_worker else {}),
        "search": f"{search.sampler.name}, seed {search.seed}, scheduler {search.scheduler.name}, "
        + ", ".join(f"{objective.mode} {objective.metric}" for objective in search.objectives),
        "benchmarks": "; ".join(scored or ["none"]),
        "writes": f"up to {num_trials * max(train.epochs, 1)} checkpoints (of each trial the last "
        f"and the best {resources.num_best_checkpoints} stay), "
        f"{num_trials * len(config.benchmarks)} benchmark scores, {num_trials} results",
        "store": f"{settings.store_uri}/{config.name}",
        "MLflow": without_password(settings.tracking_uri),
        "Ray": settings.ray_address or "started on this machine for the time of the sweep",
    }
    for name, text in lines.items():
        console.print(f"{name:>11}  ", style="bold", end="")
        console.print(text, soft_wrap=True)
    console.print(space_table(config))
    console.print("dry run: nothing was started")


def expected_time(config: StudyConfig, results: Sequence[TrialResult], num_trials: int) -> str:
    """What is left to do in hours, by the mean of the trials that have finished."""
    complete = [result for result in results if result.state == "complete"]
    durations = [seconds for r in complete if (seconds := r.durations.get("train_s"))]
    if not durations:
        return "not known before a first trial is complete"
    resources = config.resources
    hours = (num_trials - len(results)) * sum(durations) / len(durations) / 3600
    gpu_hours = hours * resources.max_workers * resources.gpus_per_worker
    wall_hours = hours / resources.max_concurrent_trials
    return f"about {wall_hours:.2f} hours of training are left, {gpu_hours:.1f} GPU-hours"


def _training_clips(config: StudyConfig) -> str:
    """Data set and split, unless that is one of those that the search space lists."""
    data = config.train.data
    varies = "data.train_split" in config.search_space
    return data.dataset if varies else f"{data.dataset}/{data.train_split}"


def _worker_range(resources: ResourcesConfig) -> str:
    fewest, most = resources.min_workers, resources.max_workers
    return str(most) if fewest == most else f"{fewest} to {most}"


def space_table(config: StudyConfig) -> FittedTable:
    """The parameters that vary, with their ranges."""
    columns = [
        Column("parameter"),
        Column("kind", importance=1),
        Column("values", is_text=True),
        Column("only when", importance=1, is_text=True),
    ]
    rows = []
    for key, distribution in config.search_space.items():
        values = distribution.model_dump(exclude={"type", "when"}, exclude_defaults=True)
        text = ", ".join(f"{name} {value}" for name, value in values.items())
        conditions = ", ".join(f"{other} = {value}" for other, value in distribution.when.items())
        rows.append([key, distribution.type, text, conditions or "always"])
    return FittedTable("search space", columns, rows)
