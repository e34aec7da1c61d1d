# SPDX-License-Identifier: Apache-2.0
"""What one camera's rules are; places in its picture are shares of width and height."""

from collections.abc import Sequence
from difflib import get_close_matches
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, ValidationInfo, model_validator
from pydantic_core import PydanticCustomError

from model.config import Ratio, Settings
from pipeline.cameras import Polygon, Segment
from pipeline.rules.geometry import fault_of_polygon
from pipeline.rules.schedule import Timezone, Window

Name = Annotated[str, Field(min_length=1, max_length=80)]
Seconds = Annotated[float, Field(gt=0, le=7 * 86400)]
SomeSeconds = Annotated[float, Field(ge=0, le=7 * 86400)]
Anchor = Literal["bottom", "centre"]


class RuleConfig(Settings):
    """What all rules have in common."""

    name: Name
    classes: tuple[str, ...] = ()
    """Classes it is about; empty for all that are looked for."""
    min_score: Ratio = 0.0
    """An object counts from the first sight on that scores this much."""
    anchor: Anchor = "bottom"
    """The point of an object that counts: the middle of its lower edge, or of its box."""
    confirm_frames: Annotated[int, Field(ge=1, le=100)] = 3
    """Frames in a row that have to show a change before it counts; those whose objects were only
    carried over show none."""
    confirm_s: SomeSeconds = 0.0
    """How long they have to show it."""
    schedule: tuple[Window, ...] = ()
    """When the rule is in force; empty for always."""
    cool_down_s: SomeSeconds = 0.0
    """After an event began, and after it ended, no other one of this rule begins for so long."""
    update_s: Seconds = 5.0
    """Least time between two messages of one event."""


class EnterRule(RuleConfig):
    """Somebody who was seen outside a zone is inside; lasts until they leave."""

    kind: Literal["enter"]
    zone: str


class ExitRule(RuleConfig):
    """Somebody who was seen inside a zone is outside, or left the picture from it."""

    kind: Literal["exit"]
    zone: str


class OccupancyRule(RuleConfig):
    """As many objects are in a zone as there should or should not be."""

    kind: Literal["occupancy"]
    zone: str
    at_least: Annotated[int, Field(ge=1, le=1000)] | None = None
    at_most: Annotated[int, Field(ge=0, le=1000)] | None = None

    @model_validator(mode="after")
    def _one_bound(self) -> "OccupancyRule":
        if (self.at_least is None) == (self.at_most is None):
            raise PydanticCustomError("occupancy", "expected either at_least or at_most")
        return self


class DwellRule(RuleConfig):
    """Somebody has been in a zone for so long without leaving it."""

    kind: Literal["dwell"]
    zone: str
    for_s: Seconds


class LoiterRule(RuleConfig):
    """Somebody has been about a zone for so long, short absences included."""

    kind: Literal["loiter"]
    zone: str
    for_s: Seconds
    away_s: Seconds = 10.0
    """How long they may be outside, or out of sight, and still count as being there."""


class StationaryRule(RuleConfig):
    """Something stands still for so long; as long as it stays, it is told once."""

    kind: Literal["stationary"]
    zone: str | None = None
    """Where; None for the whole picture."""
    for_s: Seconds
    min_iou: Annotated[float, Field(gt=0, lt=1)] = 0.5
    """A box that overlaps an earlier one by so much is still at its place."""
    forget_s: Seconds = 120.0
    """How long its place is kept while nothing is seen there and nothing was seen to leave."""


class LineRule(RuleConfig):
    """Somebody crosses a line."""

    kind: Literal["line"]
    line: str
    direction: Literal["in", "out", "both"] = "both"
    """What is told; counted are both. For one who walks from the line's first point to its second,
    in is from the right hand to the left."""
    margin: Annotated[float, Field(ge=0, le=0.5)] = 0.01
    """How far beyond the line one has to be before it counts, as a share of the picture's
    height."""


Rule = EnterRule | ExitRule | OccupancyRule | DwellRule | LoiterRule | StationaryRule | LineRule


def _simple(polygon: tuple[tuple[float, float], ...]) -> tuple[tuple[float, float], ...]:
    fault = fault_of_polygon(polygon)
    if fault is not None:
        raise PydanticCustomError("polygon", "not a zone: {fault}", {"fault": fault})
    return polygon


def _of_some_length(
    line: tuple[tuple[float, float], tuple[float, float]],
) -> tuple[tuple[float, float], tuple[float, float]]:
    if abs(line[0][0] - line[1][0]) + abs(line[0][1] - line[1][1]) < 1e-3:
        raise PydanticCustomError("line", "the line has no length: both ends are the same")
    return line


def _known_place(rule: Rule, info: ValidationInfo) -> Rule:
    """Refuse a rule about a zone or line that is not there."""
    kind, wanted = ("line", rule.line) if isinstance(rule, LineRule) else ("zone", rule.zone)
    places = info.data.get(f"{kind}s")
    if wanted is None or places is None or wanted in places:  # None: they have faults of their own
        return rule
    raise PydanticCustomError(
        "place",
        "{kind}: there is no {kind} {wanted}; there are {known}",
        {"kind": kind, "wanted": repr(wanted), "known": ", ".join(places) or "none"},
    )


def _different_names(rules: tuple[Rule, ...]) -> tuple[Rule, ...]:
    names = [rule.name for rule in rules]
    twice = sorted({name for name in names if names.count(name) > 1})
    if twice:
        raise PydanticCustomError(
            "names", "names must differ, got {twice} more than once", {"twice": ", ".join(twice)}
        )
    return rules


class RulesConfig(Settings):
    """Zones and lines of one camera, and what is told about them."""

    timezone: Timezone | None = None
    """Whose clock schedules and daily counts go by; None for the system's."""
    zones: Annotated[
        dict[Name, Annotated[Polygon, AfterValidator(_simple)]], Field(max_length=100)
    ] = Field(default_factory=dict)
    lines: Annotated[
        dict[Name, Annotated[Segment, AfterValidator(_of_some_length)]], Field(max_length=100)
    ] = Field(default_factory=dict)
    rules: Annotated[
        tuple[
            Annotated[Rule, Field(discriminator="kind"), AfterValidator(_known_place)],
            ...,
        ],
        AfterValidator(_different_names),
        Field(max_length=200),
    ] = ()


def faults_of_classes(config: RulesConfig, classes: Sequence[str]) -> tuple[str, ...]:
    """Name every class that a rule asks for and the model does not know, with its path."""
    return tuple(
        f"rules.{number}.classes.{place}: the model knows no class {name!r}"
        f"{_perhaps(name, classes)}"
        for number, rule in enumerate(config.rules)
        for place, name in enumerate(rule.classes)
        if name not in classes
    )


def _perhaps(name: str, classes: Sequence[str]) -> str:
    near = get_close_matches(name, classes, n=1)
    return f"; did you mean {near[0]!r}?" if near else ""
