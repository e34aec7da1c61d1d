# SPDX-License-Identifier: Apache-2.0
"""A look at one camera: what it sends, how it can be read, and its lines for the settings."""

import re
import time
from collections.abc import Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field, replace
from itertools import pairwise
from statistics import median

import yaml
from pydantic_core import PydanticCustomError

from model.errors import ConfigError
from pipeline.cameras import CameraConfig
from pipeline.config import SourceConfig
from pipeline.decoding.connection import Connection
from pipeline.decoding.decoder import Undecodable, make_decoder
from pipeline.decoding.inputs import Source, find_sources
from pipeline.decoding.media import MediaFacts, RawPacket
from pipeline.decoding.redaction import redact
from pipeline.errors import SourceError, SourceForbidden, SourceLost, SourceUnreadable
from pipeline.secret import filled_in
from pipeline.stages.source import open_reader

_LOOK_S = 4.0
_LONGEST_S = 12.0  # for a second keyframe
_SETTLED_S = 2.0  # at the end of a look, behind what had waited while the camera was opened
_FEW_S = 2.5  # a longer way from keyframe to keyframe is worth a word
_SECONDS = 1e9
_USERINFO = re.compile(r"(?<=://)([^/?#@]*)@")
_TOLD = re.compile(r"([^:@/?#]*:)?(\$\{\w+\})?")
_VALUE = re.compile(r"([\w.-]+)=([^&\s]*)")
_HARMLESS = re.compile(r"\d{1,4}|true|false|yes|no|main|sub|onvif|unicast|multicast|tcp|udp", re.I)
_REFERENCE = re.compile(r"\$\{[A-Za-z_][A-Za-z0-9_]*\}")


@dataclass(frozen=True, slots=True, kw_only=True)
class Probed:
    """What a camera turned out to be."""

    source: Source
    """With the settings that it was read by."""
    facts: MediaFacts
    frame_rate: float
    """As measured; 0 where too little came."""
    keyframe_s: float
    """Longest time from a keyframe to the next; 0 where there was one alone."""

    def described(self) -> str:
        """What it sends, in a line."""
        parameters, camera = self.facts.parameters, self.source.camera
        parts = [
            parameters.codec,
            f"{parameters.width} x {parameters.height}",
            f"{self.frame_rate:.1f} frames/s" if self.frame_rate else "no steady rate",
            f"a keyframe each {self.keyframe_s:.1f} s" if self.keyframe_s else "no second keyframe",
        ]
        if camera.transport is not None:
            parts.append(f"over {camera.transport}")
        return f"{', '.join(parts)}; decoded by {camera.decoder}"


@dataclass(slots=True)
class _Look:
    """What came in the time of a look."""

    facts: MediaFacts | None = None
    packets: list[RawPacket] = field(default_factory=list)
    since_s: float = 0.0
    """When the first packet came."""

    @property
    def enough(self) -> bool:
        if not self.packets:
            return False
        looked_s = time.monotonic() - self.since_s
        keyframes = sum(raw.keyframe for raw in self.packets)
        return looked_s >= _LONGEST_S or (looked_s >= _LOOK_S and keyframes > 1)


def probe(named: str, config: SourceConfig) -> Probed:
    """Read a camera for some seconds, in the first of the ways that works.

    Args:
        named: Its address; `${NAME}` in it stands for a variable of the environment.
        config: How long to wait.

    Raises:
        SourceError: it cannot be read in any way, or is no camera.
    """
    try:
        (source, *others) = find_sources([filled_in(named)])
    except PydanticCustomError as error:
        raise ConfigError(f"{redact(named)}: {error}") from None
    if others or source.kind not in ("rtsp", "http", "device"):
        raise SourceUnreadable(
            f"{source.label}: is no camera that can be probed; give an rtsp or http address, or a "
            "device"
        )
    first: SourceError | None = None
    for camera in _ways(source):
        try:
            return _read(replace(source, camera=camera), config)
        except SourceForbidden:
            raise
        except SourceError as error:
            first = first or error
    assert first is not None
    raise first


def _ways(source: Source) -> Iterator[CameraConfig]:
    """How a camera may be read, what is to be preferred first."""
    if source.kind == "rtsp":
        yield CameraConfig(transport="tcp")
        yield CameraConfig(transport="udp")
        yield CameraConfig(transport="tcp", decoder="gstreamer")
    else:
        yield CameraConfig()


def _read(source: Source, config: SourceConfig) -> Probed:
    look, until_s = _Look(), time.monotonic() + config.open_timeout_s
    with closing(Connection(source.name, lambda: open_reader(source, config))) as connection:
        while not look.enough:
            for arrival in connection.arrivals(0.1):
                if isinstance(arrival, MediaFacts):
                    look.facts = arrival
                    continue
                look.since_s = look.since_s or time.monotonic()
                look.packets.append(arrival)
            if not look.packets and time.monotonic() >= until_s:
                limit_s = config.open_timeout_s
                raise SourceLost(f"{source.label}: no frame within {limit_s:g} s")
    assert look.facts is not None
    _decode_one(source, look.facts, look.packets)
    rate = frame_rate(look.packets)
    return Probed(
        source=source,
        facts=look.facts,
        frame_rate=rate,
        keyframe_s=longest_to_keyframe(look.packets) / rate if rate else 0.0,
    )


def frame_rate(packets: Sequence[RawPacket]) -> float:
    """Frames a second by their own times; by those of arrival where these stand still."""
    times = sorted(raw.pts_ns for raw in packets if raw.pts_ns is not None)
    frame_ns = median(_apart(times) or [0])
    if frame_ns > 0:
        return _SECONDS / frame_ns
    late = packets[-1].captured_ns - _SETTLED_S * _SECONDS
    arrived = [raw.captured_ns for raw in packets if raw.captured_ns > late]
    passed_ns = arrived[-1] - arrived[0]
    return (len(arrived) - 1) * _SECONDS / passed_ns if passed_ns else 0.0


def longest_to_keyframe(packets: Sequence[RawPacket]) -> int:
    """Most packets from a keyframe to the next; 0 where there was one alone."""
    return max(_apart([number for number, raw in enumerate(packets) if raw.keyframe]), default=0)


def _apart(values: list[int]) -> list[int]:
    return [after - before for before, after in pairwise(values)]


def _decode_one(source: Source, facts: MediaFacts, packets: list[RawPacket]) -> None:
    """See that pictures come out.

    Raises:
        SourceUnreadable: none does.
    """
    decoder = make_decoder(facts.parameters, live=True)
    for number, raw in enumerate(packets):
        try:
            if decoder.decode(raw.header(source.name, number), memoryview(raw.data)):
                return
        except Undecodable:
            continue
    raise SourceUnreadable(f"{source.label}: no picture of its {facts.parameters.codec} decodes")


def settings_lines(probed: Probed, named: str, name: str) -> str:
    """The camera's YAML, with a variable for each secret, and comments that say what to set.

    Raises:
        SourceUnreadable: it is not clear what in the address is secret.
    """
    address, variables = without_secrets(named, name)
    camera = probed.source.camera.model_dump(exclude_defaults=True)
    block = {"cameras": {name: {"source": address, **camera}}}
    comments = [probed.described()]
    if probed.keyframe_s > _FEW_S:
        comments.append("set the camera to a keyframe each second: it is seen again sooner")
    comments += [f"set {name} to what the address has in its place" for name in variables]
    lines = "".join(f"# {comment}\n" for comment in comments)
    return lines + yaml.safe_dump(block, sort_keys=False, width=1000)


def without_secrets(named: str, name: str) -> tuple[str, tuple[str, ...]]:
    """An address with a variable for each secret, and the variables that are to be set.

    What may be secret is taken for it: the password, a user alone, and every value behind a `=`
    that is not a small number or a word that cameras use.

    Raises:
        SourceUnreadable: the address has an `@` where none may be.
    """
    variables: list[str] = []

    def variable(key: str) -> str:
        told = re.sub(r"\W", "_", f"{name}_{key}").upper()
        told = f"CAMERA_{told}" if told[0].isdigit() else told
        if told not in variables:
            variables.append(told)
        return f"${{{told}}}"

    def user(match: re.Match[str]) -> str:
        known, colon, password = match[1].partition(":")
        secret = password if colon else known
        if not secret or _REFERENCE.fullmatch(secret):
            return match[0]
        return f"{known}:{variable('password')}@" if colon else f"{variable('password')}@"

    def value(match: re.Match[str]) -> str:
        if _HARMLESS.fullmatch(match[2]) or _REFERENCE.fullmatch(match[2]):
            return match[0]
        return f"{match[1]}={variable(match[1])}"

    scheme, separator, rest = _USERINFO.sub(user, named, count=1).partition("://")
    credentials, at, place = rest.rpartition("@")
    if not _TOLD.fullmatch(credentials):
        raise SourceUnreadable(
            f"{redact(named)}: cannot tell the password from the rest; in it, and in a path, @ is "
            "written %40, / %2F, ? %3F and # %23"
        )
    return f"{scheme}{separator}{credentials}{at}{_VALUE.sub(value, place)}", tuple(variables)
