# SPDX-License-Identifier: Apache-2.0
"""A GStreamer pipeline in a child process, read through a pipe.

With GStreamer's Python binding, wherever a Python has it, the child is a program of ours that is
told everything over a pipe; without, it is gst-launch-1.0, whose arguments everyone on the machine
can read. It is never this process: GStreamer's plugins and the binding beside PyAV's own FFmpeg
have corrupted its memory.
"""

import fcntl
import json
import os
import select
import shlex
import shutil
import signal
import subprocess
import sys
import time
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import asdict, dataclass
from functools import cache
from pathlib import Path

from pipeline.errors import SourceUnreadable

_LAUNCH, _INSPECT = "gst-launch-1.0", "gst-inspect-1.0"
_PIPE_BYTES = 1 << 20
_TAIL_CHARS = 4000  # of what it says, the last
# Dies with the thread that reads it, however that ends; then becomes the pipeline.
_DYING_WITH_US = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execvp(sys.argv[1],sys.argv[1:])"
)
_PROGRAM = Path(__file__).with_name("gst_program.py")
_BINDING = "import gi; gi.require_version('Gst', '1.0'); from gi.repository import Gst"
_SYSTEM_PYTHON = "/usr/bin/python3"
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR")
_KEPT_BEGINNINGS = ("GST_", "LD_", "LIBVA_", "CUDA_")
_FIND = (
    "import gi,sys; gi.require_version('Gst', '1.0'); from gi.repository import Gst;"
    "Gst.init(None); sys.exit(Gst.ElementFactory.find(sys.argv[1]) is None)"
)
_FIND_S = 10.0
_EXIT_S = 0.5


@dataclass(frozen=True, slots=True)
class Fault:
    """What a pipeline says was wrong."""

    text: str = ""
    """One line; empty where it says nothing."""
    lasting: bool = False
    """Whether it would be wrong the next time too."""
    forbidden: bool = False
    """Whether the camera wants other credentials."""
    element: str = ""
    """Which element says so, by its name in the pipeline."""
    crashed: bool = False
    """Whether the pipeline died without a word."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Login:
    """What an element of a pipeline says to a camera."""

    element: str
    user: str
    password: str


@dataclass(frozen=True, slots=True)
class Launch:
    """How a child is started: its arguments up to the sink, and what it reads."""

    arguments: tuple[str, ...]
    order: bytes = b""


@cache
def python_with_binding() -> str | None:
    """A Python that has GStreamer's binding: this one, the system's, or none."""
    for python in (sys.executable, _SYSTEM_PYTHON):
        if shutil.which(python) is None:
            continue
        tried = subprocess.run([python, "-c", _BINDING], capture_output=True, check=False)
        if tried.returncode == 0:
            return python
    return None


def has_element(name: str) -> bool:
    """Whether GStreamer has an element here, now: those for a GPU come and go with its driver."""
    python = python_with_binding()
    command = [_INSPECT, "--exists", name] if python is None else [python, "-c", _FIND, name]
    try:
        asked = subprocess.run(command, capture_output=True, check=False, timeout=_FIND_S)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return asked.returncode == 0


class ChildPipeline:
    """What the pipeline writes, as a file that ends when it ends, or is silent for too long."""

    def __init__(
        self,
        description: str,
        timeout_s: float,
        login: Login | None = None,
        environment: Mapping[str, str] | None = None,
    ) -> None:
        """Make ready to start.

        Args:
            description: The pipeline up to where its bytes leave it.
            timeout_s: How long it may be silent.
            login: Credentials; only with the binding.
            environment: Variables beside those of ours that a pipeline gets.
        """
        self.timeout_s = timeout_s
        self.silent = False
        """Whether it was given up because nothing came."""
        self._description = description
        self._login = login
        self._environment = environment or {}
        self._process: subprocess.Popen[bytes] | None = None
        self._output, self._says = -1, -1
        self._said = ""
        self._has_ended = False
        self._status = 0

    def start(self) -> None:
        """Start the child.

        Raises:
            SourceUnreadable: GStreamer is not installed, or the description has an open quote.
        """
        self._output, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
        }
        environment.update(self._environment)
        try:
            launch = self._launch(f"fdsink fd={into}")
            self._process = subprocess.Popen(
                [sys.executable, "-S", "-c", _DYING_WITH_US, *launch.arguments],
                env=environment,
                stdin=subprocess.PIPE,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[into],
            )
        except SourceUnreadable:
            os.close(self._output)
            raise
        finally:
            os.close(into)
        assert self._process.stdin is not None
        with suppress(BrokenPipeError), self._process.stdin as stdin:
            stdin.write(launch.order)
        assert self._process.stderr is not None
        self._says = self._process.stderr.fileno()
        os.set_blocking(self._says, False)

    def _launch(self, sink: str) -> Launch:
        python = python_with_binding()
        if python is not None:
            logins = [] if self._login is None else [asdict(self._login)]
            order = {"description": f"{self._description} ! {sink}", "logins": logins}
            return Launch((python, str(_PROGRAM)), json.dumps(order).encode())
        if shutil.which(_LAUNCH) is None:
            raise SourceUnreadable(
                f"GStreamer is not installed ({_LAUNCH}); on Debian or Ubuntu: apt-get install "
                "gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-libav"
            )
        try:
            elements = shlex.split(self._description)
        except ValueError as error:
            raise SourceUnreadable(f"gst: not a pipeline: {str(error).lower()}") from None
        return Launch((_LAUNCH, "-q", *elements, "!", *sink.split()))

    def read(self, size: int) -> bytes:
        """Up to `size` bytes; none once the pipeline has ended or was silent for too long."""
        until_s = time.monotonic() + self.timeout_s
        poll = select.poll()
        for descriptor in (self._output, self._says):
            poll.register(descriptor, select.POLLIN)
        while (left_s := until_s - time.monotonic()) > 0:
            ready = {descriptor for descriptor, _ in poll.poll(left_s * 1000)}
            if self._says in ready and not self._listen():
                poll.unregister(self._says)
            if self._output in ready:
                data = os.read(self._output, size)
                self._has_ended = not data
                return data
        self.silent = True
        return b""

    @property
    def fault(self) -> Fault:
        """What the child said was wrong before it ended."""
        lines = [line.strip() for line in self._said.splitlines()]
        for line in lines:
            if line.startswith("WARNING: erroneous pipeline: "):
                return Fault(line.removeprefix("WARNING: erroneous pipeline: "), lasting=True)
        for line in lines:
            if line.startswith("ERROR: from element "):
                place, _, text = line.removeprefix("ERROR: from element ").partition(": ")
                element = place.rpartition(":")[2]
                return Fault(text, forbidden="Unauthorized" in self._said, element=element)
        if self._status < 0:
            return Fault(f"it died by {signal.Signals(-self._status).name}", crashed=True)
        return Fault()

    def close(self) -> None:
        """End the child, at once."""
        if self._process is None:
            return
        if self._has_ended:  # nobody but itself ends it
            with suppress(subprocess.TimeoutExpired):
                self._status = self._process.wait(_EXIT_S)
        self._process.kill()
        self._process.wait()
        assert self._process.stderr is not None
        while self._listen():
            pass
        self._process.stderr.close()
        os.close(self._output)
        self._process = None

    def _listen(self) -> bool:
        """Keep the end of what the child says; False when it will say no more."""
        try:
            said = os.read(self._says, _TAIL_CHARS)
        except BlockingIOError:
            return False
        self._said = (self._said + said.decode("utf-8", "replace"))[-_TAIL_CHARS:]
        return bool(said)
