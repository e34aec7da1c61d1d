# SPDX-License-Identifier: Apache-2.0
"""The pipeline from Python: an iterator over the tracks of every frame."""

import queue
import threading
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from pipeline.errors import PipelineError

if TYPE_CHECKING:
    from pipeline.config import PipelineConfig
    from pipeline.messages import Tracked
    from pipeline.tracking.tracks import Tracks

_AHEAD = 64  # frames the pipeline may be ahead of its consumer


@dataclass(frozen=True, slots=True, kw_only=True)
class FrameResult:
    """The tracks of one frame."""

    stream: str
    """File stem, or the camera's name."""
    frame_index: int
    """Decoded frames of the stream, from 0."""
    pts_s: float
    """Presentation time on the stream's own clock."""
    tracks: "Tracks"
    class_names: tuple[str, ...]
    """The name of the class of each track."""
    predicted: bool = False
    """Whether the tracks were carried over from the frames before: nobody looked at this one."""


def run(
    sources: str | Path | Sequence[str | Path],
    *,
    model: str | Path | None = None,
    classes: Sequence[str] = (),
    config: "PipelineConfig | None" = None,
) -> Iterator[FrameResult]:
    """Yield the tracks of every frame as they come; nothing is written.

    Frames of one stream come in order; several streams come mixed. Leaving the loop early ends
    the run.

    Args:
        sources: Files, globs, folders, images or rtsp:// addresses.
        model: A weights file or the name of a model; instead of `config.model.weights`. The
            package's own model if there is neither.
        classes: Names of the classes to look for; instead of `config.classes`.
        config: Everything else.

    Raises:
        PipelineError: a source cannot be read, or gave less than it declares.
        ModelError: the weights or the settings are not as they must be.
    """
    from pipeline.job import Job

    results: queue.Queue[FrameResult | None] = queue.Queue(_AHEAD)
    named = [sources] if isinstance(sources, str | Path) else sources
    job = Job(
        _settings(config, model, classes),
        [str(name) for name in named],
        take=lambda frame, tracks: results.put(_result(frame, tracks, job.card.classes)),
    )

    def work() -> None:
        try:
            job.run()
        finally:
            results.put(None)

    thread = threading.Thread(target=work, name="pipeline")
    thread.start()
    try:
        while (result := results.get()) is not None:
            yield result
    finally:
        job.stop()
        _join(thread, results)
    if faults := [state.fault for state in job.streams if state.fault]:
        raise PipelineError("; ".join(faults))


def _settings(
    config: "PipelineConfig | None", model: str | Path | None, classes: Sequence[str]
) -> "PipelineConfig":
    from pipeline.config import PipelineConfig

    settings = config or PipelineConfig()
    if model is not None:
        weights = settings.model.model_copy(update={"weights": Path(model)})
        settings = settings.model_copy(update={"model": weights})
    if classes:
        settings = settings.model_copy(update={"classes": tuple(classes)})
    return settings


def _result(frame: "Tracked", tracks: "Tracks", classes: Sequence[str]) -> FrameResult:
    return FrameResult(
        stream=frame.stream,
        frame_index=frame.frame_index,
        pts_s=frame.pts_ns / 1e9,
        tracks=tracks,
        class_names=tuple(classes[number] for number in tracks.class_id),
        predicted=frame.predicted,
    )


def _join(thread: threading.Thread, results: "queue.Queue[FrameResult | None]") -> None:
    """Wait for the end, letting go of what waits to be handed over."""
    while thread.is_alive():
        try:
            results.get(timeout=0.05)
        except queue.Empty:
            continue
    thread.join()
