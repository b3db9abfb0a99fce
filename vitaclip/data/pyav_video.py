"""Videos read by PyAV: only what is needed is decoded, and what decodes has the last word.

The whole file is demuxed first, which is cheap. Where its times can be believed, only the groups of
pictures that hold wanted frames are decoded; within a group, pictures that are neither wanted nor
referred to are skipped. What comes out is compared with what the times promised. Where they lie, or
say nothing, the file is decoded from its start, and pictures are counted as they come out.
"""

from __future__ import annotations

import contextlib
import itertools
from collections.abc import Container, Iterator, Mapping, Sequence
from typing import Any, NamedTuple

import av

from vitaclip.data.container import (
    choose_video,
    decoder_options,
    open_container,
    possible_videos,
    require_allowed_size,
)
from vitaclip.data.geometry import square_pixel_size, to_rgb
from vitaclip.data.timeline import Packet, Timeline, pictures_of_frames, timeline_of_times
from vitaclip.data.truncation import require_whole
from vitaclip.data.video import Frames, FramesRecountedError, VideoInfo
from vitaclip.errors import DataError

# decoders that can be told packet by packet what to skip
SKIPPING_CODECS = (
    "h264",
    "hevc",
    "mpeg4",
    "vp9",
)


class PyAVVideo:
    """An open video. Holds its packets, and its pictures where all had to be decoded, up to a
    limit.
    """

    def __init__(self, path: str, container: Any, *, max_kept_bytes: int, max_pixels: int) -> None:
        """Reads an open container.

        Args:
            path: the video, for messages.
            container: the open file.
            max_kept_bytes: of decoded frames that are kept for a second look.
            max_pixels: of a frame.
        """
        self._path, self._max_kept_bytes, self._max_pixels = path, max_kept_bytes, max_pixels
        self.stream, self._packets, self._kept = self._read_packets(container)
        self.height, self.width = square_pixel_size(self.stream)
        require_allowed_size(path, self.height, self.width, max_pixels)
        self._context = self.stream.codec_context
        self._context.thread_count = 1  # clips are decoded in parallel, not frames
        self._context.options = decoder_options(max_pixels)
        self.timeline = self._believed_timeline()
        self._counted: _Counted | None = None
        if self.timeline is None:
            self.count_pictures()
        self.info = self._describe()

    def _believed_timeline(self) -> Timeline | None:
        depth = self._context.reorder_depth
        # AVI stores no times (those of reordered pictures are made up), and packets of VP8 may be
        # invisible
        if (self.stream.container.format.name == "avi" and depth) or self._context.name == "vp8":
            return None
        return timeline_of_times(self._packets, depth)

    def _read_packets(self, container: Any) -> tuple[Any, list[Packet], list[Any] | None]:
        """The stream that is the video, its packets, and the packets' data unless it is too
        large.
        """
        streams = possible_videos(container)
        found: Mapping[int, list[Any]] = {stream.index: [] for stream in streams}
        packets: Mapping[int, list[Packet]] = {stream.index: [] for stream in streams}
        ends = [0] * len(container.streams)
        num_bytes = 0
        for packet in container.demux():
            size, index, time = packet.size, packet.stream_index, packet.pts
            if not size:
                continue
            if time is not None:
                ends[index] = max(ends[index], time + (packet.duration or 0))
            if index in packets:
                packets[index].append(Packet(time, packet.is_keyframe, not packet.is_discard))
                num_bytes += size
                if num_bytes <= self._max_kept_bytes:
                    found[index].append(packet)
        counts = {index: len(of_stream) for index, of_stream in packets.items()}
        video = choose_video(self._path, streams, counts)
        end_s = max(
            float(end * stream.time_base)
            for end, stream in zip(ends, container.streams, strict=True)
        )
        require_whole(self._path, video, counts[video.index], end_s)
        kept = found[video.index] if num_bytes <= self._max_kept_bytes else None
        return video, packets[video.index], kept

    def _describe(self) -> VideoInfo:
        places = self._places()
        return VideoInfo(
            num_frames=len(places),
            height=self.height,
            width=self.width,
            fps=float(self.stream.average_rate or 0),
            codec=self._context.name,
            key_frames=tuple(
                index for index, place in enumerate(places) if self._packets[place].is_key
            ),
        )

    def _places(self) -> Sequence[int]:
        """Each frame's packet."""
        if self.timeline is not None:
            return self.timeline.order
        assert self._counted is not None  # where times are not believed, pictures are counted
        return self._counted.places

    @property
    def times(self) -> list[int] | None:
        """When each frame is shown, in the stream's time base; None if the file does not say."""
        times = [self._packets[place].time for place in self._places()]
        known = [time for time in times if time is not None]
        is_told = len(known) == len(times) and all(a < b for a, b in itertools.pairwise(known))
        return known if is_told else None

    def count_pictures(self) -> None:
        """Decodes the whole file, once, so that every frame is known to be what comes out at its
        turn.

        Raises DataError if nothing decodes, and PyAV's errors for damaged packets.
        """
        if self._counted is not None:
            return
        places: list[int] = []
        pictures: list[Any] = []
        num_bytes = 0
        for picture in self._decode_all():
            places.append(picture.pts)
            num_bytes += sum(plane.buffer_size for plane in picture.planes)
            if num_bytes <= self._max_kept_bytes:
                pictures.append(picture)
        if not places:
            raise DataError(f"{self._path}: holds no frames that decode")
        kept = pictures if len(pictures) == len(places) else None
        self._counted = _Counted(places, pictures_of_frames(places, self.timeline), kept)

    def frames(self, indices: Sequence[int]) -> Iterator[tuple[int, Frames]]:
        for index, picture in self.pictures(indices):
            # a stream may grow on the way
            require_allowed_size(self._path, picture.height, picture.width, self._max_pixels)
            yield index, to_rgb(picture, self.height, self.width)

    def pictures(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        """(index, picture as decoded) for ascending, unique indices. Raises FramesRecountedError as
        ``frames`` does.
        """
        if self.timeline is None or self._counted is not None:
            yield from self._as_counted(indices)
            return
        wanted = {self.timeline.order[index]: index for index in indices}
        try:
            found = self._of_spans(self.timeline, wanted)
            for index, (found_index, picture) in itertools.zip_longest(
                indices, found, fillvalue=(None, None)
            ):
                if index != found_index:
                    raise _MisleadingTimesError
                yield index, picture
        except (_MisleadingTimesError, av.error.FFmpegError) as error:
            self.count_pictures()
            raise FramesRecountedError from error

    def _of_spans(self, timeline: Timeline, wanted: Mapping[int, int]) -> Iterator[tuple[int, Any]]:
        needed = wanted.keys() | timeline.witnesses(wanted)
        packets = self._numbered_packets()
        position = 0
        for first, last in timeline.spans(needed):
            span = itertools.islice(packets, first - position, last - position + 1)
            for place, picture in self._checked(timeline, first, self._decode(span, needed)):
                if place in wanted:
                    yield wanted[place], picture
            position = last + 1

    def _decode(self, packets: Iterator[Any], needed: Container[int]) -> Iterator[Any]:
        """The pictures of the needed packets, and of those that others refer to."""
        others = "NONREF" if self._context.name in SKIPPING_CODECS else "DEFAULT"
        self._context.flush_buffers()
        for packet in packets:
            self._context.skip_frame = "DEFAULT" if packet.pts in needed else others
            yield from self._context.decode(packet)
        yield from self._context.decode(None)

    def _checked(
        self, timeline: Timeline, first: int, pictures: Iterator[Any]
    ) -> Iterator[tuple[int, Any]]:
        """Pictures of a span with their packets' places, if the key frame is one and the order is
        as promised.
        """
        start = timeline.ranks[first]
        newest = start - 1 if self._packets[first].is_shown else start
        for picture in pictures:
            rank = timeline.ranks[picture.pts]
            if rank < start:  # shown before the key frame: their references were not decoded here
                continue
            is_start = newest < start
            if rank <= newest or (is_start and not (rank == start and picture.key_frame)):
                raise _MisleadingTimesError
            newest = rank
            yield picture.pts, picture

    def _as_counted(self, indices: Sequence[int]) -> Iterator[tuple[int, Any]]:
        assert self._counted is not None
        kept = self._counted.pictures
        pictures = enumerate(self._decode_all() if kept is None else kept)
        number, picture = next(pictures)
        for index in indices:
            while number < self._counted.picture_of[index]:
                number, picture = next(pictures)
            yield index, picture

    def _decode_all(self) -> Iterator[Any]:
        """Every picture of the file. Packets before the first picture may be without what they
        refer to.
        """
        self._context.flush_buffers()
        self._context.skip_frame = "DEFAULT"
        none_yet = True
        for packet in self._numbered_packets():
            try:
                pictures = self._context.decode(packet)
            except av.error.InvalidDataError:
                if not none_yet:
                    raise
                continue
            none_yet = none_yet and not pictures
            yield from pictures
        yield from self._context.decode(None)

    def _numbered_packets(self) -> Iterator[Any]:
        """The packets, with their places instead of times: decoders hand these on to the
        pictures.
        """
        with contextlib.ExitStack() as files:
            packets = self._kept if self._kept is not None else self._read_again(files)
            for place, packet in enumerate(packets):
                packet.pts = packet.dts = place
                yield packet

    def _read_again(self, files: contextlib.ExitStack) -> Iterator[Any]:
        """Opened anew: a seek to the start of a file does not always find it."""
        container = files.enter_context(open_container(self._path, self._max_pixels))
        return (
            packet
            for packet in container.demux(container.streams[self.stream.index])
            if packet.size
        )


class _Counted(NamedTuple):
    """What came out of the decoder, in that order."""

    places: list[int]  # each picture's packet
    picture_of: list[int]  # by frame
    pictures: list[Any] | None  # None: too large to keep


class _MisleadingTimesError(Exception):
    """What decoded is not what the times promised."""
