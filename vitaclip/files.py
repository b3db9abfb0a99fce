"""Writing files that are whole or not there, and as readable for others as any new file."""

from __future__ import annotations

import uuid
from pathlib import Path

from vitaclip.errors import InputError


def write_whole(path: Path, content: bytes) -> None:
    """Writes or replaces a file; whatever interrupts it leaves the file that was there before.

    Raises:
        InputError: the file cannot be written there.
    """
    unfinished = path.with_name(f".{uuid.uuid4().hex}.tmp")
    try:
        unfinished.write_bytes(content)
        unfinished.replace(path)
    except OSError as error:
        raise InputError(
            f"{path}: cannot be written ({error.strerror}); name a file in a folder that can"
        ) from error
    finally:
        unfinished.unlink(missing_ok=True)
