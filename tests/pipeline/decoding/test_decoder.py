"""A decoder made from parameters gives what the container's own decoder gives."""

import io
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import numpy as np
import pytest
from av.video.reformatter import ColorRange, Colorspace
from av.video.stream import VideoStream
from PIL import Image

from pipeline.decoding.decoder import ImageDecoder, MediaDecoder, Undecodable, make_decoder
from pipeline.decoding.media import MediaReader, RawPacket
from pipeline.messages import CodecParameters
from tests.pipeline.media_factory import (
    NUM_FRAMES,
    decoded_apart,
    decoded_by_pyav,
    message_of,
    source_of,
    write_video,
)


def full_range_bt709(stream: VideoStream) -> None:
    stream.codec_context.colorspace = Colorspace.ITU709
    stream.codec_context.color_range = ColorRange.JPEG


# fmt: off
FORMATS = [
    # name            file          settings
    ("h264",          "clip.mp4",   {}),
    ("h264-avi",      "clip.avi",   {}),
    ("h264-ts",       "clip.ts",    {}),
    ("h264-10-bit",   "clip.mp4",   {"pixel_format": "yuv420p10le"}),
    ("h264-422",      "clip.mkv",   {"pixel_format": "yuv422p"}),
    ("h264-full",     "clip.mp4",   {"prepare": full_range_bt709}),
    ("hevc",          "clip.mp4",   {"codec": "libx265",
                                     "options": {"x265-params": "log-level=none"}}),
    ("mpeg4-mp4",     "clip.mp4",   {"codec": "mpeg4"}),
    ("mpeg4-avi",     "clip.avi",   {"codec": "mpeg4"}),
    ("mpeg2",         "clip.mpg",   {"codec": "mpeg2video"}),
    ("vp9",           "clip.webm",  {"codec": "libvpx-vp9", "b_frames": 0,
                                     "options": {"deadline": "realtime", "cpu-used": "8"}}),
    ("av1",           "clip.mkv",   {"codec": "libsvtav1", "b_frames": 0,
                                     "options": {"preset": "12"}}),
    ("mjpeg",         "clip.avi",   {"codec": "mjpeg", "b_frames": 0,
                                     "prepare": full_range_bt709}),
    ("rawvideo",      "clip.avi",   {"codec": "rawvideo", "pixel_format": "bgr24"}),
    ("huffyuv",       "clip.avi",   {"codec": "huffyuv", "pixel_format": "yuv422p"}),
    ("ffv1-full",     "clip.mkv",   {"codec": "ffv1", "prepare": full_range_bt709}),
    ("prores",        "clip.mov",   {"codec": "prores_ks", "pixel_format": "yuv422p10le"}),
    ("gif",           "clip.gif",   {"codec": "gif", "pixel_format": "rgb8"}),
]
# fmt: on


@pytest.mark.parametrize("live", [False, True], ids=["file", "live"])
@pytest.mark.parametrize(
    ("file", "settings"), [row[1:] for row in FORMATS], ids=[row[0] for row in FORMATS]
)
def test_a_decoder_apart_gives_the_same_pictures_at_the_same_times(
    tmp_path: Path, file: str, settings: dict[str, Any], live: bool
) -> None:
    codec = settings.get("codec", "libx264")
    if codec not in av.codecs_available:
        pytest.skip(f"no encoder {codec}")
    path = write_video(tmp_path / file, **settings)
    apart = decoded_apart(path, live=live)
    assert apart == decoded_by_pyav(path)
    assert len(apart) == NUM_FRAMES


def read(path: Path) -> tuple[CodecParameters, list[RawPacket]]:
    reader = MediaReader(source_of(path))
    packets = list(reader.packets())
    reader.close()
    return reader.facts.parameters, packets


def decode(
    parameters: CodecParameters,
    packets: list[RawPacket],
    *,
    damage: Callable[[int, bytes], bytes] = lambda _, data: data,
) -> tuple[list[int | None], list[int]]:
    """Times of the frames that come out, and the numbers of the packets that are refused."""
    decoder = MediaDecoder(parameters, live=False)
    times: list[int | None] = []
    refused = []
    for index, raw in enumerate(packets):
        try:
            frames = decoder.decode(message_of(raw, index), memoryview(damage(index, raw.data)))
        except Undecodable:
            refused.append(index)
        else:
            times += [frame.pts_ns for frame in frames]
    return times + [frame.pts_ns for frame in decoder.flush()], refused


@pytest.mark.parametrize(
    "damaged", [{9}, {22, 23}, {NUM_FRAMES - 1}], ids=["middle", "end", "last"]
)
@pytest.mark.parametrize("codec", ["libx264", "libx265"])
def test_a_damaged_packet_is_refused_and_no_other_picture_is_lost(
    tmp_path: Path, codec: str, damaged: set[int]
) -> None:
    quiet = {"x265-params": "log-level=none"} if codec == "libx265" else {}
    parameters, packets = read(write_video(tmp_path / "clip.mp4", codec, options=quiet))
    times, refused = decode(
        parameters,
        packets,
        damage=lambda index, data: bytes(len(data)) if index in damaged else data,
    )
    assert set(refused) == damaged
    whole, _ = decode(parameters, packets)
    assert times == [pts for pts in whole if pts not in {packets[n].pts_ns for n in damaged}]


def test_a_hidden_packet_is_decoded_but_not_shown(tmp_path: Path) -> None:
    parameters, packets = read(write_video(tmp_path / "clip.mp4"))
    decoder = MediaDecoder(parameters, live=False)
    shown = []
    for index, raw in enumerate(packets):
        shown += decoder.decode(message_of(raw, index, hidden=index < 5), memoryview(raw.data))
    shown += decoder.flush()
    hidden = {raw.pts_ns for raw in packets[:5]}
    times = [frame.pts_ns for frame in shown]
    assert times == sorted({raw.pts_ns for raw in packets} - hidden)  # type: ignore[type-var]


def test_pictures_without_times_are_shown(tmp_path: Path) -> None:
    parameters, packets = read(write_video(tmp_path / "clip.mp4", b_frames=0))
    timeless = [
        RawPacket(
            data=raw.data,
            pts_ns=None,
            dts_ns=None,
            keyframe=raw.keyframe,
            hidden=False,
            corrupt=False,
            captured_ns=0,
        )
        for raw in packets
    ]
    times, refused = decode(parameters, timeless)
    assert times == [None] * NUM_FRAMES
    assert refused == []


def test_frames_without_what_they_refer_to_are_marked(tmp_path: Path) -> None:
    """A decoder that begins in the middle gives what it can, so that it can be counted."""
    parameters, packets = read(write_video(tmp_path / "clip.mp4", b_frames=0))
    decoder = MediaDecoder(parameters, live=False)
    frames = []
    for index, raw in enumerate(packets[1:]):
        with suppress(Undecodable):
            frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    frames += decoder.flush()
    assert [frame.corrupt for frame in frames] == [True] * 11 + [False] * 12


@pytest.mark.parametrize("damaged", [set(), {9}, {22, 23}], ids=["whole", "middle", "end"])
def test_frames_of_an_avi_get_its_times_in_their_order(tmp_path: Path, damaged: set[int]) -> None:
    """Its H.264 has B-frames, and times of decoding only."""
    parameters, packets = read(write_video(tmp_path / "clip.avi"))
    times, refused = decode(
        parameters,
        packets,
        damage=lambda index, data: bytes(len(data)) if index in damaged else data,
    )
    assert set(refused) == damaged
    assert times == sorted(raw.dts_ns for n, raw in enumerate(packets) if n not in damaged)


def test_a_size_beyond_all_reason_is_refused() -> None:
    decoder = MediaDecoder(CodecParameters(codec="mjpeg", width=64, height=64), live=False)
    picture = encoded(np.zeros((16, 16, 3), np.uint8))
    at = picture.index(b"\xff\xc0") + 5
    absurd = picture[:at] + b"\x75\x30\x75\x30" + picture[at + 4 :]
    raw = RawPacket(
        data=absurd,
        pts_ns=0,
        dts_ns=0,
        keyframe=True,
        hidden=False,
        corrupt=False,
        captured_ns=0,
    )
    with pytest.raises(Undecodable):
        decoder.decode(message_of(raw), memoryview(absurd))


def encoded(picture: np.ndarray) -> bytes:
    buffer = io.BytesIO()
    Image.fromarray(picture).save(buffer, "JPEG")
    return buffer.getvalue()


def test_an_error_text_of_the_decoder_is_one_line(tmp_path: Path) -> None:
    parameters, packets = read(write_video(tmp_path / "clip.mp4"))
    decoder = MediaDecoder(parameters, live=True)
    with pytest.raises(Undecodable) as caught:
        decoder.decode(message_of(packets[0]), memoryview(bytes(100)))
    assert "\n" not in str(caught.value)


def test_the_name_of_the_codec_chooses_the_decoder() -> None:
    assert isinstance(make_decoder(CodecParameters(codec="image"), live=False), ImageDecoder)
    assert isinstance(make_decoder(CodecParameters(codec="h264"), live=False), MediaDecoder)


def test_an_image_that_is_none_is_undecodable() -> None:
    raw = RawPacket(
        data=b"no image",
        pts_ns=0,
        dts_ns=0,
        keyframe=True,
        hidden=False,
        corrupt=False,
        captured_ns=0,
    )
    decoder = ImageDecoder()
    with pytest.raises(Undecodable):
        decoder.decode(message_of(raw), memoryview(raw.data))
    assert decoder.flush() == []


def test_what_lies_behind_a_packet_in_memory_decides_nothing(tmp_path: Path) -> None:
    """MPEG-4 reads beyond the end of a packet, so the packet needs its padding."""
    path = write_video(tmp_path / "clip.avi", "mpeg4", num_frames=60)
    expected = decoded_by_pyav(path)
    for _ in range(5):
        assert decoded_apart(path) == expected
