"""What runs in W&B's offline files hold, so that nothing is written into them twice.

A file is LevelDB's log (blocks of 32 KiB, records split into chunks) of W&B's protocol buffers. A
run that was opened again has several files, each in a folder named after its time.
"""

from __future__ import annotations

import json
import struct
import time
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from wandb.proto import wandb_internal_pb2

_FILE_HEADER_BYTES = 7
_BLOCK_BYTES = 32 * 1024
_CHUNK_HEADER = struct.Struct("<IHB")  # checksum, length, kind
_WHOLE, _LAST = 1, 4
_MAX_WAIT_S = 60.0


@dataclass
class LoggedRun:
    """What was logged into one run, over all its files."""

    config: dict[str, Any] = field(default_factory=dict)
    # rows of metrics, in the order in which they were logged
    history: list[dict[str, Any]] = field(default_factory=list)
    summary: dict[str, Any] = field(default_factory=dict)
    exit_code: int | None = None

    @property
    def last_epoch(self) -> int:
        """The last epoch in it; 0: none."""
        return max((int(row["epoch"]) for row in self.history if "epoch" in row), default=0)


def logged_runs(folder: Path, prefix: str) -> dict[str, LoggedRun]:
    """The runs below ``folder`` whose ids begin with ``prefix``, by id."""
    runs: dict[str, LoggedRun] = {}
    paths = folder.glob(f"wandb/offline-run-*/run-{prefix}*.wandb")
    for path in sorted(paths, key=_age):
        run = runs.setdefault(path.stem.removeprefix("run-"), LoggedRun())
        for record in _records(path):
            _apply(run, record)
    return runs


def wait_until_written(path: Path) -> None:
    """Waits for the end of a run's file: W&B writes on after the call that finished the run.

    Raises:
        TimeoutError: the end has not come within a minute.
    """
    give_up = time.monotonic() + _MAX_WAIT_S
    while not any(record.WhichOneof("record_type") == "exit" for record in _records(path)):
        if time.monotonic() > give_up:
            raise TimeoutError(f"{path}: W&B has not written its end within {_MAX_WAIT_S:.0f} s")
        time.sleep(0.02)


def _age(path: Path) -> tuple[str, int]:
    """Orders a run's files by the second in the folder's name, then by the number after the id."""
    run = path.stem.removeprefix("run-")
    second, _, number = path.parent.name.removeprefix("offline-run-").partition(f"-{run}")
    return second, int(number.removeprefix("-") or 0)


def _apply(run: LoggedRun, record: Any) -> None:
    match record.WhichOneof("record_type"):
        case "run":
            run.config |= _values(record.run.config.update)
        case "history":
            run.history.append(_values(record.history.item))
        case "summary":
            run.summary |= _values(record.summary.update)
        case "exit":
            run.exit_code = record.exit.exit_code


def _values(items: Iterable[Any]) -> dict[str, Any]:
    return {".".join(item.nested_key) or item.key: json.loads(item.value_json) for item in items}


def _records(path: Path) -> Iterator[Any]:
    """The whole records of a file; one that a dying process cut off is left out."""
    content = path.read_bytes()
    position, collected = _FILE_HEADER_BYTES, b""
    while position + _CHUNK_HEADER.size <= len(content):
        left_in_block = _BLOCK_BYTES - position % _BLOCK_BYTES
        if left_in_block < _CHUNK_HEADER.size:
            position += left_in_block
            continue
        _, length, kind = _CHUNK_HEADER.unpack_from(content, position)
        position += _CHUNK_HEADER.size
        collected += content[position : position + length]
        position += length
        if kind in (_WHOLE, _LAST) and position <= len(content):
            record = wandb_internal_pb2.Record()  # type: ignore[attr-defined]
            record.ParseFromString(collected)
            yield record
            collected = b""
