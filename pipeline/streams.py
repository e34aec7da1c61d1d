# SPDX-License-Identifier: Apache-2.0
"""How a stream is doing, as its supervisor knows; others read."""

import math
import time
from dataclasses import dataclass, field

from pipeline.branch import Branch
from pipeline.decoding.inputs import Source
from pipeline.decoding.redaction import redact
from pipeline.metrics import Counters
from pipeline.transport.control import (
    CameraState,
    Checkpoint,
    DecodePath,
    EncoderPicked,
    StreamFacts,
)

_CONNECTING = CameraState(state="connecting", reason="")
_ON_PROCESSOR = DecodePath(path="cpu", reason="")
Told = StreamFacts | CameraState | DecodePath | EncoderPicked | Checkpoint
"""What stages tell of a stream that is not about its end."""


@dataclass(slots=True, kw_only=True, eq=False)
class StreamState:
    """How one branch is doing; written by the supervisor alone."""

    branch: Branch
    counters: Counters
    facts: StreamFacts | None = None
    camera: CameraState = _CONNECTING
    """How the camera is doing, where it is one."""
    camera_since_s: float = field(default_factory=time.time)
    """Since when it is in this state: seconds since 1970."""
    decoder: DecodePath = _ON_PROCESSOR
    """Who decodes it."""
    encoder: EncoderPicked | None = None
    """Who encodes its video, if there is one."""
    started_s: float | None = None
    ended_s: float | None = None
    complete: bool = True
    reason: str = ""
    """Why it is not complete, for the user."""
    trace: str = ""
    """Where our own code failed, if it did."""
    outputs: list[str] = field(default_factory=list)
    working: set[str] = field(default_factory=set)
    """Workers of the branch that have not ended."""
    stopped: bool = False
    """Whether its user asked for no more input."""
    leave_by_s: float = math.inf
    """When its branch is told to leave, should it not have ended by then."""
    closing: bool = False
    """Whether its branch was told to leave."""
    answered: bool = False
    """Whether the stage that reads from the trunk has all it needs and ended."""
    checkpoint: Checkpoint | None = None
    """Where a reader that takes the place of another begins."""
    failed: bool = False
    """Whether its stages failed too often for it to be begun anew at once."""
    again_s: float = math.inf
    """When it is begun anew, on the clock of `time.monotonic()`."""

    @property
    def source(self) -> Source:
        """Where it comes from, and what its user calls it."""
        return self.branch.source

    @property
    def is_running(self) -> bool:
        """Whether it has begun and not ended."""
        return self.started_s is not None and self.ended_s is None

    @property
    def elapsed_s(self) -> float:
        """Seconds from its start to its end, or to now."""
        if self.started_s is None:
            return 0.0
        return (self.ended_s or time.monotonic()) - self.started_s

    @property
    def fault(self) -> str:
        """The reason, led by the stream's name where it does not name its source itself."""
        if not self.reason or self.source.label in self.reason:
            return self.reason
        return f"{self.source.name}: {self.reason}"

    def note(self, told: Told) -> None:
        """Note what a stage has learnt; another reason does not make a camera's state a new one."""
        match told:
            case StreamFacts():
                self.facts = told
            case Checkpoint():
                self.checkpoint = told
            case DecodePath():
                self.decoder = told
            case EncoderPicked():
                self.encoder = told
            case CameraState(state=state, reason=reason):
                if state != self.camera.state:
                    self.camera_since_s = time.time()
                self.camera = CameraState(state=state, reason=redact(reason))

    def is_due(self, source: Source, now_s: float) -> bool:
        """Whether another branch takes the place of this one, for its camera as it is now."""
        if self.ended_s is None:
            return False
        return self.stopped or self.source != source or now_s >= self.again_s

    def fail(self, reason: str, trace: str = "") -> None:
        """Note the first thing that went wrong."""
        if self.complete:
            self.complete, self.reason, self.trace = False, reason, trace
