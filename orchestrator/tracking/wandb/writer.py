"""One study's record in Weights & Biases: a run for the study and one for each trial.

Runs have ids that follow from the study's, and are opened again where they were left. What they
hold already is read first (:mod:`orchestrator.tracking.wandb.offline`, or the server's summary),
and only the rest is logged.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

import wandb

from orchestrator.dotted import flatten
from orchestrator.evaluation.ranking import best_first
from orchestrator.search.study import Study
from orchestrator.storage.records.score import Baseline
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.study_record import StudyRecord
from orchestrator.tracking.wandb.offline import LoggedRun, logged_runs, wait_until_written
from vitaclip.checkpoint_info import CurvePoint

STUDY = "study"  # the study's own run, where trials have their numbers
STATE = "state"
_FAILED = 1  # a run's exit code


def run_id(record: StudyRecord, part: str) -> str:
    """The id of a study's run: ``STUDY``, or a trial's number with four digits."""
    return f"{record.info.id[:16]}-{part}"


class WandbWriter:
    """Writes one study's record into W&B. Looks before it writes: every method may be repeated."""

    def __init__(
        self, record: StudyRecord, project: str, folder: Path, *, is_offline: bool
    ) -> None:
        """Reads what W&B's files hold of the study.

        Args:
            record: the study's.
            project: W&B's project.
            folder: where offline files are.
            is_offline: whether to write files, and ask no server.
        """
        self.record = record
        self._project = project
        self._folder = folder
        self._is_offline = is_offline
        # Read once: later on, what was logged last may not have reached the files.
        self._logged = logged_runs(folder, run_id(record, "")) if is_offline else {}
        self._runs: dict[str, wandb.Run] = {}  # those that are open

    def reconcile(self) -> None:
        """Brings W&B up to the record."""
        results = {result.number: result for result in self.record.results()}
        for trial in self.record.trials():
            if trial.number in results:
                self._complete(trial, results[trial.number])
            else:
                self.log_epochs(trial.number)
        self._log_study(list(results.values()))

    def log_epochs(self, number: int) -> None:
        """Adds the epochs of a trial that W&B lacks."""
        progress = self.record.trial(number).progress
        self._add_epochs(self.record.trial(number).info, progress.history, progress.curve)

    def log_finished(self, number: int) -> None:
        """Completes the run of a trial whose result is in the store."""
        if result := self.record.trial(number).result:
            self._complete(self.record.trial(number).info, result)
            self._log_study(self.record.results())

    def log_scores(self, numbers: Sequence[int]) -> None:
        """Adds scores that were computed after these trials had finished, where W&B has them."""
        for number in filter(self._has_trial, numbers):
            self._summarize(self._open_trial(self.record.trial(number).info), self._scores(number))
        self._close_all()

    def log_report(self, folder: Path) -> bool:
        """Adds a report's files to the study's run; False if W&B's files hold none."""
        if self._is_offline and not self._known(STUDY).config:
            return False
        artifact = wandb.Artifact(f"report-{self.record.name}", type="report")
        artifact.add_dir(str(folder))
        self._open_study().log_artifact(artifact)
        self._close_all()
        return True

    @contextlib.contextmanager
    def system_metrics(self) -> Iterator[None]:
        """W&B logs this machine's load into the study's run while it is open."""
        self._open_study()
        yield

    def stop(self) -> None:
        """Closes every run. Those of trials that have not finished are marked as failed, and are
        opened again by the study's next start.
        """
        config, results = self.record.info.config, self.record.results()
        has_ended = Study(config, self.record).has_ended
        has_succeeded = any(result.state != "failed" for result in results)
        self._open_study()
        for part, run in self._runs.items():
            is_done = part == STUDY and has_ended and has_succeeded
            self._close(run, 0 if is_done else _FAILED)
        self._runs.clear()

    def _complete(self, trial: TrialInfo, result: TrialResult) -> None:
        part = f"{trial.number:04d}"
        if self._known(part).summary.get(STATE) == result.state:
            return
        progress = self.record.trial(trial.number).progress
        self._add_epochs(trial, result.history, progress.curve)
        run = self._open_trial(trial)
        best = {f"best/{key}": value for key, value in result.metrics.items()}
        durations = {f"time/{key}": value for key, value in result.durations.items()}
        reason = {"reason": result.reason} if result.reason else {}
        self._summarize(run, {**best, **durations, **self._scores(trial.number), **reason})
        # Last: a run with its state is complete.
        self._summarize(run, {STATE: result.state})
        self._close(run, _FAILED if result.state == "failed" else 0)
        del self._runs[part]

    def _add_epochs(
        self,
        trial: TrialInfo,
        history: Sequence[Mapping[str, float]],
        curve: Sequence[CurvePoint],
    ) -> None:
        known = self._known(f"{trial.number:04d}")
        new = [metrics for metrics in history if metrics["epoch"] > known.last_epoch]
        if not new:
            return
        run = self._open_trial(trial)
        for metrics in new:
            for point in curve:
                if point.epoch == metrics["epoch"]:
                    run.log({"step": point.step, "step/loss": point.loss, "step/lr": point.lr})
            run.log(dict(metrics))
            known.history.append(dict(metrics))

    def _scores(self, number: int) -> dict[str, float]:
        """A trial's benchmarks, and the frozen CLIP's beside them."""
        baseline = Baseline.of(self.record.trial(number).info.train)
        clip = {
            f"frozen_clip/{key}": value
            for score in self.record.scores(baseline).read_all()
            for key, value in score.metrics.items()
        }
        return {**self.record.scores(number).metrics(), **clip}

    def _log_study(self, results: Sequence[TrialResult]) -> None:
        config = self.record.info.config
        summary: dict[str, Any] = {"num_finished": len(results)}
        best = best_first(config, results)[:1]
        if best and best[0].values:
            summary[f"best/{self.record.objective.metric}"] = best[0].values[0]
            summary["best_trial"] = best[0].number
        self._summarize(self._open_study(), summary)

    def _summarize(self, run: wandb.Run, values: Mapping[str, Any]) -> None:
        run.summary.update(dict(values))

    def _has_trial(self, number: int) -> bool:
        """Whether W&B's files hold the trial. A server is not asked: it makes what it lacks."""
        return not self._is_offline or bool(self._known(f"{number:04d}").config)

    def _known(self, part: str) -> LoggedRun:
        return self._logged.setdefault(run_id(self.record, part), LoggedRun())

    def _open_study(self) -> wandb.Run:
        config = self.record.info.config
        values = config.model_dump(mode="json", include={"search", "resources", "train"})
        notes = f"{config.question}\n\n{config.hypothesis}"
        return self._open(STUDY, config.name, "study", values, notes)

    def _open_trial(self, trial: TrialInfo) -> wandb.Run:
        part = f"{trial.number:04d}"
        searched = {f"search.{key}": value for key, value in trial.params.items()}
        values = flatten(trial.train.model_dump(mode="json")) | searched
        return self._open(part, f"trial {part}", "trial", values)

    def _open(
        self, part: str, name: str, kind: str, config: Mapping[str, Any], notes: str | None = None
    ) -> wandb.Run:
        """The run, opened where it was left.

        Args:
            part: of its id.
            name: as people see it.
            kind: its job type.
            config: its parameters.
            notes: prose about it.
        """
        if part not in self._runs:
            run = wandb.init(
                project=self._project,
                dir=self._folder,
                id=run_id(self.record, part),
                name=name,
                group=self.record.name,
                job_type=kind,
                config=dict(config),
                notes=notes,
                resume="allow",
                reinit="create_new",
                settings=wandb.Settings(
                    console="off",
                    silent=True,
                    disable_git=True,
                    save_code=False,
                    # Of all runs only the study's tells of the machine.
                    x_disable_stats=kind != "study",
                ),
            )
            run.define_metric("step/*", step_metric="step")
            run.define_metric("*", step_metric="epoch")
            if not self._is_offline and run.resumed:
                shown = dict(run.summary)
                self._known(part).summary.update(shown)
                self._known(part).history.append({"epoch": shown.get("epoch", 0)})
            self._runs[part] = run
        return self._runs[part]

    def _close_all(self) -> None:
        for run in self._runs.values():
            self._close(run, 0)
        self._runs.clear()

    def _close(self, run: wandb.Run, exit_code: int) -> None:
        run.finish(exit_code=exit_code)
        if self._is_offline:
            wait_until_written(Path(run.settings.sync_file))
