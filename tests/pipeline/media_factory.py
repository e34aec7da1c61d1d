"""Small videos made with PyAV, and what PyAV itself decodes from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
from av.video.stream import VideoStream

from pipeline.decoding.decoder import DecodedFrame, MediaDecoder
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaReader, RawPacket
from pipeline.messages import Packet

NUM_FRAMES = 24
RATE = 25


def source_of(path: Path | str) -> Source:
    return Source(name="clip", kind="file", location=str(path))


def moving_picture(index: int, *, width: int = 128, height: int = 96) -> np.ndarray:
    """A colourful RGB picture with a bright square that moves with `index`."""
    picture = np.empty((height, width, 3), np.uint8)
    picture[..., 0] = np.arange(width) % 256
    picture[..., 1] = (np.arange(height)[:, None] + index * 4) % 256
    picture[..., 2] = 90
    left = index * 5 % (width - 16)
    picture[16:32, left : left + 16] = 255
    return picture


def write_video(
    path: Path,
    codec: str = "libx264",
    *,
    pixel_format: str = "yuv420p",
    num_frames: int = NUM_FRAMES,
    pts: Callable[[int], int] = lambda index: index,
    b_frames: int = 2,
    options: Mapping[str, str] | None = None,
    muxer: Mapping[str, str] | None = None,
    prepare: Callable[[VideoStream], None] = lambda _: None,
    picture: Callable[[int], np.ndarray] = moving_picture,
) -> Path:
    """Encode `num_frames` pictures at 25 a second."""
    height, width, _ = picture(0).shape
    with av.open(str(path), "w", options=dict(muxer or {})) as container:
        stream = container.add_stream(codec, rate=RATE, options=dict(options or {}))
        stream.width, stream.height, stream.pix_fmt = width, height, pixel_format
        stream.codec_context.gop_size = 12
        stream.codec_context.max_b_frames = b_frames
        prepare(stream)
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(picture(index), format="rgb24")
            frame = frame.reformat(format=pixel_format, dst_color_range=stream.color_range)
            frame.pts, frame.time_base = pts(index), Fraction(1, RATE)
            container.mux(stream.encode(frame))
        container.mux(stream.encode(None))
    return path


def write_film(path: Path, *, num_frames: int = NUM_FRAMES) -> Path:
    """H.264 pictures with B-frames, and a tone beside them."""
    samples = np.sin(np.arange(num_frames * 44_100 // RATE) / 16)
    with av.open(str(path), "w") as container:
        pictures = container.add_stream("libx264", rate=RATE, options={"g": "10"})
        pictures.width, pictures.height, pictures.pix_fmt = 128, 96, "yuv420p"
        sound = container.add_stream("aac", rate=44_100, layout="mono")
        tone = av.AudioFrame.from_ndarray(
            samples.astype(np.float32)[None], format="fltp", layout="mono"
        )
        tone.sample_rate, tone.pts, tone.time_base = 44_100, 0, Fraction(1, 44_100)
        packets = [*sound.encode(tone), *sound.encode(None)]
        for index in range(num_frames):
            frame = av.VideoFrame.from_ndarray(moving_picture(index), format="rgb24")
            packets += pictures.encode(frame.reformat(format="yuv420p"))
        packets += pictures.encode(None)
        packets.sort(key=lambda packet: packet.dts * packet.time_base)
        container.mux(packets)
    return path


def spliced(path: Path, *clips: Path) -> Path:
    """The bytes of several clips in one file: what `cat` makes, or a recorder that starts anew."""
    path.write_bytes(b"".join(clip.read_bytes() for clip in clips))
    return path


def remuxed(source: Path, path: Path) -> Path:
    """The packets of a clip without B-frames in another container, at 25 a second."""
    with av.open(str(source)) as original, av.open(str(path), "w") as copy:
        video = original.streams.video[0]
        stream = copy.add_stream_from_template(video)
        packets = (packet for packet in original.demux(video) if packet.size)
        for index, packet in enumerate(packets):
            packet.pts = packet.dts = index
            packet.stream, packet.time_base = stream, Fraction(1, RATE)
            copy.mux(packet)
    return path


def turned(path: Path, degrees: int) -> Path:
    """A copy of an MP4 whose track header asks for a rotation, clockwise."""
    matrices = {
        90: (0, 1, -1, 0),
        180: (-1, 0, 0, -1),
        270: (0, -1, 1, 0),
    }
    a, b, c, d = (value << 16 for value in matrices[degrees])
    content = bytearray(path.read_bytes())
    unturned = b"".join(v.to_bytes(4) for v in (1 << 16, 0, 0, 0, 1 << 16, 0, 0, 0, 1 << 30))
    at = content.index(unturned, content.index(b"tkhd"))
    matrix = (a, b, 0, c, d, 0, 0, 0, 1 << 30)
    content[at : at + 36] = b"".join(v.to_bytes(4, signed=True) for v in matrix)
    copy = path.with_name(f"turned{degrees}.mp4")
    copy.write_bytes(content)
    return copy


def write_sound(path: Path, codec: str, *, cover: bool = False) -> Path:
    """A second of silence, with a picture for a cover if asked for."""
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=44_100, layout="mono")
        if cover:
            art = container.add_stream("mjpeg", rate=1)
            art.width, art.height, art.pix_fmt = 64, 64, "yuv420p"
            art.color_range = av.video.reformatter.ColorRange.JPEG
            art.disposition = av.stream.Disposition.attached_pic
            picture = av.VideoFrame(64, 64, "yuv420p")
            picture.pts, picture.time_base = 0, Fraction(1, 1)
            container.mux(art.encode(picture))
            container.mux(art.encode(None))
        frame = av.AudioFrame.from_ndarray(
            np.zeros((1, 44_100), np.int16), format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = 44_100, 0, Fraction(1, 44_100)
        size = stream.frame_size or 1024
        resampler = av.AudioResampler(stream.format, "mono", 44_100, frame_size=size)
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(piece))
    return path


@dataclass(frozen=True)
class Shown:
    """A decoded picture and when it is shown."""

    pts_ns: int | None
    planes: list[bytes]
    color_space: int
    color_range: int

    @classmethod
    def of(cls, frame: av.VideoFrame, pts_ns: int | None) -> "Shown":
        pixels = frame.to_ndarray().tobytes()
        return cls(pts_ns, [pixels], frame.colorspace, frame.color_range)


def decoded_by_pyav(path: Path) -> list[Shown]:
    """What the container's own decoder gives, in one thread.

    An AVI has times of decoding only, and PyAV gives them to the wrong pictures.
    """
    with av.open(str(path)) as container:
        stream = container.streams.video[0]
        stream.thread_type = "NONE"
        frames = container.decode(stream)
        shown = [Shown.of(frame, nanoseconds(frame.pts, frame)) for frame in frames]
    if path.suffix == ".avi":
        with av.open(str(path)) as container:
            packets = [packet for packet in container.demux(video=0) if packet.size]
            times = sorted(nanoseconds(packet.dts, packet) for packet in packets)
        shown = [replace(one, pts_ns=pts_ns) for one, pts_ns in zip(shown, times, strict=True)]
    return shown


def nanoseconds(ticks: int | None, timed: "av.VideoFrame | av.Packet[VideoStream]") -> int | None:
    return None if ticks is None else round(ticks * timed.time_base * 1_000_000_000)


def decoded_apart(path: Path, *, live: bool = False) -> list[Shown]:
    """What a decoder gives that knows the file by its parameters and packets alone."""
    reader = MediaReader(source_of(path))
    decoder = MediaDecoder(reader.facts.parameters, live=live)
    frames: list[DecodedFrame] = []
    for index, raw in enumerate(reader.packets()):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    frames += decoder.flush()
    reader.close()
    return [Shown.of(decoded.frame, decoded.pts_ns) for decoded in frames]


def message_of(raw: RawPacket, index: int = 0, *, hidden: bool | None = None) -> Packet:
    return Packet(
        stream="clip",
        frame_index=index,
        pts_ns=raw.pts_ns,
        dts_ns=raw.dts_ns,
        keyframe=raw.keyframe,
        hidden=raw.hidden if hidden is None else hidden,
        corrupt=raw.corrupt,
        captured_ns=raw.captured_ns,
    )
