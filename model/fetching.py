# SPDX-License-Identifier: Apache-2.0
"""Published weights brought here: licence accepted, downloaded, verified, converted.

The checkpoint is read by the same restricted reader as with `sightline import`, so nothing in it is
run; it is deleted once it is converted. What was received stands in the card: file name, SHA-256
and licence.
"""

import json
from pathlib import Path
from typing import Final

from model.catalogue import CATALOGUE, PublishedFile, address
from model.downloading import Limits, OnProgress, download
from model.engines.cache import cache_folder
from model.errors import ConfigError, FetchError, unreadable
from model.files import write_whole
from model.shipped import SUFFIX, fetched_folder
from model.weights import weights_digest

ACCEPTED: Final = "licences.json"


def find_published(name: str) -> PublishedFile:
    """Return the file that has a name, or say which names there are."""
    if name not in CATALOGUE:
        raise ConfigError(f"fetch: no published model is called {name!r}; {', '.join(CATALOGUE)}")
    return CATALOGUE[name]


def fetched_path(file: PublishedFile) -> Path:
    """Return where the weights of a published file lie once they are here."""
    return fetched_folder() / f"{file.name}{SUFFIX}"


def is_accepted(file: PublishedFile) -> bool:
    """Say whether the licence was accepted before."""
    return _accepted().get(file.publisher) == file.licence


def accept(file: PublishedFile) -> None:
    """Record that the licence was accepted, for all files of its publisher."""
    path = cache_folder() / ACCEPTED
    text = json.dumps(_accepted() | {file.publisher: file.licence}, indent=2)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
    except OSError as failure:
        raise FetchError(f"{path.parent}: cannot be made: {failure.strerror}") from None
    write_whole(path, f"{text}\n".encode(), "which licences were accepted")


def fetch(
    file: PublishedFile,
    *,
    overwrite: bool = False,
    limits: Limits | None = None,
    on_progress: OnProgress = lambda _, __: None,
) -> Path:
    """Return the weights of a published file, which are downloaded unless they are here.

    Args:
        file: What is wanted.
        overwrite: Whether weights that are here are fetched anew.
        limits: How much patience there is.
        on_progress: Is told how far the download is.

    Raises:
        ConfigError: its licence was not accepted.
        FetchError: it cannot be had, or is not what it should be.
        WeightsError: what came is no checkpoint of ours to read.
    """
    output = fetched_path(file)
    if output.exists() and not overwrite:
        return output
    if not is_accepted(file):
        raise ConfigError(
            f"{file.name}: its licence is {file.licence}, by {file.publisher}; "
            "accept it with --accept-licence"
        )
    checkpoint = cache_folder() / "downloads" / file.file_name
    try:
        download(
            address(file),
            checkpoint,
            size_bytes=file.size_bytes,
            limits=limits,
            on_progress=on_progress,
        )
    except FetchError as failure:
        raise FetchError(f"{failure}; {_by_hand(file, output)}") from None
    try:
        _verify(file, checkpoint)
        _convert(file, checkpoint, output)
    finally:
        checkpoint.unlink(missing_ok=True)
    return output


def _verify(file: PublishedFile, checkpoint: Path) -> None:
    digest = weights_digest(checkpoint)
    if file.sha256 and digest != file.sha256:
        raise FetchError(
            f"{file.url}: what came has SHA-256 {digest}, expected {file.sha256}; it was deleted"
        )


def _convert(file: PublishedFile, checkpoint: Path, output: Path) -> None:
    from model.importing import import_weights

    output.parent.mkdir(parents=True, exist_ok=True)
    import_weights(checkpoint, output, licence=file.licence, overwrite=True)


def _by_hand(file: PublishedFile, output: Path) -> str:
    return (
        f"or fetch {file.url} elsewhere, copy it here, and: "
        f"sightline import {file.file_name} --output {output}"
    )


def _accepted() -> dict[str, str]:
    path = cache_folder() / ACCEPTED
    try:
        tree = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return {}
    except OSError as failure:
        raise unreadable(path, failure) from None
    except ValueError:
        return {}
    return tree if isinstance(tree, dict) else {}
