# SPDX-License-Identifier: Apache-2.0
"""The subcommand `evaluate`. It stands above training and pipeline, and alone knows both."""

import json
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Final, Literal

from cyclopts import Parameter
from pydantic import ValidationError
from rich.console import Console

from model.average_precision import require_evaluator
from model.card import Card, read_card
from model.config import EngineName, ModelConfig, Precision, describe_faults
from model.engines.build import check_runs, engine_of
from model.errors import ConfigError
from training.class_map import ClassMap
from training.evaluation import Views, find, score
from training.evaluation_data import read_evaluation_split
from training.loading import Loading
from training.predictors import EnginePredictor
from training.protocols import Protocol

ProtocolName = Literal["rect", "square"]
PROTOCOLS: Final[dict[ProtocolName, Protocol]] = {"rect": "rectangular", "square": "square"}


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """How a detector is measured.

    Attributes:
        split: Which images of a data.yaml.
        imgsz: Long side of the network's picture; what the weights were trained at if not given.
        protocol: rect is that of the published figures, square is what the pipeline sees of
            images.
        engine: What runs the network: auto, openvino, torch, inductor, onnx, aoti or tensorrt.
        precision: auto is exact float32 for weights, and an artefact's own for an artefact.
        batch: Images that share a canvas.
        workers: Processes that read images.
    """

    split: str = "val"
    imgsz: int | None = None
    protocol: ProtocolName = "rect"
    engine: EngineName = "auto"
    precision: Precision = "auto"
    batch: int = 32
    workers: int = 2


def evaluate(
    weights: Path,
    *,
    data: Path,
    options: Annotated[EvaluateOptions | None, Parameter(name="*")] = None,
    json_report: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Measure the average precision of weights or of an artefact.

    Classes are matched by name; an image counts for the classes it was annotated for.

    Args:
        weights: A Sightline weights file or an artefact of export.
        data: A data.yaml, a COCO JSON file, or a folder that holds one of them.
        options: How it is measured.
        json_report: Print the report as JSON and nothing else.
    """
    options = options or EvaluateOptions()
    require_evaluator()
    card = read_card(weights)
    config = model_config(weights, card, options)
    check_runs(config, card)
    split = read_evaluation_split(data, options.split)
    known = ClassMap.by_name(card.classes, split.classes)
    views = views_of(config, options)
    with closing(EnginePredictor(config)) as predictor:
        report = score(split, find(predictor, known, split, views), known, views)
    if json_report:
        print(json.dumps(report.as_dict(), indent=2))  # noqa: T201 - the command line
    else:
        Console().print(report.table())
    return 0


def model_config(weights: Path, card: Card, options: EvaluateOptions) -> ModelConfig:
    """Return the settings of the detector that is measured."""
    precision = options.precision
    if precision == "auto" and engine_of(card) is None:
        precision = "accuracy"
    try:
        return ModelConfig(
            weights=weights,
            engine=options.engine,
            precision=precision,
            image_size=card.image_size if options.imgsz is None else options.imgsz,
        )
    except ValidationError as invalid:
        raise ConfigError(f"evaluate: {describe_faults(invalid)}") from None


def views_of(config: ModelConfig, options: EvaluateOptions) -> Views:
    """Return how the images lie before it."""
    if options.batch < 1 or options.workers < 0:
        raise ConfigError(
            f"evaluate: expected --batch of 1 or more and --workers of 0 or more, got "
            f"{options.batch} and {options.workers}"
        )
    return Views(
        protocol=PROTOCOLS[options.protocol],
        image_size=config.image_size,
        batch_size=options.batch,
        loading=Loading(workers=options.workers),
    )
