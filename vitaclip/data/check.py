"""Looks at every file of a data set: does it exist and open, and do all its frames decode, as
training draws them?
"""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import get_args

import numpy as np

from vitaclip.config import DataConfig
from vitaclip.data.decode import open_pyav, read_frames
from vitaclip.data.sampling import Sampling, random_indices
from vitaclip.errors import DataError

# in every report; raise it when files that an older check called good should be looked at again
CHECK = 2


@dataclass(frozen=True)
class FileReport:
    """What was found at one path. ``error`` is None if the file is good; the rest is then known."""

    path: str
    size_bytes: int
    mtime_ns: int
    error: str | None
    num_frames: int = 0
    fps: float = 0.0
    height: int = 0
    width: int = 0
    codec: str = ""
    check: int = 0

    @property
    def duration_s(self) -> float:
        return self.num_frames / self.fps if self.fps else 0.0


def check_files(
    paths: Iterable[str],
    ledger: Path,
    *,
    num_threads: int,
    on_done: Callable[[FileReport], None] = lambda _: None,
) -> list[FileReport]:
    """Checks files and writes each result to ``ledger``, one JSON line per file, as it is known.

    A file whose size and time of change stand in the ledger already, by the same check, is not
    looked at again.

    Args:
        paths: the files.
        ledger: the file of results, old and new.
        num_threads: how many files are checked at once.
        on_done: told of each result, in the order of the files.
    """
    known = {report.path: report for report in read_ledger(ledger)}
    reports = []
    ledger.parent.mkdir(parents=True, exist_ok=True)
    with ledger.open("a", encoding="utf-8") as lines, ThreadPoolExecutor(num_threads) as pool:
        lines.write("\n")  # ends a line that a killed run left half-written
        futures = [pool.submit(_check_unless_known, path, known.get(path)) for path in paths]
        try:
            for future in futures:
                report = future.result()
                if report != known.get(report.path):
                    lines.write(json.dumps(asdict(report)) + "\n")
                    lines.flush()
                on_done(report)
                reports.append(report)
        finally:
            pool.shutdown(wait=False, cancel_futures=True)
    return reports


def read_ledger(ledger: Path) -> Iterator[FileReport]:
    """The reports in a ledger; later ones of a path are newer. Lines that a killed run left are
    skipped.
    """
    if not ledger.is_file():
        return
    with ledger.open(encoding="utf-8") as lines:
        for line in lines:
            try:
                yield FileReport(**json.loads(line))
            except (ValueError, TypeError):
                continue


def _check_unless_known(path: str, known: FileReport | None) -> FileReport:
    size_bytes, mtime_ns = _identity(path)
    if known is not None and (known.size_bytes, known.mtime_ns, known.check) == (
        size_bytes,
        mtime_ns,
        CHECK,
    ):
        return known
    return check_file(path)


def check_file(path: str) -> FileReport:
    """Opens one file, reads its ends and a random draw of each sampling, then decodes all of it."""
    size_bytes, mtime_ns = _identity(path)
    report = FileReport(path, size_bytes, mtime_ns, None, check=CHECK)
    try:
        with open_pyav(path) as video:
            info = video.info
            for draw in _draws(info.num_frames):
                height, width = read_frames(video, draw).shape[1:3]
            video.count_pictures()
    except DataError as error:
        return replace(report, error=str(error))
    return replace(
        report,
        num_frames=info.num_frames,
        fps=info.fps,
        height=height,
        width=width,
        codec=info.codec,
    )


def _draws(num_frames: int) -> Iterator[list[int]]:
    """Frames that training may ask for: drawn ones are reached from key frames, and not by decoding
    everything.
    """
    data, rng = DataConfig(), np.random.default_rng(0)
    for sampling in get_args(Sampling):
        yield random_indices(num_frames, data.num_frames, sampling, data.stride, rng)
    yield [0, num_frames - 1]


def _identity(path: str) -> tuple[int, int]:
    """Size and time of change; (0, 0) for a missing file."""
    try:
        stat = Path(path).stat()
    except OSError:
        return 0, 0
    return stat.st_size, stat.st_mtime_ns
