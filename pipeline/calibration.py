# SPDX-License-Identifier: Apache-2.0
"""Pictures for the network, taken evenly from images, folders and videos."""

from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import replace
from pathlib import Path

import numpy as np
from jaxtyping import UInt8

from model.letterbox import Letterbox, rectangle
from pipeline.decoding.decoder import DecodedFrame, Undecodable, make_decoder
from pipeline.decoding.images import ImageReader
from pipeline.decoding.inputs import Source, find_sources, image_files
from pipeline.decoding.media import MediaReader, Reader
from pipeline.decoding.scaling import FrameScaler
from pipeline.decoding.surface import on_host
from pipeline.errors import SourceUnreadable

Canvas = UInt8[np.ndarray, "H W 3"]

_RATE = 25.0  # of images, whose times are not looked at


def sample_canvases(named: Sequence[str], *, count: int, image_size: int) -> list[Canvas]:
    """Take frames as `run` would show them to the network.

    Args:
        named: Images, folders, globs and videos.
        count: Frames to take in all, spread evenly; fewer where there are fewer.
        image_size: Long side of the network's picture, in pixels.

    Raises:
        SourceUnreadable: something named cannot be read, or gives no frame.
    """
    sources = [single for source in find_sources(named) for single in _singles(source)]
    for source in sources:
        if source.live:
            raise SourceUnreadable(f"{source.label}: a camera; name images or videos")
    shares = share_out([_length(source) for source in sources], count)
    canvases: list[Canvas] = []
    for source, share in zip(sources, shares, strict=True):
        taken = _sample(source, share, image_size) if share else []
        if share and not taken:
            raise SourceUnreadable(f"{source.label}: no frame in it can be decoded; name another")
        canvases += taken
    return canvases


def share_out(lengths: Sequence[int], count: int) -> list[int]:
    """Split a number of frames among sources: alike, but to none more than it has."""
    shares = [0] * len(lengths)
    if count < len(lengths):
        for place in range(count):
            shares[place * len(lengths) // count] = 1
        return shares
    shortest_first = sorted(range(len(lengths)), key=lambda place: lengths[place])
    for rank, place in enumerate(shortest_first):
        shares[place] = min(lengths[place], count // (len(lengths) - rank))
        count -= shares[place]
    return shares


def _singles(source: Source) -> list[Source]:
    """Take a folder of images apart."""
    if source.kind != "images":
        return [source]
    files = image_files(Path(source.location))
    return [replace(source, kind="image", location=str(file)) for file in files]


def _length(source: Source) -> int:
    """Frames that a source says it has."""
    if source.kind == "image":
        return 1
    with closing(MediaReader(source)) as reader:
        facts = reader.facts
    return facts.num_frames or max(1, round(facts.duration_s * facts.frame_rate))


def _sample(source: Source, share: int, image_size: int) -> list[Canvas]:
    """Take so many frames of one source, evenly spread."""
    length = _length(source)
    wanted = {(2 * place + 1) * length // (2 * share) for place in range(share)}
    canvases: list[Canvas] = []
    reader: Reader = (
        ImageReader(source, rate=_RATE) if source.kind == "image" else MediaReader(source)
    )
    with closing(reader):
        parameters = reader.facts.parameters
        scaler = FrameScaler(parameters.rotation_deg, parameters.pixel_aspect)
        for index, decoded in enumerate(_decoded(source, reader)):
            if index in wanted and not decoded.corrupt:
                canvases.append(_canvas(scaler, decoded, image_size))
            if index >= max(wanted):
                break
    return canvases


def _decoded(source: Source, reader: Reader) -> Iterator[DecodedFrame]:
    """The frames of a source in the order they are shown, less the packets that are damaged."""
    decoder = make_decoder(reader.facts.parameters, live=False)
    for index, raw in enumerate(reader.packets()):
        try:
            yield from decoder.decode(raw.header(source.name, index), memoryview(raw.data))
        except Undecodable as damage:
            if source.kind == "image":
                raise SourceUnreadable(
                    f"{source.label}: not an image to be read ({damage})"
                ) from None
    yield from decoder.flush()


def _canvas(scaler: FrameScaler, decoded: DecodedFrame, image_size: int) -> Canvas:
    source_hw = scaler.upright_hw(decoded.frame)
    letterbox = Letterbox.fit(source_hw, rectangle(source_hw, image_size))
    canvas = np.empty((*letterbox.canvas_hw, 3), np.uint8)
    scaler.letterboxed(on_host(decoded.frame), letterbox, canvas)
    return canvas
