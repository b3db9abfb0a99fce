"""Errors that a user can act on. Every message names the place, what was found, what is allowed,
what to do.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class VitaClipError(Exception):
    """Base of all errors raised on purpose by this project. Holds one string, so it survives
    pickling.
    """


class InputError(VitaClipError):
    """The user's input (a file, a key, a value, an address) cannot be used. Commands exit with code
    2.
    """


class DataError(VitaClipError):
    """A video or an annotation cannot be read."""


class CheckpointError(VitaClipError):
    """A checkpoint is incomplete, of another schema, or belongs to another backbone."""


class NonFiniteLossError(VitaClipError):
    """Training produced a NaN or infinite loss."""


class WorkerLostError(VitaClipError):
    """Another worker of this training is gone or hangs."""


def suggest(found: str, allowed: Iterable[str]) -> str:
    """Returns ``" (did you mean 'x'?)"`` for the nearest allowed word, or an empty string."""
    nearest = difflib.get_close_matches(found, list(allowed), n=1)
    return f" (did you mean '{nearest[0]}'?)" if nearest else ""


def first_line(error: BaseException) -> str:
    """What an error of a library says, in one line of at most 300 characters; its type if it says
    nothing.
    """
    return (str(error) or type(error).__name__).splitlines()[0][:300]
