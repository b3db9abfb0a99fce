"""A study's record in the store: the only truth about what was proposed, trained and scored.

::

    <study>/study.json                          what the study is and what it ran on
    <study>/control/000001.json                 one change of a study that may be running
    <study>/trials/0003/trial.json              written before the trial starts
    <study>/trials/0003/attempts/               who worked on it (see
    :mod:`orchestrator.storage.attempts`), and logs <study>/trials/0003/checkpoints/
    published whole (see :mod:`orchestrator.storage.store`)
    <study>/trials/0003/scores/<benchmark>.json one benchmark's score of the best checkpoint
    <study>/trials/0003/result.json             written once, last: its existence means "finished"
    <study>/baselines/<way>/scores/<benchmark>.json  the same on the frozen CLIP, for each way of
    drawing clips
"""

from __future__ import annotations

import hashlib
import json
import re
import socket
import tempfile
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

from pydantic import ValidationError

from orchestrator.code_version import code_version
from orchestrator.config import BenchmarkConfig, Objective, Scalar, StudyConfig
from orchestrator.storage.attempts import Attempt, Checkpoint, SupersededError, TrialFolder
from orchestrator.storage.records import (
    Baseline,
    BenchmarkScore,
    Control,
    ControlChange,
    StudyInfo,
    StudyInputs,
    TrialRecord,
    TrialResult,
    best_epoch,
    best_epochs,
    flatten,
)
from orchestrator.storage.store import KeyExistsError, MissingKeyError, Store, StoreError
from vitaclip.checkpoint import INFO_FILE, CheckpointInfo, Progress, read_info
from vitaclip.config import Config, describe
from vitaclip.errors import CheckpointError, InputError

Contender = int | Baseline  # what is scored: a trial, by its number, or the frozen CLIP

Unreadable = list[str]  # where readers that go on nevertheless note what they left out, and why

_Record = TypeVar("_Record", bound=Config)
_Numbered = TypeVar("_Numbered", TrialRecord, TrialResult)

# What may change between two starts of one study: how long and on what it runs, not what it
# measures.
MAY_CHANGE = (
    "question",
    "hypothesis",
    "resources",
    "benchmarks",
    "search.num_trials",
    "search.patience",
    "search.max_",
)


class StudyRecord:
    """Reads and writes one study's record."""

    def __init__(self, store: Store, name: str) -> None:
        self.store = store
        self.name = name

    def exists(self) -> bool:
        """Whether the study was ever started."""
        return self.store.exists(f"{self.name}/study.json")

    def create_or_check(
        self,
        config: StudyConfig,
        provenance: Mapping[str, Scalar],
        inputs: StudyInputs | None = None,
    ) -> None:
        """Writes ``study.json``, or checks that the study there asks the same question of the same
        data.

        Number of trials, benchmarks, resources and prose may differ from the last start; they are
        updated, and data of benchmarks that are new is added.

        Raises:
            InputError: the study exists with another config, other data or another backbone; names
                every difference.
        """
        inputs = inputs or StudyInputs()
        if not self.exists():
            info = StudyInfo(
                id=uuid.uuid4().hex,
                created_at=datetime.now(UTC),
                config=config,
                config_hash=config_hash(config),
                provenance=dict(provenance),
                inputs=inputs,
            )
        else:
            info = self._read("study.json", StudyInfo)
            self._check_same(_identity(info.config), _identity(config))
            self._check_inputs(info.inputs, inputs)
            if config.search.num_trials != info.config.search.num_trials and self._control_keys():
                # the latest word
                self.add_change(ControlChange(num_trials=config.search.num_trials))
            info = info.model_copy(update={"config": config, "inputs": info.inputs.joined(inputs)})
        self._write("study.json", info)
        self.__dict__.pop("info", None)

    @cached_property
    def info(self) -> StudyInfo:
        """``study.json``. Raises InputError if the study was never started."""
        try:
            return self._read("study.json", StudyInfo)
        except MissingKeyError:
            raise InputError(
                f"study {self.name!r}: not found in {self.store.uri}; list the studies with "
                "`python -m orchestrator.ls`, or name another store in VITACLIP_STORE"
            ) from None

    def _check_inputs(self, before: StudyInputs, now: StudyInputs) -> None:
        if differing := before.differences(now):
            raise InputError(
                f"study {self.name!r} in {self.store.uri} was started on other data:\n"
                + "\n".join(f"  {text}" for text in differing)
                + "\ngive the new study another name (--set name=...), or restore what was there"
            )

    def _check_same(self, before: Mapping[str, Any], now: Mapping[str, Any]) -> None:
        differing = [
            key for key in sorted(before.keys() | now.keys()) if before.get(key) != now.get(key)
        ]
        if differing:
            lines = [
                f"  {key}: {json.dumps(before.get(key))}, found {json.dumps(now.get(key))}"
                for key in differing
            ]
            raise InputError(
                f"study {self.name!r} in {self.store.uri} was started with other values:\n"
                + "\n".join(lines)
                + "\ngive the new study another name (--set name=...), or restore the values"
            )

    def control(self) -> Control:
        """How many trials there are to be, whether the study is paused, and the points to try
        soon.
        """
        keys = self._control_keys()
        texts = zip(keys, self.store.read_texts(keys), strict=True)
        return Control.of(self.info.config, (self._parse(*pair, ControlChange) for pair in texts))

    def add_change(self, change: ControlChange) -> None:
        """Changes a study that may be running. Changes that are made at once all count."""
        while True:
            keys = self._control_keys()
            number = int(Path(keys[-1]).stem) + 1 if keys else 1
            try:
                self.store.create_json(
                    f"{self.name}/control/{number:06d}.json", change.model_dump(mode="json")
                )
            except KeyExistsError:  # by another terminal, at the same moment
                continue
            return

    def _control_keys(self) -> list[str]:
        return sorted(
            key for key in self.store.list(f"{self.name}/control") if key.endswith(".json")
        )

    def write_trial(self, trial: TrialRecord) -> None:
        """Records a proposal, before it starts. Raises KeyExistsError if the number is taken."""
        key = f"{self._trial_key(trial.number)}/trial.json"
        self.store.create_json(key, trial.model_dump(mode="json"))

    def write_result(self, result: TrialResult) -> None:
        """Records how a trial ended. Raises KeyExistsError if it has ended already."""
        key = f"{self._trial_key(result.number)}/result.json"
        self.store.create_json(key, result.model_dump(mode="json"))

    def trial(self, number: int) -> TrialRecord:
        """One proposal. Raises InputError if there is none of this number."""
        try:
            return self._read(f"trials/{number:04d}/trial.json", TrialRecord)
        except MissingKeyError:
            raise InputError(
                f"study {self.name!r} has no trial {number}; list them with "
                f"`python -m orchestrator.ls {self.name}`"
            ) from None

    def trials(self, unreadable: Unreadable | None = None) -> list[TrialRecord]:
        """Every trial ever proposed, by number. Files that cannot be read raise StoreError, or are
        noted.
        """
        return self._read_all("trial.json", TrialRecord, unreadable)

    def result(self, number: int) -> TrialResult | None:
        """How a trial ended; None if it has not."""
        key = f"trials/{number:04d}/result.json"
        return self._read(key, TrialResult) if self.store.exists(f"{self.name}/{key}") else None

    def results(self, unreadable: Unreadable | None = None) -> list[TrialResult]:
        """Every finished trial, by number. Files that cannot be read raise StoreError, or are
        noted.
        """
        return self._read_all("result.json", TrialResult, unreadable)

    def with_later_scores(
        self, results: Iterable[TrialResult], unreadable: Unreadable | None = None
    ) -> list[TrialResult]:
        """The results; where one lacks a benchmark that the study has now, with the scores made
        since it ended.

        A benchmark that was scored by another protocol than the study's is lacking, and left out.
        """
        wanted = {benchmark.name: benchmark for benchmark in self.info.config.benchmarks}
        return [
            result
            if not result.checkpoint or set(wanted.values()) <= set(result.protocols)
            else self._with_scores(result, wanted, unreadable)
            for result in results
        ]

    def _with_scores(
        self,
        result: TrialResult,
        wanted: Mapping[str, BenchmarkConfig],
        unreadable: Unreadable | None,
    ) -> TrialResult:
        scores = [
            score
            for score in self.scores(result.number, unreadable)
            if wanted.get(score.benchmark.name, score.benchmark) == score.benchmark
        ]
        benchmarks = {key: value for score in scores for key, value in score.metrics.items()}
        protocols = tuple(score.benchmark for score in scores)
        return result.model_copy(update={"benchmarks": benchmarks, "protocols": protocols})

    def begin_attempt(self, number: int) -> Attempt | None:
        """Takes the next attempt at a trial; older ones may write no more. None: the trial has
        finished.
        """
        while True:
            folder = self._folder(number)
            if folder.is_finished:
                return None
            attempt = Attempt(
                number=folder.newest_attempt + 1,
                token=uuid.uuid4().hex,
                goes_on_from=folder.checkpoints[-1].key if folder.checkpoints else None,
                began_at=datetime.now(UTC),
                host=socket.gethostname(),
                code=code_version(),
            )
            try:
                key = f"{folder.key}/attempts/{attempt.number:04d}.json"
                self.store.create_json(key, attempt.model_dump(mode="json"))
            except KeyExistsError:  # another worker began at the same moment
                continue
            return attempt

    def publish_checkpoint(
        self,
        number: int,
        attempt: int,
        folder: Path,
        history: Sequence[Mapping[str, float]],
        step: int = 0,
    ) -> str:
        """Uploads a checkpoint, deletes all but it and the best ones, and returns its key.

        Args:
            number: the trial's.
            attempt: the number of the attempt that made the checkpoint.
            folder: where its files lie.
            history: metrics of the epochs done.
            step: optimizer steps done in the epoch under way; 0: the checkpoint is of an epoch's
                end.

        Raises:
            SupersededError: a newer attempt has begun, or the trial has finished; no checkpoint of
                theirs is touched.
        """
        self._checked_folder(number, attempt)
        epoch = int(history[-1]["epoch"]) if history else 0
        key = self._checkpoint_key(number, attempt, epoch, step)
        self.store.upload_folder(folder, key)
        self._prune(
            self._checked_folder(number, attempt),
            attempt,
            Checkpoint(attempt, epoch, step, key),
            history,
        )
        return key

    def _checked_folder(self, number: int, attempt: int) -> TrialFolder:
        folder = self._folder(number)
        if folder.is_finished or folder.newest_attempt > attempt:
            why = (
                "the trial has finished"
                if folder.is_finished
                else f"attempt {folder.newest_attempt} has begun"
            )
            raise SupersededError(
                f"study {self.name!r}, trial {number}: {why}; attempt {attempt} was given up and "
                "writes no more"
            )
        return folder

    def _prune(
        self,
        folder: TrialFolder,
        attempt: int,
        newest: Checkpoint,
        history: Sequence[Mapping[str, float]],
    ) -> None:
        """Deletes what no reader needs of this attempt and of those before it."""
        num_best = self.info.config.resources.num_best_checkpoints
        best = best_epochs(history, self.objective)[:num_best] if history else []
        keep = {newest, *(c for c in folder.checkpoints if c.step == 0 and c.epoch in best)}
        for other in sorted(folder.all_checkpoints - keep):
            if other.attempt <= attempt:
                self.store.delete(other.key)

    def checkpoints(self, number: int) -> dict[int, str]:
        """Epoch -> key of every whole checkpoint of an epoch's end, oldest first."""
        return {c.epoch: c.key for c in self._folder(number).checkpoints if not c.step}

    def newest_checkpoint(self, number: int) -> str | None:
        """Key of the last whole checkpoint, from which the trial resumes."""
        checkpoints = self._folder(number).checkpoints
        return checkpoints[-1].key if checkpoints else None

    def _folder(self, number: int) -> TrialFolder:
        return TrialFolder(self.store, self._trial_key(number))

    def best_checkpoint(self, number: int) -> str | None:
        """Key of the whole checkpoint whose epoch was best in the first objective."""
        checkpoints = self.checkpoints(number)
        kept = [metrics for metrics in self.history(number) if int(metrics["epoch"]) in checkpoints]
        return checkpoints[best_epoch(kept, self.objective)] if kept else None

    def history(self, number: int) -> list[dict[str, float]]:
        """Metrics of every epoch up to the newest checkpoint."""
        return list(self.progress(number).history)

    def progress(self, number: int) -> Progress:
        """How far the newest checkpoint says that a trial has come."""
        newest = self.newest_checkpoint(number)
        while newest is not None:
            try:
                return self.checkpoint_info(newest).progress
            except MissingKeyError:
                gone, newest = newest, self.newest_checkpoint(number)
                # else it was pruned a moment ago, because a newer one is there
                if newest == gone:
                    raise StoreError(
                        f"{self.store.uri}: {gone} has no {INFO_FILE}; delete this checkpoint to "
                        "go back to an "
                        "earlier one"
                    ) from None
        return Progress()

    def checkpoint_info(self, key: str) -> CheckpointInfo:
        """What the checkpoint under ``key`` says of itself, without downloading its tensors. Raises
        CheckpointError.
        """
        with tempfile.TemporaryDirectory() as folder:
            self.store.read_file(f"{key}/{INFO_FILE}", Path(folder) / INFO_FILE)
            try:
                return read_info(Path(folder))
            except CheckpointError as error:
                raise CheckpointError(
                    f"{str(error).replace(folder, f'{self.store.uri}: {key}')}; delete this "
                    "checkpoint to go back to "
                    "an earlier one"
                ) from None

    def attempts(self, number: int) -> list[Attempt]:
        """Who worked on a trial, oldest first."""
        return self._folder(number).attempts

    def log(self, number: int) -> str:
        """A trial's log over all its attempts, one JSON object a line; empty if it was never
        started.
        """
        return "".join(self.store.read_texts(self._folder(number).log_keys))

    def write_log(self, number: int, attempt: int, lines: str) -> None:
        """Replaces the log of one attempt."""
        self.store.write_text(f"{self._trial_key(number)}/attempts/{attempt:04d}.jsonl", lines)

    @property
    def objective(self) -> Objective:
        """The first objective, by which trials and epochs are ranked."""
        return self.info.config.search.objectives[0]

    def read_score(self, contender: Contender, benchmark: BenchmarkConfig) -> BenchmarkScore | None:
        """The stored score of this benchmark, if it was computed by exactly this protocol."""
        key = _score_key(contender, benchmark)
        if not self.store.exists(f"{self.name}/{key}"):
            return None
        score = self._read(key, BenchmarkScore)
        return score if score.benchmark == benchmark else None

    def write_score(self, contender: Contender, score: BenchmarkScore) -> None:
        """Stores a benchmark's score."""
        self._write(_score_key(contender, score.benchmark), score, indent=None)

    def scores(
        self, contender: Contender, unreadable: Unreadable | None = None
    ) -> list[BenchmarkScore]:
        """All stored scores of one trial or baseline. Files that cannot be read raise StoreError,
        or are noted.
        """
        keys = self.store.list(f"{self.name}/{_score_folder(contender)}")
        return list(self._read_each(keys, BenchmarkScore, unreadable))

    def benchmarks(self, number: int) -> dict[str, float]:
        """Metrics of all scores of one trial, those computed after its result included."""
        return {key: value for score in self.scores(number) for key, value in score.metrics.items()}

    def _trial_key(self, number: int) -> str:
        return f"{self.name}/trials/{number:04d}"

    def _checkpoint_key(self, number: int, attempt: int, epoch: int, step: int) -> str:
        part = f"-step-{step:06d}" if step else ""
        return (
            f"{self._trial_key(number)}/checkpoints/attempt-{attempt:04d}/epoch-{epoch:04d}{part}"
        )

    def _read_all(
        self, name: str, kind: type[_Numbered], unreadable: Unreadable | None
    ) -> list[_Numbered]:
        """The file ``name`` of every trial that has it, by number."""
        pattern = re.compile(rf"{re.escape(self.name)}/trials/(\d+)/{re.escape(name)}")
        keys = list(filter(pattern.fullmatch, self.store.list(f"{self.name}/trials")))
        try:
            texts = zip(keys, self.store.read_texts(keys), strict=True)
            found = [self._parse(key, text, kind) for key, text in texts]
        except StoreError:
            found = list(self._read_each(keys, kind, unreadable))  # slower: one after the other
        return sorted(found, key=lambda one: one.number)

    def _read_each(
        self, keys: Iterable[str], kind: type[_Record], unreadable: Unreadable | None
    ) -> Iterator[_Record]:
        for key in keys:
            try:
                yield self._parse(key, self.store.read_text(key), kind)
            except StoreError as error:
                if unreadable is None:
                    raise
                unreadable.append(str(error))

    def _read(self, key: str, kind: type[_Record]) -> _Record:
        key = f"{self.name}/{key}"
        return self._parse(key, self.store.read_text(key), kind)

    def _parse(self, key: str, text: str, kind: type[_Record]) -> _Record:
        try:
            record = kind.model_validate_json(text)
        except (ValidationError, RecursionError) as error:
            reason = describe(error) if isinstance(error, ValidationError) else "is nested too deep"
            raise StoreError(
                f"{self.store.uri}: {key} is no {kind.__name__} of this version: {reason}; "
                f"{_way_out(key)}"
            ) from None
        number = re.search(r"/trials/(\d+)/(?:trial|result)\.json$", key)
        if number and getattr(record, "number", None) != int(number[1]):
            raise StoreError(f"{self.store.uri}: {key} tells of another trial; {_way_out(key)}")
        return record

    def _write(self, key: str, record: Config, indent: int | None = 1) -> None:
        self.store.write_json(f"{self.name}/{key}", record.model_dump(mode="json"), indent=indent)


def _score_folder(contender: Contender) -> str:
    if isinstance(contender, Baseline):
        return f"baselines/{contender.key}/scores"
    return f"trials/{contender:04d}/scores"


def _score_key(contender: Contender, benchmark: BenchmarkConfig) -> str:
    return f"{_score_folder(contender)}/{benchmark.name.replace('/', '-')}.json"


def _way_out(key: str) -> str:
    """What to do about a record that cannot be read."""
    name = key.rpartition("/")[2]
    if "/scores/" in key:
        return "delete it: `python -m orchestrator.evaluate STUDY` makes it again"
    if name == "result.json":
        return "delete it: the next start of the sweep writes it again"
    if "/control/" in key:
        return "delete it, and ask for the change again"
    return "restore it from a copy, or start the study under another name (--set name=...)"


def study_names(store: Store) -> list[str]:
    """The studies that a store holds."""
    keys = (key.split("/") for key in store.list(""))
    return [parts[0] for parts in keys if len(parts) == 2 and parts[1] == "study.json"]


def config_hash(config: StudyConfig) -> str:
    """SHA-256 over everything that decides what the study measures."""
    return hashlib.sha256(json.dumps(_identity(config), sort_keys=True).encode()).hexdigest()


def _identity(config: StudyConfig) -> dict[str, Any]:
    flat = flatten(config.model_dump(mode="json"))
    return {key: value for key, value in flat.items() if not key.startswith(MAY_CHANGE)}
