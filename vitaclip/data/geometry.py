"""From a decoded picture to the frame a viewer sees: square pixels, turned and mirrored as the file
says.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from vitaclip.data.video import Frames


def square_pixel_size(stream: Any) -> tuple[int, int]:
    """Height and width, in pixels, of a stream's pictures once their pixels are square; the height
    stays.
    """
    context = stream.codec_context
    aspect = stream.sample_aspect_ratio or 1
    return context.height, max(1, round(context.width * aspect)) if context.width else 0


def to_rgb(picture: Any, height: int, width: int) -> Frames:
    """A decoded picture as RGB [H, W, 3], scaled to a size and then put upright."""
    rgb = picture.reformat(width=width, height=height, format="rgb24", threads=1).to_ndarray()
    matrix = display_matrix(picture)
    return rgb if matrix is None else put_upright(rgb, matrix)


def display_matrix(picture: Any) -> tuple[int, ...] | None:
    """The 3x3 matrix, row by row, by which a picture is turned and mirrored for display; None: by
    nothing.
    """
    try:
        data = picture.side_data["DISPLAYMATRIX"]
    except KeyError:
        return None
    return tuple(np.frombuffer(bytes(data), np.int32).tolist())


def put_upright(frame_HW3: Frames, matrix: tuple[int, ...]) -> Frames:
    """Turns and mirrors a frame. A point (x, y) goes to (a x + c y, b x + d y), y pointing down.

    Angles between quarter turns are rounded to the nearest one.
    """
    a, b, _, c, d = matrix[:5]
    swapped = abs(b) + abs(c) > abs(a) + abs(d)
    frame = frame_HW3.transpose(1, 0, 2) if swapped else frame_HW3
    to_right, to_bottom = (c, b) if swapped else (a, d)
    frame = frame[:: -1 if to_bottom < 0 else 1, :: -1 if to_right < 0 else 1]
    return np.ascontiguousarray(frame)
