"""Where things lie: the repository, and what its developers keep beside it."""

from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
SHARED = ROOT.parent / "shared"
SHARED_CLIPS = SHARED / "clips"
