"""Sightline over a clip, as a peer is measured; prints one JSON line.

Tracks only: by its Python interface, which gives every frame's tracks. With video: the files that
`sightline run --save-video` writes; the run counts its finished pictures, and they are read ten
times a second.
"""

from pathlib import Path

import numpy as np
from meter import Meter, options_of, report

from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from pipeline.messages import Tracked
from pipeline.tracking.tracks import Tracks

PACKAGES = ("openvino", "av", "opencv-python", "numpy", "supervision", "trackers", "pyzmq")


def main() -> None:
    options = options_of(__doc__.splitlines()[0]).parse_args()
    model = ModelConfig(weights=options.model, image_size=options.image_size)
    meter = Meter(options.warm_up)
    if options.save_video:
        job = with_video(options.clip, model, options.save_video, meter)
    else:
        job = tracks_only(options.clip, model, meter)
    if not job.complete:
        raise SystemExit(f"{options.clip}: {job.fault or job.streams[0].reason}")
    [engine] = job.supervisor.engines
    summary = job.summary()
    frames = summary["streams"][0]["decoded"]
    report(
        meter,
        PACKAGES,
        input_hw=list(engine.input_shape[1:3]),
        precision=engine.precision,
        stages_ms={
            worker.split(":")[0]: round(usage["work_s"] / frames * 1000, 3)
            for worker, usage in summary["stages"].items()
        },
    )


def tracks_only(clip: Path, model: ModelConfig, meter: Meter) -> Job:
    """Every frame's tracks, and nothing written."""

    def take(_: Tracked, tracks: Tracks) -> None:
        meter.frame(tracks.track_id.tolist())

    job = Job(PipelineConfig(model=model), [str(clip)], take=take)
    job.run()
    return job


def with_video(clip: Path, model: ModelConfig, folder: Path, meter: Meter) -> Job:
    """The annotated MP4 and the track files."""
    output = OutputConfig(directory=folder, save_video=True, overwrite=True)
    job = Job(PipelineConfig(model=model, output=output), [str(clip)])
    [source] = job.sources
    counters = job.counters[source.name]
    job.run(lambda: meter.mark(counters["pictures"]))
    rows = np.loadtxt(job.outputs.mot(source), delimiter=",", ndmin=2)
    meter.tracks(rows[:, 1].astype(int).tolist())
    return job


if __name__ == "__main__":
    main()
