# SPDX-License-Identifier: Apache-2.0
"""The second decoder: GStreamer reads and decodes, and hands over raw pictures with their times.

Whatever GStreamer runs, a camera's pipeline or one its user wrote, ends in streamable Matroska of
raw video, which PyAV reads like any other container. It runs in a child that dies with us. Without
GStreamer's Python binding the child's arguments say everything, which everyone on the machine can
read, so nothing that may be a password is put there.

A camera may be decoded on an NVIDIA GPU (`gst_elements.py`, `gst_turns.py`), which has never run;
its pictures come to the host and go on as any others. A pipeline that its user wrote is left as it
is.
"""

import re
from collections.abc import Iterator
from dataclasses import replace
from urllib.parse import unquote, urlsplit, urlunsplit

import av
import numpy as np
from av.container import InputContainer

from pipeline.decoding.child import ChildPipeline, Fault, Login, python_with_binding
from pipeline.decoding.gst_elements import OnGpu, environment_for
from pipeline.decoding.inputs import Source
from pipeline.decoding.media import OPEN_FACTOR, RawPacket, facts_of, raw_packet, video_stream
from pipeline.decoding.redaction import redact
from pipeline.errors import (
    DecoderLost,
    SourceError,
    SourceForbidden,
    SourceLost,
    SourceUnreadable,
)

ENTRY = "sightline-entry"
"""Name of the element that is told the address's user and password."""

_TAIL = "videoconvert ! video/x-raw,format=I420 ! matroskamux streamable=true"
_SECRET = re.compile(r"(?i)\b[\w-]*(pass|pw|token|secret|key)[\w-]*\s*=")
_LATENCY_MS = 100
_PIPE_BYTES = 1 << 20


class GStreamerReader:
    """The pictures of one pipeline."""

    def __init__(
        self, source: Source, *, rtsp_transport: str, timeout_s: float, gpu: OnGpu | None = None
    ) -> None:
        """Start the pipeline and wait for its first picture.

        Args:
            source: A camera, or a pipeline that its user wrote, which is left as it is.
            rtsp_transport: How RTSP brings its packets, where the camera does not say.
            timeout_s: How long it may be silent.
            gpu: How a camera is decoded on a GPU; None for the processor.

        Raises:
            DecoderLost: an element of the GPU failed.
            SourceUnreadable: the pipeline cannot run, here or at all.
            SourceForbidden: the camera wants another user name or password.
            SourceLost: nothing came in time.
        """
        self._source = source
        self._gpu = gpu
        self._pipeline = _pipeline(source, rtsp_transport, timeout_s, gpu)
        try:
            self._pipeline.start()
            self._container = _opened(self._pipeline)
            self._stream = video_stream(source, self._container)
        except av.error.FFmpegError:
            raise self._trouble("cannot be opened") from None
        except SourceError:
            self._pipeline.close()
            raise
        self.facts = facts_of(self._container, self._stream, 0)
        self._pipeline.timeout_s = timeout_s

    def packets(self) -> Iterator[RawPacket]:
        """The pictures, each as one packet.

        Raises:
            SourceLost: the pipeline ended, or says nothing any more.
            DecoderLost: an element of the GPU failed.
        """
        width, height = self.facts.parameters.width, self.facts.parameters.height
        try:
            for packet in self._container.demux(self._stream):
                if packet.size:
                    raw = raw_packet(packet)
                    yield replace(raw, data=_tight(raw.data, width, height), keyframe=True)
        except av.error.FFmpegError:
            raise self._trouble("broke off") from None
        raise self._trouble("the stream ended")

    def close(self) -> None:
        """End the pipeline."""
        self._pipeline.close()
        self._container.close()

    def _trouble(self, what: str) -> SourceError:
        """End the pipeline, and tell what it says was wrong, else what we saw."""
        self._pipeline.close()
        label, fault = self._source.label, self._pipeline.fault
        if fault.forbidden:
            return SourceForbidden(f"{label}: wrong user name or password")
        if fault.text:
            kind = self._kind(fault)
            return kind(f"{label}: GStreamer: {redact(fault.text)}")
        silent = " (silent for too long)" if self._pipeline.silent else ""
        return SourceLost(f"{label}: {what}{silent}")

    def _kind(self, fault: Fault) -> type[SourceError]:
        if self._gpu is not None:  # what cannot run there may do on the processor
            is_of_gpu = fault.crashed or self._gpu.elements.include(fault.element)
            return DecoderLost if is_of_gpu else SourceLost
        return SourceUnreadable if fault.lasting else SourceLost


def _pipeline(
    source: Source, rtsp_transport: str, timeout_s: float, gpu: OnGpu | None
) -> ChildPipeline:
    """The pipeline for a source, not yet running."""
    description, login = _described(source, rtsp_transport, timeout_s)
    if python_with_binding() is None:
        _refuse_secrets(source)
    if gpu is not None:
        description = f"{description} ! {gpu.description}"
    environment = {} if source.kind == "gstreamer" else environment_for(gpu)
    return ChildPipeline(f"{description} ! {_TAIL}", timeout_s * OPEN_FACTOR, login, environment)


def _opened(pipeline: ChildPipeline) -> InputContainer:
    options = {"fpsprobesize": "0"}
    return av.open(pipeline, "r", format="matroska", options=options, buffer_size=_PIPE_BYTES)


def _described(source: Source, rtsp_transport: str, timeout_s: float) -> tuple[str, Login | None]:
    """The pipeline up to its decoded pictures, and what it says to the camera."""
    if source.kind == "gstreamer":
        return source.location, None
    if source.kind == "device":
        return f"v4l2src device={source.location} ! decodebin", None
    if source.kind not in ("rtsp", "http"):
        raise SourceUnreadable(
            f"{source.label}: decoder gstreamer reads cameras; leave it at pyav for files"
        )
    parts = urlsplit(source.location)
    place = parts.netloc.rpartition("@")[2]
    address = _quoted(urlunsplit(parts._replace(netloc=place)))
    login = None
    if parts.username is not None:
        password = unquote(parts.password or "")
        login = Login(element=ENTRY, user=unquote(parts.username), password=password)
    if source.kind == "http":
        entry = f"souphttpsrc name={ENTRY} location={address} is-live=true do-timestamp=true"
        return f"{entry} timeout={max(1, round(timeout_s))} ! decodebin", login
    transport = source.camera.transport or rtsp_transport
    entry = (
        f"rtspsrc name={ENTRY} location={address} protocols={transport} latency={_LATENCY_MS} "
        f"tcp-timeout={round(timeout_s * 1e6)}"
    )
    return f"{entry} ! application/x-rtp,media=video ! decodebin", login


def _quoted(value: str) -> str:
    escaped = value.replace("\\", "\\\\").replace('"', '\\"')
    return f'"{escaped}"'


def _refuse_secrets(source: Source) -> None:
    """Keep what may be a password out of a child's arguments.

    Raises:
        SourceUnreadable: there is something.
    """
    if redact(source.location) != source.location or _SECRET.search(source.location):
        raise SourceUnreadable(
            f"{source.label}: GStreamer without its Python binding would show the password in the "
            "list of processes; install the extra gstreamer, or leave the decoder at pyav"
        )


def _tight(data: bytes, width: int, height: int) -> bytes:
    """A picture in I420 without the bytes GStreamer pads odd sizes with."""
    half_w, half_h = -(-width // 2), -(-height // 2)
    if len(data) == width * height + 2 * half_w * half_h:
        return data
    rows, pixels = half_h * 2, np.frombuffer(data, np.uint8)
    line, half_line = -(-width // 4) * 4, -(-half_w // 4) * 4
    luma, chroma = np.split(pixels, [rows * line])
    planes = [
        luma.reshape(rows, line)[:height, :width],
        *chroma.reshape(2, half_h, half_line)[:, :, :half_w],
    ]
    return b"".join(plane.tobytes() for plane in planes)
