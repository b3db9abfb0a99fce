"""Videos read by decord, where its frames are known to be PyAV's.

decord 0.6.0 is read in order from a new reader: after a seek or a skip it returns other frames than
asked for in open groups of pictures (x265's default) and in DivX files. Even so it loses the first
group of pictures of files that do not begin at time zero, counts frames that an edit list hides or
that were lost, and knows neither mirrored nor interlaced frames nor pixels that are not square.
Such files are left to PyAV, and all where a packet may hold no picture.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

from vitaclip.data.geometry import display_matrix
from vitaclip.data.pyav_video import PyAVVideo
from vitaclip.data.video import Frames, FramesRecountedError, Video, VideoInfo
from vitaclip.errors import DataError

CONTAINERS = ("mov", "matroska", "avi")
CODECS = ("h264", "hevc", "vp9", "mjpeg")


def by_decord(path: str, video: PyAVVideo) -> Video:
    """The video, read by decord if that gives the same frames. Raises DataError where decord is not
    installed.
    """
    try:
        import decord  # here: it has no wheel for some platforms, where PyAV serves
    except ImportError as error:
        raise DataError(
            "decoder 'decord' is not installed here; use decoder: auto or pyav"
        ) from error
    if not (_is_plain(video) and _has_plain_pictures(video)):
        return video
    decord.logging.set_level(decord.logging.QUIET)
    name = str(Path(path).absolute())  # none of these looks like an address
    try:
        candidate = _DecordVideo(lambda: decord.VideoReader(name, num_threads=1), video.info)
    except decord.DECORDError:
        return video
    return candidate if candidate.num_counted == video.info.num_frames else video


def _is_plain(video: PyAVVideo) -> bool:
    """Whether times begin at zero and have no gaps, nothing is hidden, and there is but one video
    stream.
    """
    container, timeline = video.stream.container, video.timeline
    if timeline is None or timeline.packets[0].time != 0 or video.times is None:
        return False
    steps = [after - before for before, after in itertools.pairwise(video.times)]
    return (
        max(steps, default=1) < 2 * min(steps, default=1)
        and all(packet.is_shown for packet in timeline.packets)
        and container.format.name.split(",")[0] in CONTAINERS
        and video.info.codec in CODECS
        and len(container.streams.video) == 1
        and video.width == video.stream.codec_context.width
    )


def _has_plain_pictures(video: PyAVVideo) -> bool:
    """Whether the first picture, which speaks for all, is progressive and upright."""
    try:
        _, picture = next(video.pictures([0]))
    except FramesRecountedError:
        return False
    return display_matrix(picture) is None and not picture.interlaced_frame


class _DecordVideo:
    def __init__(self, open_reader: Callable[[], Any], info: VideoInfo) -> None:
        self._open_reader, self.info = open_reader, info
        self.num_counted = len(open_reader())

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]:
        reader, wanted = self._open_reader(), set(indices)
        for index in range(indices[-1] + 1):
            frame = reader.next()
            if index in wanted:
                yield index, frame.asnumpy()
