# SPDX-License-Identifier: Apache-2.0
"""What the stages of a run work on, taken from the first frames of a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
from jaxtyping import Float32, UInt8

from model.detections import Detections
from model.engines.contract import Engine
from model.letterbox import rectangle
from model.merging import suppress_looks
from model.slicing import Region, choose_looks
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaFacts, MediaReader
from pipeline.decoding.scaling import FrameScaler
from pipeline.errors import SourceUnreadable
from pipeline.graph import tracker_floor
from pipeline.stages.infer import BuildEngine

MOST_FRAMES = 64
_MOST_BYTES = 256 << 20


@dataclass(frozen=True, slots=True, kw_only=True)
class Material:
    """The input of every stage for the same frames, and what the stages are made from."""

    config: PipelineConfig
    source: Source
    facts: MediaFacts
    engine: Engine
    source_hw: tuple[int, int]
    """Height and width of the upright picture."""
    regions: tuple[Region, ...]
    """What is looked at in each frame."""
    frames: tuple[av.VideoFrame, ...]
    canvases: tuple[UInt8[np.ndarray, "B H W 3"], ...]
    rows: tuple[Float32[np.ndarray, "B rows A"], ...]
    found: tuple[Detections, ...]

    @property
    def frame_rate(self) -> float:
        """Frames a second; 25 where the file does not say."""
        return self.facts.frame_rate or 25.0


def decoded(source: Source, limit: int) -> Iterator[av.VideoFrame]:
    """The first frames of a file, decoded in this thread alone."""
    with av.open(source.location) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        yield from islice(container.decode(video), limit)


def gather(config: PipelineConfig, source: Source, build_engine: BuildEngine) -> Material:
    """Take the first frames through every stage.

    Raises:
        SourceUnreadable: the file cannot be read, or has no frame.
        ModelError: the engine cannot be built.
    """
    reader = MediaReader(source)
    reader.close()
    frames = _some(decoded(source, MOST_FRAMES))
    if not frames:
        raise SourceUnreadable(f"{source.label}: no frame in it can be decoded; name another")
    parameters = reader.facts.parameters
    scaler = FrameScaler(parameters.rotation_deg, parameters.pixel_aspect)
    source_hw = scaler.upright_hw(frames[0])
    canvas_hw, slices = rectangle(source_hw, config.model.image_size), config.slices
    regions: tuple[Region, ...] = (Region.whole(source_hw),)
    if slices is not None:
        regions = choose_looks(source_hw, canvas_hw, slices.budget, slices.overlap)
    engine = build_engine(config.model, image_hw=canvas_hw, batch=len(regions))
    canvases = tuple(np.empty(engine.input_shape, np.uint8) for _ in frames)
    for frame, canvas in zip(frames, canvases, strict=True):
        scaler.looks(frame, regions, canvas)
    rows = tuple(engine.infer(canvas) for canvas in canvases)
    floor = tracker_floor(config)
    return Material(
        config=config,
        source=source,
        facts=reader.facts,
        engine=engine,
        source_hw=source_hw,
        regions=regions,
        frames=frames,
        canvases=canvases,
        rows=rows,
        found=tuple(suppress_looks(each, regions, canvas_hw, floor) for each in rows),
    )


def to_and_fro(count: int) -> Iterator[int]:
    """0 1 2 ... and back and on again: a film without a cut, for ever."""
    while True:
        yield from range(count)
        yield from range(count - 2, 0, -1)


def _some(frames: Iterator[av.VideoFrame]) -> tuple[av.VideoFrame, ...]:
    """As many frames as fit into a bounded memory, four at least."""
    kept: list[av.VideoFrame] = []
    for frame in frames:
        kept.append(frame)
        num_bytes = sum(plane.buffer_size for plane in frame.planes)
        if len(kept) >= 4 and len(kept) * num_bytes >= _MOST_BYTES:
            break
    return tuple(kept)
