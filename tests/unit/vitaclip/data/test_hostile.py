"""Names and files that would reach further than a video on this disk, or take more memory than
one.
"""

from __future__ import annotations

import os
import socket
import threading
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from testing.data_videos import moving_frames, whole_file, write_video
from vitaclip.data.check import check_file
from vitaclip.data.container import require_local_file
from vitaclip.data.decode import decode_frames, open_video
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.formats import video_paths
from vitaclip.data.prepare import encode
from vitaclip.errors import DataError


@pytest.fixture
def server():
    """A port that takes connections, and the list of those it took."""
    taken = []
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def take():
            while True:
                try:
                    connection, address = listener.accept()
                except OSError:
                    return
                taken.append(address)
                connection.close()

        threading.Thread(target=take, daemon=True).start()
        yield listener.getsockname()[1], taken
        listener.shutdown(socket.SHUT_RDWR)


@pytest.fixture(scope="module")
def video(tmp_path_factory):
    return write_video(tmp_path_factory.mktemp("here") / "film.mp4", moving_frames(12))


ADDRESSES = [
    *(
        f"{scheme}://127.0.0.1:{{port}}/a.mp4"
        for scheme in ("http", "https", "tcp", "rtmp", "rtsp", "ftp", "hls+http")
    ),
    *(
        "concat:{film}|{film}",
        "subfile,,start,0,end,0,,:{film}",
        "file:{film}",
        "crypto:{film}",
        "cache:{film}",
    ),
    *(
        "async:{film}",
        "data:video/mp4;base64,AAAA",
        "pipe:0",
        "fd:0",
        "unix:{film}",
        "s3://bucket/a.mp4",
    ),
]


@pytest.mark.parametrize("address", ADDRESSES)
def test_a_name_with_a_protocol_is_refused_before_anything_is_opened(
    address, server, video, tmp_path
):
    port, taken = server
    name = address.format(port=port, film=video)
    for decoder in ("auto", "decord"):
        with pytest.raises(DataError, match="names the protocol"):
            decode_frames(name, [0], decoder=decoder)
    with pytest.raises(DataError, match="names the protocol"):
        encode(name, tmp_path / "prepared.mp4", PrepareParameters())
    assert "names the protocol" in str(check_file(name).error)
    with pytest.raises(DataError, match="^[^\n]*names the protocol[^\n]*$"):
        require_local_file(str(Path(name)))  # as commands hand it on
    assert not taken


def test_a_local_file_may_be_called_like_an_address(video, tmp_path, monkeypatch):
    (tmp_path / "http:").mkdir()
    (tmp_path / "http:" / "film.mp4").write_bytes(video.read_bytes())
    (tmp_path / "concat:film.mp4").write_bytes(video.read_bytes())
    monkeypatch.chdir(tmp_path)
    for name in ("http:/film.mp4", "concat:film.mp4"):
        for decoder in ("auto", "decord"):
            found = decode_frames(name, [3], decoder=decoder).astype(int)
            assert np.abs(found - whole_file(video)[[3]]).max() <= 2


LISTS = {
    "concat": "ffconcat version 1.0\nfile film.mp4\n",
    "hls": "#EXTM3U\n#EXT-X-VERSION:3\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\n"
    "film.mp4\n#EXT-X-ENDLIST\n",
    "hls over "
    "http": "#EXTM3U\n#EXT-X-TARGETDURATION:1\n#EXTINF:1,\nhttp://127.0.0.1:{port}/a.ts\n#EXT-X-ENDLIST\n",
    "dash": "<?xml version='1.0'?><MPD xmlns='urn:mpeg:dash:schema:mpd:2011' "
    "type='static'><Period><AdaptationSet><Representation id='1' "
    "bandwidth='1'><BaseURL>film.mp4</BaseURL></Representation></AdaptationSet></Period></MPD>",
    "sdp": "v=0\no=- 0 0 IN IP4 127.0.0.1\ns=x\nc=IN IP4 127.0.0.1\nt=0 0\nm=video 5004 RTP/AVP "
    "96\n"
    "a=rtpmap:96 H264/90000\n",
    "rtsp redirect": "[Reference]\nRef1=http://127.0.0.1:{port}/a.mp4\n",
    "asx": "<ASX VERSION='3.0'><ENTRY><REF HREF='http://127.0.0.1:{port}/a.mp4'/></ENTRY></ASX>",
}


@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "m3u8", "ffconcat", "mpd", "sdp"])
@pytest.mark.parametrize("kind", LISTS)
def test_lists_of_other_files_are_no_videos(kind, suffix, server, video, tmp_path):
    port, taken = server
    (tmp_path / "film.mp4").write_bytes(video.read_bytes())
    path = tmp_path / f"list.{suffix}"
    path.write_text(LISTS[kind].format(port=port))
    for decoder in ("auto", "decord"):
        with pytest.raises(DataError, match="list"):
            decode_frames(path, [0], decoder=decoder)
    assert not taken


@pytest.mark.parametrize("codec", ["png", "mjpeg", "bmp", "gif"])
def test_pictures_under_a_videos_name_are_no_videos(tmp_path, codec):
    path = tmp_path / "picture.mp4"
    stored = {"gif": "gif"}.get(codec, "image2")
    with av.open(
        str(tmp_path / "picture"), "w", format=stored, options={"update": "1"}
    ) as container:
        stream = container.add_stream(codec, rate=1)
        stream.height, stream.width = 64, 80
        stream.pix_fmt = {"mjpeg": "yuvj420p", "bmp": "bgr24", "gif": "rgb8"}.get(codec, "rgb24")
        container.mux(
            stream.encode(av.VideoFrame.from_ndarray(moving_frames(1)[0], format="rgb24"))
        )
        container.mux(stream.encode(None))
    (tmp_path / "picture").rename(path)
    with pytest.raises(DataError, match="picture.mp4"):
        decode_frames(path, [0])


def test_what_is_no_regular_file_is_refused_at_once(tmp_path):
    os.mkfifo(tmp_path / "pipe.mp4")
    (tmp_path / "folder.mp4").mkdir()
    (tmp_path / "self.mp4").symlink_to(tmp_path / "self.mp4")
    (tmp_path / "device.mp4").symlink_to("/dev/zero")
    for path in tmp_path.iterdir():
        with pytest.raises(DataError, match=f"{path.name}: cannot be opened"):
            decode_frames(path, [0])


# Size


def test_frames_of_more_pixels_than_allowed_are_refused(video, monkeypatch, tmp_path):
    monkeypatch.setenv("VITACLIP_MAX_FRAME_PIXELS", str(64 * 80))
    assert decode_frames(video, [0]).shape == (1, 64, 80, 3)
    monkeypatch.setenv("VITACLIP_MAX_FRAME_PIXELS", str(64 * 80 - 1))
    told = r"film.mp4: .*80 x 64 = 5120 pixels, allowed 1..5119; set VITACLIP_MAX_FRAME_PIXELS"
    for decoder in ("auto", "decord"):
        with pytest.raises(DataError, match=told):
            decode_frames(video, [0], decoder=decoder)
    with pytest.raises(DataError, match=told):
        encode(str(video), tmp_path / "prepared.mp4", PrepareParameters())
    assert "VITACLIP_MAX_FRAME_PIXELS" in str(check_file(str(video)).error)


@pytest.mark.parametrize(
    ("height", "width"), [(720, 1296), (1600, 2048)], ids=["too large", "far too large"]
)
@pytest.mark.parametrize("suffix", ["mp4", "mkv", "avi", "ts", "mpg", "webm"])
def test_giant_frames_are_refused_in_every_container(tmp_path, monkeypatch, suffix, height, width):
    encoders = {"avi": "mpeg4", "mpg": "mpeg2video", "webm": "libvpx", "ts": "libx264"}
    codec = encoders.get(suffix, "mjpeg")
    frames = np.zeros((2, height, width, 3), np.uint8)
    options = {"libx264": {"preset": "ultrafast"}, "libvpx": {"deadline": "realtime"}}.get(codec)
    path = write_video(tmp_path / f"giant.{suffix}", frames, codec, options=options)
    assert decode_frames(path, [0], short_side=64).shape[1] == 64
    monkeypatch.setenv("VITACLIP_MAX_FRAME_PIXELS", str(720 * 1280))
    with pytest.raises(DataError, match="VITACLIP_MAX_FRAME_PIXELS") as refused:
        decode_frames(path, [0])
    if width == 2048 and suffix in ("mp4", "mkv", "avi"):
        # FFmpeg did not decode them to find out
        assert "no or far too many pixels" in str(refused.value)


def test_pixels_that_are_not_square_count_as_what_they_become(tmp_path, video, monkeypatch):
    path = tmp_path / "wide.mp4"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("libx264", rate=25)
        stream.height, stream.width, stream.pix_fmt = 64, 80, "yuv420p"
        stream.codec_context.sample_aspect_ratio = Fraction(30)
        for frame in moving_frames(3):
            container.mux(stream.encode(av.VideoFrame.from_ndarray(frame, format="rgb24")))
        container.mux(stream.encode(None))
    monkeypatch.setenv("VITACLIP_MAX_FRAME_PIXELS", "100000")
    with pytest.raises(DataError, match="VITACLIP_MAX_FRAME_PIXELS"):
        decode_frames(path, [0])


def test_frames_that_grow_on_the_way_are_refused(tmp_path, monkeypatch):
    small = write_video(tmp_path / "small.ts", moving_frames(12))
    large = write_video(tmp_path / "large.ts", moving_frames(12, 640, 800))
    path = tmp_path / "growing.ts"
    path.write_bytes(small.read_bytes() + large.read_bytes())
    with open_video(path) as video:
        assert len(list(video.frames(range(video.info.num_frames)))) == 24
    monkeypatch.setenv("VITACLIP_MAX_FRAME_PIXELS", str(300 * 400))
    assert "VITACLIP_MAX_FRAME_PIXELS" in str(check_file(str(path)).error)


# Links


def test_links_that_loop_come_to_an_end(tmp_path):
    for name in ("a/x.mp4", "a/b/y.avi", "c/z.webm", "c/notes.txt"):
        (tmp_path / "root" / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / "root" / name).touch()
    (tmp_path / "elsewhere").mkdir()
    (tmp_path / "elsewhere" / "w.mkv").touch()
    root = tmp_path / "root"
    for link, target in {
        "a/up": "..",
        "a/b/up": "../..",
        "c/a": "../a",
        "0-first": "c",
        "out": str(tmp_path / "elsewhere"),
        "c/self": "self",
        "c/gone": "nowhere",
    }.items():
        (root / link).symlink_to(target)
    (tmp_path / "elsewhere" / "back").symlink_to(root)
    found = sorted(path.removeprefix(f"{root}/") for path in video_paths(root))
    assert found == ["a/b/y.avi", "a/x.mp4", "c/z.webm", "out/w.mkv"]


def test_a_data_set_that_is_itself_a_link_is_searched(tmp_path):
    (tmp_path / "real").mkdir()
    (tmp_path / "real" / "x.mp4").touch()
    (tmp_path / "link").symlink_to("real")
    assert list(video_paths(tmp_path / "link")) == [str(tmp_path / "link" / "x.mp4")]
