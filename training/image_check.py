# SPDX-License-Identifier: Apache-2.0
"""Every image file looked at once: whether it decodes, its size, and what its bytes are.

What was found is kept in the user's cache folder as JSON, beside the file's size and time of
change, so that a file is decoded once. Nothing is written beside the data, and a cache that is
missing, damaged or cannot be written costs time only.
"""

import hashlib
import json
import logging
import os
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from PIL import Image

from model.engines.cache import cache_folder
from model.files import replacing
from training.pictures import UNREADABLE, upright_hw

logger = logging.getLogger(__name__)

MIN_SIDE_PX: Final = 10
"""What is smaller holds nothing that could be learned."""
VERSION: Final = 1
"""Raised when a check finds something else, so that older caches are not used."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """What is known about one file."""

    size: int
    changed_ns: int
    digest: str
    image_hw: tuple[int, int]
    fault: str
    """Empty for an image that can be used."""


def check_images(paths: Sequence[Path], cache_name: str) -> dict[Path, Checked]:
    """Look at image files, several at once.

    Args:
        paths: The files; those that are gone are faulty.
        cache_name: What these files have in common, such as the path of their data.yaml.
    """
    cache = cache_folder() / f"images-{hashlib.sha256(cache_name.encode()).hexdigest()[:32]}.json"
    known = _read_cache(cache)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        found = list(pool.map(lambda path: _check(path, known.get(str(path))), paths))
    checked = dict(zip(paths, found, strict=True))
    if any(known.get(str(path)) != result for path, result in checked.items()):
        _write_cache(cache, checked)
    return checked


def _check(path: Path, known: Checked | None) -> Checked:
    try:
        facts = path.stat()
        if known and (known.size, known.changed_ns) == (facts.st_size, facts.st_mtime_ns):
            return known
        content = path.read_bytes()
    except OSError as failure:
        return Checked(
            size=0, changed_ns=0, digest="", image_hw=(0, 0), fault=f"{failure.strerror}"
        )
    image_hw, fault = _decode(path)
    return Checked(
        size=facts.st_size,
        changed_ns=facts.st_mtime_ns,
        digest=hashlib.blake2b(content, digest_size=16).hexdigest(),
        image_hw=image_hw,
        fault=fault,
    )


def _decode(path: Path) -> tuple[tuple[int, int], str]:
    """Return the size of an image and what is wrong with it."""
    try:
        with Image.open(path) as image:
            image_hw = upright_hw(image)
            image.draft("RGB", (image.width // 8, image.height // 8))  # the whole file is read
            image.load()
    except UNREADABLE as fault:
        return (0, 0), str(fault).replace(str(path), "it").split("\n")[0] or type(fault).__name__
    if min(image_hw) < MIN_SIDE_PX:
        return image_hw, f"{image_hw[1]}x{image_hw[0]}, smaller than {MIN_SIDE_PX} px"
    return image_hw, ""


def _read_cache(path: Path) -> dict[str, Checked]:
    try:
        tree = json.loads(path.read_bytes())
        if tree["version"] != VERSION:
            return {}
        return {
            name: Checked(**(entry | {"image_hw": tuple(entry["image_hw"])}))
            for name, entry in tree["files"].items()
        }
    except (OSError, ValueError, KeyError, TypeError, AttributeError):
        return {}


def _write_cache(path: Path, checked: dict[Path, Checked]) -> None:
    files = {str(name): asdict(result) for name, result in checked.items()}
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with replacing(path) as temporary:
            temporary.write_text(json.dumps({"version": VERSION, "files": files}))
    except OSError as failure:
        logger.info("%s: what was found about the images is not kept: %s", path, failure.strerror)
