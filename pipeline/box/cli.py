# SPDX-License-Identifier: Apache-2.0
"""sightline bundle-key: parse, call, print."""

from pathlib import Path
from typing import Annotated

from cyclopts import Parameter

from pipeline.box.signing import make_pair


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
