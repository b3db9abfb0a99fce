"""Frames as a viewer sees them: turned and mirrored by the display matrix, with square pixels."""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from testing.data_videos import add_video, moving_frames, whole_file, write_packets, write_video
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.prepare import encode

ONE = 1 << 16
UNIT = 1 << 30
# (a, b, c, d) takes a point (x, y) to (a x + c y, b x + d y), y pointing down; beside it what that
# does to a frame
SYMMETRIES = {
    "as it is": ((1, 0, 0, 1), lambda f: f),
    "hflip": ((-1, 0, 0, 1), lambda f: f[:, ::-1]),
    "vflip": ((1, 0, 0, -1), lambda f: f[::-1]),
    "half turn": ((-1, 0, 0, -1), lambda f: f[::-1, ::-1]),
    "transpose": ((0, 1, 1, 0), lambda f: f.transpose(1, 0, 2)),
    "clockwise": ((0, 1, -1, 0), lambda f: np.rot90(f, -1)),
    "counterclockwise": ((0, -1, 1, 0), lambda f: np.rot90(f)),
    "transverse": ((0, -1, -1, 0), lambda f: f.transpose(1, 0, 2)[::-1, ::-1]),
}
DRAW = [0, 5, 11]


def with_matrix(source, target, symmetry):
    a, b, c, d = (ONE * number for number in SYMMETRIES[symmetry][0])
    with av.open(str(source)) as reader, av.open(str(target), "w") as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        copy.set_display_matrix([a, b, 0, c, d, 0, 0, 0, UNIT])
        for packet in reader.demux(stream):
            if packet.size:
                packet.stream = copy
                writer.mux(packet)
    return target


@pytest.fixture(scope="module")
def upright(tmp_path_factory):
    return write_video(
        tmp_path_factory.mktemp("upright") / "upright.mp4", moving_frames(12, 48, 80)
    )


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("suffix", ["mp4", "mov"])
@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_frames_are_turned_and_mirrored(upright, tmp_path, symmetry, suffix, decoder):
    path = with_matrix(upright, tmp_path / f"turned.{suffix}", symmetry)
    frames = whole_file(upright)[DRAW]
    expected = np.stack([SYMMETRIES[symmetry][1](frame) for frame in frames]).astype(int)
    found = decode_frames(path, DRAW, decoder=decoder).astype(int)
    assert found.shape == expected.shape
    assert np.abs(found - expected).max() <= (0 if decoder == "pyav" else 2)


@pytest.mark.parametrize("symmetry", SYMMETRIES)
def test_prepared_videos_look_the_same(upright, tmp_path, symmetry):
    path = with_matrix(upright, tmp_path / "turned.mp4", symmetry)
    encode(str(path), tmp_path / "prepared.mp4", PrepareParameters(crf=10))
    found = decode_frames(tmp_path / "prepared.mp4", DRAW).astype(int)
    assert np.abs(found - decode_frames(path, DRAW)).mean() < 4


# Pixels that are not square


ASPECTS = [Fraction(2), Fraction(16, 11), Fraction(8, 9), Fraction(1, 2), Fraction(1)]
ENCODED = {  # suffix: encoder; the aspect is the container's, or only the stream's
    "mp4": "libx264",
    "mov": "mpeg4",
    "mkv": "libx264",
    "ts": "libx264",
    "avi": "mpeg4",
}


def write_aspect(path, frames, codec, aspect):
    with av.open(str(path), "w") as container:
        stream = add_video(container, codec, 25)
        stream.height, stream.width = frames.shape[1:3]
        stream.pix_fmt = "yuv420p"
        stream.codec_context.sample_aspect_ratio = aspect
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("suffix", ENCODED)
@pytest.mark.parametrize("aspect", ASPECTS, ids=str)
def test_pixels_become_square(tmp_path, aspect, suffix, decoder):
    frames = moving_frames(12, 48, 88)
    path = write_aspect(tmp_path / f"wide.{suffix}", frames, ENCODED[suffix], aspect)
    width = round(88 * aspect)
    assert decode_frames(path, DRAW, decoder=decoder).shape == (3, 48, width, 3)
    assert (video_info(path).height, video_info(path).width) == (48, width)
    half = decode_frames(path, DRAW, short_side=min(48, width) // 2, decoder=decoder)
    assert half.shape[2] / half.shape[1] == pytest.approx(width / 48, rel=0.03)


@pytest.mark.parametrize("aspect", ASPECTS, ids=str)
def test_prepared_videos_keep_their_shape(tmp_path, aspect):
    frames = moving_frames(12, 96, 176)
    path = write_aspect(tmp_path / "wide.mp4", frames, "libx264", aspect)
    encode(str(path), tmp_path / "prepared.mp4", PrepareParameters(short_side=48))
    found = decode_frames(tmp_path / "prepared.mp4", DRAW)
    assert min(found.shape[1:3]) in (47, 48)
    assert found.shape[2] / found.shape[1] == pytest.approx(float(176 * aspect / 96), rel=0.04)


def test_turning_comes_after_squaring(tmp_path):
    wide = write_aspect(tmp_path / "wide.mp4", moving_frames(12, 48, 80), "libx264", Fraction(2))
    turned = with_matrix(wide, tmp_path / "turned.mp4", "clockwise")
    assert decode_frames(turned, DRAW).shape == (3, 160, 48, 3)
    expected = np.stack([np.rot90(frame, -1) for frame in decode_frames(wide, DRAW)])
    np.testing.assert_array_equal(decode_frames(turned, DRAW), expected)
    plain = write_packets(wide, tmp_path / "plain.mkv", lambda packets: packets)
    assert decode_frames(plain, DRAW).shape == (3, 48, 160, 3)
