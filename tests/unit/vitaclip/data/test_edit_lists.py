"""Edit lists: parts of an MP4 that are hidden, played elsewhere, or twice. A whole decode is the
truth.
"""

from __future__ import annotations

import struct

import av
import numpy as np
import pytest

from testing.data_videos import moving_frames, whole_file, write_video
from vitaclip.data.decode import decode_frames, video_info

X264 = "keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"
CODECS = {
    "h264": ("libx264", {"x264-params": X264}),
    "h264, open groups": ("libx264", {"x264-params": f"{X264}:open-gop=1"}),
    "h265": (
        "libx265",
        {"x265-params": "log-level=none:keyint=12:min-keyint=12:bframes=3:b-adapt=0"},
    ),
    "mpeg4": ("mpeg4", {"g": "12"}),
    "mpeg4, reordered": ("mpeg4", {"g": "12", "bf": "2"}),
}
# (milliseconds, first frame; -1: nothing is shown) of each edit
EDITS = {
    "starts late": [(1600, 20)],
    "ends early": [(1000, 2)],
    "starts late, ends early": [(800, 15)],
    "starts with nothing": [(500, -1), (2400, 2)],
    "two parts": [(480, 5), (800, 30)],
    "backwards": [(480, 30), (480, 5)],
    "twice": [(480, 5), (480, 5)],
    "with a gap": [(480, 2), (200, -1), (480, 30)],
}


@pytest.fixture(scope="module")
def plain(tmp_path_factory):
    folder = tmp_path_factory.mktemp("plain")
    return {
        name: write_video(folder / f"{number}.mp4", moving_frames(60), codec, options=options)
        for number, (name, (codec, options)) in enumerate(CODECS.items())
    }


def boxes(data, names):
    """Where each box stands: the first within the file, each next one within the one before."""
    places, start, end = [], 0, len(data)
    for name in names:
        while data[start + 4 : start + 8] != name:
            start += struct.unpack(">I", data[start : start + 4])[0]
            assert start < end
        places.append(start)
        start, end = start + 8, start + struct.unpack(">I", data[start : start + 4])[0]
    return places


def with_edits(source, target, edits):
    """Copies a file whose index stands behind its data, with another edit list."""
    with av.open(str(source)) as container:
        time_base = container.streams.video[0].time_base
    assert time_base is not None
    ticks = round(1 / time_base / 25)
    data = bytearray(source.read_bytes())
    *outer, place = boxes(data, [b"moov", b"trak", b"edts", b"elst"])
    entries = [struct.pack(">IiI", ms, max(-1, first * ticks), 1 << 16) for ms, first in edits]
    box = b"elst" + struct.pack(">II", 0, len(entries)) + b"".join(entries)
    size = struct.unpack(">I", data[place : place + 4])[0]
    data[place : place + size] = struct.pack(">I", 4 + len(box)) + box
    for start in outer:
        old = struct.unpack(">I", data[start : start + 4])[0]
        data[start : start + 4] = struct.pack(">I", old + 4 + len(box) - size)
    target.write_bytes(data)
    return target


@pytest.mark.parametrize("edits", EDITS)
@pytest.mark.parametrize("codec", CODECS)
def test_frames_are_those_that_are_shown(plain, tmp_path, codec, edits):
    path = with_edits(plain[codec], tmp_path / "edited.mp4", EDITS[edits])
    expected = whole_file(path)
    assert 15 < len(expected) <= 60
    assert video_info(path).num_frames == len(expected)
    for draw in ([index] for index in range(len(expected))):
        np.testing.assert_array_equal(decode_frames(path, draw), expected[draw])
    draw = [0, 7, 8, 15]
    np.testing.assert_array_equal(decode_frames(path, draw), expected[draw])
    found = decode_frames(path, draw, decoder="decord").astype(int)
    assert np.abs(found - expected[draw]).max() <= 2
