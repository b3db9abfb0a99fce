"""Opening video files safely, and finding the stream in them that is the video.

FFmpeg opens far more than videos on disks: addresses of every protocol, playlists that name other
files, devices. Here a path names a regular local file that holds one of ``FORMATS``; nothing else
is opened.
"""

from __future__ import annotations

import contextlib
import os
import re
import stat
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

import av
from av.stream import Disposition

from vitaclip.errors import DataError

# FFmpeg's names of the containers and bare streams that videos come in; none of them names other
# files
FORMATS = (
    *(
        "mov",
        "matroska",
        "avi",
        "mpegts",
        "mpeg",
        "flv",
        "asf",
        "ogg",
        "mxf",
        "dv",
        "rm",
        "ivf",
        "nut",
    ),
    *("h264", "hevc", "m4v", "mpegvideo", "obu"),
)
NOT_THE_VIDEO = Disposition.attached_pic | Disposition.timed_thumbnails | Disposition.still_image
PICTURE_CODECS = frozenset(
    {"mjpeg", "png", "apng", "bmp", "gif", "tiff", "webp", "jpeg2000", "jpegls"}
)
_PROTOCOL = re.compile(r"([A-Za-z][A-Za-z0-9+.-]*)(,[^:]*)?:")


@contextlib.contextmanager
def open_container(path: str, max_pixels: int) -> Iterator[Any]:
    """FFmpeg's view of a local video file. Raises DataError for anything else, before it is opened.

    Pictures of far more than ``max_pixels`` are not decoded, so that none takes the memory before
    it is measured.
    """
    require_local_file(path)
    options = {
        "protocol_whitelist": "file",
        "format_whitelist": ",".join(FORMATS),
        # the first pictures are decoded while the file is opened
        **decoder_options(max_pixels),
    }
    try:
        # "file:" makes the rest of the name a path, whatever it looks like
        container = av.open(f"file:{path}", options=options, metadata_errors="ignore")
    except av.error.ArgumentError as error:
        allowed = ", ".join(FORMATS)
        raise DataError(
            f"{path}: cannot be decoded: not in a format for videos (FFmpeg's {allowed})"
        ) from error
    with container:
        yield container


def require_local_file(path: str) -> None:
    """Raises DataError unless ``path`` is a regular file on this machine."""
    try:
        mode = os.stat(path).st_mode  # noqa: PTH116 (a path that is an address stays as it was written)
    except (OSError, ValueError) as error:
        protocol = _PROTOCOL.match(path)
        if protocol is not None:
            raise DataError(
                f"{path}: names the protocol {protocol[1]!r}; only local files are decoded: "
                "download it first"
            ) from error
        reason = getattr(error, "strerror", None) or error
        raise DataError(f"{path}: cannot be opened: {reason}") from error
    if not stat.S_ISREG(mode):
        raise DataError(f"{path}: cannot be opened: no regular file")


def decoder_options(max_pixels: int) -> dict[str, str]:
    """FFmpeg's own limit: above ours, since it counts the margins of its buffers, too."""
    return {"max_pixels": str(2 * max_pixels + (1 << 20))}


def require_allowed_size(path: str, height: int, width: int, max_pixels: int) -> None:
    """Raises DataError for frames of more than ``max_pixels``, and for those of no size that FFmpeg
    could find.

    Args:
        path: the video, for the message.
        height: in pixels.
        width: in pixels.
        max_pixels: of a frame.
    """
    if not 0 < height * width <= max_pixels:
        size = f"{width} x {height} = {width * height}" if height * width else "no or far too many"
        raise DataError(
            f"{path}: cannot be decoded: its frames have {size} pixels, allowed 1..{max_pixels}; "
            "set VITACLIP_MAX_FRAME_PIXELS to more if you trust the file"
        )


def possible_videos(container: Any) -> list[Any]:
    """The streams that may be the video: cover art, thumbnails and undecodable streams are not."""
    return [
        stream
        for stream in container.streams.video
        if stream.codec_context is not None and not stream.disposition & NOT_THE_VIDEO
    ]


def choose_video(path: str, streams: Sequence[Any], num_packets: Mapping[int, int]) -> Any:
    """The stream that is the video: of those with about the most pictures, the one with the
    largest.

    Args:
        path: names the file in errors.
        streams: what ``possible_videos`` found.
        num_packets: how many packets each has, by its index.

    Raises DataError if there is none. A single picture beside the sound is a cover, whatever its
    flags say.
    """
    found = {
        stream.index: stream
        for stream in streams
        if not _is_picture(stream, num_packets[stream.index])
    }
    most = max((num_packets[index] for index in found), default=0)
    if not most:
        raise DataError(f"{path}: holds no video (cover art and thumbnails are none)")
    longest = [stream for index, stream in found.items() if num_packets[index] * 2 > most]
    return max(longest, key=_prominence)


def _is_picture(stream: Any, num_packets: int) -> bool:
    return num_packets <= 1 and stream.codec_context.name in PICTURE_CODECS


def _prominence(stream: Any) -> tuple[int, bool, int]:
    context = stream.codec_context
    return (
        context.width * context.height,
        bool(stream.disposition & Disposition.default),
        -stream.index,
    )
