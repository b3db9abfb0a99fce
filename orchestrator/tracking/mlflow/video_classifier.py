"""A trained checkpoint as an MLflow model: videos in, labels out. MLflow keeps this file as the
model's code.

``mlflow.pyfunc.load_model(uri).predict([{"video": "clip.mp4"}])`` gives one row per video with its
five most probable ``labels`` and their ``probabilities``, or an ``error`` if the video cannot be
read. With ``params={"classes": "a,b,c"}`` it chooses among those.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import mlflow
import pandas as pd
from mlflow.models import ModelSignature, set_model
from mlflow.pyfunc.model import PythonModel
from mlflow.types.schema import Array, ColSpec, DataType, ParamSchema, ParamSpec, Schema

from vitaclip.class_names import parse_class_names
from vitaclip.prediction import predict

SIGNATURE = ModelSignature(
    inputs=Schema([ColSpec(DataType.string, "video")]),
    outputs=Schema(
        [
            ColSpec(Array(DataType.string), "labels"),
            ColSpec(Array(DataType.double), "probabilities"),
            ColSpec(DataType.string, "error"),
        ]
    ),
    params=ParamSchema([ParamSpec("classes", DataType.string, "")]),
)


class VideoClassifier(PythonModel):
    """Predicts with the checkpoint among the model's artifacts."""

    def load_context(self, context: Any) -> None:
        """Remembers where the checkpoint is."""
        self._checkpoint = Path(context.artifacts["checkpoint"])

    def predict(
        self, context: Any, model_input: pd.DataFrame, params: dict[str, Any] | None = None
    ) -> pd.DataFrame:
        """One row per path in the column ``video``; that of a video that cannot be read has an
        ``error``.
        """
        text = (params or {}).get("classes", "")
        videos = [Path(path) for path in model_input["video"]]
        predictions = predict(
            self._checkpoint, videos, parse_class_names(text, "classes") if text else None
        )
        return pd.DataFrame(
            {
                "labels": [list(prediction.classes) for prediction in predictions],
                "probabilities": [list(prediction.probabilities) for prediction in predictions],
                "error": [prediction.error or "" for prediction in predictions],
            }
        )


def save(checkpoint: Path, folder: Path, mlflow_model: mlflow.models.Model) -> None:
    """Writes an MLflow model folder around a checkpoint folder."""
    mlflow.pyfunc.save_model(
        folder,
        python_model=__file__,
        artifacts={"checkpoint": str(checkpoint)},
        mlflow_model=mlflow_model,
        signature=SIGNATURE,
        input_example=pd.DataFrame({"video": ["clip.mp4"]}),
        pip_requirements=["vitaclip-orchestrator"],
    )


set_model(VideoClassifier())
