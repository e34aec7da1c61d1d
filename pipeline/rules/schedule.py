# SPDX-License-Identifier: Apache-2.0
"""When a rule is in force, by the clock on the wall of the place the camera is in.

A window begins on the days it names and may end on the day after. Where clocks are put back, one
that begins or ends in the hour that comes twice begins with the first and ends with the second;
where they are put forward, one that begins or ends in the hour that is left out does so at the
change.
"""

from datetime import UTC, date, datetime, timedelta
from typing import Annotated, Any, Final, Literal
from zoneinfo import ZoneInfo

from pydantic import (
    AfterValidator,
    BeforeValidator,
    ConfigDict,
    Field,
    PlainSerializer,
    model_validator,
)
from pydantic_core import PydanticCustomError

from model.config import Settings

Day = Literal["mon", "tue", "wed", "thu", "fri", "sat", "sun"]
DAYS: Final[tuple[Day, ...]] = ("mon", "tue", "wed", "thu", "fri", "sat", "sun")

_FULL_DAY: Final = 24 * 60
_EARLIEST_S: Final = datetime(1971, 1, 1, tzinfo=UTC).timestamp()
_LATEST_S: Final = datetime(9998, 1, 1, tzinfo=UTC).timestamp()


def _minutes(value: Any) -> int:
    """Minutes since midnight of a time such as 22:30."""
    if isinstance(value, str):
        hours, colon, minutes = value.partition(":")
        if colon and len(minutes) == 2 and hours.isdecimal() and minutes.isdecimal():
            total = int(hours) * 60 + int(minutes)
            if int(minutes) < 60 and total <= _FULL_DAY:
                return total
    raise PydanticCustomError(
        "time_of_day",
        'expected a time from "00:00" to "24:00" in quotes (YAML takes 22:00 without them for a '
        "number), got {value}",
        {"value": repr(value)},
    )


def _shown(minutes: int) -> str:
    return f"{minutes // 60:02}:{minutes % 60:02}"


TimeOfDay = Annotated[int, BeforeValidator(_minutes), PlainSerializer(_shown)]


class Window(Settings):
    """Hours of some days of the week."""

    model_config = ConfigDict(frozen=True, extra="forbid", validate_by_name=True)

    days: Annotated[tuple[Day, ...], Field(min_length=1)] = DAYS
    """On which days it begins."""
    begins: TimeOfDay = Field(default=0, alias="from")
    ends: TimeOfDay = Field(default=_FULL_DAY, alias="to")
    """Where it is earlier than `from`, on the next day."""

    @model_validator(mode="after")
    def _of_some_length(self) -> "Window":
        if self.begins == self.ends or self.begins == _FULL_DAY:
            raise PydanticCustomError(
                "window", "from and to leave no time between them; leave both out for whole days"
            )
        return self

    def is_open(self, at_s: float, zone: ZoneInfo | None) -> bool:
        """Whether a moment lies in one of its hours."""
        today = local(at_s, zone).date()
        return any(
            DAYS[day.weekday()] in self.days and self._open_on(day, at_s, zone)
            for day in (today - timedelta(days=1), today)
        )

    def _open_on(self, day: date, at_s: float, zone: ZoneInfo | None) -> bool:
        """Whether the window that begins on a day is open."""
        last = day if self.begins < self.ends else day + timedelta(days=1)
        starts_s = _instant(day, self.begins, zone, last=False)
        return starts_s <= at_s < _instant(last, self.ends, zone, last=True)


def _timezone(name: str) -> str:
    try:
        ZoneInfo(name)
    except (OSError, ValueError, KeyError):  # a folder's name, a path, a name nobody knows
        raise PydanticCustomError(
            "timezone",
            "expected a time zone such as Europe/Berlin, got {name}",
            {"name": repr(name)},
        ) from None
    return name


Timezone = Annotated[str, AfterValidator(_timezone)]


class Hours:
    """The windows of one rule in one time zone, asked at every frame."""

    def __init__(self, windows: tuple[Window, ...], timezone: str | None) -> None:
        self._windows = windows
        self._zone = None if timezone is None else ZoneInfo(timezone)
        self._minute: float | None = None
        """For which the answer is known; windows begin and end with whole minutes."""
        self._open = True

    def are_open(self, at_s: float) -> bool:
        """Whether any window is open, or there are none."""
        if self._windows and at_s // 60 != self._minute:
            self._minute = at_s // 60
            self._open = any(window.is_open(at_s, self._zone) for window in self._windows)
        return self._open

    def day(self, at_s: float) -> str:
        """The date that calendars show, such as 2026-03-29."""
        return local(at_s, self._zone).date().isoformat()


def local(at_s: float, zone: ZoneInfo | None) -> datetime:
    """What clocks show at a moment; a moment beyond all calendars counts as their last."""
    sane_s = min(max(at_s, _EARLIEST_S), _LATEST_S) if at_s == at_s else _EARLIEST_S
    return datetime.fromtimestamp(sane_s, zone)


def _instant(day: date, minutes: int, zone: ZoneInfo | None, *, last: bool) -> float:
    """When clocks show this time, the first or the last time they do."""
    shown = datetime(day.year, day.month, day.day, tzinfo=zone) + timedelta(minutes=minutes)
    first_s, second_s = (shown.replace(fold=fold).timestamp() for fold in (0, 1))
    if first_s > second_s:
        return _change(second_s, first_s, zone)
    return second_s if last else first_s


def _change(before_s: float, after_s: float, zone: ZoneInfo | None) -> float:
    """When clocks are put forward between two moments, to the second."""
    old = _offset_s(before_s, zone)
    while after_s - before_s > 1:
        middle_s = (before_s + after_s) // 2
        if _offset_s(middle_s, zone) == old:
            before_s = middle_s
        else:
            after_s = middle_s
    return after_s


def _offset_s(at_s: float, zone: ZoneInfo | None) -> float:
    shown = datetime.fromtimestamp(at_s, zone).replace(tzinfo=UTC)
    return shown.timestamp() - at_s
