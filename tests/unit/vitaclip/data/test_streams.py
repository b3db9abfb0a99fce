"""Files that hold more than their video: covers, thumbnails and previews are not read in its
place.
"""

from __future__ import annotations

from dataclasses import dataclass

import av
import numpy as np
import pytest
from av.stream import Disposition

from testing.data_videos import moving_frames, whole_file, write_video
from vitaclip.data.check import check_file
from vitaclip.data.decode import decode_frames, video_info
from vitaclip.data.encoding import PrepareParameters
from vitaclip.data.prepare import encode
from vitaclip.errors import DataError

NUM_FRAMES = 30


@dataclass(frozen=True)
class Track:
    """A stream to write: pictures [N, H, W, 3], or sound where there are none."""

    codec: str
    pictures: np.ndarray | None = None
    disposition: Disposition | None = None


def pictures(num_frames, height, width):
    return moving_frames(num_frames, height, width, seed=9)


FRAMES = moving_frames(NUM_FRAMES)
VIDEO = Track("libx264", FRAMES)
SOUND = Track("aac")
COVERS = {
    "cover": Track("mjpeg", pictures(1, 300, 300), Disposition.attached_pic),
    "png cover": Track("png", pictures(1, 300, 300), Disposition.attached_pic),
    "unflagged picture": Track("mjpeg", pictures(1, 480, 640)),
    "unflagged png": Track("png", pictures(1, 480, 640)),
}
OTHERS = COVERS | {
    "thumbnails": Track("mjpeg", pictures(4, 240, 320), Disposition.timed_thumbnails),
    "unflagged thumbnails": Track("mjpeg", pictures(4, 240, 320)),
    "preview": Track("mjpeg", pictures(NUM_FRAMES, 32, 40), Disposition.default),
    "small copy": Track("libx264", pictures(NUM_FRAMES, 32, 40), Disposition.default),
    "short preview": Track("libx264", pictures(NUM_FRAMES // 3, 64, 80), Disposition.default),
}


def write_tracks(path, tracks):
    with av.open(str(path), "w") as container:
        streams = [add_track(container, track) for track in tracks]
        for step in range(NUM_FRAMES):
            for track, stream in zip(tracks, streams, strict=True):
                for frame in frames_at(track, step):
                    container.mux(stream.encode(frame))
        for stream in streams:
            container.mux(stream.encode(None))
    return path


def add_track(container, track):
    if track.pictures is None:
        return container.add_stream(track.codec, rate=8000)
    stream = container.add_stream(track.codec, rate=25)
    stream.height, stream.width = track.pictures.shape[1:3]
    stream.pix_fmt = {"mjpeg": "yuvj420p", "png": "rgb24"}.get(track.codec, "yuv420p")
    if track.disposition is not None:
        stream.disposition = track.disposition
    return stream


def frames_at(track, step):
    if track.pictures is None:
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 320), np.float32), format="fltp", layout="mono"
        )
        frame.sample_rate = 8000
        yield frame
    elif step < len(track.pictures):
        yield av.VideoFrame.from_ndarray(track.pictures[step], format="rgb24")


FILES = [  # Matroska has no PNG as video
    (other, suffix)
    for other in OTHERS
    for suffix in ("mp4", "mov", "mkv")
    if "png" not in other or suffix != "mkv"
]


@pytest.mark.parametrize("decoder", ["pyav", "decord"])
@pytest.mark.parametrize(("other", "suffix"), FILES)
@pytest.mark.parametrize("is_first", [True, False], ids=["first", "last"])
def test_the_video_is_read_wherever_it_stands(tmp_path, other, is_first, suffix, decoder):
    tracks = [OTHERS[other], VIDEO, SOUND] if is_first else [VIDEO, SOUND, OTHERS[other]]
    path = write_tracks(tmp_path / f"film.{suffix}", tracks)
    alone = write_video(tmp_path / "alone.mp4", FRAMES)
    assert video_info(path).num_frames == NUM_FRAMES
    draw = [0, 7, 8, 22, NUM_FRAMES - 1]
    found = decode_frames(path, draw, decoder=decoder).astype(int)
    # other pictures differ by 30 and more
    assert np.abs(found - whole_file(alone)[draw]).mean() < 5
    assert check_file(str(path)).error is None


@pytest.mark.parametrize(
    ("cover", "suffix"), [(other, suffix) for other, suffix in FILES if other in COVERS]
)
def test_sound_with_a_cover_is_no_video(tmp_path, cover, suffix):
    path = write_tracks(tmp_path / f"song.{suffix}", [SOUND, OTHERS[cover]])
    for decoder in ("auto", "decord"):
        with pytest.raises(DataError, match=r"song\.\w+: holds no video"):
            decode_frames(path, [0], decoder=decoder)
    assert "holds no video" in str(check_file(str(path)).error)


def test_prepare_takes_the_video(tmp_path):
    path = write_tracks(tmp_path / "film.mp4", [OTHERS["unflagged picture"], VIDEO])
    encode(str(path), tmp_path / "prepared.mp4", PrepareParameters())
    found = decode_frames(tmp_path / "prepared.mp4", [20]).astype(int)
    assert np.abs(found - FRAMES[[20]]).mean() < 12
