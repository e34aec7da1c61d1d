"""The pipeline against the loop that tutorials teach, on one 1080p clip, run by run in turn.

    python tests/benchmarks/bench_pipeline.py --weights t.safetensors --clip people.mp4

The loop runs in one thread: decode to BGR, letterbox, OpenVINO on every core, NMS, ByteTrack.
Both sides use the same weights, input size, precision and thresholds, and write nothing. Frames/s
are of the steady state: from the 30th frame on, engines built and warm.
"""

import argparse
import json
import tempfile
import time
from pathlib import Path
from typing import Any

import av
import cv2
import numpy as np
from clips import scaled_clip
from timing import spread, surroundings

from model.config import ModelConfig, Suppression
from model.detections import Detections
from model.engines import build_engine
from model.letterbox import PAD, Letterbox, rectangle
from model.suppression import suppress
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.stages.write import HandOver
from pipeline.tracking.tracker import make_tracker
from pipeline.tracking.tracks import Tracks

WARM_UP = 30


def main() -> None:
    """Run both sides in turn and print one JSON object."""
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--clip", type=Path, required=True, help="a real clip to enlarge")
    parser.add_argument("--frames", type=int, default=400)
    parser.add_argument("--runs", type=int, default=5)
    parser.add_argument("--save-video", action="store_true", help="add the pipeline with MP4")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        clip = scaled_clip(
            options.clip,
            Path(folder) / "clip.mp4",
            width=1920,
            height=1080,
            num_frames=options.frames,
        )
        result = compare(clip, options, Path(folder))
    print(json.dumps(result, indent=2))


def compare(clip: Path, options: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """Alternate the sides; medians of each and of the ratio within a pair."""
    model = ModelConfig(weights=options.weights)
    loop_rates, pipeline_rates, video_rates, shares = [], [], [], []
    for _ in range(options.runs):
        rate, share = plain_loop(clip, model)
        loop_rates.append(rate)
        shares.append(share)
        pipeline_rate, job = through_pipeline(clip, model)
        pipeline_rates.append(pipeline_rate)
        if options.save_video:
            video_rates.append(with_video(clip, model, folder))
    pairs = zip(pipeline_rates, loop_rates, strict=True)
    return {
        **surroundings(),
        "clip": f"1920x1080 H.264, {options.frames} frames of {options.clip.name}",
        "precision": job.engines.built[0].precision,
        "loop_frames_per_s": spread(loop_rates),
        "pipeline_frames_per_s": spread(pipeline_rates),
        "ratio": spread([ours / theirs for ours, theirs in pairs]),
        **({"pipeline_with_mp4_frames_per_s": spread(video_rates)} if video_rates else {}),
        "loop_ms_per_frame": {
            name: round(float(np.median([share[name] for share in shares])), 2)
            for name in shares[0]
        },
        "pipeline_last_run_stages": per_frame(job, options.frames),
    }


def plain_loop(clip: Path, model: ModelConfig) -> tuple[float, dict[str, float]]:
    """One thread; returns frames/s and milliseconds a frame of each step."""
    container = av.open(str(clip))
    stream = container.streams.video[0]
    settings = Suppression(min_score=0.1)
    tracker = make_tracker("bytetrack", min_score=0.25, frame_rate=25)
    canvas_hw = rectangle((stream.height, stream.width), model.image_size)
    engine = build_engine(model, image_hw=canvas_hw, num_requests=1)
    letterbox = Letterbox.fit((stream.height, stream.width), canvas_hw)
    names = ("decode", "letterbox", "infer", "nms", "track")
    spent = dict.fromkeys(names, 0.0)
    frames = container.decode(stream)
    started, count, index = time.perf_counter(), 0, 0
    while True:
        marks = [time.perf_counter()]
        frame = next(frames, None)
        if frame is None:
            break
        picture = frame.to_ndarray(format="bgr24")
        marks.append(time.perf_counter())
        canvas = letterboxed(picture, letterbox)
        marks.append(time.perf_counter())
        rows = engine.infer(canvas[np.newaxis])[0]
        marks.append(time.perf_counter())
        boxes = suppress(rows, settings)
        marks.append(time.perf_counter())
        found = Detections(
            xyxy=letterbox.to_source(boxes.xyxy), score=boxes.score, class_id=boxes.class_id
        )
        tracker.update(found, index * 40_000_000)
        marks.append(time.perf_counter())
        index += 1
        if index == WARM_UP:
            started = time.perf_counter()
        elif index > WARM_UP:
            count += 1
            for name, begin, end in zip(names, marks, marks[1:], strict=False):
                spent[name] += end - begin
    rate = count / (time.perf_counter() - started)
    engine.close()
    container.close()
    return rate, {name: seconds / count * 1000 for name, seconds in spent.items()}


def letterboxed(picture: np.ndarray, letterbox: Letterbox) -> np.ndarray:
    """What tutorials do: cv2.resize, pad, BGR to RGB."""
    height, width = letterbox.resized_hw
    canvas = np.full((*letterbox.canvas_hw, 3), PAD, np.uint8)
    top, left = letterbox.pad_top_px, letterbox.pad_left_px
    resized = cv2.resize(picture, (width, height), interpolation=cv2.INTER_LINEAR)
    canvas[top : top + height, left : left + width] = resized[..., ::-1]
    return canvas


def through_pipeline(clip: Path, model: ModelConfig) -> tuple[float, Job]:
    """The pipeline, tracks only; returns frames/s and the job that ran."""
    times: list[float] = []

    def take(_: Tracked, __: Tracks) -> None:
        times.append(time.perf_counter())

    job = Job(PipelineConfig(model=model), [str(clip)], open_sink=lambda _: HandOver(take))
    job.run()
    assert job.complete, job.streams[0].reason
    return (len(times) - WARM_UP) / (times[-1] - times[WARM_UP - 1]), job


def with_video(clip: Path, model: ModelConfig, folder: Path) -> float:
    """The pipeline with its files and an annotated MP4; frames/s of the whole run."""
    output = OutputConfig(directory=folder / "out", save_video=True, overwrite=True)
    job = Job(PipelineConfig(model=model, output=output), [str(clip)])
    job.run()
    state = job.streams[0]
    assert state.complete, state.reason
    return job.counters[state.source.name]["decoded"] / (state.elapsed_s - job.engines.build_s)


def per_frame(job: Job, frames: int) -> dict[str, dict[str, float]]:
    """Milliseconds a frame of every stage's thread: at work, waiting for input and for credit."""
    return {
        worker.split(":")[0]: {
            name.removesuffix("_s") + "_ms": round(value / frames * 1000, 2)
            for name, value in usage.items()
            if name != "messages"
        }
        for worker, usage in job.summary()["stages"].items()
    }


if __name__ == "__main__":
    main()
