# SPDX-License-Identifier: Apache-2.0
"""Settings of a service: those of the pipeline that last, and the cameras by name."""

from dataclasses import replace
from pathlib import Path
from typing import Annotated

from pydantic import AfterValidator, Field
from pydantic_core import PydanticCustomError

from pipeline.cameras import CameraConfig
from pipeline.config import LookingConfig, PipelineConfig, Placement, ServiceConfig
from pipeline.decoding.inputs import Source, find_sources
from pipeline.errors import SourceUnreadable
from pipeline.rules.config import RulesConfig
from pipeline.secret import Secret
from pipeline.serve.access import HttpConfig
from pipeline.telling.config import TellingConfig

CameraName = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9_.-]{0,63}$")]


class CameraEntry(CameraConfig, RulesConfig):
    """One camera of a service: where it is, what is particular about it, and its rules."""

    source: Secret
    """Its address, or a file that is played in a loop. `${NAME}` stands for a variable of the
    environment; it is never shown, for it may hold a password."""

    @property
    def camera(self) -> CameraConfig:
        """What is particular about it, without its address."""
        fields = {name: getattr(self, name) for name in CameraConfig.model_fields}
        return CameraConfig.model_construct(**fields)

    @property
    def watched_for(self) -> RulesConfig:
        """Its zones, lines and rules."""
        fields = {name: getattr(self, name) for name in RulesConfig.model_fields}
        return RulesConfig.model_construct(**fields)


def _told_apart(cameras: dict[str, CameraEntry]) -> dict[str, CameraEntry]:
    known: dict[str, str] = {}
    for name in cameras:
        if (other := known.setdefault(name.casefold(), name)) != name:
            raise PydanticCustomError(
                "camera_names",
                "{other} and {name} differ in case only; files could not tell them apart",
                {"other": other, "name": name},
            )
    return cameras


class ServeConfig(LookingConfig):
    """A service over cameras."""

    service: ServiceConfig = ServiceConfig()
    placement: Placement = "processes"
    """Cameras outlive a crash of each other only where stages have processes of their own."""
    cameras: Annotated[dict[CameraName, CameraEntry], AfterValidator(_told_apart)] = Field(
        default_factory=dict
    )
    """The cameras by name."""
    events: TellingConfig = TellingConfig()
    """Where events are kept and who is told."""
    pictures: bool = True
    """Whether events have pictures; they cost memory for full-size ones of every camera with
    rules."""
    http: HttpConfig | None = HttpConfig()
    """Where status and metrics are served; None for nowhere."""
    state: Path = Path("state")
    """A folder for what rules must know after a restart."""

    @property
    def pipeline(self) -> PipelineConfig:
        """What all cameras have in common, as the pipeline takes it."""
        fields = {name: getattr(self, name) for name in LookingConfig.model_fields}
        return PipelineConfig.model_construct(**fields, placement=self.placement)

    def sources(self) -> dict[str, Source]:
        """The streams of all cameras, by name.

        Raises:
            SourceUnreadable: an address cannot be one of a camera.
        """
        return {name: self._source(name, entry) for name, entry in self.cameras.items()}

    def _source(self, name: str, entry: CameraEntry) -> Source:
        """A camera's stream; all pictures are of events, which rules make."""
        return replace(source_of(name, entry), pictured=self.pictures and bool(entry.rules))


def source_of(name: str, entry: CameraEntry) -> Source:
    """The stream of a camera.

    Raises:
        SourceUnreadable: its address cannot be one of a camera.
    """
    named = entry.source.reveal()
    try:
        found = find_sources([named])
    except SourceUnreadable as fault:
        reason = str(fault)
        if not entry.source.is_written:
            reason = "what it refers to is no camera and no file"
        elif "@" in named and "://" not in named:  # where its password begins is not known
            reason = "neither a file nor an address; addresses begin as rtsp://"
        raise SourceUnreadable(f"cameras.{name}.source: {reason}") from None
    if len(found) != 1 or found[0].kind in ("image", "images"):
        raise SourceUnreadable(
            f"cameras.{name}.source: stands for {len(found)} files or for pictures; name one "
            "camera, or one video to be played in a loop"
        )
    kind = "replay" if found[0].kind == "file" else found[0].kind
    return replace(found[0], name=name, kind=kind, camera=entry.camera)
