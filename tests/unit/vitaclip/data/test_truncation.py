"""Files whose beginning or end is easily lost: late and early starts, broken-off downloads, hidden
frames.
"""

from __future__ import annotations

import av
import numpy as np
import pytest

from testing.data_videos import moving_frames, whole_file, write_packets, write_video
from vitaclip.data import decode
from vitaclip.data.check import check_file
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.errors import DataError

NUM_FRAMES = 50
DRAWS = [[0], [3, 4], [0, 13, 26, 49], [49], list(range(0, 50, 7))]


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    folder = tmp_path_factory.mktemp("source")
    options = {"g": "12", "keyint_min": "12", "bf": "2"}
    return write_video(folder / "source.mp4", moving_frames(NUM_FRAMES), options=options)


def shifted(seconds):
    def change(packets):
        for packet in packets:
            ticks = int(seconds / packet.time_base)
            packet.pts, packet.dts = packet.pts + ticks, packet.dts + ticks
        return packets

    return change


# Starts


# ("mp4", -0.2): the edit list hides what comes before zero; the others shift times to begin at
# zero, or keep them
STARTS = [
    ("mp4", -0.2),
    ("mp4", 0.5),
    ("mov", -0.2),
    ("mkv", -0.2),
    ("mkv", 1.0),
    ("ts", 0.0),
    ("ts", 3.0),
]
STARTS += [("flv", -0.2), ("flv", 2.0)]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize("is_large", [False, True], ids=["small", "large"])
@pytest.mark.parametrize(("suffix", "start"), STARTS)
def test_every_frame_is_found_wherever_times_begin(
    source, tmp_path, monkeypatch, suffix, start, is_large, decoder
):
    path = write_packets(
        source,
        tmp_path / f"early.{suffix}",
        shifted(start),
        options={"avoid_negative_ts": "disabled"},
    )
    expected = whole_file(path)
    assert len(expected) >= NUM_FRAMES - 5
    if is_large:
        monkeypatch.setattr(decode, "MAX_KEPT_BYTES", 0)
    assert video_info(path, decoder).num_frames == len(expected)
    for draw in DRAWS:
        draw = [min(index, len(expected) - 1) for index in draw]
        found = decode_frames(path, draw, decoder=decoder).astype(int)
        assert np.abs(found - expected[draw]).max() <= (0 if decoder == "pyav" else 2)


@pytest.mark.parametrize("suffix", ["mkv", "mp4", "ts"])
@pytest.mark.parametrize("start", [-0.6, -0.2, 0.3])
def test_decord_agrees_where_pictures_are_not_reordered_either(tmp_path, suffix, start):
    plain = write_video(
        tmp_path / "plain.mp4", moving_frames(NUM_FRAMES), options={"g": "12", "bf": "0"}
    )
    path = write_packets(
        plain,
        tmp_path / f"early.{suffix}",
        shifted(start),
        options={"avoid_negative_ts": "disabled"},
    )
    expected = whole_file(path)
    for draw in ([0], [1, 20, 33]):
        found = decode_frames(path, draw, decoder="decord").astype(int)
        assert np.abs(found - expected[draw]).max() <= 2


def test_a_plain_file_is_read_by_decord_itself(source):
    with decode.open_video(source, "decord") as video:
        assert type(video).__name__ == "_DecordVideo"


# Ends


def write_with_sound(source, path, options=None):
    """The source's packets and as much sound, which muxers interleave."""
    with av.open(str(source)) as reader, av.open(str(path), "w", options=options or {}) as writer:
        stream = reader.streams.video[0]
        copy = writer.add_stream_from_template(stream)
        sound = writer.add_stream("libopus" if path.suffix == ".webm" else "aac", rate=48000)
        sound_s = 0.0
        for packet in reader.demux(stream):
            if not packet.size:
                continue
            assert packet.dts is not None
            while sound_s < packet.dts * packet.time_base:
                frame = av.AudioFrame(format="fltp", layout="stereo", samples=960)
                frame.sample_rate, frame.pts = 48000, round(sound_s * 48000)
                for plane in frame.planes:
                    plane.update(bytes(plane.buffer_size))
                writer.mux(sound.encode(frame))
                sound_s += 960 / 48000
            packet.stream = copy
            writer.mux(packet)
        writer.mux(sound.encode(None))
    return path


FRAGMENTED = {"movflags": "frag_keyframe+empty_moov+default_base_moof"}
ENDS = {  # name: suffix, encoder, options of the container
    "mkv": ("mkv", "libx264", {}),
    "webm": ("webm", "libvpx-vp9", {}),
    "ts": ("ts", "libx264", {}),
    "m2ts": ("m2ts", "libx264", {}),
    "mp4, index first": ("mp4", "libx264", {"movflags": "faststart"}),
    "mp4, index last": ("mp4", "libx264", {}),
    "mp4, fragments": ("mp4", "libx264", FRAGMENTED),
    "mov": ("mov", "mpeg4", {"movflags": "faststart"}),
    "avi": ("avi", "mpeg4", {}),
    "flv": ("flv", "libx264", {}),
    "asf": ("asf", "wmv2", {}),
}


@pytest.mark.parametrize("has_sound", [False, True], ids=["silent", "sound"])
@pytest.mark.parametrize("name", ENDS)
def test_a_file_that_breaks_off_is_broken_and_a_whole_one_is_not(tmp_path, name, has_sound):
    suffix, encoder, options = ENDS[name]
    first = "avi" if encoder == "mpeg4" else "asf" if encoder == "wmv2" else "mp4"
    frames = moving_frames(NUM_FRAMES, 96, 128)
    source = write_video(tmp_path / f"source.{first}", frames, encoder, options={"g": "12"})
    path = tmp_path / f"whole.{suffix}"
    if has_sound:
        write_with_sound(source, path, options)
    else:
        write_packets(source, path, lambda packets: packets, options=options)
    assert check_file(str(path)).error is None
    np.testing.assert_array_equal(decode_frames(path, [0, 30]), whole_file(path)[[0, 30]])
    whole = path.read_bytes()
    for share in (0.4, 0.6, 0.75, 0.9):
        cut = tmp_path / f"cut.{suffix}"
        cut.write_bytes(whole[: int(len(whole) * share) | 1])
        for decoder in ("auto", "decord"):
            with pytest.raises(DataError, match="cut"):
                decode_frames(cut, [0], decoder=decoder)


@pytest.mark.parametrize(
    ("suffix", "share"), [("mkv", 0.999), ("webm", 0.999), ("ts", 0.999), ("avi", 0.98)]
)
def test_even_the_last_bytes_are_missed(tmp_path, suffix, share):
    encoder = {"webm": "libvpx-vp9", "avi": "mpeg4"}.get(suffix, "libx264")
    path = write_video(tmp_path / f"whole.{suffix}", moving_frames(NUM_FRAMES, 96, 128), encoder)
    path.write_bytes(path.read_bytes()[: int(path.stat().st_size * share)])
    with pytest.raises(DataError, match=r"holds \d+ of its \d+ bytes: truncated"):
        decode_frames(path, [0])


def test_an_flv_that_ends_between_two_tags_is_too_short(tmp_path):
    path = write_video(tmp_path / "cut.flv", moving_frames(NUM_FRAMES), "flv")
    data, end = path.read_bytes(), 13  # past the header
    while end < len(path.read_bytes()) // 2:
        end += 11 + int.from_bytes(data[end + 1 : end + 4], "big") + 4
    path.write_bytes(data[:end])
    with pytest.raises(DataError, match=r"holds \d\.\d+ of its 2\.\d+ seconds: truncated"):
        decode_frames(path, [0])


class Pipe:
    """A file that cannot seek, as when a recording is streamed."""

    def __init__(self, path):
        self._file = path.open("wb")

    def write(self, data):
        return self._file.write(data)

    def close(self):
        self._file.close()


@pytest.mark.parametrize("container", ["matroska", "avi", "flv", "mpegts", "asf"])
def test_recordings_without_a_length_in_their_header_are_read(tmp_path, container):
    pipe = Pipe(tmp_path / "live")
    with av.open(pipe, "w", format=container) as writer:
        stream = writer.add_stream("mpeg4" if container in ("avi", "asf") else "libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        for frame in moving_frames(NUM_FRAMES):
            writer.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        writer.mux(stream.encode(None))
    pipe.close()
    np.testing.assert_array_equal(
        decode_frames(tmp_path / "live", [3, 40]), whole_file(tmp_path / "live")[[3, 40]]
    )


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "mov"])
def test_what_was_appended_to_a_file_does_not_matter(tmp_path, suffix):
    encoder = "mpeg4" if suffix == "avi" else "libx264"
    path = write_video(tmp_path / f"long.{suffix}", moving_frames(NUM_FRAMES), encoder)
    expected = whole_file(path)
    for tail in (bytes(1000), b"\xff" * 777, np.random.default_rng(0).bytes(5000)):
        (tmp_path / f"longer.{suffix}").write_bytes(path.read_bytes() + tail)
        np.testing.assert_array_equal(
            decode_frames(tmp_path / f"longer.{suffix}", [0, 49]), expected[[0, 49]]
        )


def test_a_long_last_frame_is_no_lack(tmp_path):
    """A slide show: the last of its frames is shown for a minute."""
    path = tmp_path / "slides.mkv"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        packets = [
            p
            for f in moving_frames(9)
            for p in stream.encode(av.VideoFrame.from_ndarray(f, format="rgb24"))
        ]
        packets += stream.encode(None)
        packets[-1].duration = round(60 / packets[-1].time_base)
        container.mux(packets)
    assert check_file(str(path)).error is None
