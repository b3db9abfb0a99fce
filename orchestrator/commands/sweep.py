"""Runs, or continues, the study in an experiment file."""

from __future__ import annotations

import signal
import sys
from collections.abc import Mapping, Sequence
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING

from rich.console import Console

from orchestrator.commands.dry_run import describe
from orchestrator.config import StudyConfig
from orchestrator.search.resolve import resolve
from orchestrator.settings import Settings
from orchestrator.storage.later_scores import with_later_scores
from orchestrator.yaml_file import load_study
from vitaclip.terminal import Terminal

if TYPE_CHECKING:
    from orchestrator.search.study import Study
    from orchestrator.storage.records.trial import TrialResult

_PIPE_WIDTH = 140  # characters, where no terminal says


def sweep_file(
    file: Path, overlays: Sequence[Path], overrides: Sequence[str], *, dry_run: bool
) -> int:
    """Sweeps what a file asks for, or says what would happen.

    Args:
        file: the experiment file.
        overlays: files laid over it, in order.
        overrides: ``KEY=VALUE``, laid over all files.
        dry_run: start nothing.

    Returns:
        The exit code: 0, 1 (something failed) or 130 (interrupted).

    Raises:
        InputError: the study is not valid, or what it needs is not there.
    """
    # what ends this process ends it like Ctrl-C
    signal.signal(signal.SIGTERM, signal.default_int_handler)
    console = Terminal(width=None if sys.stdout.isatty() else _PIPE_WIDTH)
    try:
        config = resolve(load_study(file, overlays, overrides))
        settings = Settings()
        if dry_run:
            describe(config, settings, console)
            return 0
        return sweep(config, settings, console)
    except KeyboardInterrupt:
        console.print("interrupted; the same command goes on from here")
        return 130


def sweep(config: StudyConfig, settings: Settings, console: Console) -> int:
    """Runs a study to its end, or on from where it was left, and prints its trials."""
    # These bring torch, Ray and MLflow: seconds that a dry run or a spelling mistake need not wait
    # for.
    from orchestrator.code_version import code_version
    from orchestrator.commands.gpu_estimate import gpu_estimate
    from orchestrator.display.progress import Progress
    from orchestrator.execution.cluster import (
        GrowthWatch,
        check_local_resources,
        cluster_grows,
        ray_session,
    )
    from orchestrator.execution.driver import run_study
    from orchestrator.execution.lease import Lease
    from orchestrator.execution.nodes import check_nodes, check_settings
    from orchestrator.execution.preflight import preflight, provenance, study_inputs
    from orchestrator.monitoring.prometheus import PrometheusGauges
    from orchestrator.search.study import Study
    from orchestrator.storage.stores.opening import open_store
    from orchestrator.storage.study_record import StudyRecord
    from orchestrator.tracking.observer import TrackingObserver
    from orchestrator.tracking.service import open_service

    if settings.ray_address is None:
        check_local_resources(config.resources)
    else:
        check_settings(settings)
    service = open_service(settings)
    service.check()
    preflight(config, settings)
    if config.resources.gpus_per_worker:
        console.print(gpu_estimate(config), soft_wrap=True)
    record = StudyRecord(open_store(settings.store_uri), config.name)
    say = partial(console.print, soft_wrap=True)
    with Lease(record.store, config.name, say=say) as lease:
        record.create_or_check(config, provenance(), study_inputs(config))
        if record.info.provenance.get("source_sha256") != code_version().source_sha256:
            say(f"the study was started with other code and goes on with {code_version().name}")
        with ray_session(settings.ray_address, config.resources):
            checks = [lease.check]
            if settings.ray_address is not None:
                if cluster_grows():
                    checks.append(GrowthWatch(config.resources, say).look)
                check_nodes(config, settings.store_uri)
            study = Study(config, record)
            tracking = TrackingObserver(service, record)
            gauges = PrometheusGauges(lambda: tracking.num_waiting)
            observers = [tracking, gauges, Progress(console)]
            errors = run_study(study, settings.store_uri, observers, checks)
    show_results(study, errors, console)
    if not tracking.delivered:
        command = f"python -m orchestrator.sync {study.config.name}"
        say(f"{service.name} lacks the latest results; run: {command}")
    say(f"results: {settings.store_uri}/{study.config.name}")
    say(f"compare them: {service.how_to_compare(record)}")
    failed = [outcome.state == "failed" for outcome in study.outcomes.values()]
    return 1 if errors or all(failed) else 0


def show_results(study: Study, errors: Mapping[int, str], console: Console) -> None:
    """Prints a study's trials, best first, and what is missing.

    Args:
        errors: trials that could not be scored, with the reason.
    """
    from orchestrator.display.tables import code_lines, points_table, trials_table

    results = with_later_scores(study.record, study.record.results())
    console.print(trials_table(study.config, results))
    if study.config.search.num_repeats > 1:
        console.print(points_table(study.config, results))
    for line in code_lines(results):
        console.print(line, soft_wrap=True)
    if study.stop_reason:
        console.print(f"stopped early: {study.stop_reason}")
    for number, error in errors.items():
        console.print(f"trial {number} has no score: {error}; run the same command to try again")
    if lacking := lacking_scores(study.config, results):
        console.print(
            f"ended before the study had {', '.join(lacking)}; to score them: "
            f"python -m orchestrator.evaluate {study.config.name}",
            soft_wrap=True,
        )


def lacking_scores(config: StudyConfig, results: Sequence[TrialResult]) -> list[str]:
    """Benchmarks, each with the trials that have a checkpoint but no score by its protocol."""
    lacking = {
        benchmark.name: [
            str(r.number) for r in results if r.checkpoint and benchmark not in r.protocols
        ]
        for benchmark in config.benchmarks
    }
    return [f"{name} (trials {', '.join(numbers)})" for name, numbers in lacking.items() if numbers]
