"""A running study in Prometheus' terms, beside Ray's own metrics of nodes, GPUs and memory.

Ray exports them on every node's metrics port as ``ray_vitaclip_...``. All are set by the driver
from what trials report after each epoch, with the study's name as their only label: a thousand
trials make no more series than one.
"""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Mapping

from ray.util.metrics import Gauge

from orchestrator.evaluation.ranking import rank
from orchestrator.events.tally import Tally
from orchestrator.search.study import Study
from orchestrator.storage.records.trial import TrialResult

_INTERVAL_S = 1.0
_STATES = ("waiting", "running", "paused", "scoring", "complete", "pruned", "failed")
GAUGES = {
    "trials": "trials in each state; waiting: not started yet; paused: may be promoted",
    "trials_planned": "trials that the study will have",
    "epochs": "epochs that ended since this driver started",
    "retries": "times that a trial broke off and was to go on, since this driver started",
    "clips_per_second": "training speed of all running trials together, in their last epochs",
    "data_wait_ratio": "share of their last epochs that running trials waited for decoded video",
    "broken_videos": "unreadable videos that running trials have replaced",
    "objective_best": "best value of the first objective among finished trials",
    "tracking_waiting": "epochs and results that MLflow has not taken yet",
}


class PrometheusGauges(Tally):
    """Publishes what the study does. Ray must be running.

    Args:
        num_waiting: how many events the tracking service has not taken yet.
    """

    def __init__(self, num_waiting: Callable[[], int]) -> None:
        super().__init__()
        self._num_waiting = num_waiting
        self._num_epochs = self._num_retries = 0
        self._gauges = {
            name: Gauge(
                f"vitaclip_{name}",
                text,
                tag_keys=("study", "state") if name == "trials" else ("study",),
            )
            for name, text in GAUGES.items()
        }
        self._published = 0.0

    def opened(self, study: Study) -> None:
        super().opened(study)
        self._study = study
        finished = [study.outcomes[number] for number in study.finished]
        self._best = [(outcome.state, outcome.values) for outcome in finished]
        for gauge in self._gauges.values():
            gauge.set_default_tags({"study": study.config.name})

    def epoch_ended(self, number: int, metrics: Mapping[str, float]) -> None:
        super().epoch_ended(number, metrics)
        self._num_epochs += 1

    def broke_off(self, number: int, reason: str) -> None:
        super().broke_off(number, reason)
        self._num_retries += 1

    def finished(self, result: TrialResult) -> None:
        super().finished(result)
        self._best.append((result.state, result.values))

    def refreshed(self) -> None:
        # Ray forgets a value once it is collected: all are published again and again.
        if time.monotonic() - self._published < _INTERVAL_S:
            return
        self._published = time.monotonic()
        counts = self.ended | Counter(
            running=len(self.running), paused=len(self.resting), scoring=len(self.scoring)
        )
        counts["waiting"] = max(0, self._study.num_trials - sum(counts.values()))
        for state in _STATES:
            self._gauges["trials"].set(counts[state], {"state": state})
        self._gauges["trials_planned"].set(self._study.num_trials)
        self._gauges["epochs"].set(self._num_epochs)
        self._gauges["retries"].set(self._num_retries)
        self._gauges["clips_per_second"].set(self._sum("time/clips_per_s"))
        epochs_s = self._sum("time/epoch_s")
        self._gauges["data_wait_ratio"].set(
            self._sum("time/data_wait_s") / epochs_s if epochs_s else 0.0
        )
        self._gauges["broken_videos"].set(self._sum("data/broken"))
        self._gauges["tracking_waiting"].set(self._num_waiting())
        self._best = sorted(self._best, key=lambda trial: rank(self._study.config, *trial))[:1]
        if self._best and (values := self._best[0][1]):
            self._gauges["objective_best"].set(values[0])

    def _sum(self, key: str) -> float:
        return sum(running.metrics.get(key, 0.0) for running in self.running.values())
