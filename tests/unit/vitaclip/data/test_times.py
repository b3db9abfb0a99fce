"""Files whose packets' times lie, or whose packets hold no picture: what decodes, in its order, is
the truth.
"""

from __future__ import annotations

import itertools
import json
from dataclasses import asdict

import av
import numpy as np
import pytest

from testing.data_videos import moving_frames, whole_file, write_packets, write_video
from vitaclip.data import decode
from vitaclip.data.check import check_file, check_files
from vitaclip.data.decode import decode_frames, open_pyav, read_frames, video_info
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.prepare import encode
from vitaclip.data.timeline import Packet, timeline_of_times

NUM_FRAMES = 60
REORDERED = {  # encoder, options: each stores pictures in another order than it shows them
    "h264, pyramid": ("libx264", {"x264-params": "keyint=24:bframes=5:b-adapt=0:b-pyramid=strict"}),
    "h264, no pyramid": (
        "libx264",
        {"x264-params": "keyint=24:bframes=3:b-adapt=0:b-pyramid=none"},
    ),
    "h265": ("libx265", {"x265-params": "log-level=none:keyint=24:bframes=4:b-adapt=0"}),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "24"}),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "12"}),
}


@pytest.fixture(scope="module")
def reordered(tmp_path_factory):
    folder = tmp_path_factory.mktemp("reordered")
    frames = moving_frames(NUM_FRAMES)
    return {
        name: write_video(folder / f"{number}.mp4", frames, codec, options=options)
        for number, (name, (codec, options)) in enumerate(REORDERED.items())
    }


def draws(num_frames):
    rng = np.random.default_rng(0)
    singles = [[index] for index in range(0, num_frames, 2)]
    clips = [np.sort(rng.integers(0, num_frames, 8)).tolist() for _ in range(8)]
    return [*singles, *clips, list(range(num_frames))]


def assert_every_draw_is(path, expected):
    assert video_info(path).num_frames == len(expected)
    for draw in draws(len(expected)):
        np.testing.assert_array_equal(decode_frames(path, draw), expected[draw])


def in_order_of_decoding(packets):
    """Times as remuxing from AVI leaves them."""
    start = packets[0].dts
    for packet in packets:
        packet.pts = packet.dts = packet.dts - start
    return packets


# FFmpeg writes neither H.264 as MP4 holds it nor H.265 into AVI, and MPEG-4 into TS without its
# header
REMUXED = [
    *((codec, suffix) for codec in REORDERED for suffix in ("mp4", "mov", "mkv")),
    *((codec, "ts") for codec in REORDERED if codec != "mpeg4"),
    *((codec, "avi") for codec in ("mpeg4", "mpeg2")),
    ("mpeg2", "mpg"),
]


@pytest.mark.parametrize(("codec", "suffix"), REMUXED)
def test_times_in_the_order_of_decoding_are_not_believed(reordered, tmp_path, codec, suffix):
    path = write_packets(reordered[codec], tmp_path / f"remuxed.{suffix}", in_order_of_decoding)
    expected = whole_file(path)
    np.testing.assert_array_equal(expected, whole_file(reordered[codec]))
    assert_every_draw_is(path, expected)
    assert check_file(str(path)).error is None


@pytest.mark.parametrize("codec", REORDERED)
def test_right_times_are_believed_and_nothing_more_than_needed_is_decoded(reordered, codec):
    with open_pyav(reordered[codec]) as video:
        assert video.timeline is not None
        read_frames(video, [3, 30, 41])
        assert video._counted is None
    assert_every_draw_is(reordered[codec], whole_file(reordered[codec]))


def test_large_files_are_counted_without_holding_them(reordered, tmp_path, monkeypatch):
    monkeypatch.setattr(decode, "MAX_KEPT_BYTES", 0)
    path = write_packets(reordered["mpeg4"], tmp_path / "remuxed.mp4", in_order_of_decoding)
    assert_every_draw_is(path, whole_file(path))


def in_groups_that_lie(packets):
    """The times of every other group of pictures, in the order of decoding."""
    starts = [place for place, packet in enumerate(packets) if packet.is_keyframe] + [len(packets)]
    for first, last in list(itertools.pairwise(starts))[1::2]:
        group = packets[first:last]
        for packet, time in zip(group, sorted(packet.pts for packet in group), strict=True):
            packet.pts = time
    return packets


@pytest.mark.parametrize(("codec", "suffix"), [file for file in REMUXED if file[1] != "avi"])
def test_a_file_of_which_a_part_lies_is_not_believed(reordered, tmp_path, codec, suffix):
    path = write_packets(reordered[codec], tmp_path / f"joined.{suffix}", in_groups_that_lie)
    np.testing.assert_array_equal(decode_frames(path, range(NUM_FRAMES)), whole_file(path))


SHORT_GROUPS = {
    "h264, pyramid": (
        "libx264",
        {"x264-params": "keyint=12:min-keyint=12:bframes=3:b-adapt=0:scenecut=0"},
    ),
    "h264, open": (
        "libx264",
        {"x264-params": "keyint=12:min-keyint=12:bframes=5:b-adapt=0:scenecut=0:open-gop=1"},
    ),
    "h265": (
        "libx265",
        {"x265-params": "log-level=none:keyint=12:min-keyint=12:b-adapt=0:scenecut=0"},
    ),
    "mpeg4": ("mpeg4", {"bf": "2", "g": "12"}),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "12"}),
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv"])
@pytest.mark.parametrize("codec", SHORT_GROUPS)
def test_a_short_part_that_lies_is_noticed_in_every_draw(tmp_path, codec, suffix):
    """Too short to be seen in the times alone: pictures that come out before a wanted one tell."""
    encoder, options = SHORT_GROUPS[codec]
    source = write_video(
        tmp_path / "source.mp4", moving_frames(NUM_FRAMES), encoder, options=options
    )
    path = write_packets(source, tmp_path / f"joined.{suffix}", in_groups_that_lie)
    assert_every_draw_is(path, whole_file(path))


def test_a_long_part_that_lies_is_seen_in_the_times(tmp_path):
    options = {"x264-params": "keyint=30:min-keyint=30:scenecut=0:bframes=3:b-adapt=0"}
    source = write_video(tmp_path / "source.mp4", moving_frames(NUM_FRAMES), options=options)
    path = write_packets(source, tmp_path / "joined.mkv", in_groups_that_lie)
    with open_pyav(path) as video:
        assert video.timeline is None


def all_key(packets):
    for packet in packets:
        packet.is_keyframe = True
    return packets


def some_key(packets):
    for packet in packets[::7]:
        packet.is_keyframe = True
    return packets


STRAIGHT = {
    "h264, straight": ("libx264", {"x264-params": "keyint=20:bframes=0"}),
    "mpeg4, straight": ("mpeg4", {"g": "20", "bf": "0"}),
    "vp9": ("libvpx-vp9", {"g": "20", "deadline": "realtime"}),
}


@pytest.mark.parametrize("lie", [all_key, some_key])
@pytest.mark.parametrize("codec", [*REORDERED, *STRAIGHT])
def test_key_frames_that_are_none_are_noticed(tmp_path, codec, lie):
    encoder, options = (REORDERED | STRAIGHT)[codec]
    source = write_video(
        tmp_path / "source.mp4", moving_frames(NUM_FRAMES), encoder, options=options
    )
    path = write_packets(source, tmp_path / "keys.mp4", lie)
    assert_every_draw_is(path, whole_file(source))


def test_times_of_reordered_pictures_in_avi_are_made_up(tmp_path):
    path = write_video(tmp_path / "b.avi", moving_frames(NUM_FRAMES), "mpeg4", options={"bf": "2"})
    with open_pyav(path) as video:
        assert video.timeline is None
    assert_every_draw_is(path, whole_file(path))


@pytest.mark.parametrize("num_frames", [2, 5, 9])
@pytest.mark.parametrize("codec", REORDERED)
def test_short_files_that_lie_are_not_believed(reordered, tmp_path, codec, num_frames):
    path = write_packets(
        reordered[codec],
        tmp_path / "short.mp4",
        lambda packets: in_order_of_decoding(packets[:num_frames]),
    )
    assert_every_draw_is(path, whole_file(path))


def test_pictures_that_refresh_bit_by_bit_are_reached_from_the_start(tmp_path):
    options = {"x264-params": "intra-refresh=1:keyint=15:bframes=0"}
    path = write_video(tmp_path / "refresh.mkv", moving_frames(NUM_FRAMES), options=options)
    assert_every_draw_is(path, whole_file(path))


def test_nothing_is_shown_after_a_key_frame_that_comes_later_in_the_file():
    """FFmpeg makes such times up for program streams that have none."""
    keys, times = {0, 7}, [0, 3, 1, 2, 6, 4, 5, 7, 8]
    right = [Packet(time, place in keys, is_shown=True) for place, time in enumerate(times)]
    assert timeline_of_times(right, reorder_depth=1) is not None
    wrong = [
        packet._replace(time=9) if place == 4 else packet for place, packet in enumerate(right)
    ]
    assert timeline_of_times(wrong, reorder_depth=1) is None


# Packets without a picture


def not_coded(place, length=25):
    """An MPEG-4 picture that says: as before. 25 ticks a second take five bits."""
    bits = f"0101{place % length:05b}10" + "0" + "1" * 4
    return b"\0\0\1\xb6" + int(bits, 2).to_bytes(2, "big")


def without_pictures(places):
    def change(packets):
        changed = []
        for place, packet in enumerate(packets):
            if place in places:
                empty = av.Packet(not_coded(place))
                empty.pts, empty.dts, empty.time_base = packet.pts, packet.dts, packet.time_base
                empty.duration = packet.duration
                packet = empty
            changed.append(packet)
        return changed

    return change


@pytest.mark.parametrize("suffix", ["avi", "mp4", "mkv"])
@pytest.mark.parametrize("places", [{5}, {9, 10, 11, 30}, {9, NUM_FRAMES - 1}, {24}], ids=str)
def test_a_missing_picture_repeats_the_one_before(tmp_path, suffix, places):
    frames = moving_frames(NUM_FRAMES)
    source = write_video(tmp_path / "source.mp4", frames, "mpeg4", options={"g": "12", "bf": "0"})
    path = write_packets(source, tmp_path / f"gaps.{suffix}", without_pictures(places))
    # at the end, the decoder repeats by itself
    decoded = whole_file(path)[: NUM_FRAMES - len(places)]
    shown = np.cumsum([place not in places for place in range(NUM_FRAMES)]) - 1
    assert_every_draw_is(path, decoded[shown])
    assert check_file(str(path)).error is None
    encode(str(path), tmp_path / "prepared.mp4", PrepareParameters())
    assert video_info(tmp_path / "prepared.mp4").num_frames == NUM_FRAMES


def test_invisible_packets_of_vp8_are_no_frames(tmp_path):
    """A first packet whose picture is not shown: bit 4 of a VP8 frame's header."""

    def hidden(packets):
        data = bytearray(bytes(packets[20]))
        data[0] &= ~0x10
        copy = av.Packet(bytes(data))
        copy.pts, copy.dts, copy.time_base = packets[20].pts, packets[20].dts, packets[20].time_base
        return [*packets[:20], copy, *packets[21:]]

    source = write_video(tmp_path / "vp8.webm", moving_frames(40), "libvpx", options={"g": "16"})
    path = write_packets(source, tmp_path / "hidden.webm", hidden)
    expected = whole_file(path)
    assert len(expected) == 39
    assert_every_draw_is(path, expected)


# Cuts


OPEN = {
    "h264": (
        "libx264",
        {"x264-params": "open-gop=1:keyint=12:min-keyint=12:bframes=3:scenecut=0:b-adapt=0"},
    ),
    "h265": (
        "libx265",
        {"x265-params": "log-level=none:open-gop=1:keyint=12:min-keyint=12:b-adapt=0"},
    ),
    "mpeg2": ("mpeg2video", {"bf": "2", "g": "12"}),
}


def from_second_key_frame(packets, drop_last=0):
    keys = [place for place, packet in enumerate(packets) if packet.is_keyframe]
    return packets[keys[1] : len(packets) - drop_last]


CUTS = [  # x264 repeats no headers, which a TS that is cut would need
    (codec, suffix)
    for codec in OPEN
    for suffix in ("mp4", "mkv", "ts", "mov")
    if (codec, suffix) != ("h264", "ts")
]


@pytest.mark.parametrize(("codec", "suffix"), CUTS)
@pytest.mark.parametrize("drop_last", [0, 2])
def test_cut_open_groups_hold_the_frames_that_decode(tmp_path, codec, drop_last, suffix):
    encoder, options = OPEN[codec]
    source = write_video(
        tmp_path / "source.mp4", moving_frames(NUM_FRAMES), encoder, options=options
    )
    path = write_packets(
        source,
        tmp_path / f"cut.{suffix}",
        lambda packets: from_second_key_frame(packets, drop_last),
    )
    expected = whole_file(path)
    assert len(expected) > 30
    assert_every_draw_is(path, expected)


def test_a_recording_that_starts_between_key_frames_begins_with_what_decodes(tmp_path):
    source = write_video(
        tmp_path / "s.mp4", moving_frames(NUM_FRAMES), "libvpx-vp9", options={"g": "20"}
    )
    path = write_packets(source, tmp_path / "cut.mkv", lambda packets: packets[7:])
    expected = whole_file(source)[20:]
    assert_every_draw_is(path, expected)


# What check tries


def damaged(place):
    def change(packets):
        broken = av.Packet(bytes(len(bytes(packets[place]))))
        broken.pts, broken.dts, broken.time_base = (
            packets[place].pts,
            packets[place].dts,
            packets[place].time_base,
        )
        broken.is_keyframe = packets[place].is_keyframe
        return [*packets[:place], broken, *packets[place + 1 :]]

    return change


@pytest.mark.parametrize("codec", ["mjpeg", "libvpx-vp9"])
def test_check_finds_damage_between_the_ends(tmp_path, codec):
    source = write_video(
        tmp_path / "source.mkv", moving_frames(NUM_FRAMES), codec, options={"g": "20"}
    )
    assert check_file(str(source)).error is None
    path = write_packets(source, tmp_path / "damaged.mkv", damaged(27))
    assert "damaged.mkv" in str(check_file(str(path)).error)


def test_a_file_that_an_older_check_called_good_is_looked_at_again(tmp_path):
    path, ledger = tmp_path / "film.mp4", tmp_path / "check.jsonl"
    good = check_file(str(write_video(path, moving_frames(12))))
    ledger.write_text(json.dumps(asdict(good)) + "\n")
    assert check_files([str(path)], ledger, num_threads=1) == [good]
    older = {key: value for key, value in asdict(good).items() if key != "check"} | {
        "codec": "other"
    }
    ledger.write_text(json.dumps(older) + "\n")
    assert check_files([str(path)], ledger, num_threads=1) == [good]
