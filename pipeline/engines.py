# SPDX-License-Identifier: Apache-2.0
"""Which engines look at frames: what they are given, and what they are built with.

An engine for the processor takes canvases and leaves suppression to the next stage. One for a GPU
takes pictures as decoders make them and ends with boxes, so it is told what is looked for.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Final

from model.card import Card
from model.config import Suppression
from model.cuda.plan import GpuWanted
from model.cuda.presence import num_devices
from model.engines.build import choose_engine
from model.engines.contract import Engine, Takes
from model.errors import ConfigError
from pipeline.config import GpuConfig, LookingConfig, PipelineConfig
from pipeline.models import ModelInUse, in_model

_TAKE_CODED: Final[frozenset[str]] = frozenset({"cuda"})
_Build = Callable[..., Engine]


def takes_here(config: PipelineConfig, card: Card) -> Takes:
    """What the trunk of a run is given.

    Raises:
        ModelError: its engine cannot work as the other settings ask.
    """
    if config.remote is None:
        return takes_of(config, card)
    if config.model.engine in _TAKE_CODED:
        raise ConfigError(
            f"model.engine: {config.model.engine} looks at frames on this machine, and with remote "
            "another one does; leave one of them out"
        )
    return "canvases"


def takes_of(config: LookingConfig, card: Card) -> Takes:
    """What the engine is given that these settings choose on this machine.

    Raises:
        ModelError: it cannot work as the other settings ask.
    """
    engine = choose_engine(config.model.engine, card)
    if engine not in _TAKE_CODED:
        return "canvases"
    if config.suppression.multi_label:
        raise ConfigError(
            f"suppression.multi_label: engine {engine} gives one box for each anchor, got true; "
            "choose false, or another model.engine"
        )
    most = max(config.gpu.batch_sizes)
    if config.slices is not None and config.slices.budget > most:
        raise ConfigError(
            f"slices.budget: the looks at a frame go into one batch, of {most} at most "
            f"(gpu.batch_sizes), got {config.slices.budget}; choose less, or a larger batch"
        )
    return "coded"


def devices_here(config: LookingConfig, takes: Takes) -> tuple[int, ...]:
    """The accelerators that look at frames, with a trunk on each; the processor is one.

    Raises:
        ConfigError: there are not so many.
    """
    named = config.gpu.devices
    if takes == "canvases":
        return named[:1] or (0,)  # the first may decode all the same
    there = num_devices()
    if beyond := [device for device in named if device >= there]:
        raise ConfigError(
            f"gpu.devices: there are {there} GPUs here, numbered from 0, got {beyond[0]}"
        )
    return named or tuple(range(there)) or (0,)  # an engine says itself that it finds none


@dataclass(frozen=True, slots=True)
class ForCanvases:
    """Builds engines that take canvases."""

    build: _Build

    def __call__(self, model: ModelInUse, *, image_hw: tuple[int, int], batch: int) -> Engine:
        """An engine of a model for one shape."""
        return self.build(model.config, image_hw=image_hw, batch=batch)


@dataclass(frozen=True, slots=True)
class ForCoded:
    """Builds engines that take pictures as decoders make them, and give boxes."""

    build: _Build
    gpu: GpuConfig
    suppression: Suppression
    class_ids: Sequence[int] | None
    device: int = 0

    def __call__(self, model: ModelInUse, *, image_hw: tuple[int, int], batch: int) -> Engine:
        """An engine of a model for one shape."""
        class_ids = in_model(self.class_ids, model.class_map)
        wanted = GpuWanted(
            device=self.device,
            batch_sizes=self.gpu.batch_sizes,
            in_flight=self.gpu.in_flight,
            window_ms=self.gpu.window_ms,
            file_batch=self.gpu.file_batch,
            arena_mib=self.gpu.arena_mib,
            suppression=self.suppression,
            class_ids=None if class_ids is None else tuple(class_ids),
            how=self.gpu.network,
        )
        return self.build(model.config, image_hw=image_hw, batch=batch, gpu=wanted)
