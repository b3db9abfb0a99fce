"""``attempts/0002.json``: who works on a trial."""

from __future__ import annotations

from pydantic import AwareDatetime, PositiveInt

from orchestrator.code_version import CodeVersion
from vitaclip.config import Config


class Attempt(Config):
    """Written once, before the attempt starts."""

    number: PositiveInt
    token: str
    goes_on_from: str | None
    began_at: AwareDatetime
    host: str
    code: CodeVersion
