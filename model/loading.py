# SPDX-License-Identifier: Apache-2.0
"""The detector as a function of pictures. Axes: H and W height and width of a picture.

detector = load()
detections = detector(picture, classes=("person",))
"""

from collections import OrderedDict
from collections.abc import Sequence
from pathlib import Path
from typing import Final, overload

import numpy as np
from pydantic import ValidationError

from model.card import Card, read_card
from model.config import EngineName, ModelConfig, Precision, Suppression, describe_faults
from model.detections import Detections
from model.engines import Engine, build_engine
from model.engines.build import check_runs
from model.errors import ConfigError
from model.letterbox import Letterbox, letterbox_image, rectangle
from model.shipped import with_min_score, with_weights
from model.suppression import suppress

MAX_ENGINES: Final = 4
"""Shapes that are kept ready; the one not used for longest makes room."""


def load(
    weights: str | Path | None = None,
    *,
    engine: EngineName = "auto",
    precision: Precision = "auto",
    image_size: int | None = None,
    num_threads: int | None = None,
) -> "LoadedDetector":
    """Make a detector from a weights file, or the one that lies in this package.

    Args:
        weights: A file made by `sightline import`, by `sightline export` or by training, or a
            name that `sightline models` lists; the package's own model if not given.
        engine: What runs it; `auto` is what an artefact was made for, else `cuda` where there is an
            NVIDIA GPU, else OpenVINO where it is installed.
        precision: `auto` is bf16 where the processor computes in it, f16 on a GPU; `accuracy` is
            exact float32.
        image_size: Pictures are resized so that their long side has this many pixels; what the
            model's figures were measured at if not given, or 640.
        num_threads: Cores used; every usable one if not given.
    """
    sized = {} if image_size is None else {"image_size": image_size}
    named = None if weights is None else Path(weights)
    try:
        config = ModelConfig.model_validate(
            {"weights": named, "engine": engine, "precision": precision} | sized
        )
    except ValidationError as invalid:
        raise ConfigError(f"load: {describe_faults(invalid)}") from None
    return LoadedDetector(config, num_threads=num_threads)


class LoadedDetector:
    """Takes RGB pictures of any size. For one thread at a time."""

    def __init__(self, config: ModelConfig, *, num_threads: int | None = None) -> None:
        self.config: Final = with_weights(config)
        assert self.config.weights is not None
        self.card: Final[Card] = read_card(self.config.weights)
        check_runs(self.config, self.card)
        self.classes: Final = self.card.classes
        self._num_threads = num_threads
        self._engines: OrderedDict[tuple[int, int], Engine] = OrderedDict()

    @overload
    def __call__(
        self,
        images: np.ndarray,
        *,
        min_score: float | None = None,
        max_iou: float = 0.7,
        classes: Sequence[str] | None = None,
        square: bool = False,
    ) -> Detections: ...
    @overload
    def __call__(
        self,
        images: Sequence[np.ndarray],
        *,
        min_score: float | None = None,
        max_iou: float = 0.7,
        classes: Sequence[str] | None = None,
        square: bool = False,
    ) -> list[Detections]: ...
    def __call__(
        self,
        images: np.ndarray | Sequence[np.ndarray],
        *,
        min_score: float | None = None,
        max_iou: float = 0.7,
        classes: Sequence[str] | None = None,
        square: bool = False,
    ) -> Detections | list[Detections]:
        """Find objects in one picture, or in each of several of any sizes.

        Args:
            images: Pictures, H x W x 3, uint8, RGB.
            min_score: Only boxes that score above this are returned; what the model's card
                recommends if not given, or 0.25.
            max_iou: A box that overlaps a better one of its class by more is dropped.
            classes: Names of the classes to return; all if not given.
            square: Pad pictures to a square, instead of to the next multiple of 32.

        Returns:
            Boxes in pixels of the picture, best first; for several pictures a list of them.
        """
        settings = with_min_score(Suppression(max_iou=_ratio("max_iou", max_iou)), self.card)
        if min_score is not None:
            settings = settings.model_copy(update={"min_score": _ratio("min_score", min_score)})
        wanted = None if classes is None else self._class_ids(classes)
        if isinstance(images, np.ndarray):
            return self._detect(images, settings, wanted, square=square)
        return [self._detect(image, settings, wanted, square=square) for image in images]

    def close(self) -> None:
        """Give back the engines; the next picture builds one again."""
        while self._engines:
            self._engines.popitem()[1].close()

    def _detect(
        self,
        image: np.ndarray,
        settings: Suppression,
        wanted: Sequence[int] | None,
        *,
        square: bool,
    ) -> Detections:
        _check_picture(image)
        source_hw = (image.shape[0], image.shape[1])
        long_side = self.config.image_size
        canvas_hw = (long_side, long_side) if square else rectangle(source_hw, long_side)
        letterbox = Letterbox.fit(source_hw, canvas_hw)
        canvas = letterbox_image(image, letterbox)
        predictions = self._engine(canvas_hw).infer(canvas[None])
        found = suppress(predictions[0], settings, classes=wanted)
        return Detections(
            xyxy=letterbox.to_source(found.xyxy), score=found.score, class_id=found.class_id
        )

    def _engine(self, canvas_hw: tuple[int, int]) -> Engine:
        """Return the engine of a shape, built at its first use."""
        engine = self._engines.pop(canvas_hw, None)
        if engine is None:
            if len(self._engines) == MAX_ENGINES:
                self._engines.popitem(last=False)[1].close()
            engine = build_engine(
                self.config, image_hw=canvas_hw, num_requests=1, num_threads=self._num_threads
            )
        self._engines[canvas_hw] = engine
        return engine

    def _class_ids(self, names: Sequence[str]) -> list[int]:
        names = (names,) if isinstance(names, str) else names
        unknown = [name for name in names if name not in self.classes]
        if unknown:
            known = ", ".join(self.classes)
            raise ValueError(f"classes: unknown {', '.join(map(repr, unknown))}; known: {known}")
        return [self.classes.index(name) for name in names]


def _check_picture(image: np.ndarray) -> None:
    if not isinstance(image, np.ndarray):
        raise ValueError(f"images: expected uint8 arrays of H x W x 3, got {type(image).__name__}")
    right_shape = image.ndim == 3 and image.shape[2] == 3 and image.size > 0
    if image.dtype != np.uint8 or not right_shape:
        raise ValueError(
            f"images: expected uint8 arrays of H x W x 3, RGB, got {image.dtype} of {image.shape}"
        )


def _ratio(name: str, value: float) -> float:
    if not 0 <= value <= 1:
        raise ValueError(f"{name}: expected a number from 0 to 1, got {value}")
    return value
