"""Real files, decoded by a decoder apart from their reader."""

from itertools import pairwise
from pathlib import Path

import pytest

from pipeline.decoding.decoder import MediaDecoder
from pipeline.decoding.inputs import find_sources
from pipeline.decoding.media import MediaReader
from tests.pipeline.media_factory import message_of


def test_every_clip_gives_the_frames_it_declares_in_order(data: Path) -> None:
    sources = find_sources([str(data / "clips" / "*.mp4")])
    assert sources
    for source in sources:
        reader = MediaReader(source)
        decoder = MediaDecoder(reader.facts.parameters, live=False)
        times = []
        for index, raw in enumerate(reader.packets()):
            frames = decoder.decode(message_of(raw, index), memoryview(raw.data))
            times += [frame.pts_ns for frame in frames]
        times += [frame.pts_ns for frame in decoder.flush()]
        reader.close()
        assert len(times) == reader.facts.num_frames, source.name
        assert all(a is not None and b is not None and a < b for a, b in pairwise(times))


@pytest.mark.parametrize("live", [False, True])
def test_the_first_picture_of_a_live_stream_does_not_wait(data: Path, live: bool) -> None:
    """The highway clip has B-frames: its first picture waits for one more and for no thread."""
    (source,) = find_sources([str(data / "clips" / "highway-1280x720.mp4")])
    reader = MediaReader(source)
    decoder = MediaDecoder(reader.facts.parameters, live=live)
    for index, raw in enumerate(reader.packets()):
        if decoder.decode(message_of(raw, index), memoryview(raw.data)):
            break
    reader.close()
    assert index <= reader.facts.parameters.reorder_frames + 1
