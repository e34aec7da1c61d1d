# SPDX-License-Identifier: Apache-2.0
"""The subcommand `evaluate`. It stands above training and pipeline, and alone knows both."""

import json
from contextlib import closing
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Annotated, Final, Literal

import numpy as np
from cyclopts import Parameter
from pydantic import ValidationError
from rich.console import Console

from model.average_precision import SETTINGS, require_evaluator
from model.card import Card, read_card
from model.config import EngineName, ModelConfig, Precision, describe_faults
from model.detections import Detections
from model.engines.build import check_runs, engine_of
from model.errors import ConfigError
from model.shipped import find_weights
from model.weights import weights_digest
from training.class_map import ClassMap
from training.evaluation import Found, Views, find, score
from training.evaluation_data import read_evaluation_split
from training.evaluation_report import EvaluationReport
from training.ground_truth import countable
from training.loading import Loading
from training.plots import draw_evaluation, require_matplotlib
from training.predictors import EnginePredictor
from training.protocols import Protocol
from training.records import Split

ProtocolName = Literal["rect", "square"]
PROTOCOLS: Final[dict[ProtocolName, Protocol]] = {"rect": "rectangular", "square": "square"}
MAX_AP_DIFFERENCE: Final = 0.003
"""Between the pipeline's own stages and the images laid out by the evaluation."""
IMAGES_AT_ONCE: Final = 4
DIFFERS: Final = 1


@dataclass(frozen=True, slots=True, kw_only=True)
class EvaluateOptions:
    """How a detector is measured.

    Attributes:
        split: Which images of a data.yaml.
        imgsz: Long side of the network's picture; what the weights were trained at if not given.
        protocol: rect is that of the published figures, square is what the pipeline makes of
            images; rect if not given, square with --through-pipeline.
        engine: What runs the network: auto, openvino, torch, inductor, onnx, aoti or tensorrt.
        precision: auto is exact float32 for weights, and an artefact's own for an artefact.
        batch: Images that share a canvas.
        workers: Processes that read images.
    """

    split: str = "val"
    imgsz: int | None = None
    protocol: ProtocolName | None = None
    engine: EngineName = "auto"
    precision: Precision = "auto"
    batch: int = 32
    workers: int = 2


def evaluate(
    weights: Path | None = None,
    *,
    data: Path,
    options: Annotated[EvaluateOptions | None, Parameter(name="*")] = None,
    through_pipeline: Annotated[bool, Parameter(negative=())] = False,
    plots: Path | None = None,
    json_report: Annotated[bool, Parameter(name="--json", negative=())] = False,
) -> int:
    """Measure the average precision of weights or of an artefact.

    Classes are matched by name; an image counts for the classes it was annotated for.

    Args:
        weights: A Sightline weights file, an artefact of export, or the name of a model; the
            package's own model if not given.
        data: A data.yaml, a COCO JSON file, or a folder that holds one of them.
        options: How it is measured.
        through_pipeline: Also let the pipeline's own stages look at the image files, in squares,
            and compare.
        plots: Folder to draw curves, confusions and boxes into, as PNG.
        json_report: Print the report as JSON and nothing else.
    """
    if plots is not None:
        require_matplotlib()
    measured = _Measured.prepare(
        weights, data, _checked(options or EvaluateOptions(), through_pipeline=through_pipeline)
    )
    found = measured.find()
    report = measured.score(found)
    piped = measured.score(measured.find_through_pipeline()) if through_pipeline else None
    if plots is not None:
        draw_evaluation(plots, report, measured.split, found)
    if json_report:
        print(_as_json(measured, report, piped))  # noqa: T201 - the command line
    else:
        _print(report, piped)
    return DIFFERS if piped is not None and _difference(report, piped) > MAX_AP_DIFFERENCE else 0


@dataclass(frozen=True, slots=True, kw_only=True)
class _Measured:
    """What is measured, on what, after every check."""

    config: ModelConfig
    card: Card
    split: Split
    known: ClassMap
    views: Views

    @classmethod
    def prepare(cls, named: Path | None, data: Path, options: EvaluateOptions) -> "_Measured":
        require_evaluator()
        weights = find_weights(named)
        card = read_card(weights)
        config = _model_config(weights, card, options)
        check_runs(config, card)
        split = read_evaluation_split(data, options.split)
        return cls(
            config=config,
            card=card,
            split=split,
            known=ClassMap.by_name(card.classes, split.classes),
            views=_views(config, options),
        )

    def find(self) -> Found:
        with closing(EnginePredictor(self.config)) as predictor:
            return find(predictor, self.known, self.split, self.views)

    def find_through_pipeline(self) -> Found:
        """Give the image files to the pipeline, each as a source of its own."""
        from pipeline.api import run
        from pipeline.config import PipelineConfig, TrackingConfig
        from pipeline.decoding.inputs import find_sources

        settings = PipelineConfig(
            model=self.config,
            suppression=SETTINGS,
            tracking=TrackingConfig(kind="none"),
            classes=tuple(self.card.classes[number] for number in self.known.of_model),
            parallel=IMAGES_AT_ONCE,
        )
        names = [source.name for source in find_sources(self.split.paths)]
        index_of = {name: index for index, name in enumerate(names)}
        found: dict[int, Detections] = {}
        for frame in run(self.split.paths, config=settings):
            index = index_of[frame.stream]
            boxes = Detections(
                xyxy=frame.tracks.xyxy.astype(np.float32),
                score=frame.tracks.score.astype(np.float32),
                class_id=frame.tracks.class_id.astype(np.int64),
            )
            found[index] = countable(self.split, index, self.known.to_data(boxes))
        return found

    def score(self, found: Found) -> EvaluationReport:
        return score(self.split, found, self.known, self.views)


def _checked(options: EvaluateOptions, *, through_pipeline: bool) -> EvaluateOptions:
    protocol = options.protocol or ("square" if through_pipeline else "rect")
    if through_pipeline and protocol != "square":
        raise ConfigError(
            "evaluate: --through-pipeline compares squares, which the pipeline makes of images, "
            f"got --protocol {protocol}; leave it out or choose square"
        )
    if options.batch < 1 or options.workers < 0:
        raise ConfigError(
            f"evaluate: expected --batch of 1 or more and --workers of 0 or more, got "
            f"{options.batch} and {options.workers}"
        )
    return replace(options, protocol=protocol)


def _model_config(weights: Path, card: Card, options: EvaluateOptions) -> ModelConfig:
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


def _views(config: ModelConfig, options: EvaluateOptions) -> Views:
    return Views(
        protocol=PROTOCOLS[options.protocol or "rect"],
        image_size=config.image_size,
        batch_size=options.batch,
        loading=Loading(workers=options.workers),
    )


def _difference(report: EvaluationReport, piped: EvaluationReport) -> float:
    return round(abs(report.overall["AP"] - piped.overall["AP"]), 4)


def _as_json(measured: _Measured, report: EvaluationReport, piped: EvaluationReport | None) -> str:
    assert measured.config.weights is not None
    weights = {
        "sha256": weights_digest(measured.config.weights),
        "source_sha256": measured.card.source_sha256,
    }
    through = {"through_pipeline": piped.overall} if piped else {}
    return json.dumps({"weights": weights} | report.as_dict() | through, indent=2)


def _print(report: EvaluationReport, piped: EvaluationReport | None) -> None:
    console = Console()
    console.print(report.table())
    if piped is not None:
        off = _difference(report, piped)
        verdict = "as it must be" if off <= MAX_AP_DIFFERENCE else "more than it may be"
        console.print(
            f"through the pipeline AP {piped.overall['AP']:.4f}, directly "
            f"{report.overall['AP']:.4f}: {off:.4f} apart, {verdict} (up to {MAX_AP_DIFFERENCE})",
            highlight=False,
            soft_wrap=True,
        )
