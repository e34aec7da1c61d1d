# SPDX-License-Identifier: Apache-2.0
"""What a new version does for an update before it is started: compile its engine, migrate."""

import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Final

import numpy as np

from model.engines import build_engine
from model.errors import ConfigError, EngineError
from model.letterbox import rectangle
from pipeline.box.layout import Layout
from pipeline.box.settings import weights_in
from pipeline.graph import engine_builder
from pipeline.models import ModelInUse
from pipeline.serve.checked import check_settings, nobody, read_config
from pipeline.telling.database import open_database, reserve

_USUAL_HW: Final = (1080, 1920)
_LOOKED_AT: Final = 3
Shape = tuple[int, int, int]


def parse_shape(text: str) -> Shape:
    """Pictures in a batch, height and width, from as 1x384x640.

    Raises:
        ConfigError: it is no shape.
    """
    parts = text.split("x")
    if len(parts) != _LOOKED_AT or not all(part.isdecimal() and int(part) for part in parts):
        raise ConfigError(f"--shape {text}: expected BATCHxHEIGHTxWIDTH, such as 1x384x640")
    batch, height, width = map(int, parts)
    return batch, height, width


def warm(settings: Path, overrides: Sequence[str], shapes: Sequence[Shape]) -> list[Shape]:
    """Build the engine of a service for some shapes, so that it lies in the cache, and try it.

    Raises:
        ModelError: settings, weights or engine are not as they must be.
        PipelineError: the address of a camera is not.
    """
    checked = check_settings(read_config(settings, overrides))
    model = checked.shared.model
    assert model.image_size is not None
    plan = checked.plan(build_engine, nobody)
    build = engine_builder(plan, plan.devices[0])
    wanted = list(shapes) or [(1, *rectangle(_USUAL_HW, model.image_size))]
    for batch, *image_hw in wanted:
        height, width = image_hw
        engine = build(ModelInUse(config=model), image_hw=(height, width), batch=batch)
        try:
            rows = engine.infer(np.full(engine.input_shape, 114, np.uint8))
        finally:
            engine.close()
        if not np.isfinite(rows).all():
            raise EngineError(f"{model.weights}: finds boxes that are no numbers; give others")
    return wanted


def migrate(settings: Path) -> str:
    """Bring the database of a service up to date; returns its settings as this version wants them.

    Settings have had one form so far. What changes is the name of the model that comes with a
    version, where they name the one of the version before.

    Raises:
        ConfigError: settings or database are not as they must be, or a service uses it.
    """
    config = read_config(settings)
    path = config.events.database.path
    if path.exists():
        lock = reserve(path)
        try:
            open_database(path).close()
        finally:
            os.close(lock)
    text = settings.read_text(encoding="utf-8")
    named = config.model.weights
    if named is None or named.parent != Layout.of_this_box().current / "weights":
        return text
    theirs = weights_in(Path(sys.prefix).parent / "weights", named.name)
    return text.replace(str(named), str(named.with_name(theirs.name)))
