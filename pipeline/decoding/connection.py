# SPDX-License-Identifier: Apache-2.0
"""One try at a live source, in a thread of its own.

FFmpeg cannot be told to give up opening or reading. So that whoever reads a camera can leave at
any time, a thread does it; one that hangs is left behind, ends by FFmpeg's own time limits, and
closes its container itself.

Errors are handed over as copies. An error knows the frames it came through, and these know the
connection and the camera behind it with all its packets. Kept in the connection it would keep them
until the garbage collector comes round, which it hardly ever does where little garbage is made.
"""

import queue
import threading
from collections.abc import Callable
from contextlib import suppress
from copy import copy

from pipeline.decoding.media import MediaFacts, RawPacket, Reader
from pipeline.errors import SourceError, SourceLost

_AHEAD = 64
"""Packets the thread may be ahead; a reader at work takes each as it comes."""
_FAREWELL_S = 0.15
_PUT_S = 0.1

Arrival = MediaFacts | RawPacket
"""First what the source says about itself, then its packets."""


class Connection:
    """Opens a source at once and reads it until it breaks or is closed."""

    def __init__(self, name: str, open_reader: Callable[[], Reader]) -> None:
        self._open_reader = open_reader
        self._arrived: queue.Queue[Arrival | SourceError] = queue.Queue(_AHEAD)
        self._error: SourceError | None = None
        self._closed = threading.Event()
        # A daemon: a thread that hangs in FFmpeg must not keep the process.
        self._thread = threading.Thread(target=self._work, name=f"camera:{name}", daemon=True)
        self._thread.start()

    def arrivals(self, timeout_s: float) -> list[Arrival]:
        """What has come; waits for the first at most this long.

        Raises:
            SourceError: the connection is over, and all that came by it was given.
        """
        if self._error is not None:
            raise copy(self._error)
        arrived: list[Arrival] = []
        with suppress(queue.Empty):
            arrival = self._arrived.get(block=timeout_s > 0, timeout=timeout_s)
            while not isinstance(arrival, SourceError):
                arrived.append(arrival)
                arrival = self._arrived.get_nowait()
            self._error = arrival
        return arrived

    def close(self) -> None:
        """Leave; a camera that is sending gets a moment to be told so."""
        self._closed.set()
        self._thread.join(_FAREWELL_S)

    def _work(self) -> None:
        try:
            self._read()
        except SourceError as error:
            self._put(copy(error))
        except Exception as error:  # noqa: BLE001 - a thread's error is nobody's unless passed on
            self._put(SourceLost(f"reading failed: {type(error).__name__}"))

    def _read(self) -> None:
        reader = self._open_reader()
        try:
            self._put(reader.facts)
            for raw in reader.packets():
                if not self._put(raw):
                    return
        finally:
            reader.close()

    def _put(self, arrival: Arrival | SourceError) -> bool:
        """Hand something over; False where nobody is there any more."""
        while not self._closed.is_set():
            with suppress(queue.Full):
                self._arrived.put(arrival, timeout=_PUT_S)
                return True
        return False
