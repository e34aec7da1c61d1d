# SPDX-License-Identifier: Apache-2.0
"""Things handed from one thread to another that waits for sockets beside them."""

import os
import threading
from collections import deque
from collections.abc import Iterator
from contextlib import suppress
from typing import Generic, TypeVar

T = TypeVar("T")


class Mailbox(Generic[T]):
    """A line of things with a descriptor that is readable while there are some.

    It has no bound of its own: what is put into it is bounded by credits.
    """

    def __init__(self) -> None:
        self._items: deque[T] = deque()
        self._event = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._open = True
        self._lock = threading.Lock()

    def fileno(self) -> int:
        """The descriptor to wait for."""
        return self._event

    def put(self, item: T) -> None:
        """Add a thing; once the box is closed, it goes nowhere."""
        with self._lock:
            if self._open:
                self._items.append(item)
                os.eventfd_write(self._event, 1)

    def take(self) -> Iterator[T]:
        """What has come, without waiting."""
        with suppress(BlockingIOError):
            os.eventfd_read(self._event)
        while self._items:
            yield self._items.popleft()

    def close(self) -> None:
        """Give the descriptor back."""
        with self._lock:
            if self._open:
                self._open = False
                os.close(self._event)
