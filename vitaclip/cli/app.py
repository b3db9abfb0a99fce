"""The library's part of the command ``vitaclip``; the orchestrator adds its own
(:mod:`orchestrator.cli`).
"""

from __future__ import annotations

from vitaclip.cli import data
from vitaclip.cli.checkpoints import (
    convert_backbone,
    export_backbone,
    export_checkpoint,
    import_checkpoint,
)
from vitaclip.cli.predict import predict
from vitaclip.cli.run import new_app

app = new_app(
    predict,
    import_checkpoint,
    export_checkpoint,
    export_backbone,
    convert_backbone,
    help="Predicts, converts, looks after data.",
    add_completion=False,
)
app.add_typer(data.app, name="data")
