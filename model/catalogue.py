# SPDX-License-Identifier: Apache-2.0
"""Published weights that `sightline fetch` knows: where they are, and whose.

Neither their sizes nor their digests are published beside them, so what was received is printed
and recorded in the card; where an entry has them, they must hold.
"""

import os
from dataclasses import dataclass
from typing import Final

GITHUB: Final = "https://github.com"
OFFICIAL: Final = f"{GITHUB}/WongKinYiu/yolov9/releases/download/v0.1"


@dataclass(frozen=True, slots=True, kw_only=True)
class PublishedFile:
    """A checkpoint that somebody publishes."""

    name: str
    """What it is called here."""
    url: str
    publisher: str
    """Whose licence it is: accepted once, it holds for all their files under it."""
    licence: str
    size_bytes: int | None = None
    sha256: str = ""
    about: str = ""

    @property
    def file_name(self) -> str:
        """The name that the publisher gave it."""
        return self.url.rpartition("/")[2]


def _official(name: str, file: str, about: str) -> PublishedFile:
    return PublishedFile(
        name=name,
        url=f"{OFFICIAL}/{file}",
        publisher="WongKinYiu/yolov9",
        licence="GPL-3.0 (the repository's; the files state none)",
        about=about,
    )


CATALOGUE: Final = {
    file.name: file
    for file in (
        *(
            _official(
                f"yolov9-{size}", f"yolov9-{size}-converted.pt", f"{size.upper()}, trained with PGI"
            )
            for size in "tsmce"
        ),
        *(
            _official(f"gelan-{size}", f"gelan-{size}.pt", f"{size.upper()}, trained without PGI")
            for size in "smce"
        ),
    )
}
"""The official files that hold a detector without its auxiliary branch, on 80 COCO classes."""


def address(file: PublishedFile) -> str:
    """Return where a file is read from: `$SIGHTLINE_MIRROR` may stand in for GitHub."""
    mirror = os.environ.get("SIGHTLINE_MIRROR", "").rstrip("/")
    return file.url.replace(GITHUB, mirror, 1) if mirror else file.url
