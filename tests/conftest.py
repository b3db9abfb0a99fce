"""Shared by all tests: one thread for torch, so that two cores are not fought over."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

torch.set_num_threads(1)

SHARED = Path(__file__).resolve().parents[2] / "shared"


@pytest.fixture(scope="session")
def parity_folder() -> Path:
    """Recorded cases of the released model; they lie beside the repository where the project is developed."""
    folder = SHARED / "parity"
    if not folder.is_dir():
        pytest.skip("no recorded cases of the released model beside this checkout (../shared/parity)")
    return folder
