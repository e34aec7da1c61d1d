# SPDX-License-Identifier: Apache-2.0
"""One frame as rules see it: who is there, where they stand, and what time it is."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Final

import numpy as np
from jaxtyping import Bool, Float

from pipeline.rules.config import Anchor, RuleConfig, RulesConfig
from pipeline.rules.geometry import Area, Border
from pipeline.rules.objects import Known, Sight

GONE_S: Final = 2.0
"""Who is missing for so long has gone; many trackers give up after one."""


class Places:
    """Zones and lines of one camera."""

    def __init__(self, config: RulesConfig) -> None:
        self.areas = {name: Area(polygon) for name, polygon in config.zones.items()}
        self.borders = {name: Border(*segment) for name, segment in config.lines.items()}


@dataclass(slots=True, kw_only=True, eq=False)
class Scene:
    """One frame."""

    at_s: float
    """When it was captured, in seconds since 1970."""
    now_s: float
    """The same by a clock that is never set."""
    elapsed_s: float
    """How long ago the frame before it was captured; 0 for the first."""
    predicted: bool
    picture_hw: tuple[int, int]
    classes: Sequence[str]
    places: Places
    known: Mapping[int, Known]
    """Everybody who is remembered, by key."""
    seen: Sequence[Known]
    """Who is in this frame."""
    nameless: Sequence[Sight]
    """Boxes of this frame that have no identity; they are here and nothing more is known."""
    _points: dict[Anchor, Float[np.ndarray, "N 2"]] = field(default_factory=dict)
    _inside: dict[tuple[str, Anchor], list[bool]] = field(default_factory=dict)

    def points(self, anchor: Anchor) -> Float[np.ndarray, "N 2"]:
        """Where everybody stands: first who is seen, then who is nameless."""
        if anchor not in self._points:
            boxes = [known.box for known in self.seen] + [sight.box for sight in self.nameless]
            left, top, right, bottom = np.array(boxes, np.float64).reshape(-1, 4).T
            y = bottom if anchor == "bottom" else (top + bottom) / 2
            self._points[anchor] = np.stack(((left + right) / 2, y), axis=1)
        return self._points[anchor]

    def inside(self, zone: str, anchor: Anchor) -> list[bool]:
        """Whether each of them stands in a zone."""
        if (zone, anchor) not in self._inside:
            inside: Bool[np.ndarray, " N"] = self.places.areas[zone].contains(self.points(anchor))
            self._inside[zone, anchor] = inside.tolist()
        return self._inside[zone, anchor]

    def class_name(self, class_id: int) -> str:
        """What a class is called."""
        return self.classes[class_id] if 0 <= class_id < len(self.classes) else f"class {class_id}"

    def name(self, known: Known) -> str:
        """What people call an object: its class and its track's number."""
        return f"{self.class_name(known.class_id)} {known.sight.track_id}"

    def is_wanted(self, rule: RuleConfig, known: Known) -> bool:
        """Whether a rule is about an object."""
        return known.best_score >= rule.min_score and (
            not rule.classes or self.class_name(known.class_id) in rule.classes
        )

    def is_seen(self, known: Known) -> bool:
        """Whether an object is in this frame."""
        return known.misses == 0

    def is_gone(self, known: Known, after_s: float = GONE_S) -> bool:
        """Whether an object has been out of sight for so long."""
        return known.is_gone(self.now_s, after_s)
