# SPDX-License-Identifier: Apache-2.0
"""sightline export: decode, hand over to the model's export, print what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from model.errors import ConfigError, PrecisionLost
from pipeline.calibration import sample_canvases

FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How an artefact is made and checked.

    Attributes:
        precision: What it computes in.
        check: Labelled images: a folder with images/ and one instances_*.json. Average precision
            is compared on them; without them, what float finds on some of the frames.
        image_size: Long side of the network's picture while it is calibrated and checked.
        frames: Most frames to take, evenly spread.
        max_ap_loss: Average precision that may be lost; beyond it nothing is written.
        overwrite: Replace the output if it exists.
    """

    precision: Literal["int8"] = "int8"
    check: Path | None = None
    image_size: int = 640
    frames: int = 300
    max_ap_loss: float = 0.01
    overwrite: bool = False


def export(
    weights: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    calibrate: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())],
    options: Annotated[ExportOptions | None, Parameter(name="*")] = None,
) -> int:
    """Make a faster artefact of a detector, calibrated on your own frames.

    What is written goes wherever the weights go: `--model` of run and worker, `load` in Python.

    Args:
        weights: A Sightline weights file.
        output: The artefact to write.
        calibrate: Images, folders, globs and videos that show what the detector will see.
        options: How it is made and checked.
    """
    from model.average_precision import read_coco
    from model.exporting import Request
    from model.exporting import export as export_artefact

    chosen = options or ExportOptions()
    request = Request(
        weights=weights,
        output=output,
        image_size=chosen.image_size,
        max_ap_loss=chosen.max_ap_loss,
        overwrite=chosen.overwrite,
    )
    classes = request.check().classes
    if chosen.frames < 1:
        raise ConfigError(f"--frames: expected at least 1, got {chosen.frames}")
    console = Console(soft_wrap=True, highlight=False, markup=False)
    labelled = read_coco(chosen.check, classes) if chosen.check else None
    canvases = sample_canvases(calibrate, count=chosen.frames, image_size=chosen.image_size)
    try:
        card = export_artefact(request, canvases, labelled, console.print)
    except PrecisionLost as lost:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
            f"sightline: {lost}"
        )
        return FAILED
    assert card.quantisation is not None
    for measured in (card.quantisation.check, card.quantisation.speed):
        if measured is not None:
            console.print(measured.sentence())
    console.print(f"{output}: size {card.scale}, {chosen.precision}, licence {card.licence}")
    return 0
