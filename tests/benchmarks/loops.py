"""Loops in one thread that a pipeline has to beat: the tutorials' one, and one of our parts."""

import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Protocol

import av
import cv2
import numpy as np
import openvino
import supervision as sv
import torch
from trackers import ByteTrackTracker

from model.config import ModelConfig, Suppression
from model.detections import Detections
from model.engines import build_engine
from model.letterbox import PAD, Letterbox, rectangle
from model.suppression import suppress
from model.weights import load_detector
from pipeline.tracking.tracker import make_tracker

STEPS = ("decode", "letterbox", "infer", "nms", "track")
LOW_SCORE, HIGH_SCORE, MAX_IOU = 0.1, 0.25, 0.7


class Loop(Protocol):
    """The steps after decoding, each fed with what the one before it gave."""

    def letterbox(self, picture: np.ndarray) -> np.ndarray: ...

    def infer(self, canvas: np.ndarray) -> np.ndarray: ...

    def nms(self, rows: np.ndarray) -> Any: ...

    def track(self, boxes: Any, index: int) -> None: ...


class TutorialLoop:
    """cv2.resize, a float blob, a converted model with default settings, cv2's NMS, ByteTrack."""

    def __init__(self, model: ModelConfig, letterbox: Letterbox) -> None:
        assert model.weights is not None
        detector, _ = load_detector(model.weights)
        self._letterbox = letterbox
        example = torch.zeros(1, 3, *self._letterbox.canvas_hw)
        graph = openvino.convert_model(detector, example_input=example, input=example.shape)
        self._compiled = openvino.Core().compile_model(graph, "CPU")
        self._tracker = ByteTrackTracker()

    def letterbox(self, picture: np.ndarray) -> np.ndarray:
        blob = letterboxed(picture, self._letterbox)[..., ::-1].transpose(2, 0, 1)
        return np.ascontiguousarray(blob, np.float32)[np.newaxis] / 255

    def infer(self, canvas: np.ndarray) -> np.ndarray:
        return self._compiled(canvas)[0][0]

    def nms(self, rows: np.ndarray) -> sv.Detections:
        scores = rows[4:].T
        class_ids = scores.argmax(axis=1)
        best = scores.max(axis=1)
        likely = best > LOW_SCORE
        xyxy, best, class_ids = rows[:4].T[likely], best[likely], class_ids[likely]
        xywh = np.hstack((xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]))
        kept = cv2.dnn.NMSBoxesBatched(
            xywh.tolist(), best.tolist(), class_ids.tolist(), LOW_SCORE, MAX_IOU
        )
        kept = np.asarray(kept, np.int64).reshape(-1)
        return sv.Detections(
            xyxy=self._letterbox.to_source(xyxy[kept]),
            confidence=best[kept],
            class_id=class_ids[kept],
        )

    def track(self, boxes: sv.Detections, _: int) -> None:
        self._tracker.update(boxes)


class OurLoop:
    """Our engine on every core, our suppression and our tracker, without the pipeline."""

    def __init__(self, model: ModelConfig, letterbox: Letterbox) -> None:
        self._letterbox = letterbox
        self._engine = build_engine(model, image_hw=self._letterbox.canvas_hw, num_requests=1)
        self._settings = Suppression(min_score=LOW_SCORE, max_iou=MAX_IOU)
        self._tracker = make_tracker("bytetrack", min_score=HIGH_SCORE, frame_rate=25.0)

    def letterbox(self, picture: np.ndarray) -> np.ndarray:
        return letterboxed(picture, self._letterbox)[np.newaxis, ..., ::-1]

    def infer(self, canvas: np.ndarray) -> np.ndarray:
        return self._engine.infer(canvas)[0]

    def nms(self, rows: np.ndarray) -> Detections:
        boxes = suppress(rows, self._settings)
        return Detections(
            xyxy=self._letterbox.to_source(boxes.xyxy),
            score=boxes.score,
            class_id=boxes.class_id,
        )

    def track(self, boxes: Detections, index: int) -> None:
        self._tracker.update(boxes, index * 40_000_000)


@dataclass(frozen=True, slots=True)
class Side:
    """A loop to compare with, the canvas it pads to, and how FFmpeg decodes for it."""

    kind: Callable[[ModelConfig, Letterbox], Loop]
    square: bool
    """Whether it pads to a square, as exported models want, or to our smallest rectangle."""
    decoder_threads: str
    """`SLICE`, PyAV's default, is one thread for most files; `AUTO` decodes ahead on all cores."""


SIDES = {
    "tutorial": Side(TutorialLoop, True, "SLICE"),
    "tutorial_rectangle": Side(TutorialLoop, False, "SLICE"),
    "our_parts_rectangle_decoding_ahead": Side(OurLoop, False, "AUTO"),
}


def run_loop(side: Side, model: ModelConfig, clip: Path, warm_up: int) -> dict[str, float]:
    """Frames/s after `warm_up` frames, and the milliseconds a frame of each step."""
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        video.thread_type = side.decoder_threads
        picture_hw, size = (video.height, video.width), model.image_size
        canvas_hw = (size, size) if side.square else rectangle(picture_hw, size)
        loop = side.kind(model, Letterbox.fit(picture_hw, canvas_hw))
        frames = container.decode(video)
        spent = np.zeros(len(STEPS))
        started, index = 0.0, 0
        while True:
            marks = [time.perf_counter()]
            frame = next(frames, None)
            if frame is None:
                break
            picture = frame.to_ndarray(format="bgr24")
            marks.append(time.perf_counter())
            canvas = loop.letterbox(picture)
            marks.append(time.perf_counter())
            rows = loop.infer(canvas)
            marks.append(time.perf_counter())
            boxes = loop.nms(rows)
            marks.append(time.perf_counter())
            loop.track(boxes, index)
            marks.append(time.perf_counter())
            index += 1
            if index == warm_up:
                started = time.perf_counter()
            elif index > warm_up:
                spent += np.diff(marks)
        count = index - warm_up
        rate = count / (time.perf_counter() - started)
    milliseconds = {
        f"{step}_ms": float(value) for step, value in zip(STEPS, spent / count * 1000, strict=True)
    }
    return {"frames_per_s": rate, **milliseconds}


def letterboxed(picture: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """What tutorials do: cv2.resize into a grey canvas; still BGR."""
    height, width = letterbox.resized_hw
    canvas = np.full((*letterbox.canvas_hw, 3), PAD, np.uint8)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    canvas[top : top + height, left : left + width] = cv2.resize(
        picture, (width, height), interpolation=cv2.INTER_LINEAR
    )
    return canvas
