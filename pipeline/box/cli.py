# SPDX-License-Identifier: Apache-2.0
"""sightline bundle-key, update: parse, call, print."""

import logging
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from model.errors import ConfigError
from pipeline.box.health import Limits
from pipeline.box.layout import Layout
from pipeline.box.manager import manager_of_this_box
from pipeline.box.signing import make_pair
from pipeline.box.updating import Updater


def bundle_key(name: str, *, output: Annotated[Path, Parameter(alias="-o")] = Path()) -> int:
    """Make a pair of keys that bundles are signed with: NAME.key, which is secret, and NAME.pub.

    Args:
        name: Whom the keys are for, for example who builds the bundles.
        output: Folder to write them into.
    """
    secret, public = make_pair(name, output)
    print(f"{secret}: the secret key, which signs bundles where they are made")
    print(f"{public}: the public key, for /etc/sightline/trusted of each box")
    return 0


@dataclass(frozen=True, slots=True, kw_only=True)
class UpdateOptions:
    """What an update may be told.

    Attributes:
        unsigned: Trust the bundle though nobody signed it.
        watch_s: How long the new version must do well before the update counts.
        ready_s: How long it may take until it looks at frames.
        service: Program that takes start, stop and status, where systemd does not run.
        recover: Undo an update that was cut off, if there is one, and do nothing else.
        start: Whether --recover also stops and starts the service.
    """

    unsigned: Annotated[bool, Parameter(negative=())] = False
    watch_s: float = 60.0
    ready_s: float = 180.0
    service: Path | None = None
    recover: Annotated[bool, Parameter(negative=())] = False
    start: bool = True


def update(
    bundle: Path | None = None,
    *,
    options: Annotated[UpdateOptions, Parameter(name="*")] = UpdateOptions(),
) -> int:
    """Go over to the version of a bundle, and back by itself if that does not do well.

    Args:
        bundle: Folder of the bundle.
        options: What it may be told.
    """
    logging.basicConfig(format="sightline: %(message)s", level=logging.INFO)
    if (bundle is None) != options.recover:
        raise ConfigError("update: give either a bundle's folder or --recover")
    manager = manager_of_this_box(options.service, needed=options.start)
    limits = Limits(watch_s=options.watch_s, ready_s=options.ready_s)
    updater = Updater(Layout.of_this_box(), manager, limits)
    if bundle is None:
        undone = updater.recover(restart=options.start)
        print(f"the update to {undone} is undone" if undone else "there is no update to undo")
    else:
        print(f"{updater.update(bundle.absolute(), signed=not options.unsigned)} runs")
    return 0
