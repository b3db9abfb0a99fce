"""How text reaches a terminal: names, questions and errors come from files, and are shown, never
obeyed.

A text may hold Rich's markup (``[bold]``), which would vanish or fail, or a terminal's own
commands, which would clear the screen or write another line over this one. All output goes through
:func:`shown`.
"""

from __future__ import annotations

import json
import logging
import unicodedata
from typing import Any

from rich.console import Console
from rich.text import Text

# Line breaks, tabs, and the joiners that Persian, Hindi and others write with.
_KEPT = frozenset("\n\t\u200c\u200d")


def shown(text: str) -> str:
    r"""The text with what a terminal obeys, or shows nothing of, spelled as in JSON: ``\u001b``."""
    if text.isprintable():
        return text
    return "".join(
        character if _is_visible(character) else json.dumps(character)[1:-1] for character in text
    )


def _is_visible(character: str) -> bool:
    return character.isprintable() or character in _KEPT or unicodedata.category(character) == "Zs"


class Terminal(Console):
    """Rich's console, for which no text is markup, and that prints no control character out of
    one.
    """

    def __init__(self, **options: Any) -> None:
        super().__init__(markup=False, emoji=False, highlight=False, **options)

    def render_str(self, text: str, **options: Any) -> Text:
        """What Rich makes of every text that it is given, in tables too."""
        return super().render_str(shown(text), **options)


def print_error(error: Exception) -> None:
    """One line to standard error."""
    Terminal(stderr=True).print(f"error: {error}", style="red", soft_wrap=True)


def show_warnings() -> None:
    """Makes warnings, which name files, pass through :func:`shown` where no program has set up
    logging.
    """
    if logging.lastResort is not None:
        logging.lastResort.setFormatter(_ShownFormatter())


class _ShownFormatter(logging.Formatter):
    def format(self, record: logging.LogRecord) -> str:
        return shown(super().format(record))
