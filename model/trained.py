# SPDX-License-Identifier: Apache-2.0
"""How weights of ours were trained, as their card says it."""

import json
from typing import Annotated

from pydantic import Field

from model.config import Ratio, Settings
from model.scales import SCALES


class Trained(Settings):
    """What a training was made of, and what came of it."""

    data: str
    """Name of the data set's file."""
    data_digest: str
    """Of all images and labels in use."""
    recipe: str
    """Every setting, as JSON."""
    epoch: Annotated[int, Field(ge=0)]
    """The epoch whose weights these are, from 0."""
    ap: Ratio | None = None
    """On the data set's val split, if it has one."""
    ap50: Ratio | None = None
    commit: str = ""
    """Of the program, where it is known."""
    start: "Trained | None" = None
    """The training whose weights it went on from; None for random weights, and for foreign ones."""

    def sentence(self) -> str:
        """Return data and accuracy in words."""
        words = f"{self.data} ({self.data_digest[:12]}), epoch {self.epoch}"
        if self.ap is None or self.ap50 is None:
            return f"{words}, not evaluated"
        return f"{words}, AP {self.ap:.3f}, AP50 {self.ap50:.3f}"

    def from_random(self) -> bool:
        """Say whether every training that led here is known, back to random weights."""
        if self.start is not None:
            return self.start.from_random()
        try:
            recipe = json.loads(self.recipe)
        except ValueError:
            return False
        return isinstance(recipe, dict) and recipe.get("model") in SCALES
