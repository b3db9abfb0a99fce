"""Scratch folders, when several processes make and clear them at the same moment."""

from __future__ import annotations

import tempfile
from pathlib import Path
from typing import Any

import pytest

from orchestrator.execution.scratch import reap_scratch, scratch_folder


def test_a_folder_whose_owner_is_being_written_is_left_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    write_text = Path.write_text

    def write_while_another_process_clears_up(path: Path, *content: Any) -> int:
        path.touch()
        reap_scratch()
        return write_text(path, *content)

    monkeypatch.setattr(Path, "write_text", write_while_another_process_clears_up)
    with scratch_folder() as folder:
        assert folder.is_dir()
    assert list(tmp_path.iterdir()) == []
