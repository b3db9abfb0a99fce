"""``vitaclip predict``: classes for one's own videos."""

from __future__ import annotations

from dataclasses import asdict
from json import dumps
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

from typer import Argument, Option

from vitaclip.cli.class_names import class_names
from vitaclip.cli.options import Json, Views
from vitaclip.config import EvalConfig
from vitaclip.errors import DataError
from vitaclip.terminal import shown

if TYPE_CHECKING:
    from vitaclip.prediction import VideoPrediction


def predict(
    checkpoint: Annotated[
        Path, Argument(parser=Path, metavar="CHECKPOINT", help="a checkpoint folder")
    ],
    videos: Annotated[list[Path], Argument(parser=Path, metavar="VIDEO")],
    classes: Annotated[
        str | None,
        Option(help="a file with a name per line, or names: 'a,b,c' (default: the trained ones)"),
    ] = None,
    views: Views = "1x1",
    json: Json = False,
) -> None:
    """Shows the most probable classes of one's own videos."""
    names = None if classes is None else class_names(classes)
    eval_config = EvalConfig.parse(views)
    from vitaclip.prediction import predict as predict_videos

    predictions = predict_videos(checkpoint, videos, names, views=eval_config)
    if json:
        print(dumps([asdict(prediction) for prediction in predictions], indent=1))
    else:
        for prediction in predictions:
            print(shown(_table(prediction)))
    broken = [prediction.error for prediction in predictions if prediction.error is not None]
    if broken:
        raise DataError(
            f"{len(broken)} of {len(predictions)} videos cannot be read: {'; '.join(broken)}"
        )


def _table(prediction: VideoPrediction) -> str:
    if prediction.error is not None:
        return f"{prediction.video}: cannot be read"
    rows = zip(prediction.probabilities, prediction.classes, strict=True)
    names = (
        "trained classes" if prediction.learned_context else "plain names, without learned context"
    )
    title = f"{prediction.video} ({names})"
    return "\n".join([title, *(f"  {probability:6.1%}  {name}" for probability, name in rows)])
