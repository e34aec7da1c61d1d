# SPDX-License-Identifier: Apache-2.0
"""Everything known about a running service, for people and pages."""

from collections.abc import Collection, Iterable, Mapping
from typing import Any

import msgspec

from pipeline.runner import Supervisor
from pipeline.serve.rates import Rate
from pipeline.streams import StreamState
from pipeline.telling.teller import Statistics
from pipeline.totals import Counted


def describe(
    supervisor: Supervisor, statistics: Statistics, rates: Mapping[str, Rate]
) -> dict[str, Any]:
    """Return it as JSON takes it."""
    counted, streams = supervisor.counted(), supervisor.streams
    return {
        "model": {
            "weights": str(supervisor.model.config.weights),
            "number": supervisor.model.number,
            "engines": [msgspec.to_builtins(engine) for engine in supervisor.engines_in_use()],
        },
        "devices": [msgspec.to_builtins(device) for device in supervisor.devices()],
        "cameras": {
            name: _camera(state, counted[name], rates.get(name, Rate()))
            for name, state in streams.items()
            if name in counted
        },
        "events": msgspec.to_builtins(statistics),
    }


def summarize(streams: Collection[StreamState], rates: Iterable[Rate]) -> str:
    """Return it as a line."""
    num_live = sum(not state.failed and state.camera.state == "live" for state in streams)
    tracked = sum(rate.tracked for rate in rates)
    return f"{num_live} of {len(streams)} cameras live, {tracked:.0f} frames/s"


def _camera(state: StreamState, counted: Counted, rate: Rate) -> dict[str, Any]:
    return {
        "source": state.source.label,
        "state": "failed" if state.failed else state.camera.state,
        "reason": state.reason if state.failed else state.camera.reason,
        "since": state.camera_since_s,
        "decoder": state.decoder.path,
        "decoder_reason": state.decoder.reason,
        "declared_fps": state.facts.frame_rate if state.facts is not None else None,
        "decoded_fps": round(rate.decoded, 2),
        "tracked_fps": round(rate.tracked, 2),
        "counters": dict(counted),
    }
