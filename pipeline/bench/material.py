# SPDX-License-Identifier: Apache-2.0
"""What the stages of a run work on, taken from the first frames of a file."""

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import islice

import av
import numpy as np
from jaxtyping import Float32

from model.config import Suppression
from model.cuda.coded import CodedPicture
from model.detections import Detections
from model.engines.contract import Engine, infer_by_request, takes_coded
from model.engines.found import read_found
from model.letterbox import rectangle
from model.merging import join_looks, suppress_looks
from model.slicing import Region, choose_looks
from pipeline.config import PipelineConfig
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaFacts, MediaReader
from pipeline.decoding.scaling import FrameScaler
from pipeline.errors import SourceUnreadable
from pipeline.graph import tracker_floor
from pipeline.models import ModelInUse
from pipeline.stages.imaging import IMAGERS
from pipeline.stages.infer import BuildEngine
from pipeline.stages.lanes import Images

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
    images: tuple[Images, ...]
    """What the engine is given of each frame."""
    rows: tuple[Float32[np.ndarray, "B rows A"], ...]
    found: tuple[Detections, ...]

    @property
    def frame_rate(self) -> float:
        """Frames a second; 25 where the file does not say."""
        return self.facts.frame_rate or 25.0

    @property
    def canvas_hw(self) -> tuple[int, int]:
        """Height and width of the network's picture."""
        return self.engine.input_shape[1:3]

    def close(self) -> None:
        """Give the engine back."""
        self.engine.close()
        if takes_coded(self.engine):
            for picture in self.images:
                self.engine.host_memory.forget(_memory(picture))


def decoded(source: Source, limit: int) -> Iterator[av.VideoFrame]:
    """The first frames of a file, decoded in this thread alone."""
    with av.open(source.location) as container:
        video = container.streams.video[0]
        video.codec_context.thread_count = 1
        yield from islice(container.decode(video), limit)


def gather(config: PipelineConfig, source: Source, build: BuildEngine) -> Material:
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
    model = ModelInUse(config=config.model)
    engine = build(model, image_hw=canvas_hw, batch=len(regions))
    images = tuple(_image(engine, scaler, frame, regions) for frame in frames)
    rows = tuple(infer_by_request(engine, image) for image in images)
    floor = tracker_floor(config)
    return Material(
        config=config,
        source=source,
        facts=reader.facts,
        engine=engine,
        source_hw=source_hw,
        regions=regions,
        frames=frames,
        images=images,
        rows=rows,
        found=tuple(detections_of(engine, each, regions, floor) for each in rows),
    )


def detections_of(
    engine: Engine,
    rows: Float32[np.ndarray, "B rows A"],
    regions: tuple[Region, ...],
    settings: Suppression,
) -> Detections:
    """What an engine's answer says, as the run that is measured reads it."""
    canvas_hw = engine.input_shape[1:3]
    if engine.gives == "boxes":
        return join_looks(read_found(rows), regions, canvas_hw, settings)
    return suppress_looks(rows, regions, canvas_hw, settings)


def to_and_fro(count: int) -> Iterator[int]:
    """0 1 2 ... and back and on again: a film without a cut, for ever."""
    while True:
        yield from range(count)
        yield from range(count - 2, 0, -1)


def _image(
    engine: Engine, scaler: FrameScaler, frame: av.VideoFrame, regions: tuple[Region, ...]
) -> Images:
    """What a run gives the engine of a frame; one that copies pictures by itself knows of them."""
    image = IMAGERS[engine.takes].image(scaler, frame, regions, engine.input_shape[1:3])
    pixels = np.empty(image.shape, np.uint8)
    image.write(pixels)
    pixels.setflags(write=False)  # as a slot is that was sent
    if image.coded is None:
        return pixels
    assert takes_coded(engine)
    engine.host_memory.register(pixels)
    return CodedPicture(pixels=pixels, coded=image.coded, regions=regions, fixed=True)


def _memory(picture: Images) -> np.ndarray:
    assert isinstance(picture, CodedPicture)
    assert isinstance(picture.pixels, np.ndarray)
    return picture.pixels


def _some(frames: Iterator[av.VideoFrame]) -> tuple[av.VideoFrame, ...]:
    """As many frames as fit into a bounded memory, four at least."""
    kept: list[av.VideoFrame] = []
    for frame in frames:
        kept.append(frame)
        num_bytes = sum(plane.buffer_size for plane in frame.planes)
        if len(kept) >= 4 and len(kept) * num_bytes >= _MOST_BYTES:
            break
    return tuple(kept)
