# SPDX-License-Identifier: Apache-2.0
"""A GStreamer pipeline in a child process, read through a pipe."""

import fcntl
import os
import select
import shlex
import shutil
import subprocess
import sys
import time
from dataclasses import dataclass

from pipeline.errors import SourceUnreadable

_LAUNCH = "gst-launch-1.0"
_PIPE_BYTES = 1 << 20
_TAIL_CHARS = 4000  # of what it says, the last
# Dies with the thread that reads it, however that ends; then becomes the pipeline.
_DYING_WITH_US = (
    "import ctypes,os,sys;ctypes.CDLL(None).prctl(1,9);os.execvp(sys.argv[1],sys.argv[1:])"
)
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR", "XDG_RUNTIME_DIR")
_KEPT_BEGINNINGS = ("GST_", "LD_", "LIBVA_")


@dataclass(frozen=True, slots=True)
class Fault:
    """What a pipeline says was wrong."""

    text: str = ""
    """One line; empty where it says nothing."""
    lasting: bool = False
    """Whether it would be wrong the next time too."""
    forbidden: bool = False
    """Whether the camera wants other credentials."""


class ChildPipeline:
    """What the pipeline writes, as a file that ends when it ends, or is silent for too long."""

    def __init__(self, description: str, timeout_s: float) -> None:
        self.timeout_s = timeout_s
        self.silent = False
        """Whether it was given up because nothing came."""
        self._description = description
        self._process: subprocess.Popen[bytes] | None = None
        self._output, self._says = -1, -1
        self._said = ""

    def start(self) -> None:
        """Start the child.

        Raises:
            SourceUnreadable: GStreamer is not installed, or the description has an open quote.
        """
        if shutil.which(_LAUNCH) is None:
            raise SourceUnreadable(
                f"GStreamer is not installed ({_LAUNCH}); on Debian or Ubuntu: apt-get install "
                "gstreamer1.0-tools gstreamer1.0-plugins-good gstreamer1.0-libav"
            )
        try:
            elements = shlex.split(self._description)
        except ValueError as error:
            raise SourceUnreadable(f"gst: not a pipeline: {str(error).lower()}") from None
        self._output, into = os.pipe()
        fcntl.fcntl(into, fcntl.F_SETPIPE_SZ, _PIPE_BYTES)
        environment = {
            name: value
            for name, value in os.environ.items()
            if name in _KEPT or name.startswith(_KEPT_BEGINNINGS)
        }
        try:
            self._process = subprocess.Popen(
                [
                    *(sys.executable, "-S", "-c", _DYING_WITH_US, _LAUNCH, "-q"),
                    *(*elements, "!", "fdsink", f"fd={into}"),
                ],
                env=environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.PIPE,
                pass_fds=[into],
            )
        finally:
            os.close(into)
        assert self._process.stderr is not None
        self._says = self._process.stderr.fileno()
        os.set_blocking(self._says, False)

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
                return os.read(self._output, size)
        self.silent = True
        return b""

    @property
    def fault(self) -> Fault:
        """What the child said was wrong before it ended."""
        lines = [line.strip() for line in self._said.splitlines()]
        for line in lines:
            if line.startswith("WARNING: erroneous pipeline: "):
                return Fault(line.removeprefix("WARNING: erroneous pipeline: "), lasting=True)
        errors = [line.split(": ", 2)[-1] for line in lines if line.startswith("ERROR: from ")]
        if not errors:
            return Fault()
        return Fault(errors[0], forbidden="Unauthorized" in self._said)

    def close(self) -> None:
        """End the child, at once."""
        if self._process is None:
            return
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
