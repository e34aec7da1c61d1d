# SPDX-License-Identifier: Apache-2.0
"""Settings of the pipeline: one frozen tree, checked once."""

import re
from pathlib import Path
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from model.config import ModelConfig, Ratio, Settings, Suppression
from model.cuda.plan import NetworkKind
from model.slicing import MOST_LOOKS

Seconds = Annotated[float, Field(gt=0)]
Placement = Literal["threads", "processes"]
TrackerKind = Literal["bytetrack", "sort", "ocsort", "botsort", "none"]

_TCP = re.compile(r"tcp://([A-Za-z0-9._-]+|\[[0-9A-Fa-f:.%]+\]):(\d{1,5})")


def _tcp_address(address: str) -> str:
    match = _TCP.fullmatch(address)
    if match is None or int(match[2]) > 65535:
        raise PydanticCustomError(
            "tcp_address", "expected tcp://HOST:PORT, got {address}", {"address": address}
        )
    return address


TcpAddress = Annotated[str, AfterValidator(_tcp_address)]
Silence = Annotated[float, Field(ge=2, le=3600)]


class SourceConfig(Settings):
    """How sources are read."""

    stride: Annotated[int, Field(ge=1)] = 1
    """Every how many frames the detector looks; those between have no tracks."""
    detect_every: Annotated[int, Field(ge=1)] = 1
    """Every how many frames the detector looks; those between have the tracks the tracker's model
    of their motion predicts."""
    limit: Annotated[int, Field(ge=1)] | None = None
    """Decoded frames after which a source is over."""
    image_rate: Annotated[float, Field(gt=0, le=1000)] = 25.0
    """Frames per second a folder of images stands for."""
    rtsp_transport: Literal["tcp", "udp"] = "tcp"
    open_timeout_s: Seconds = 15.0
    """How long `run` waits for a camera's first packet."""
    timeout_s: Seconds = 5.0
    """A camera that sends nothing for so long is lost."""
    frozen_s: Seconds = 10.0
    """A camera whose pictures are the same to the last bit for so long is frozen. Keep it above the
    time between keyframes: between two, a quiet scene may come without its noise."""
    staleness_s: Seconds = 0.5
    """How old a camera's frame may get and still be of use. Packets that wait for half of it are
    discarded, up to a keyframe; frames, once seven tenths are over before the detector has them."""
    ring_mib: Annotated[int, Field(ge=1, le=4096)] = 8
    """Memory for the latest packets of a camera. `run` needs them for `staleness_s` only: 8 MiB
    are half a second at 134 Mbit/s, more than any camera sends, 1080p MJPEG included."""

    @model_validator(mode="after")
    def _one_of_stride_and_detect_every(self) -> "SourceConfig":
        if self.stride > 1 and self.detect_every > 1:
            raise PydanticCustomError(
                "stride_and_detect_every",
                "stride {stride} and detect_every {detect_every} exclude each other; give one",
                {"stride": self.stride, "detect_every": self.detect_every},
            )
        return self


class GateConfig(Settings):
    """When the picture of a fixed camera is still, so that the detector need not look.

    Pictures are compared as 160 cells across, a small block of which must differ.
    """

    threshold: Annotated[float, Field(gt=0, le=255)] = 6.0
    """Levels of 255 by which a cell must differ from the picture the detector last saw."""
    least_share: Ratio = 0.0002
    """Share of the cells that must."""
    hold_s: Annotated[float, Field(ge=0)] = 0.5
    """How long the detector goes on looking after the last movement."""
    refresh_s: Seconds = 5.0
    """After so long it looks whether anything moved or not."""


class SlicesConfig(Settings):
    """More looks than one at each frame, for what is small and far away."""

    budget: Annotated[int, Field(ge=2, le=MOST_LOOKS)]
    """Looks at a frame in all: the whole picture, and tiles that show its parts larger. Each costs
    as much as a frame without slices."""
    overlap: Annotated[float, Field(ge=0, le=0.5)] = 0.2
    """Share of a tile's side that it has in common with its neighbour. An object cut by a tile is
    seen whole by another if it is smaller than this."""


class TrackingConfig(Settings):
    """How detections become tracks."""

    kind: TrackerKind = "bytetrack"
    lost_s: Seconds = 1.0
    """How long a track that is not seen is remembered."""
    low_score: Ratio = 0.1
    """Boxes from this score on may continue a track that has begun."""


class DrawingConfig(Settings):
    """What annotated pictures show."""

    trace_s: Annotated[float, Field(ge=0, le=60)] = 2.0
    """Length of the trace behind a track; 0 for none."""


class OutputConfig(Settings):
    """What is written, and where."""

    directory: Path = Path("out")
    save_video: bool = False
    overwrite: bool = False


class SupervisionConfig(Settings):
    """When a process is given up, and how often it is replaced."""

    start_s: Seconds = 60.0
    """A process that has not begun to work after so long is killed."""
    hang_s: Seconds = 30.0
    """A process that shows no sign of life, or is at one piece of work, for so long is killed."""
    restarts: Annotated[int, Field(ge=0, le=100)] = 5
    """Deaths within `restart_window_s` after which a stage is not replaced any more."""
    restart_window_s: Seconds = 60.0


class ServiceConfig(Settings):
    """How a service lasts that does not end with its streams."""

    most_cameras: Annotated[int, Field(ge=1, le=1024)] = 64
    """Cameras there may be at a time."""
    retry_failed_s: Seconds = 60.0
    """Pause after which a camera whose stages failed again and again is tried anew."""


class RemoteConfig(Settings):
    """A worker on another host that finds the boxes, see `sightline worker`."""

    address: TcpAddress
    server_key: Path
    """The worker's public key, its `.pub` file."""
    key: Path
    """Our own secret key, a `.key` file."""
    timeout_s: Seconds = 30.0
    """How long the worker may be away, at the start or later, before the run fails."""
    silence_s: Silence = 5.0
    """A connection that is silent for so long is given up and made anew."""


class WorkerConfig(Settings):
    """A worker that finds boxes for clients on other hosts."""

    listen: TcpAddress
    """Where clients come in; `tcp://0.0.0.0:PORT` is every address of this machine."""
    key: Path
    """The worker's secret key, a `.key` file."""
    allow: Path
    """Public keys of the clients that may come in: one `.pub` file, or a folder of them."""
    model: ModelConfig = ModelConfig()
    clients: Annotated[int, Field(ge=1, le=64)] = 4
    """Clients served at a time; each has engines of its own."""
    credits: Annotated[int, Field(ge=1, le=256)] = 16
    """Pictures of one client that are here at a time."""
    frame_mib: Annotated[int, Field(ge=1, le=64)] = 16
    """The largest picture; together with `credits` and `clients` it bounds the memory."""
    silence_s: Silence = 5.0
    """A client that is silent for so long is gone, and its engines are freed."""


class GpuConfig(Settings):
    """How an NVIDIA GPU is used, where `model.engine` is `cuda`."""

    devices: tuple[Annotated[int, Field(ge=0)], ...] = ()
    """Which ones, as CUDA numbers them; empty for every one there is. On each runs a detector, in a
    process of its own with `placement: processes`; each stream is looked at by one of them. Files
    are spread too, so have `parallel` be no less than they are."""
    decode: Literal["auto", "nvdec", "cpu"] = "cpu"
    """Who decodes; `auto` is the GPU, where it is the one that looks: decoders then work in the
    process of its detector, as each process takes some of its memory. `nvdec` is the GPU also for
    cameras that GStreamer decodes, in a process each. What it cannot decode the processor does.
    Asked for, as no GPU has run it yet."""
    network: NetworkKind = "auto"
    """What compiles the network; `auto` is AOTInductor, and what does compile where that does not.
    `tensorrt` needs the extra of its name. It is said which it was."""
    batch_sizes: tuple[Annotated[int, Field(ge=1, le=128)], ...] = (1, 2, 4, 8, 16, 32)
    """Looks that are done at once; a batch is filled up to the next of these."""
    window_ms: Annotated[float, Field(ge=0, le=100)] = 4.0
    """How long a batch is collected while another runs."""
    in_flight: Annotated[int, Field(ge=1, le=8)] = 2
    """Batches at once."""
    file_batch: Annotated[int, Field(ge=1)] = 4
    """The one batch size for frames of files, so that their results repeat."""
    arena_mib: Annotated[int, Field(ge=8, le=4096)] = 128
    """Memory of the GPU for the pictures of one batch."""
    encode: Literal["auto", "nvenc", "x264"] = "x264"
    """Who encodes videos; `auto` is the GPU where it can."""

    @model_validator(mode="after")
    def _devices_differ(self) -> "GpuConfig":
        if len(set(self.devices)) < len(self.devices):
            raise PydanticCustomError(
                "devices", "devices must differ, got {devices}", {"devices": list(self.devices)}
            )
        return self

    @model_validator(mode="after")
    def _sizes_fit(self) -> "GpuConfig":
        sizes = self.batch_sizes
        if not sizes or list(sizes) != sorted(set(sizes)):
            raise PydanticCustomError(
                "batch_sizes", "batch_sizes must rise, got {sizes}", {"sizes": list(sizes)}
            )
        if self.file_batch not in sizes:
            raise PydanticCustomError(
                "file_batch",
                "file_batch must be one of batch_sizes {sizes}, got {size}",
                {"sizes": list(sizes), "size": self.file_batch},
            )
        return self


class LookingConfig(Settings):
    """How streams are looked at, whoever names them."""

    model: ModelConfig = ModelConfig()
    suppression: Suppression = Suppression()
    slices: SlicesConfig | None = None
    """Looks at parts of each frame; None for the whole picture alone."""
    source: SourceConfig = SourceConfig()
    tracking: TrackingConfig = TrackingConfig()
    supervision: SupervisionConfig = SupervisionConfig()
    gpu: GpuConfig = GpuConfig()
    gate: GateConfig | None = None
    """Whether the detector looks only while something moves; for cameras that stand still."""
    classes: tuple[str, ...] = ()
    """Names of the classes to look for where a camera names none; empty for all."""
    window: Annotated[int, Field(ge=2, le=64)] = 8
    """Frames of one stream on their way between decoding and tracking."""


class PipelineConfig(LookingConfig):
    """A run over files, images and cameras."""

    drawing: DrawingConfig = DrawingConfig()
    output: OutputConfig = OutputConfig()
    remote: RemoteConfig | None = None
    """Where boxes are found, if not here."""
    placement: Placement = "threads"
    """Whether stages share this process or have processes of their own."""
    parallel: Annotated[int, Field(ge=1, le=64)] = 2
    """Files and folders processed side by side; cameras always all are."""
