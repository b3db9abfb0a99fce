"""Options that several commands have: one spelling, one meaning."""

from __future__ import annotations

from typing import Annotated

from typer import Option

Json = Annotated[bool, Option("--json", help="print JSON")]
Views = Annotated[str, Option(metavar="TxS", help="temporal x spatial views, such as 4x3")]
