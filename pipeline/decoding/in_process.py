# SPDX-License-Identifier: Apache-2.0
"""A GStreamer pipeline in this process, through GStreamer's Python binding."""

import importlib
import time
from types import ModuleType
from typing import Any

from pipeline.decoding.child import Fault

_SINK = "sightline-sink"
_BUFFERS = 8  # ahead of who reads
_LOOK_NS = 100_000_000


def binding() -> ModuleType | None:
    """GStreamer's Python binding, where it is installed."""
    try:
        gi = importlib.import_module("gi")
        for namespace in ("Gst", "GstApp"):
            gi.require_version(namespace, "1.0")
        importlib.import_module("gi.repository.GstApp")  # the methods of the sink
        gst = importlib.import_module("gi.repository.Gst")
    except (ImportError, ValueError):
        return None
    gst.init(None)
    return gst


class InProcessPipeline:
    """What the pipeline writes, as a file that ends when it ends, or is silent for too long."""

    def __init__(self, gst: ModuleType, description: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.silent = False
        """Whether it was given up because nothing came."""
        self.fault = Fault()
        """What the pipeline said was wrong."""
        self._gst = gst
        self._rest = b""
        self._pipeline: Any = None
        glib = importlib.import_module("gi.repository.GLib")
        sink = f"appsink name={_SINK} sync=false max-buffers={_BUFFERS}"
        try:
            self._pipeline = gst.parse_launch(f"{description} ! {sink}")
        except glib.Error as error:
            self.fault = Fault(error.message, lasting=True)

    def log_in(self, element: str, user: str, password: str) -> None:
        """Give an element the user and the password, which stay out of the description."""
        if self._pipeline is not None:
            found = self._pipeline.get_by_name(element)
            found.set_property("user-id", user)
            found.set_property("user-pw", password)

    def start(self) -> None:
        """Set the pipeline going."""
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.State.PLAYING)

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none once the pipeline has ended or was silent for too long."""
        if not self._rest:
            self._rest = self._next()
        given, self._rest = self._rest[:size], self._rest[size:]
        return given

    def close(self) -> None:
        """End the pipeline."""
        if self._pipeline is not None:
            self._pipeline.set_state(self._gst.State.NULL)
            self._pipeline = None

    def _next(self) -> bytes:
        until_s = time.monotonic() + self.timeout_s
        while self._pipeline is not None and not self.fault.text:
            sink = self._pipeline.get_by_name(_SINK)
            sample = sink.try_pull_sample(_LOOK_NS)
            if sample is not None:
                buffer = sample.get_buffer()
                return bytes(buffer.extract_dup(0, buffer.get_size()))
            self._listen()
            if sink.is_eos():
                break
            if time.monotonic() >= until_s:
                self.silent = True
                break
        return b""

    def _listen(self) -> None:
        """Take the first error the pipeline has told of."""
        message = self._pipeline.get_bus().pop_filtered(self._gst.MessageType.ERROR)
        if message is not None:
            error, _ = message.parse_error()
            refused = self._gst.ResourceError.NOT_AUTHORIZED
            forbidden = error.matches(self._gst.resource_error_quark(), refused)
            self.fault = Fault(error.message, forbidden=forbidden)
