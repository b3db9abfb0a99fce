"""One trial's part of a study's record."""

from __future__ import annotations

from functools import cached_property

from orchestrator.config import Objective
from orchestrator.storage.best_epochs import best_epoch
from orchestrator.storage.checkpoint_reader import CheckpointReader
from orchestrator.storage.keys import Checkpoint, TrialKeys, is_attempt, is_log, number_of
from orchestrator.storage.record_files import RecordFiles
from orchestrator.storage.records.attempt import Attempt
from orchestrator.storage.records.decision import Verdict
from orchestrator.storage.records.trial import TrialInfo, TrialResult
from orchestrator.storage.scores import Scores
from orchestrator.storage.stores.base import MANIFEST, MissingKeyError, StoreError
from vitaclip.checkpoint_info import INFO_FILE, CheckpointInfo, Progress
from vitaclip.errors import InputError


class TrialRecord:
    """A trial as its record tells of it at one moment: each of its files is read when it is first
    asked for, and once. Ask the study for a new one to see what has happened since.
    """

    def __init__(
        self, files: RecordFiles, checkpoint_reader: CheckpointReader, keys: TrialKeys
    ) -> None:
        self._record_files = files
        self._checkpoint_reader = checkpoint_reader
        self.keys = keys
        self.scores = Scores(files, keys.scores)

    @cached_property
    def info(self) -> TrialInfo:
        """What was proposed. Raises InputError if there is no trial of this number."""
        try:
            return self._record_files.read(self.keys.info, TrialInfo)
        except MissingKeyError:
            raise InputError(
                f"study {self.keys.study!r} has no trial {self.keys.number}; list them with "
                f"`python -m orchestrator.ls {self.keys.study}`"
            ) from None

    @cached_property
    def result(self) -> TrialResult | None:
        """How it ended; None if it has not."""
        return self._record_files.read_if_there(self.keys.result, TrialResult)

    @property
    def is_finished(self) -> bool:
        """Whether its result is written."""
        return self.keys.result in self.files

    @cached_property
    def newest_attempt(self) -> int:
        """The number of the last attempt that began; 0: none has."""
        return max(map(number_of, filter(is_attempt, self.files)), default=0)

    @cached_property
    def attempts(self) -> list[Attempt]:
        """Who worked on it, oldest first."""
        return self._record_files.read_all(list(filter(is_attempt, self.files)), Attempt)

    @property
    def verdicts(self) -> list[Verdict]:
        """What was decided of it after epochs that are judged, in their order."""
        keys = [key for key in self.files if key.startswith(f"{self.keys.verdicts}/")]
        return self._record_files.read_all(keys, Verdict)

    @property
    def log(self) -> str:
        """The log of all its attempts, one JSON object a line; empty if it was never started."""
        return "".join(self._record_files.store.read_texts(list(filter(is_log, self.files))))

    @cached_property
    def all_checkpoints(self) -> set[Checkpoint]:
        """Every checkpoint of which anything is stored: half uploaded ones and those that do not
        count, too.
        """
        return {found for found in map(Checkpoint.of, self.files) if found}

    @cached_property
    def checkpoints(self) -> list[Checkpoint]:
        """The whole checkpoints that count (:mod:`orchestrator.storage.attempts`), oldest first."""
        left = {c for c in self.all_checkpoints if f"{c.key}/{MANIFEST}" in self.files}
        counted: dict[tuple[int, int], Checkpoint] = {}
        attempt, last = self.newest_attempt, (float("inf"), 0.0)
        while left:
            found = {c.place: c for c in left if c.attempt == attempt and c.place <= last}
            counted = found | counted
            left = {c for c in left if c.attempt < attempt}
            start = self._start_of(attempt) if left else None
            if start is None:
                break
            attempt, last = start.attempt, start.place
        return [counted[place] for place in sorted(counted)]

    def files_of(self, checkpoint: Checkpoint) -> list[str]:
        """The keys of all that is stored of a checkpoint."""
        return [key for key in self.files if Checkpoint.of(key) == checkpoint]

    @property
    def newest_checkpoint(self) -> str | None:
        """Key of the last whole checkpoint, from which the trial resumes."""
        return self.checkpoints[-1].key if self.checkpoints else None

    @cached_property
    def checkpoint_info(self) -> CheckpointInfo | None:
        """What the newest checkpoint says of itself; None: there is none."""
        while (newest := self.newest_checkpoint) is not None:
            try:
                return self._checkpoint_reader.read(newest)
            except MissingKeyError:
                self._look_again()
                # else it was pruned a moment ago, because a newer one is there
                if self.newest_checkpoint == newest:
                    raise StoreError(
                        f"{self._record_files.store.uri}: {newest} has no {INFO_FILE}; delete this "
                        "checkpoint to go back to an earlier one"
                    ) from None
        return None

    @property
    def progress(self) -> Progress:
        """How far the newest checkpoint says that the training has come."""
        return self.checkpoint_info.progress if self.checkpoint_info else Progress()

    @property
    def history(self) -> list[dict[str, float]]:
        """Metrics of every epoch up to the newest checkpoint."""
        return list(self.progress.history)

    def best_checkpoint(self, objective: Objective) -> str | None:
        """Key of the whole checkpoint whose epoch was best."""
        history = self.history
        by_epoch = {c.epoch: c.key for c in self.checkpoints if not c.step}
        kept = [metrics for metrics in history if int(metrics["epoch"]) in by_epoch]
        return by_epoch[best_epoch(kept, objective)] if kept else None

    @cached_property
    def files(self) -> list[str]:
        """The keys of all its files."""
        return self._record_files.store.list(self.keys.folder)

    def _look_again(self) -> None:
        for name in ("files", "newest_attempt", "attempts", "all_checkpoints", "checkpoints"):
            self.__dict__.pop(name, None)

    def _start_of(self, attempt: int) -> Checkpoint | None:
        key = self._record_files.read(self.keys.attempt(attempt), Attempt).goes_on_from
        return None if key is None else Checkpoint.of(key)
