"""Weights to an OpenVINO folder by ultralytics' own export; runs in its environment.

    python ultralytics_export.py --weights FILE --image-hw 384 640 --output FOLDER [--data YAML]

FILE has ultralytics' names of the fused tensors, and in its metadata `scale` and `names`. With
`--data`, a data set in the YOLO layout, the export is int8, calibrated by its `val` images.
"""

import argparse
import json
import os
import shutil
import tempfile
from pathlib import Path

import yaml
from safetensors import safe_open
from ultralytics import YOLO


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--weights", type=Path, required=True)
    parser.add_argument("--image-hw", type=int, nargs=2, required=True)
    parser.add_argument("--output", type=Path, required=True)
    parser.add_argument("--data", type=Path)
    options = parser.parse_args()
    output = options.output.absolute()
    model = load(options.weights)
    with tempfile.TemporaryDirectory(dir=output.parent) as folder:
        int8 = {}
        if options.data:
            int8 = {"int8": True, "data": str(calibration(options.data, Path(folder)))}
        os.chdir(folder)  # the export names its folder after the model and puts it here
        exported = model.export(format="openvino", imgsz=options.image_hw, device="cpu", **int8)
        Path(exported).absolute().rename(output)


def load(weights: Path) -> YOLO:
    """Build the network of the file's size, fused, and give it the file's tensors."""
    with safe_open(weights, "pt") as file:
        metadata = file.metadata()
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    model = YOLO(f"yolov9{metadata['scale'].lower()}.yaml")
    model.model.eval().fuse()
    model.model.load_state_dict(tensors)
    model.model.names = dict(enumerate(json.loads(metadata["names"])))
    return model


def calibration(data: Path, folder: Path) -> Path:
    """A copy of a data set with its `val` images in both roles; a cache is written beside them."""
    tree = yaml.safe_load(data.read_text())
    root, images = data.parent / tree.get("path", "."), tree["val"]
    for part in (images, images.replace("images", "labels", 1)):
        shutil.copytree(root / part, folder / part)
    ours = folder / "calibration.yaml"
    roles = {"path": str(folder), "train": images, "val": images, "names": tree["names"]}
    ours.write_text(yaml.safe_dump(roles))
    return ours


if __name__ == "__main__":
    main()
