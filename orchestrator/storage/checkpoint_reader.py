"""What stored checkpoints say of themselves, without downloading their tensors."""

from __future__ import annotations

import tempfile
from functools import lru_cache
from pathlib import Path

from orchestrator.storage.stores.base import Store
from vitaclip.checkpoint_info import INFO_FILE, CheckpointInfo, read_info
from vitaclip.errors import CheckpointError

_NUM_KEPT = 32  # of the trials that are running or were just finished


class CheckpointReader:
    """Reads ``checkpoint.json`` of checkpoints in a store.

    What was published never changes, so each is fetched once, whoever asks: the driver for the
    result, or the thread that tells a tracking service.
    """

    def __init__(self, store: Store) -> None:
        self._store = store
        self.read = lru_cache(_NUM_KEPT)(self._fetch)

    def _fetch(self, key: str) -> CheckpointInfo:
        """What the checkpoint under ``key`` says. Raises MissingKeyError or CheckpointError."""
        with tempfile.TemporaryDirectory() as folder:
            self._store.read_file(f"{key}/{INFO_FILE}", Path(folder) / INFO_FILE)
            try:
                return read_info(Path(folder))
            except CheckpointError as error:
                raise CheckpointError(
                    f"{str(error).replace(folder, f'{self._store.uri}: {key}')}; delete this "
                    "checkpoint to go back to an earlier one"
                ) from None
