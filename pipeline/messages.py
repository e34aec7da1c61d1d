# SPDX-License-Identifier: Apache-2.0
"""What travels between stages: small frozen headers; pixels stay in slots.

Every frame that was decoded is answered for on every link it travels: by its result or by a
tombstone (`Dropped`), so that ordered stages wait for a frame and never for a time-out.
"""

from collections.abc import Sequence
from typing import Any, Final, Literal

import msgspec

from model.cuda.coded import Coded
from model.slicing import Region
from pipeline.cameras import Priority
from pipeline.nv12 import Matrix

SkipCause = Literal["stride", "max-fps", "gate", "detect-every"]
"""Why the detector was not asked for a frame; after `stride` and `max-fps` it has no tracks, after
the others those of the frames before, carried over."""
WITHOUT_TRACKS: Final[frozenset[SkipCause]] = frozenset({"stride", "max-fps"})
DecoderKind = Literal["nvdec", "gstreamer-nv", "cpu"]
"""Who decodes: an NVIDIA GPU, or the processor."""
DropCause = Literal[SkipCause, "late", "overload", "corrupt", "stage-died", "shutdown"]
"""Why a decoded frame was not looked at; but for skips they are losses."""


class Slot(msgspec.Struct, frozen=True, kw_only=True):
    """Where an array lies: which pool, which slot, and which use of that slot."""

    pool: str
    index: int
    generation: int
    shape: tuple[int, ...]


class CodecParameters(msgspec.Struct, frozen=True, kw_only=True):
    """What a decoder must know before the first packet."""

    codec: str
    """FFmpeg's name of the decoder, or `image` for whole image files."""
    width: int = 0
    height: int = 0
    pixel_format: str | None = None
    codec_tag: str = "\0\0\0\0"
    bits_per_coded_sample: int = 0
    color_space: int = 2
    """YUV matrix by FFmpeg's number, as far as the container knows it; 2 for unspecified."""
    color_range: int = 0
    """By FFmpeg's number: 0 unspecified, 1 limited, 2 full."""
    reorder_frames: int = 0
    """Pictures the decoder has to hold back to give them in the order they are shown."""
    extradata: bytes = b""
    rotation_deg: int = 0
    """Counter-clockwise rotation that brings the picture upright."""
    pixel_aspect: float = 1.0
    """Width of a coded pixel over its height; the picture is shown, and looked at, with square
    ones."""


class Part(msgspec.Struct, frozen=True, kw_only=True):
    """Where what the detector is shown lies in the upright picture."""

    picture_hw: tuple[int, int]
    origin_xy: tuple[int, int] = (0, 0)


class Message(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """The stream a message belongs to and its place in it."""

    stream: str
    frame_index: int
    """Decoded frames of this stream, from 0; packets are counted on their own."""


class Opened(Message, frozen=True, kw_only=True, tag=True):
    """A source was opened, or opened again; packets of these parameters follow."""

    parameters: CodecParameters
    frame_rate: float
    """Declared frames per second; 0 where unknown."""


class Packet(Message, frozen=True, kw_only=True, tag=True):
    """One compressed picture; its bytes ride beside the header."""

    pts_ns: int | None
    dts_ns: int | None
    keyframe: bool
    hidden: bool
    """Needed to decode what follows, but not to be shown (cut away by an edit list)."""
    corrupt: bool
    """Damaged on its way here, as the container tells."""
    captured_ns: int
    """`time.monotonic_ns()` when the packet was read."""


class Timed(Message, frozen=True, kw_only=True, tag=True):
    """A message about one decoded frame, with the clocks its latency is measured on."""

    pts_ns: int
    """Presentation time on the stream's own clock."""
    duration_ns: int
    """How long the frame is meant to be shown; from the declared frame rate."""
    captured_ns: int
    """`time.monotonic_ns()` when the frame's packet was read."""
    discontinuity: bool = False
    """The first frame after a source came back: what was known before does not hold."""


class Frame(Timed, frozen=True, kw_only=True, tag=True):
    """A picture for the network.

    Either as it wants it, B looks, RGB, letterboxed, uint8 B H W 3; or, for an engine that does all
    that itself, as its decoder made it.
    """

    image: Slot
    """In the host's memory, or on a GPU where all who read it share a process."""
    canvas_hw: tuple[int, int]
    """Height and width of the canvas of every look."""
    coded: Coded | None = None
    """How the decoder's pixels lie in the slot; None where it holds canvases."""
    source_hw: tuple[int, int]
    """Height and width of what the detector is shown: the whole picture, or a part of it."""
    regions: tuple[Region, ...]
    """What each look shows of it; the first is all of it."""
    part: Part
    priority: Priority = "normal"
    expires_ns: int | None = None
    """`time.monotonic_ns()` from which on it is not worth a request; None where it always is."""


class Picture(Timed, frozen=True, kw_only=True, tag=True):
    """A picture as the viewer wants it: NV12 of limited range, full size, uint8 3H/2 W."""

    picture: Slot
    picture_hw: tuple[int, int]
    """Height and width before odd ones grew to even."""
    matrix: Matrix


class Predictions(Timed, frozen=True, kw_only=True, tag=True):
    """What the engine said, float32: looks x rows (4 + classes) x anchors, or boxes."""

    rows: Slot
    suppressed: bool = False
    """Whether they are boxes, of which suppression has left the best (`model/engines/found.py`)."""
    canvas_hw: tuple[int, int]
    regions: tuple[Region, ...]
    part: Part
    model: int = 0
    """The number of the model that said it: 0 for the first, one more for each tried since."""
    class_map: tuple[int, ...] | None = None
    """Our number of each class of that model, negative for none; None where they are the same."""


class Found(Timed, frozen=True, kw_only=True, tag=True):
    """Detections of one frame; xyxy, score and class_id ride beside the header.

    Boxes are in pixels of what the detector was shown.
    """

    part: Part
    model: int = 0
    """The number of the model that found them."""


class Tracked(Timed, frozen=True, kw_only=True, tag=True):
    """Tracks of one frame; xyxy, score, class_id and track_id ride beside the header."""

    picture_hw: tuple[int, int]
    """Height and width of the upright picture the boxes are in."""
    predicted: bool = False
    """Whether they were carried over from the frames before, not detected in this one."""
    model: int = 0
    """The number of the model that found them; 0 where nobody looked."""


class Drawn(Timed, frozen=True, kw_only=True, tag=True):
    """A picture with its tracks drawn, otherwise as it was."""

    picture: Slot
    picture_hw: tuple[int, int]
    matrix: Matrix


class Dropped(Timed, frozen=True, kw_only=True, tag=True):
    """The tombstone of a frame that the detector will not see."""

    cause: DropCause
    source_hw: tuple[int, int] | None = None
    """Height and width of the picture, where its tracks are to be carried over."""


class Ended(Message, frozen=True, kw_only=True, tag=True):
    """Nothing follows; `frame_index` is the number of frames there were."""

    complete: bool
    reason: str = ""
    """Why the stream is not complete, for its user."""


AnyMessage = (
    Opened | Packet | Frame | Picture | Predictions | Found | Tracked | Drawn | Dropped | Ended
)
FrameMessage = Frame | Picture | Predictions | Found | Tracked | Drawn | Dropped

_encoder = msgspec.msgpack.Encoder()
_decoder = msgspec.msgpack.Decoder(AnyMessage)


def pack(message: AnyMessage) -> bytes:
    """Encode a header."""
    return _encoder.encode(message)


def unpack(header: bytes | memoryview) -> AnyMessage:
    """Decode a header, checking its types.

    Raises:
        msgspec.DecodeError: it is no message of ours.
    """
    return _decoder.decode(header)


def timing(message: Timed) -> dict[str, Any]:
    """The fields that every later message about the same frame repeats."""
    return {
        "stream": message.stream,
        "frame_index": message.frame_index,
        "pts_ns": message.pts_ns,
        "duration_ns": message.duration_ns,
        "captured_ns": message.captured_ns,
        "discontinuity": message.discontinuity,
    }


Buffers = Sequence[memoryview | bytes]
