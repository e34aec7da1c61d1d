# SPDX-License-Identifier: Apache-2.0
"""Each stage alone, in one thread where it has only one: processor time a frame at its best."""

import time
from collections.abc import Callable, Mapping
from dataclasses import replace
from fractions import Fraction
from itertools import count, islice
from pathlib import Path

import numpy as np

from model.engines.busy import keep_busy
from pipeline import nv12
from pipeline.bench.material import Material, decoded, detections_of, to_and_fro
from pipeline.decoding.scaling import FrameScaler, matrix_to_keep
from pipeline.drawing.drawer import Drawer
from pipeline.graph import tracker_floor
from pipeline.messages import Tracked
from pipeline.sinks.encoders import X264
from pipeline.sinks.mp4 import Mp4Writer
from pipeline.stages.imaging import IMAGERS
from pipeline.stages.write import TextFiles
from pipeline.tracking.tracker import make_tracker
from pipeline.tracking.tracks import Tracks

_PASSES = 4  # over the material, of the stages that are quick

Work = Callable[[], int]
"""Does some frames' worth of a stage's work; returns how many frames that were."""


def cpu_ms(work: Work) -> float:
    """Processor milliseconds a frame, of all threads."""
    started = time.process_time()
    num_frames = work()
    return (time.process_time() - started) / num_frames * 1000


def stages(material: Material, folder: Path) -> Mapping[str, Work]:
    """The stages of a run by name, in the order of the path."""
    alone = {
        "decode": lambda: _decode(material),
        "scale": lambda: _scale(material),
        "infer": lambda: keep_busy(material.engine, material.images, 2 * len(material.frames)),
        "suppress": lambda: _suppress(material),
        "track": lambda: len(_track(material)),
        "write tracks": lambda: _write_tracks(material, folder),
    }
    if not material.config.output.save_video:
        return alone
    tracks = _track(material)
    drawn = _drawn(material, tracks)
    return alone | {
        "picture": lambda: _picture(material),
        "draw": lambda: _draw(material, drawn, tracks),
        "encode": lambda: _encode(material, drawn, folder),
    }


def _decode(material: Material) -> int:
    limit = material.config.source.limit
    assert limit is not None
    return sum(1 for _ in decoded(material.source, limit))


def _scale(material: Material) -> int:
    """Fill slots; for an engine that scales by itself that is a copy of the decoder's planes."""
    scaler, imager = _scaler(material), IMAGERS[material.engine.takes]
    slots: dict[tuple[int, ...], np.ndarray] = {}
    for _ in range(_PASSES):
        for frame in material.frames:
            image = imager.image(scaler, frame, material.regions, material.canvas_hw)
            if image.shape not in slots:
                slots[image.shape] = np.empty(image.shape, np.uint8)
            image.write(slots[image.shape])
    return _PASSES * len(material.frames)


def _suppress(material: Material) -> int:
    settings = tracker_floor(material.config)
    for _ in range(_PASSES):
        for rows in material.rows:
            detections_of(material.engine, rows, material.regions, settings)
    return _PASSES * len(material.rows)


def _track(material: Material) -> list[Tracks]:
    tracking, step_ns = material.config.tracking, round(1e9 / material.frame_rate)
    tracker = make_tracker(
        tracking.kind,
        min_score=material.config.suppression.min_score,
        frame_rate=material.frame_rate,
        lost_s=tracking.lost_s,
    )
    order = islice(to_and_fro(len(material.found)), _PASSES * len(material.found))
    return [tracker.update(material.found[n], at * step_ns) for at, n in enumerate(order)]


def _write_tracks(material: Material, folder: Path) -> int:
    tracks = _track(material)
    sink = TextFiles(folder / "tracks.txt", folder / "tracks.jsonl", material.engine.classes)
    for number, each in enumerate(tracks):
        timed = Tracked(
            stream="",
            frame_index=number,
            pts_ns=number,
            duration_ns=1,
            captured_ns=number,
            picture_hw=(1, 1),
        )
        sink.write(timed, each)
    sink.abandon()
    return len(tracks)


def _picture(material: Material) -> int:
    scaler, picture = _scaler(material), _blank(material)
    for frame in material.frames:
        scaler.full_size(frame, picture, _matrix(material))
    return len(material.frames)


def _drawn(material: Material, tracks: list[Tracks]) -> list[np.ndarray]:
    scaler, drawer, drawn = _scaler(material), _drawer(material), []
    for frame, each in zip(material.frames, tracks, strict=False):
        picture = _blank(material)
        scaler.full_size(frame, picture, _matrix(material))
        drawer.draw(picture, each)
        drawn.append(picture)
    return drawn


def _draw(material: Material, pictures: list[np.ndarray], tracks: list[Tracks]) -> int:
    """Copy and draw, as drawing never touches the picture that others see."""
    drawer, picture = _drawer(material), np.empty_like(pictures[0])
    for number, each in zip(to_and_fro(len(pictures)), tracks, strict=False):
        np.copyto(picture, pictures[number])
        drawer.draw(picture, each)
    return len(tracks)


def _encode(material: Material, pictures: list[np.ndarray], folder: Path) -> int:
    rate = Fraction(material.frame_rate).limit_denominator(1001)
    writer = Mp4Writer(
        folder / "drawn.mp4",
        picture_hw=material.source_hw,
        matrix=_matrix(material),
        frame_rate=rate,
        encoder=replace(X264, threads=1),
    )
    num_pictures = 2 * len(pictures)
    for at, number in zip(count(), islice(to_and_fro(len(pictures)), num_pictures), strict=False):
        writer.write(pictures[number], round(at / rate * 1_000_000_000))
    writer.abandon()
    return num_pictures


def _scaler(material: Material) -> FrameScaler:
    parameters = material.facts.parameters
    return FrameScaler(parameters.rotation_deg, parameters.pixel_aspect)


def _drawer(material: Material) -> Drawer:
    return Drawer(
        material.engine.classes,
        picture_hw=material.source_hw,
        matrix=_matrix(material),
        trace_frames=round(material.config.drawing.trace_s * material.frame_rate),
    )


def _matrix(material: Material) -> nv12.Matrix:
    return matrix_to_keep(material.frames[0])


def _blank(material: Material) -> np.ndarray:
    return np.empty(nv12.shape(material.source_hw), np.uint8)
