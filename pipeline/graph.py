# SPDX-License-Identifier: Apache-2.0
"""The data path on one page: what is between a source and its outputs.

    source -> decode (+ preprocess) -> infer -> suppress -> track -> write tracks
                    |                                         |
                    `------------ pictures -------------> annotate -> write video

Full-size pictures pass by the trunk, which needs none; they exist only while a sink wants them.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.drawing.drawer import Drawer
from pipeline.messages import Drawn, Found, Frame, Packet, Picture, Predictions, Tracked
from pipeline.metrics import CounterTable
from pipeline.stages.annotate import Annotate
from pipeline.stages.decode import Decode
from pipeline.stages.infer import BuildEngine, Infer
from pipeline.stages.preprocess import Preprocess
from pipeline.stages.source import ReadCamera, ReadFile
from pipeline.stages.suppress import Suppress
from pipeline.stages.track import Track
from pipeline.stages.write import TrackSink, WriteImage, WriteTracks, WriteVideo
from pipeline.topology import Graph, Link, Stage, Worker
from pipeline.tracking.tracker import Tracker, make_tracker

_PACKETS = 32
_RESULTS = 16


@dataclass(frozen=True, slots=True, kw_only=True)
class Plan:
    """What was decided before a run: all that its stages are made from."""

    config: PipelineConfig
    sources: Mapping[str, Source]
    counters: CounterTable
    classes: Sequence[str]
    """Names of all classes of the model."""
    class_ids: Sequence[int] | None
    """The classes to look for; None for all."""
    build_engine: BuildEngine
    open_sink: Callable[[Source], TrackSink]
    video_path: Callable[[Source], Path] | None
    """Where annotated pictures go; None where nobody wants them."""


def video_graph(plan: Plan) -> Graph:
    """Sources in, tracks and annotated pictures out."""
    window = plan.config.window
    packets = Link("packets", Packet, depth=_PACKETS)
    frames = Link("frames", Frame, depth=window, window=window, resend=True)
    predictions = Link("predictions", Predictions, depth=_RESULTS)
    found = Link("found", Found, depth=window)
    tracked = Link("tracked", Tracked, depth=_RESULTS)
    pictures = Link("pictures", Picture, depth=window + 2)
    drawn = Link("drawn", Drawn, depth=4)
    video = plan.video_path is not None
    make = _Makers(plan)
    # fmt: off
    trunk = (
        #     name            reads              writes              worker
        Stage("infer",        (frames,),         (predictions,),     make.infer),
        Stage("suppress",     (predictions,),    (found,),           make.suppress),
    )
    branch: tuple[Stage, ...] = (
        Stage("source",       (),                (packets,),         make.source),
        Stage("decode",       (packets,),        (frames, pictures) if video else (frames,),
                                                                     make.decode),
        Stage("track",        (found,),          (tracked,),         make.track),
        Stage("write-tracks", (tracked,),        (),                 make.write_tracks),
    )
    if video:
        branch += (
            Stage("annotate",    (tracked, pictures), (drawn,),      make.annotate),
            Stage("write-video", (drawn,),            (),            make.write_video),
        )
    # fmt: on
    return Graph(trunk, branch)


class _Makers:
    """Makes the worker of each stage, where the stage runs, for the stream it is given."""

    def __init__(self, plan: Plan) -> None:
        self._plan = plan
        self._config = plan.config

    def infer(self, _: str) -> Worker:
        return Infer(self._plan.build_engine)

    def suppress(self, _: str) -> Worker:
        tracking, settings = self._config.tracking, self._config.suppression
        floor = settings.min_score
        if tracking.kind != "none":
            floor = min(floor, tracking.low_score)
        return Suppress(settings.model_copy(update={"min_score": floor}), self._plan.class_ids)

    def source(self, stream: str) -> Worker:
        source = self._plan.sources[stream]
        reader = ReadCamera if source.live else ReadFile
        return reader(source, self._config.source, self._plan.counters[stream])

    def decode(self, stream: str) -> Worker:
        source = self._plan.sources[stream]
        counters = self._plan.counters[stream]
        preprocess = Preprocess(
            counters,
            image_size=self._config.model.image_size,
            # one image is not worth an engine of its own shape
            canvas="square" if source.kind == "image" else "rectangle",
            window=self._config.window,
            live=source.live,
            pictures=self._plan.video_path is not None,
        )
        return Decode(stream, self._config.source, preprocess, counters, live=source.live)

    def track(self, stream: str) -> Worker:
        return Track(self._tracker, self._plan.counters[stream])

    def _tracker(self, frame_rate: float) -> Tracker:
        tracking = self._config.tracking
        return make_tracker(
            tracking.kind,
            min_score=self._config.suppression.min_score,
            frame_rate=frame_rate / self._config.source.stride,
            lost_s=tracking.lost_s,
        )

    def annotate(self, _: str) -> Worker:
        return Annotate(self._drawer)

    def _drawer(self, picture_hw: tuple[int, int], frame_rate: float) -> Drawer:
        return Drawer(
            self._plan.classes,
            picture_hw=picture_hw,
            trace_frames=round(self._config.drawing.trace_s * frame_rate),
        )

    def write_tracks(self, stream: str) -> Worker:
        return WriteTracks(lambda: self._plan.open_sink(self._plan.sources[stream]))

    def write_video(self, stream: str) -> Worker:
        assert self._plan.video_path is not None
        source = self._plan.sources[stream]
        path = self._plan.video_path(source)
        if source.kind == "image":
            return WriteImage(path)
        audio_from = Path(source.location) if source.kind == "file" else None
        return WriteVideo(path, audio_from=audio_from)
