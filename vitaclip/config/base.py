"""What every config has in common."""

from __future__ import annotations

from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, ValidationError

MAX_DESCRIBED = 1000  # mistakes: to look at millions would take all memory
Fraction = Annotated[float, Field(ge=0, le=1)]
# They become folders, metrics' names and parts of an environment variable.
DatasetName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$")]
SplitName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]


class Config(BaseModel):
    """Base of everything that comes from a file: immutable, and unknown keys are errors."""

    model_config = ConfigDict(frozen=True, extra="forbid", allow_inf_nan=False)


def describe(error: ValidationError) -> str:
    """The first mistake in a file, in one line: its field, what was found and what is allowed."""
    if error.error_count() > MAX_DESCRIBED:
        return f"{error.error_count()} of its values cannot be used"
    first = error.errors(include_url=False)[0]
    place = ".".join(map(str, first["loc"])) or "the whole"
    return f"{place}: {first['msg']}, found {str(first['input'])[:80]!r}"
