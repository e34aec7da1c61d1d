# SPDX-License-Identifier: Apache-2.0
"""What the stages of a trunk are told when they begin."""

from dataclasses import dataclass

from pipeline.models import ModelInUse


@dataclass(frozen=True, slots=True, kw_only=True)
class Trunk:
    """One detector on one accelerator, from its begin to its end."""

    number: int = 0
    device: int = 0
    """The accelerator, as its engine numbers them."""
    model: ModelInUse
    """What it begins with."""
