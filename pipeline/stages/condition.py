# SPDX-License-Identifier: Apache-2.0
"""How a camera is doing, told to the supervisor whenever it changes.

A camera is live while frames of it are decoded: one that sends what nobody can decode stays in
`connecting`. It is stalled when its connection stands and no frame came for half the time after
which it is given up.
"""

import time

from pipeline.decoding.redaction import redact
from pipeline.errors import SourceError, SourceForbidden, SourceLost
from pipeline.metrics import Counters
from pipeline.transport.control import CameraCondition, CameraState
from pipeline.transport.ports import Ports

_STALLED = 0.5  # of the time after which a silent camera is lost


class ConditionReporter:
    """Follows one camera for the stage that reads it."""

    def __init__(self, counters: Counters, timeout_s: float) -> None:
        self._counters = counters
        self._stalled_s = _STALLED * timeout_s
        self._told: CameraState | None = None
        self._num_decoded = counters["decoded"]
        self._decoded_s = time.monotonic()

    def on_try(self, ports: Ports) -> None:
        """Note that the camera is being opened; what was wrong before stays said until it gives."""
        self._num_decoded = self._counters["decoded"]
        self._decoded_s = time.monotonic()
        if self._told is None:
            self._tell(ports, "connecting", "")

    def look(self, ports: Ports, silent_s: float) -> None:
        """See whether frames come of the connection that stands, which was `silent_s` silent."""
        now_s, num_decoded = time.monotonic(), self._counters["decoded"]
        if num_decoded > self._num_decoded:
            self._num_decoded, self._decoded_s = num_decoded, now_s
            self._tell(ports, "live", "")
        elif now_s - self._decoded_s > self._stalled_s and self._is("live", "stalled"):
            silent = silent_s > self._stalled_s
            what = "nothing comes" if silent else "packets come, but no frame is decoded"
            self._tell(ports, "stalled", what)

    def on_error(self, ports: Ports, error: SourceError) -> None:
        """Note why a connection ended, or never was."""
        self._tell(ports, _condition(error), redact(str(error)))

    def _is(self, *conditions: CameraCondition) -> bool:
        return self._told is not None and self._told.state in conditions

    def _tell(self, ports: Ports, state: CameraCondition, reason: str) -> None:
        now = CameraState(state=state, reason=reason)
        if now != self._told:
            self._told = now
            ports.report(now)


def _condition(error: SourceError) -> CameraCondition:
    match error:
        case SourceForbidden():
            return "wrong-credentials"
        case SourceLost():
            return "lost"
    return "unsupported"
