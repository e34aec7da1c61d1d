# SPDX-License-Identifier: Apache-2.0
"""What workers report to the supervisor and what it tells them."""

from collections.abc import Mapping
from typing import Any, Literal

import msgspec
import zmq

from pipeline.messages import DecoderKind

CameraCondition = Literal[
    "connecting", "live", "stalled", "frozen", "lost", "wrong-credentials", "unsupported"
]
"""`stalled` sends nothing, `frozen` sends one picture again and again, `unsupported` is there and
cannot be read."""


class Report(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something a worker tells the supervisor."""


class Ready(Report, frozen=True, kw_only=True, tag=True):
    """The worker runs."""


class StreamFacts(Report, frozen=True, kw_only=True, tag=True):
    """What a source learnt about itself when it opened."""

    num_frames: int
    """Frames the container declares; 0 where it does not say."""
    frame_rate: float
    duration_s: float


class EngineBuilt(Report, frozen=True, kw_only=True, tag=True):
    """What an engine turned out to be."""

    name: str
    precision: str
    input_shape: tuple[int, int, int, int]
    build_s: float
    model: int = 0
    """The number of its model."""
    device: int = 0
    """The accelerator it is on, where there are several."""


class ModelSwapped(Report, frozen=True, kw_only=True, tag=True):
    """Another model runs, and its first results are as they should be.

    The one before is kept until the supervisor says which of the two is.
    """

    number: int


class SwapFailed(Report, frozen=True, kw_only=True, tag=True):
    """Another model could not be used; the one before runs on."""

    number: int
    reason: str


class Checkpoint(Report, frozen=True, kw_only=True, tag=True):
    """Where a decoder that takes the place of another may begin a file anew.

    Decoding from this keyframe gives every frame again that is not safe yet, and the same.
    """

    packet: int
    """Number of the keyframe's packet."""
    pts_ns: int
    """By which the keyframe's picture is known."""
    frame_index: int
    """Index of the keyframe's picture."""
    last_pts_ns: int | None
    """Time of the frame before it."""
    canvas_hw: tuple[int, int] | None
    """Height and width of the network's picture then."""
    undecodable: int
    """Packets before it that could not be decoded."""
    first_fault: str


class CameraState(Report, frozen=True, kw_only=True, tag=True):
    """How a camera is doing, said whenever it changes.

    Its reader tells of the connection, its decoder of the pictures; the last word holds.
    """

    state: CameraCondition
    reason: str
    """Why, fit to be shown; empty where nothing is wrong."""


class DecodePath(Report, frozen=True, kw_only=True, tag=True):
    """Who really decodes a stream, said whenever that changes."""

    path: DecoderKind
    reason: str
    """Why it is the processor, where a GPU was to; else empty."""


class EncoderPicked(Report, frozen=True, kw_only=True, tag=True):
    """Who encodes a stream's video."""

    name: str
    """FFmpeg's name of it."""
    reason: str
    """Why it is not the one that was asked for; else empty."""


class Enough(Report, frozen=True, kw_only=True, tag=True):
    """A stage needs no more of its stream; the source may stop."""


class Incomplete(Report, frozen=True, kw_only=True, tag=True):
    """The stream is over before its time; what came is kept."""

    reason: str


class Finished(Report, frozen=True, kw_only=True, tag=True):
    """The worker has done all there was; `usage` is where its time went."""

    usage: Mapping[str, int]
    outputs: tuple[str, ...] = ()


class Failed(Report, frozen=True, kw_only=True, tag=True):
    """The worker stopped on an error."""

    message: str
    trace: str
    """Where our own code failed; empty where the error is the user's to mend."""


class Command(msgspec.Struct, frozen=True, kw_only=True, tag=True):
    """Something the supervisor tells a worker."""


class Stop(Command, frozen=True, kw_only=True, tag=True):
    """Take no more input, finish what is there."""


class Forget(Command, frozen=True, kw_only=True, tag=True):
    """A stream's branch is gone: send it nothing more."""

    stream: str


class Reconnect(Command, frozen=True, kw_only=True, tag=True):
    """Another reader has taken the place of the one at this address: send again."""

    address: str
    to: str
    """Where it is; mostly the same."""


class SwapModel(Command, frozen=True, kw_only=True, tag=True):
    """Put another model in the place of the one that runs."""

    number: int
    config: Mapping[str, Any]
    """`ModelConfig` as JSON has it."""
    class_map: tuple[int, ...] | None


class KeepModel(Command, frozen=True, kw_only=True, tag=True):
    """Let go of the model before this one, which runs everywhere."""

    number: int


class LeaveModel(Command, frozen=True, kw_only=True, tag=True):
    """Go back to the model before this one, which failed elsewhere."""

    number: int


class Unmap(Command, frozen=True, kw_only=True, tag=True):
    """A pool whose writer died is gone: map it no longer."""

    pool: str


class Close(Command, frozen=True, kw_only=True, tag=True):
    """Leave now."""


AnyReport = (
    Ready
    | StreamFacts
    | CameraState
    | DecodePath
    | EncoderPicked
    | EngineBuilt
    | ModelSwapped
    | SwapFailed
    | Checkpoint
    | Enough
    | Incomplete
    | Finished
    | Failed
)
AboutModel = SwapModel | KeepModel | LeaveModel
AnyCommand = Stop | Forget | Reconnect | AboutModel | Unmap | Close

_LINGER_MS = 1000
_encoder = msgspec.msgpack.Encoder()
_reports = msgspec.msgpack.Decoder(AnyReport)
_commands = msgspec.msgpack.Decoder(AnyCommand)


class ControlDesk:
    """The supervisor's end: hears every worker, speaks to each."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str) -> None:
        self.socket = context.socket(zmq.ROUTER)
        self.socket.setsockopt(zmq.LINGER, 0)
        self.socket.bind(address)

    def hear(self, timeout_ms: int) -> tuple[str, AnyReport] | None:
        """The next report and its worker's name; None after `timeout_ms` without one."""
        if not self.socket.poll(timeout_ms):
            return None
        worker, body = self.socket.recv_multipart()
        return worker.decode(), _reports.decode(body)

    def tell(self, worker: str, command: AnyCommand) -> None:
        """Send a command; a worker that is gone does not hear it."""
        self.socket.send_multipart((worker.encode(), _encoder.encode(command)))

    def close(self) -> None:
        """Close the socket."""
        self.socket.close(linger=0)


class ControlLine:
    """A worker's end."""

    def __init__(self, context: zmq.Context[zmq.Socket[bytes]], address: str, worker: str) -> None:
        self.socket = context.socket(zmq.DEALER)
        self.socket.setsockopt(zmq.LINGER, _LINGER_MS)
        self.socket.setsockopt(zmq.ROUTING_ID, worker.encode())
        self.socket.connect(address)

    def report(self, report: AnyReport) -> None:
        """Tell the supervisor, whatever the names of files in the report are made of."""
        try:
            body = _encoder.encode(report)
        except UnicodeEncodeError:
            body = _encoder.encode(_utf8(msgspec.to_builtins(report)))
        self.socket.send(body)

    def command(self) -> AnyCommand | None:
        """The next command, without waiting."""
        if not self.socket.poll(0):
            return None
        return _commands.decode(self.socket.recv(zmq.NOBLOCK))

    def close(self) -> None:
        """Close the socket once the last report is on its way."""
        self.socket.close()


def _utf8(value: Any) -> Any:
    """The value with a question mark for whatever is not text in it."""
    match value:
        case str():
            return value.encode("utf-8", "replace").decode()
        case dict():
            return {name: _utf8(item) for name, item in value.items()}
        case list() | tuple():
            return [_utf8(item) for item in value]
    return value
