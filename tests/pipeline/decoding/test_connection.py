# SPDX-License-Identifier: Apache-2.0
"""A connection that has ended leaves nothing behind."""

import gc
import time
import weakref
from collections.abc import Callable, Iterator

import pytest

from pipeline.decoding.connection import Connection
from pipeline.decoding.media import MediaFacts, RawPacket, Reader
from pipeline.errors import SourceForbidden, SourceLost
from pipeline.messages import CodecParameters


class Breaks:
    """A reader whose camera is lost at once."""

    facts = MediaFacts(
        parameters=CodecParameters(codec="h264"), num_frames=0, frame_rate=25.0, duration_s=0.0
    )

    def packets(self) -> Iterator[RawPacket]:
        try:
            raise OSError("reset by peer")
        except OSError:
            raise SourceLost("the stream broke") from None
        yield

    def close(self) -> None: ...


class Camera:
    """Who opens the reader, and would be kept with it."""

    def refuse(self) -> Reader:
        raise SourceForbidden("wrong password")

    def take(self) -> Reader:
        return Breaks()  # type: ignore[return-value]


def follow(camera: Camera, open_reader: Callable[[Camera], Reader]) -> type[Exception]:
    """Follow a camera until it is lost; how."""
    connection = Connection("yard", lambda: open_reader(camera))
    try:
        while True:
            connection.arrivals(5.0)
    except (SourceLost, SourceForbidden) as error:
        return type(error)
    finally:
        connection.close()


@pytest.mark.parametrize(
    ("open_reader", "how"), [(Camera.refuse, SourceForbidden), (Camera.take, SourceLost)]
)
def test_a_connection_that_was_lost_is_gone_with_its_camera_without_the_garbage_collector(
    open_reader: Callable[[Camera], Reader], how: type[Exception]
) -> None:
    camera = Camera()
    gone = weakref.ref(camera)
    gc.collect()
    gc.disable()
    try:
        assert follow(camera, open_reader) is how
        del camera
        by_s = time.monotonic() + 5  # its thread may be on its last steps
        while gone() is not None and time.monotonic() < by_s:
            time.sleep(0.01)
        assert gone() is None
    finally:
        gc.enable()
