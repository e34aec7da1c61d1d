"""Our own parts in one thread, FFmpeg decoding ahead on every core; prints one JSON line.

The strictest loop to compare a pipeline with: our engine, NMS and tracker and the same rectangle,
but no queue and no stage. Tracks only.
"""

import time

import av
import cv2
import numpy as np
from meter import Meter, options_of, report

from model.config import ModelConfig, Suppression
from model.detections import Detections
from model.engines import build_engine
from model.letterbox import PAD, Letterbox, rectangle
from model.suppression import suppress
from pipeline.tracking.tracker import make_tracker

STEPS = ("decode", "preprocess", "inference", "suppression", "tracking")
SETTINGS = Suppression(min_score=0.1, max_iou=0.7)
PACKAGES = ("openvino", "av", "opencv-python", "numpy", "trackers")


def main() -> None:
    options = options_of(__doc__.splitlines()[0]).parse_args()
    meter = Meter(options.warm_up)
    tracker = make_tracker("bytetrack", min_score=0.25, frame_rate=25.0)
    with av.open(str(options.clip)) as container:
        video = container.streams.video[0]
        video.thread_type = "AUTO"
        letterbox = Letterbox.fit(
            (video.height, video.width), rectangle((video.height, video.width), options.image_size)
        )
        engine = build_engine(
            ModelConfig(weights=options.model), image_hw=letterbox.canvas_hw, num_requests=1
        )
        frames = container.decode(video)
        while True:
            marks = [time.perf_counter()]
            frame = next(frames, None)
            if frame is None:
                break
            picture = frame.to_ndarray(format="rgb24")
            marks.append(time.perf_counter())
            canvas = letterboxed(picture, letterbox)
            marks.append(time.perf_counter())
            rows = engine.infer(canvas[np.newaxis])[0]
            marks.append(time.perf_counter())
            boxes = suppress(rows, SETTINGS)
            marks.append(time.perf_counter())
            xyxy = letterbox.to_source(boxes.xyxy)
            found = Detections(xyxy=xyxy, score=boxes.score, class_id=boxes.class_id)
            assert frame.time is not None
            tracks = tracker.update(found, int(frame.time * 1e9))
            marks.append(time.perf_counter())
            spent = np.diff(marks) * 1000
            meter.frame(tracks.track_id.tolist(), dict(zip(STEPS, spent.tolist(), strict=True)))
    report(meter, PACKAGES, input_hw=list(letterbox.canvas_hw), precision=engine.precision)


def letterboxed(picture: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """What loops do: cv2.resize into a grey canvas."""
    height, width = letterbox.resized_hw
    canvas = np.full((*letterbox.canvas_hw, 3), PAD, np.uint8)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    canvas[top : top + height, left : left + width] = cv2.resize(picture, (width, height))
    return canvas


if __name__ == "__main__":
    main()
