# SPDX-License-Identifier: Apache-2.0
"""What can go wrong with a model, one class for each thing the caller can do about it."""

from pathlib import Path


class ModelError(Exception):
    """Root of the errors of this package."""


class WeightsError(ModelError):
    """A weights file is missing, damaged, foreign, or holds something else: give another file."""


class EngineError(ModelError):
    """An engine cannot be built or cannot run: choose another engine, precision or shape."""


class ConfigError(ModelError):
    """Settings are not valid: correct the fields that the message names."""


class DataError(ModelError):
    """Pictures or a data set cannot be used: give others."""


class MissingExtra(ModelError):  # noqa: N818 - it names what is absent
    """A library that is not installed by default is needed: install the extra."""


class FetchError(ModelError):
    """A published file cannot be had now: try again, or bring it here by hand."""

    exit_code = 1


class PrecisionLost(ModelError):  # noqa: N818 - it says what happened
    """An artefact finds less than it may: calibrate on other frames, or allow more loss."""


def unreadable(path: Path, failure: OSError) -> WeightsError:
    """Say that a file cannot be opened, and why."""
    return WeightsError(f"{path}: cannot read these weights: {failure.strerror}")


def shown(text: str) -> str:
    """Return a name found in a file as it may be printed: short, and on one line."""
    printable = "".join(letter if letter.isprintable() else "?" for letter in text)
    return printable if len(printable) <= 80 else f"{printable[:77]}..."
