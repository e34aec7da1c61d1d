# SPDX-License-Identifier: Apache-2.0
"""The data path on one page: what is between a source and its outputs.

    source -> decode (+ preprocess) -> infer -> suppress -> track -> write tracks
                    |                                         |
                    `------------ pictures -------------> annotate -> write video

With `remote`, infer and suppress run on another host and one stage stands for them here.

Full-size pictures pass by the trunk, which needs none. They exist only in branches whose pictures
somebody wants; the others send nothing on that link.

Where stages run in processes, a process holds one group: `trunk` (one for each accelerator), and
for each stream `read`, `track`, and `sinks`, which must not end one with another. Decoders that use
the GPU of their trunk work in its process, as a group of their own.
"""

import secrets
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path

from model.config import Suppression
from model.engines.contract import Engine, Takes
from model.errors import ConfigError
from pipeline.branch import Branch
from pipeline.cameras import CameraConfig
from pipeline.config import PipelineConfig, ServiceConfig
from pipeline.decoding.hardware import Hardware, HardwareWatch
from pipeline.decoding.inputs import Source
from pipeline.decoding.motion import MotionGate
from pipeline.drawing.drawer import Drawer
from pipeline.engines import ForCanvases, ForCoded
from pipeline.logs import Logs
from pipeline.messages import Drawn, Found, Frame, Packet, Picture, Predictions, Tracked
from pipeline.metrics import CounterTable
from pipeline.nv12 import Matrix
from pipeline.outputs import Outputs
from pipeline.stages.annotate import Annotate
from pipeline.stages.decode import Decode
from pipeline.stages.infer import Infer
from pipeline.stages.observe import Observe, Observer, ObserveTracks
from pipeline.stages.preprocess import Framing, Preprocess
from pipeline.stages.remote import Remote
from pipeline.stages.source import ReadCamera, ReadFile
from pipeline.stages.suppress import Suppress
from pipeline.stages.track import Track
from pipeline.stages.write import HandOver, TextFiles, WriteImage, WriteTracks, WriteVideo
from pipeline.topology import Graph, Link, Stage, Worker
from pipeline.tracking.tracker import Tracker, make_tracker
from pipeline.tracking.tracks import Tracks
from pipeline.tracking.wanted import Wanted, wanted_by
from pipeline.transport.curve import read_keys, read_public
from pipeline.transport.uplink import Uplink
from pipeline.transport.wire import PROTOCOL, Hello, model_facts
from pipeline.trunk import Trunk

_PACKETS = 32
_RESULTS = 16
_BEFORE_INFER = 0.7  # of the time a live frame is of use; the rest is for the detector


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided before a run: all that its stages are made from."""

    config: PipelineConfig
    classes: Sequence[str]
    """Names of all classes of the model."""
    class_ids: Sequence[int] | None
    """The classes the detector looks for, of which a stream may want fewer; None for all."""
    floor: Suppression
    """What the detector keeps, of which a stream may want less."""
    build_engine: Callable[..., Engine]
    """`model.engines.build_engine`, or what stands in for it."""
    outputs: Outputs
    takes: Takes = "canvases"
    """What its engines are given."""
    devices: tuple[int, ...] = (0,)
    """The accelerators they run on; there is a trunk for each."""
    take: Callable[[Tracked, Tracks], None] | None = None
    """Is given every frame's tracks, in this process, where they are not written to files."""
    observed: bool = False
    """Whether streams are shown to observers, in this process, instead of written to files."""
    observe: Callable[[Source], Observer] | None = None
    """Makes the observer of a stream; called in the thread that shows it."""
    service: ServiceConfig | None = None
    """How it lasts, where it does not end with its streams."""
    logs: Logs | None = None
    """How its processes log, where not in plain lines."""


def video_graph(plan: Plan, counters: CounterTable) -> Graph:
    """Sources in, tracks and annotated pictures out."""
    window = plan.config.window
    packets = Link("packets", Packet, depth=_PACKETS)
    frames = Link("frames", Frame, depth=window, window=window, resend=True)
    predictions = Link("predictions", Predictions, depth=_RESULTS)
    found = Link("found", Found, depth=window)
    tracked = Link("tracked", Tracked, depth=_RESULTS)
    pictures = Link("pictures", Picture, depth=window + 2)
    drawn = Link("drawn", Drawn, depth=4)
    video = plan.config.output.save_video
    pictured = video or plan.observed
    if plan.config.remote is not None:  # a key that is missing is told before anything starts
        read_keys(plan.config.remote.key)
        read_public(plan.config.remote.server_key)
    make = _Makers(plan, counters)
    decoding = "decode" if _decodes_in_trunk(plan) else "read"
    # fmt: off
    trunk: tuple[Stage, ...] = (
        #     name            group    reads               writes              worker
        Stage("infer",        "trunk", (frames,),          (predictions,),     make.infer),
        Stage("suppress",     "trunk", (predictions,),     (found,),           make.suppress),
    )
    if plan.config.remote is not None:
        trunk = (
            Stage("remote",   "trunk", (frames,),          (found,),           make.remote),
        )
    branch: tuple[Stage, ...] = (
        Stage("source",       "read",  (),                 (packets,),         make.source),
        Stage("decode",       decoding, (packets,), (frames, pictures) if pictured else (frames,),
                                                                               make.decode),
        Stage("track",        "track", (found,),           (tracked,),         make.track),
        *make.readers_of_tracks(tracked, pictures),
    )
    if video:
        branch += (
            Stage("annotate",    "sinks", (tracked, pictures), (drawn,),       make.annotate),
            Stage("write-video", "sinks", (drawn,),            (),             make.write_video),
        )
    # fmt: on
    hosted = ("decode",) if decoding == "decode" else ()
    return Graph(trunk, branch, num_trunks=len(plan.devices), hosted=hosted)


def _decodes_in_trunk(plan: Plan) -> bool:
    """Whether decoders use the GPU that looks: each process that does takes some of its memory."""
    return plan.takes == "coded" and plan.config.gpu.decode != "cpu"


def engine_builder(plan: Plan, device: int) -> ForCanvases | ForCoded:
    """What builds the engines that look at frames, on one accelerator."""
    if plan.takes == "canvases":
        return ForCanvases(plan.build_engine)
    return ForCoded(plan.build_engine, plan.config.gpu, plan.floor, plan.class_ids, device)


class _Makers:
    """Makes the worker of each stage, where the stage runs, for the branch it is given."""

    def __init__(self, plan: Plan, counters: CounterTable) -> None:
        self._plan = plan
        self._counters = counters
        self._config = plan.config

    def infer(self, trunk: Trunk) -> Worker:
        return Infer(engine_builder(self._plan, trunk.device), trunk)

    def suppress(self, _: Trunk) -> Worker:
        return Suppress(self._plan.floor, self._plan.class_ids)

    def remote(self, _: Trunk) -> Worker:
        remote, weights = self._config.remote, self._config.model.weights
        assert remote is not None
        assert weights is not None
        hello = Hello(
            protocol=PROTOCOL,
            run=secrets.token_hex(16),
            model=model_facts(weights),
            suppression=self._plan.floor.model_dump(),
            class_ids=None if self._plan.class_ids is None else tuple(self._plan.class_ids),
        )
        keys, server = read_keys(remote.key), read_public(remote.server_key)
        return Remote(partial(Uplink, remote, keys, server, hello))

    def source(self, branch: Branch) -> Worker:
        source, config = replace(branch.source, name=branch.stream), self._config.source
        counters = self._counters.at(branch.row)
        if not source.live:
            return ReadFile(source, config, counters)
        patience_s = None if self._plan.service else config.open_timeout_s
        hardware = self._hardware(branch) if source.by_gstreamer else None
        return ReadCamera(source, config, counters, patience_s=patience_s, hardware=hardware)

    def decode(self, branch: Branch) -> Worker:
        source, counters = branch.source, self._counters.at(branch.row)
        budget_ns = round(self._config.source.staleness_s * 1e9 * _BEFORE_INFER)
        preprocess = Preprocess(
            counters,
            Framing(
                image_size=self._config.model.image_size,
                # one image is not worth an engine of its own shape
                canvas="square" if source.kind == "image" else "rectangle",
                slices=self._config.slices,
                takes=self._plan.takes,
                camera=source.camera,
                budget_ns=budget_ns if source.live else None,
            ),
            window=self._config.window,
            live=source.live,
            pictures=self._config.output.save_video or source.pictured,
        )
        gate = MotionGate(self._config.gate) if self._config.gate is not None else None
        source = replace(source, name=branch.stream)
        return Decode(
            source,
            self._config.source,
            preprocess,
            counters,
            gate=gate,
            hardware=None if source.by_gstreamer else self._hardware(branch),
        )

    def _hardware(self, branch: Branch) -> Hardware | None:
        """The GPU for a stream's decoder, if it is to use one."""
        source = branch.source
        if source.kind == "gstreamer":
            return None  # whoever wrote the pipeline chose
        in_trunk = _decodes_in_trunk(self._plan) and not source.by_gstreamer
        if self._config.gpu.decode == "nvdec" or in_trunk:
            device = self._plan.devices[branch.trunk]
            return Hardware(device, HardwareWatch(retries=source.live))
        return None

    def track(self, branch: Branch) -> Worker:
        wanted = check_camera(branch.source, self._config, self._plan.classes)
        make_tracker = partial(self._tracker, branch.source.camera, wanted)
        return Track(make_tracker, self._counters.at(branch.row), wanted)

    def _tracker(
        self, camera: CameraConfig, wanted: Wanted, frame_rate: float, num_identities: int
    ) -> Tracker:
        tracking, source = self._config.tracking, self._config.source
        updates_per_s = frame_rate / (source.stride * source.detect_every)
        return make_tracker(
            tracking.kind,
            min_score=wanted.thresholds,
            frame_rate=min(updates_per_s, camera.max_fps or updates_per_s),
            lost_s=tracking.lost_s,
            num_identities=num_identities,
        )

    def annotate(self, branch: Branch) -> Worker:
        return Annotate(self._drawer, self._counters.at(branch.row))

    def _drawer(self, picture_hw: tuple[int, int], matrix: Matrix, frame_rate: float) -> Drawer:
        return Drawer(
            self._plan.classes,
            picture_hw=picture_hw,
            matrix=matrix,
            trace_frames=round(self._config.drawing.trace_s * frame_rate),
        )

    def readers_of_tracks(self, tracked: Link, pictures: Link) -> tuple[Stage, ...]:
        """Who takes the tracks: files, or an observer."""
        if self._plan.observed:
            return (Stage("observe", "sinks", (tracked, pictures), (), self.observe),)
        return (Stage("write-tracks", "sinks", (tracked,), (), self.write_tracks),)

    def observe(self, branch: Branch) -> Worker:
        assert self._plan.observe is not None, "observers live in the supervisor's process"
        observer = partial(self._plan.observe, branch.source)
        if branch.source.pictured:
            return Observe(observer, self._counters.at(branch.row))
        return ObserveTracks(observer)

    def write_tracks(self, branch: Branch) -> Worker:
        source, outputs = branch.source, self._plan.outputs
        if self._plan.take is not None:
            return WriteTracks(partial(HandOver, self._plan.take, source.name))
        return WriteTracks(
            partial(TextFiles, outputs.mot(source), outputs.jsonl(source), self._plan.classes)
        )

    def write_video(self, branch: Branch) -> Worker:
        source = branch.source
        path = self._plan.outputs.video(source)
        if source.kind == "image":
            return WriteImage(path)
        audio_from = Path(source.location) if source.kind == "file" else None
        return WriteVideo(path, audio_from=audio_from, encode=self._config.gpu.encode)


def check_camera(source: Source, config: PipelineConfig, classes: Sequence[str]) -> Wanted:
    """What a stream looks for, after checking that the model knows its classes.

    Raises:
        ConfigError: it does not.
    """
    try:
        return wanted_by(source.camera, config, classes)
    except ConfigError as error:
        raise ConfigError(f"{source.name}: {error}") from None


def floor_for(config: PipelineConfig, wanted: Sequence[Wanted]) -> Suppression:
    """What any tracker wants to see, also those of streams that want more than most."""
    settings = tracker_floor(config)
    return settings.model_copy(
        update={"min_score": min((settings.min_score, *(each.floor for each in wanted)))}
    )


def classes_for(
    class_ids: Sequence[int] | None, wanted: Sequence[Wanted]
) -> tuple[int, ...] | None:
    """The classes that any stream looks for; None for all."""
    if class_ids is None:
        return None
    return tuple(sorted({*class_ids, *(number for w in wanted for number in w.class_ids or ())}))


def tracker_floor(config: PipelineConfig) -> Suppression:
    """What the tracker wants to see: also boxes that can only continue a track."""
    tracking, settings = config.tracking, config.suppression
    floor = settings.min_score
    if tracking.kind != "none":
        floor = min(floor, tracking.low_score)
    return settings.model_copy(update={"min_score": floor})
