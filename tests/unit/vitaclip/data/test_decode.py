"""Decoding: both engines give the frames that a decoder gives that reads the whole file in
order.
"""

from __future__ import annotations

from fractions import Fraction

import av
import numpy as np
import pytest

from testing.data_videos import CODECS, moving_frames, whole_file, write_packets, write_video
from testing.paths import SHARED_CLIPS
from vitaclip.data import decode
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.errors import DataError

NUM_FRAMES = 40
DECORD_CODECS = sorted(set(CODECS) - {"av1"})  # decord 0.6.0 cannot decode AV1


@pytest.fixture(scope="module")
def videos(tmp_path_factory):
    """One file per codec, with two or more groups of pictures and B-frames where the codec has
    them.
    """
    folder = tmp_path_factory.mktemp("codecs")
    options = {"g": "16", "keyint_min": "16"}
    frames = moving_frames(NUM_FRAMES)
    quiet = {
        "h265": {"x265-params": "log-level=none:keyint=16"},
        "av1": {"preset": "12", "g": "16"},
    }
    return {
        name: write_video(
            folder / f"{name}{suffix}", frames, codec, options=quiet.get(name, options)
        )
        for name, (codec, suffix) in CODECS.items()
    }


DRAWS = [[0], [39], [5, 6, 7], [0, 13, 26, 39], [39, 0, 20, 20], [17, 18], list(range(40))]


@pytest.mark.parametrize("indices", DRAWS, ids=str)
@pytest.mark.parametrize("codec", sorted(CODECS))
def test_pyav_gives_the_frames_of_a_whole_decode(videos, codec, indices):
    expected = whole_file(videos[codec])
    assert len(expected) == NUM_FRAMES
    np.testing.assert_array_equal(
        decode_frames(videos[codec], indices, decoder="pyav"), expected[indices]
    )


@pytest.mark.parametrize("codec", DECORD_CODECS)
def test_decord_gives_the_same_frames_as_pyav(videos, codec):
    for indices in DRAWS:
        pyav = decode_frames(videos[codec], indices, decoder="pyav").astype(int)
        decord = decode_frames(videos[codec], indices, decoder="decord").astype(int)
        assert np.abs(pyav - decord).max() <= 2  # the engines round colors alike, or nearly


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_frames_come_where_the_renderer_put_them(videos, codec):
    rendered = moving_frames(NUM_FRAMES).astype(int)
    decoded = decode_frames(videos[codec], range(NUM_FRAMES))
    distance = [[np.abs(d.astype(int) - r).mean() for r in rendered] for d in decoded[::6]]
    assert np.argmin(distance, axis=1).tolist() == list(range(0, NUM_FRAMES, 6))


@pytest.mark.parametrize("codec", sorted(CODECS))
def test_info(videos, codec):
    info = video_info(videos[codec])
    assert (info.num_frames, info.height, info.width, info.fps) == (NUM_FRAMES, 64, 80, 25)
    assert info.key_frames[0] == 0
    assert len(info.key_frames) >= 2


def test_info_of_decord_agrees(videos):
    ours, theirs = video_info(videos["h264"], "pyav"), video_info(videos["h264"], "decord")
    assert (ours.num_frames, ours.height, ours.width) == (
        theirs.num_frames,
        theirs.height,
        theirs.width,
    )
    assert ours.key_frames == theirs.key_frames


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_open_groups_of_pictures(tmp_path, decoder):
    """Frames shown before a key frame but stored after it belong to the group before it."""
    frames = moving_frames(60)
    options = {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0"}
    path = write_video(tmp_path / "open.mp4", frames, options=options)
    expected = whole_file(path)
    for index in range(0, 60, 1 if decoder == "pyav" else 7):
        np.testing.assert_array_equal(
            decode_frames(path, [index], decoder=decoder), expected[[index]]
        )
    # a key frame among the later of a draw's frames
    for index in range(0, 52, 1 if decoder == "pyav" else 13):
        drawn = [index, index + 2]
        np.testing.assert_array_equal(decode_frames(path, drawn, decoder=decoder), expected[drawn])


def remux(source, target, shift=0, options=None):
    """Copies the packets, shown ``shift`` frames earlier, without encoding them again."""
    with av.open(str(source)) as reader, av.open(str(target), "w", options=options or {}) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        offset = int(shift / stream.average_rate / stream.time_base)
        for packet in reader.demux(stream):
            if packet.dts is not None:
                assert packet.pts is not None
                packet.stream, packet.pts, packet.dts = (
                    copy,
                    packet.pts - offset,
                    packet.dts - offset,
                )
                writer.mux(packet)
    return target


def test_frames_that_an_edit_list_cuts_away_are_not_counted(videos, tmp_path):
    """Clips that were cut without encoding them again start at a key frame that is not shown."""
    options = {"use_editlist": "1", "avoid_negative_ts": "disabled"}
    path = remux(videos["h264"], tmp_path / "cut.mp4", shift=5, options=options)
    expected = whole_file(videos["h264"])[5:]
    np.testing.assert_array_equal(whole_file(path), expected)
    assert video_info(path).num_frames == NUM_FRAMES - 5
    drawn = [0, 1, 11, 20, 34]
    np.testing.assert_array_equal(decode_frames(path, drawn), expected[drawn])


def test_a_truncated_file_is_broken_even_where_its_first_frames_decode(videos, tmp_path):
    path = remux(videos["h264"], tmp_path / "whole.mp4", options={"movflags": "faststart"})
    np.testing.assert_array_equal(decode_frames(path, [0]), whole_file(path)[[0]])
    (tmp_path / "cut.mp4").write_bytes(path.read_bytes()[: path.stat().st_size * 3 // 4])
    with pytest.raises(DataError, match=r"cut\.mp4: holds \d+ of its 40 frames: truncated"):
        decode_frames(tmp_path / "cut.mp4", [0])


def test_long_files_are_read_twice_instead_of_held(videos, monkeypatch):
    expected = whole_file(videos["h264"])
    monkeypatch.setattr(decode, "MAX_KEPT_BYTES", 0)
    np.testing.assert_array_equal(decode_frames(videos["h264"], [3, 20, 39]), expected[[3, 20, 39]])


@pytest.mark.parametrize("codec", ["libx264", "mpeg2video"])
def test_decord_agrees_on_interlaced_and_on_lost_frames(tmp_path, codec):
    options = {
        "libx264": {"x264-params": "interlaced=1:keyint=12"},
        "mpeg2video": {"flags": "+ildct+ilme"},
    }
    path = write_video(
        tmp_path / "interlaced.mkv", moving_frames(30), codec, options=options[codec]
    )
    lossy = write_packets(path, tmp_path / "lossy.mkv", lambda packets: packets[:8] + packets[9:])
    for file in (path, lossy):
        pyav = decode_frames(file, [3, 20], decoder="pyav").astype(int)
        assert np.abs(pyav - decode_frames(file, [3, 20], decoder="decord")).max() <= 2


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("num_frames", [1, 2, 3])
def test_very_short_videos(tmp_path, num_frames, decoder):
    path = write_video(tmp_path / "short.mp4", moving_frames(num_frames))
    frames = decode_frames(path, [0] * 4 + [num_frames - 1], decoder=decoder)
    assert frames.shape == (5, 64, 80, 3)
    np.testing.assert_array_equal(frames[0], frames[3])


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
def test_odd_sizes(tmp_path, decoder):
    frames = moving_frames(6, height=37, width=51)
    path = tmp_path / "odd.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 37, 51, "yuv444p"
        for frame in frames:
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    assert decode_frames(path, [0, 5], decoder=decoder).shape == (2, 37, 51, 3)


@pytest.mark.parametrize("rotation", [90, 180, -90])
def test_rotation_metadata_is_followed(tmp_path, rotation):
    frames = moving_frames(4)
    upright = decode_frames(write_video(tmp_path / "upright.mp4", frames), [0, 3])
    turned_path = write_video(tmp_path / "turned.mp4", frames, rotation=rotation)
    turned = decode_frames(turned_path, [0, 3], decoder="pyav")
    decord = decode_frames(turned_path, [0, 3], decoder="decord")
    assert turned.shape[1:3] == ((80, 64) if rotation != 180 else (64, 80))
    expected = np.rot90(upright, rotation // 90, axes=(1, 2))
    # libx264 repeats itself nearly, not to the bit
    assert np.abs(turned.astype(int) - expected).mean() < 2
    assert np.abs(turned.astype(int) - decord).max() <= 2


def test_variable_frame_rate(tmp_path):
    """Frames are counted, not timed: gaps between them change nothing."""
    frames = moving_frames(20)
    path = tmp_path / "variable.mp4"
    times = np.cumsum(np.random.default_rng(0).integers(1, 30, 20))
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        stream.codec_context.time_base = Fraction(1, 100)
        for frame, time in zip(frames, times, strict=True):
            picture = av.VideoFrame.from_ndarray(frame, format="rgb24")
            picture.pts, picture.time_base = int(time), Fraction(1, 100)
            container.mux(stream.encode(picture))
        container.mux(stream.encode(None))
    expected = whole_file(path)
    assert len(expected) == video_info(path).num_frames == 20
    for decoder in ("pyav", "decord"):
        found = decode_frames(path, [1, 9, 19], decoder=decoder).astype(int)
        assert np.abs(found - expected[[1, 9, 19]]).max() <= 2


def test_scaling_keeps_the_aspect_and_never_enlarges(tmp_path):
    path = write_video(tmp_path / "v.mp4", moving_frames(3, height=64, width=96))
    assert decode_frames(path, [0, 2], short_side=32).shape == (2, 32, 48, 3)
    assert decode_frames(path, [0], short_side=200).shape == (1, 64, 96, 3)
    tall = write_video(tmp_path / "tall.mp4", moving_frames(2, height=96, width=64))
    assert decode_frames(tall, [0], short_side=32).shape == (1, 48, 32, 3)


@pytest.mark.parametrize("decoder", ["auto", "pyav", "decord"])
@pytest.mark.parametrize("kind", ["missing", "empty", "text", "no index", "audio"])
def test_broken_files_are_data_errors_that_name_the_file(tmp_path, videos, kind, decoder):
    path = tmp_path / f"{kind}.mp4"
    whole = videos["h264"].read_bytes()
    contents = {"empty": b"", "text": b"not a video\n" * 50, "no index": whole[: len(whole) // 2]}
    if kind == "audio":
        write_silence(path)
    elif kind in contents:
        path.write_bytes(contents[kind])
    with pytest.raises(DataError, match=f"{kind}.mp4"):
        decode_frames(path, [0], decoder=decoder)


def write_silence(path):
    with av.open(str(path), "w") as container:
        stream = container.add_stream("aac", rate=8000)
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 1024), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        container.mux(stream.encode(frame))
        container.mux(stream.encode(None))


def test_a_frame_outside_the_video_is_refused(videos):
    with pytest.raises(DataError, match=r"frames 0\.\.40 of a video of 40 frames"):
        decode_frames(videos["h264"], [0, 40])


def real_clips():
    return sorted(path for path in SHARED_CLIPS.glob("*.*") if path.suffix in (".avi", ".mp4"))


@pytest.mark.skipif(not real_clips(), reason="no real clips beside this checkout (../shared/clips)")
def test_real_clips_give_the_frames_of_a_whole_decode():
    for path in real_clips():
        expected = whole_file(path)
        length = video_info(path).num_frames
        indices = [int(i) for i in np.linspace(0, length - 1, 6)]
        # DivX in AVI announces a frame that never comes
        held = [min(i, len(expected) - 1) for i in indices]
        np.testing.assert_array_equal(decode_frames(path, indices), expected[held])
        decord = decode_frames(path, indices, decoder="decord").astype(int)
        assert np.abs(decord - expected[held]).max() <= 2, path.name
