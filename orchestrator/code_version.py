"""Which code a process runs: recorded with every attempt at a trial, so that results of other code
can be told.
"""

from __future__ import annotations

import hashlib
import os
import subprocess
from functools import cache
from pathlib import Path

from vitaclip.config import Config

_ROOT = Path(__file__).resolve().parents[1]


class CodeVersion(Config):
    """The commit, where it is known, and a hash of the source files, which tells changed ones
    too.
    """

    git_commit: str | None
    source_sha256: str

    @property
    def name(self) -> str:
        """What tables show."""
        return f"{(self.git_commit or 'no commit')[:12]} (sources {self.source_sha256[:12]})"


@cache
def code_version() -> CodeVersion:
    """That of this process, as its files were when it was first asked."""
    commit = _git("rev-parse", "HEAD") or os.environ.get("VITACLIP_GIT_COMMIT") or None
    return CodeVersion(git_commit=commit, source_sha256=source_sha256(_ROOT))


def source_sha256(root: Path) -> str:
    """Of the Python files of both packages, by name and content, wherever ``root`` lies."""
    digest = hashlib.sha256()
    for package in ("orchestrator", "vitaclip"):
        for path in sorted((root / package).rglob("*.py")):
            digest.update(f"{path.relative_to(root).as_posix()}\0".encode() + path.read_bytes())
    return digest.hexdigest()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", *arguments], cwd=_ROOT, capture_output=True, text=True, check=True
        )
    except (OSError, subprocess.CalledProcessError):
        return None  # an installed package has no repository
    return done.stdout.strip()
