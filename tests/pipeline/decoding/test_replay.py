"""A file that plays like a camera."""

import time
from itertools import islice, pairwise
from pathlib import Path

import pytest

from pipeline.decoding.inputs import Source, find_sources
from pipeline.decoding.media import MediaReader
from pipeline.decoding.replay import ReplayReader
from pipeline.errors import SourceUnreadable
from tests.pipeline.scenes import make_scene

NUM_FRAMES, STEP_NS = 10, 40_000_000


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("clip") / "walk.mp4", num_frames=NUM_FRAMES)


def test_a_name_with_replay_is_a_live_source_that_is_named_after_its_file(clip: Path) -> None:
    first, second = find_sources([f"replay:{clip}", f"replay:{clip}"])
    assert (first.kind, first.live, first.location) == ("replay", True, str(clip))
    assert (first.name, second.name) == ("walk", "walk-2")


def test_a_file_that_is_not_there_is_told() -> None:
    with pytest.raises(SourceUnreadable, match=r"nothing\.mp4: no such file to replay"):
        find_sources(["replay:nothing.mp4"])


def test_packets_come_at_their_time_and_times_go_on_over_the_seam(clip: Path) -> None:
    (source,) = find_sources([f"replay:{clip}"])
    reader = ReplayReader(source)
    assert reader.facts.num_frames == 0
    began = time.monotonic()
    packets = list(islice(reader.packets(), 2 * NUM_FRAMES + 1))
    elapsed_s = time.monotonic() - began
    reader.close()
    assert elapsed_s >= (2 * NUM_FRAMES - 1) * STEP_NS / 1e9
    assert [packet.keyframe for packet in packets].count(True) == 3
    shown = sorted(
        packet.pts_ns for packet in packets[: 2 * NUM_FRAMES] if packet.pts_ns is not None
    )
    steps = {later - sooner for sooner, later in pairwise(shown)}
    assert steps == {STEP_NS}
    assert [packet.data for packet in packets[:NUM_FRAMES]] == [
        packet.data for packet in MediaReader(_file(source)).packets()
    ]
    captured = [packet.captured_ns for packet in packets]
    assert captured == sorted(captured)


def _file(source: Source) -> Source:
    return Source(name=source.name, kind="file", location=source.location)


def test_files_of_other_names_are_not_in_step(clip: Path) -> None:
    phases = {
        ReplayReader(Source(name=name, kind="replay", location=str(clip)))._phase_ns
        for name in ("yard", "gate", "roof")
    }
    assert len(phases) == 3
    assert all(0 <= phase < 2_000_000_000 for phase in phases)
