# SPDX-License-Identifier: Apache-2.0
"""Where results may be written; looked at before anything long begins."""

from pathlib import Path

from model.errors import WeightsError


def refuse_existing(output: Path, *, overwrite: bool) -> None:
    """Keep what is there unless its owner said otherwise."""
    if output.exists() and not overwrite:
        raise WeightsError(f"{output}: exists already; overwrite it with --overwrite")


def refuse_output(output: Path, weights: Path, *, overwrite: bool) -> None:
    """Refuse a place where an artefact of these weights cannot or must not be written."""
    refuse_existing(output, overwrite=overwrite)
    if not output.absolute().parent.is_dir():
        raise WeightsError(f"{output}: its folder does not exist")
    if weights.resolve() == output.resolve():
        raise WeightsError(f"{output}: holds the weights themselves; name another output")
