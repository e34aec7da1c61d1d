# SPDX-License-Identifier: Apache-2.0
"""sightline export: decode, hand over to the model's exports, print what came of it."""

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from cyclopts import Parameter
from rich.console import Console

from model.built import ArtefactEngine
from model.card import Card, read_card
from model.config import Suppression
from model.errors import ConfigError, PrecisionLost
from model.shipped import find_weights
from pipeline.calibration import sample_canvases

FAILED = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportOptions:
    """How an artefact is made and checked.

    Attributes:
        precision: int8 where frames to calibrate on are named, else f32; int8 is OpenVINO's.
        data: Labelled images: a folder with images/ and one instances_*.json. Average precision
            is compared on them.
        image_size: Long side of the network's picture while it is calibrated and checked.
        frames: Most frames to calibrate on, evenly spread.
        max_ap_loss: Average precision that may be lost, .003 for f32 and .01 for int8; beyond it
            nothing is written.
        canvas: Height and width that aoti compiles for; a square of image_size if not given.
        batch: Images a request that aoti compiles for.
        nms: Put suppression into an ONNX graph, for programs of others.
        min_score: Candidates of that suppression score above this.
        max_iou: A box that overlaps a better one by more is dropped by it.
        class_aware: Whether only boxes of one class drop each other.
        overwrite: Replace the output if it exists.
    """

    precision: Literal["f32", "int8"] | None = None
    data: Annotated[Path | None, Parameter(alias="--check")] = None
    image_size: int = 640
    frames: int = 300
    max_ap_loss: float | None = None
    canvas: tuple[int, int] | None = None
    batch: int = 1
    nms: bool = False
    min_score: float = 0.25
    max_iou: float = 0.7
    class_aware: bool = True
    overwrite: bool = False


def export(
    weights: Path,
    *,
    output: Annotated[Path, Parameter(alias="-o")],
    format: ArtefactEngine = "openvino",  # noqa: A002 - the name of the option
    calibrate: Annotated[tuple[str, ...], Parameter(consume_multiple=True, negative=())] = (),
    options: Annotated[ExportOptions | None, Parameter(name="*")] = None,
) -> int:
    """Make an artefact of a detector, proven against the weights it is made from.

    What is written goes wherever the weights go: `--model` of run and worker, `load` in Python.

    Args:
        weights: A Sightline weights file, or the name of a model.
        output: The artefact to write: *.safetensors, *.onnx or *.pt2.
        format: What is to run it: openvino, onnx (any runtime), aoti (torch, compiled here).
        calibrate: Images, folders, globs and videos that show what the detector will see: the
            artefact is int8.
        options: How it is made and checked.
    """
    chosen = options or ExportOptions()
    weights = find_weights(weights)
    precision = chosen.precision or ("int8" if calibrate else "f32")
    _check_options(format, precision, calibrate)
    console = Console(soft_wrap=True, highlight=False, markup=False)
    try:
        if precision == "int8":
            card = _quantise(weights, output, calibrate, chosen, console)
        else:
            card = _build(weights, output, format, chosen, console)
    except PrecisionLost as lost:
        Console(stderr=True, soft_wrap=True, highlight=False, markup=False).print(
            f"sightline: {lost}"
        )
        return FAILED
    console.print(f"{output}: size {card.scale}, {format}, {precision}, licence {card.licence}")
    return 0


def _check_options(
    format: ArtefactEngine,  # noqa: A002 - as above
    precision: Literal["f32", "int8"],
    calibrate: tuple[str, ...],
) -> None:
    """Refuse options that do not belong together."""
    if precision == "int8" and format != "openvino":
        raise ConfigError(f"--format {format}: float only; int8 is for --format openvino")
    if precision == "int8" and not calibrate:
        raise ConfigError("--precision int8: name frames to calibrate on with --calibrate")
    if precision == "f32" and calibrate:
        raise ConfigError("--calibrate: f32 needs no calibration; leave out one of them")


def _quantise(
    weights: Path, output: Path, calibrate: tuple[str, ...], chosen: ExportOptions, console: Console
) -> Card:
    from model.average_precision import read_coco
    from model.exporting import MAX_AP_LOSS, Request
    from model.exporting import export as export_artefact

    request = Request(
        weights=weights,
        output=output,
        image_size=chosen.image_size,
        max_ap_loss=MAX_AP_LOSS if chosen.max_ap_loss is None else chosen.max_ap_loss,
        overwrite=chosen.overwrite,
    )
    classes = request.check().classes
    if chosen.frames < 1:
        raise ConfigError(f"--frames: expected at least 1, got {chosen.frames}")
    labelled = read_coco(chosen.data, classes) if chosen.data else None
    canvases = sample_canvases(calibrate, count=chosen.frames, image_size=chosen.image_size)
    card = export_artefact(request, canvases, labelled, console.print)
    assert card.quantisation is not None
    for measured in (card.quantisation.check, card.quantisation.speed):
        if measured is not None:
            console.print(measured.sentence())
    return card


def _build(
    weights: Path, output: Path, engine: ArtefactEngine, chosen: ExportOptions, console: Console
) -> Card:
    from model.average_precision import read_coco
    from model.building import MAX_AP_LOSS, BuildRequest, build_artefact

    request = BuildRequest(
        weights=weights,
        output=output,
        engine=engine,
        image_size=chosen.image_size,
        canvas_hw=chosen.canvas,
        batch=chosen.batch,
        nms=_suppression(chosen) if chosen.nms else None,
        max_ap_loss=MAX_AP_LOSS if chosen.max_ap_loss is None else chosen.max_ap_loss,
        overwrite=chosen.overwrite,
    )
    request.check()
    labelled = read_coco(chosen.data, read_card(weights).classes) if chosen.data else None
    card = build_artefact(request, labelled, console.print)
    assert card.built is not None
    assert card.built.parity is not None
    console.print(card.built.parity.sentence())
    return card


def _suppression(chosen: ExportOptions) -> Suppression:
    for name, value in (("--min-score", chosen.min_score), ("--max-iou", chosen.max_iou)):
        if not 0 <= value <= 1:
            raise ConfigError(f"{name}: expected a number from 0 to 1, got {value:g}")
    return Suppression(
        min_score=chosen.min_score, max_iou=chosen.max_iou, class_aware=chosen.class_aware
    )
