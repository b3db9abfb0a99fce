"""Two small sweeps on an own Ray: two trials at once on half a GPU each, and one on a whole."""

from __future__ import annotations

import time
from pathlib import Path

from benchmarks.gpu.feeding import DATASET
from benchmarks.gpu.models import backbone_of
from benchmarks.gpu.sizes import Sizes
from orchestrator.config import StudyConfig
from orchestrator.execution.cluster import ray_session
from orchestrator.execution.driver import run_study
from orchestrator.search.study import Study
from orchestrator.storage.stores.opening import open_store
from orchestrator.storage.study_record import StudyRecord


def measure_sweeps(sizes: Sizes, folder: Path) -> list[dict[str, object]]:
    """How long each takes, and how its trials ended."""
    studies = [
        _study(sizes, "half_a_gpu_each", num_trials=2, gpus_per_worker=0.5),
        _study(sizes, "a_gpu", num_trials=1, gpus_per_worker=1),
    ]
    with ray_session(None, studies[0].resources):
        return [_run(study, folder) for study in studies]


def _study(sizes: Sizes, name: str, *, num_trials: int, gpus_per_worker: float) -> StudyConfig:
    data = {
        "dataset": DATASET,
        "num_frames": sizes.num_frames,
        "limit": 4 * sizes.loader_batch,
    }
    return StudyConfig.model_validate(
        {
            "name": name,
            "question": "Do trials run on a GPU?",
            "hypothesis": "They do.",
            "train": {
                "backbone": backbone_of(sizes).model_dump(),
                "data": data,
                "precision": sizes.precision,
                "epochs": 1,
                "batch_size": sizes.loader_batch,
            },
            "search_space": {"seed": {"type": "int", "low": 0, "high": 9}},
            "search": {"num_trials": num_trials, "sampler": {"name": "random"}},
            "benchmarks": [{"dataset": DATASET, "split": "val", "mode": "supervised"}],
            "resources": {
                "gpus_per_worker": gpus_per_worker,
                "max_concurrent_trials": num_trials,
            },
        }
    )


def _run(config: StudyConfig, folder: Path) -> dict[str, object]:
    store_uri = str(folder / "store")
    record = StudyRecord(open_store(store_uri), config.name)
    record.create_or_check(config, {})
    started = time.perf_counter()
    errors = run_study(Study(config, record), store_uri)
    results = [record.trial(number).result for number in range(config.search.num_trials)]
    states = [result.state if result else "unfinished" for result in results]
    if errors or set(states) != {"complete"}:
        raise RuntimeError(f"{config.name}: trials ended {states}, not scored: {errors}")
    return {
        "sweep": config.name,
        "trials": config.search.num_trials,
        "seconds": time.perf_counter() - started,
    }
