# SPDX-License-Identifier: Apache-2.0
"""sightline warm, migrate: what an update calls of the version that it installs."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.box.readying import migrate as migrate_service
from pipeline.box.readying import parse_shape
from pipeline.box.readying import warm as warm_engine


def warm(
    config: Path,
    *,
    shape: Annotated[tuple[str, ...], Parameter(negative=())] = (),
    assign: Annotated[tuple[str, ...], Parameter(name="--set", negative=())] = (),
) -> int:
    """Compile the engine of a service into the cache and try it, so that its start is quick.

    Args:
        config: Settings of the service.
        shape: Pictures in a batch, height and width, as 1x384x640; that of 1080p if not given.
        assign: Any setting as name=value, for example model.image_size=416.
    """
    for made in warm_engine(config, assign, [parse_shape(text) for text in shape]):
        print(f"{'x'.join(map(str, made))}: compiled and tried")
    return 0


def migrate(config: Path) -> int:
    """Bring the database of a service that is stopped up to date, and print its settings.

    Args:
        config: Settings of the service.
    """
    print(migrate_service(config), end="")
    return 0
