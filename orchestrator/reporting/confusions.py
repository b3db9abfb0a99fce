"""What the best trial confuses most, with frames of the videos."""

from __future__ import annotations

import base64
import io
from collections.abc import Iterator
from html import escape
from pathlib import Path

import numpy as np

from orchestrator.reporting.study_data import StudyData
from orchestrator.storage.records.split_score import SplitScore
from vitaclip.data.datasets import load_dataset
from vitaclip.errors import VitaClipError

_NUM_CONFUSED_PAIRS = 3
_STRIP_FRAMES, _STRIP_HEIGHT = 6, 96


def confusions_html(data: StudyData) -> Iterator[str]:
    """For each benchmark of the best trial: the pairs, and frames of one clip of each."""
    for score in data.scores[data.best.number] if data.best else ():
        split = score.splits[0]
        yield f"<h3>{escape(score.benchmark.name)}, {escape(split.split)}</h3>"
        for true, predicted, count in confused_pairs(split):
            names = f"{escape(split.classes[true])} taken for {escape(split.classes[predicted])}"
            strip = _example(score.benchmark.dataset, split, true, predicted)
            yield f"<p>{names}: {count} of {split.labels.count(true)} clips<br>{strip}</p>"


def confused_pairs(split: SplitScore) -> list[tuple[int, int, int]]:
    """The most frequent (true class, predicted class, number of clips), most frequent first."""
    counts = split.confusion.copy()
    np.fill_diagonal(counts, 0)
    order = np.argsort(counts, axis=None, kind="stable")[::-1][:_NUM_CONFUSED_PAIRS]
    pairs = [(int(i // len(counts)), int(i % len(counts))) for i in order]
    return [
        (true, predicted, int(counts[true, predicted]))
        for true, predicted in pairs
        if counts[true, predicted]
    ]


def _example(dataset: str, split: SplitScore, true: int, predicted: int) -> str:
    """Frames of the first clip that was so confused, as an image inside the page."""
    rows = zip(split.clips, split.labels, split.ranked, strict=True)
    clip = next(clip for clip, label, best in rows if (label, best[0]) == (true, predicted))
    try:
        path = load_dataset(dataset, split.split).clips[clip].path
        image = base64.b64encode(strip_png(path)).decode()
    except VitaClipError as error:
        return f"<span class=note>no frames: {escape(str(error))}</span>"
    return f'<img alt="frames of {escape(Path(path).name)}" src="data:image/png;base64,{image}">'


def strip_png(path: str) -> bytes:
    """Frames spread evenly over a video, side by side, as PNG. Raises DataError."""
    from matplotlib.image import imsave

    from vitaclip.data.decode import decode_frames, video_info  # brings torch

    indices = np.linspace(0, video_info(path).num_frames - 1, _STRIP_FRAMES).round().astype(int)
    frames = decode_frames(path, indices.tolist(), short_side=_STRIP_HEIGHT)
    buffer = io.BytesIO()
    imsave(buffer, np.concatenate(list(frames), axis=1), format="png")
    return buffer.getvalue()
