"""The loop that tutorials teach, over a clip; runs in its environment, prints one JSON line.

cv2.VideoCapture, cv2.resize into a padded canvas, a float blob, OpenVINO with default settings,
cv2's NMS, ByteTrack of `trackers`, supervision's annotators and VideoSink. `--model` is a folder
that ultralytics exported, as tutorials have it; its shape is that of the export.
"""

import time
from contextlib import ExitStack
from pathlib import Path

import cv2
import numpy as np
import openvino
import supervision as sv
from meter import Meter, options_of, precision_of, report
from trackers import ByteTrackTracker

STEPS = ("decode", "preprocess", "inference", "suppression", "tracking", "drawing")
LOW_SCORE, HIGH_SCORE, MAX_IOU = 0.1, 0.25, 0.7
GREY = 114
PACKAGES = ("openvino", "opencv-python", "numpy", "supervision", "trackers")


def main() -> None:
    options = options_of(__doc__.splitlines()[0]).parse_args()
    compiled = openvino.Core().compile_model(next(options.model.glob("*.xml")), "CPU")
    canvas_hw = tuple(compiled.input(0).shape)[2:]
    # The tracker's own thresholds of 0.6 and 0.7 would start no track from a box of 0.4.
    tracker = ByteTrackTracker(
        track_activation_threshold=HIGH_SCORE, high_conf_det_threshold=HIGH_SCORE
    )
    capture = cv2.VideoCapture(str(options.clip))
    meter = Meter(options.warm_up)
    with ExitStack() as stack:
        draw = Drawer(options.clip, options.save_video, stack) if options.save_video else None
        while True:
            marks = [time.perf_counter()]
            more, picture = capture.read()
            if not more:
                break
            marks.append(time.perf_counter())
            blob, ratio, left, top = preprocess(picture, canvas_hw)
            marks.append(time.perf_counter())
            rows = compiled(blob)[0][0]
            marks.append(time.perf_counter())
            boxes = suppress(rows, ratio, left, top)
            marks.append(time.perf_counter())
            tracks = tracker.update(boxes)
            tracks = tracks[tracks.tracker_id != -1]
            marks.append(time.perf_counter())
            if draw:
                draw(picture, tracks)
            marks.append(time.perf_counter())
            spent = np.diff(marks) * 1000
            meter.frame(tracks.tracker_id.tolist(), dict(zip(STEPS, spent.tolist(), strict=True)))
    report(meter, PACKAGES, input_hw=list(canvas_hw), precision=precision_of(compiled))


class Drawer:
    """Boxes, labels and traces, written as supervision's video sink does by default."""

    def __init__(self, clip: Path, folder: Path, stack: ExitStack) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        info = sv.VideoInfo.from_video_path(str(clip))
        self._sink = stack.enter_context(sv.VideoSink(str(folder / "tutorial.mp4"), info))
        self._box, self._label, self._trace = (
            sv.BoxAnnotator(),
            sv.LabelAnnotator(),
            sv.TraceAnnotator(),
        )

    def __call__(self, picture: np.ndarray, tracks: sv.Detections) -> None:
        columns = zip(tracks.tracker_id, tracks.class_id, tracks.confidence, strict=True)
        labels = [f"#{track} {kind} {score:.2f}" for track, kind, score in columns]
        scene = self._trace.annotate(picture, tracks)
        scene = self._box.annotate(scene, tracks)
        self._sink.write_frame(self._label.annotate(scene, tracks, labels))


def preprocess(
    picture: np.ndarray, canvas_hw: tuple[int, int]
) -> tuple[np.ndarray, float, int, int]:
    """A padded float blob, and how the picture lies in it: scale, left and top."""
    (height, width), (tall, wide) = picture.shape[:2], canvas_hw
    ratio = min(tall / height, wide / width)
    resized_wh = round(width * ratio), round(height * ratio)
    left, top = (wide - resized_wh[0]) // 2, (tall - resized_wh[1]) // 2
    canvas = np.full((tall, wide, 3), GREY, np.uint8)
    canvas[top : top + resized_wh[1], left : left + resized_wh[0]] = cv2.resize(picture, resized_wh)
    return cv2.dnn.blobFromImage(canvas, 1 / 255, swapRB=True), ratio, left, top


def suppress(rows: np.ndarray, ratio: float, left: int, top: int) -> sv.Detections:
    """cx, cy, w, h and a score for each class, one row each, to boxes of the picture."""
    scores = rows[4:].max(axis=0)
    likely = np.flatnonzero(scores > LOW_SCORE)
    scores, class_ids = scores[likely], rows[4:, likely].argmax(axis=0)
    centre, size = rows[:2, likely].T, rows[2:4, likely].T
    xywh = np.hstack((centre - size / 2, size))
    kept = cv2.dnn.NMSBoxesBatched(
        xywh.tolist(), scores.tolist(), class_ids.tolist(), LOW_SCORE, MAX_IOU
    )
    kept = np.asarray(kept, np.int64).reshape(-1)
    corner = xywh[kept, :2] - (left, top)
    xyxy = np.hstack((corner, corner + xywh[kept, 2:])) / ratio
    return sv.Detections(
        xyxy=xyxy.astype(np.float32), confidence=scores[kept], class_id=class_ids[kept]
    )


if __name__ == "__main__":
    main()
