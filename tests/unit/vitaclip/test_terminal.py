"""Names, questions and errors out of files are shown, never obeyed."""

from __future__ import annotations

import io
import json
import logging

import pytest
from hypothesis import given
from hypothesis import strategies as st
from rich.table import Table

from vitaclip.terminal import Terminal, show_warnings, shown

HOSTILE = (
    "[/bold] [x] [link=http://a]b[/link] :smile: \x1b[2J\x1b]0;title\x07 \r\x08\u202egnp.exe\x9b31m"
)


def printed(renderable: object) -> str:
    file = io.StringIO()
    Terminal(file=file, width=300, force_terminal=True, color_system=None).print(renderable)
    return file.getvalue()


def test_markup_is_text_and_control_characters_are_spelled() -> None:
    table = Table("[red]", title=HOSTILE)
    table.add_row(HOSTILE)
    for text in (printed(HOSTILE), printed(table)):
        assert (
            "[/bold] [x] [link=http://a]b[/link] :smile: \\u001b[2J\\u001b]0;title\\u0007" in text
        )
        assert "\\u202egnp.exe\\u009b31m" in text
        assert not set(text) & set("\x1b\x07\r\x08\u202e\x9b")


@given(st.text())
def test_nothing_that_is_shown_commands_a_terminal(text: str) -> None:
    assert not set(shown(text)) & set("\x1b\x9b\r\x07\u202e")
    if not set(text) & set('"\\'):
        assert json.loads(f'"{shown(text)}"', strict=False) == text


def test_warnings_are_shown_too(
    capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    show_warnings()
    assert logging.lastResort is not None
    record = logging.LogRecord("x", logging.WARNING, "", 0, "broken video: %s", (HOSTILE,), None)
    assert "\\u001b[2J" in logging.lastResort.format(record)
