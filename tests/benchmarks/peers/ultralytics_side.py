"""Ultralytics over a clip by its documented way; runs in its environment, prints one JSON line.

`--model` is a folder of `ultralytics_export.py`, whose shape is that of the export. The settings
are its defaults for tracking, with ByteTrack chosen. `save=True` writes the annotated video as it
does by default: on Linux that is MJPEG in AVI.
"""

from pathlib import Path

from meter import Meter, options_of, precision_of, report
from ultralytics import YOLO

PACKAGES = ("ultralytics", "openvino", "torch", "torchvision", "opencv-python", "numpy", "lap")


def main() -> None:
    options = options_of(__doc__.splitlines()[0]).parse_args()
    video = {}
    if options.save_video:
        folder = options.save_video.absolute()
        video = {"save": True, "project": str(folder), "name": "video", "exist_ok": True}
    model = YOLO(options.model, task="detect")
    meter = Meter(options.warm_up)
    for result in model.track(
        source=str(options.clip),
        tracker="bytetrack.yaml",
        stream=True,
        conf=0.1,
        iou=0.7,
        verbose=False,
        **video,
    ):
        ids = result.boxes.id
        meter.frame([] if ids is None else ids.int().tolist(), result.speed)
    compiled = model.predictor.model.backend.ov_compiled_model
    report(
        meter,
        PACKAGES,
        input_hw=list(compiled.input(0).shape)[2:],
        precision=precision_of(compiled),
        video=kinds(options.save_video),
    )


def kinds(folder: Path | None) -> str:
    """The kinds of files that were written."""
    return ", ".join(sorted({path.suffix for path in folder.rglob("*.*")})) if folder else ""


if __name__ == "__main__":
    main()
