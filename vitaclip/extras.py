"""Which extra of this project brings a package that is not installed."""

from __future__ import annotations

import re
from importlib import metadata

from vitaclip.errors import InputError

DISTRIBUTION = "vitaclip-orchestrator"
_OF_AN_EXTRA = re.compile(r"""([\w.-]+).*;.*\bextra == ['"]([\w-]+)['"]""")


def missing_package(what: str, error: ModuleNotFoundError) -> InputError | None:
    """Says what ``what`` lacks and how to install it; None if no extra brings the module."""
    package = (error.name or "").partition(".")[0]
    extra = _extras().get(package)
    if extra is None:
        return None
    return InputError(
        f"{what} needs the package {package}, which is not installed; install the extra "
        f"{extra}: pip install '{DISTRIBUTION}[{extra}]'"
    )


def _extras() -> dict[str, str]:
    """Package -> the first extra that asks for it, as this project was installed."""
    try:
        requirements = metadata.requires(DISTRIBUTION) or []
    except metadata.PackageNotFoundError:  # a source tree; its packages came another way
        return {}
    found: dict[str, str] = {}
    for requirement in requirements:
        if match := _OF_AN_EXTRA.match(requirement):
            found.setdefault(match[1].lower().replace("-", "_"), match[2])
    return found
