"""Real video with a real model: every clip runs, and the tracks are what a person sees."""

from collections import Counter
from fractions import Fraction
from pathlib import Path

import av
import pytest

from model.config import ModelConfig
from pipeline import run
from pipeline.config import OutputConfig, PipelineConfig, SourceConfig
from pipeline.job import Job
from tests.pipeline.small_camera import SmallCamera

PEOPLE = "one-by-one-person-detection.mp4"


def test_every_clip_runs_and_keeps_its_frames_duration_and_sound(
    data: Path, coco_weights: Path, tmp_path: Path
) -> None:
    config = PipelineConfig(
        model=ModelConfig(weights=coco_weights, image_size=320),
        output=OutputConfig(directory=tmp_path / "out", save_video=True),
    )
    clips = sorted(path for path in (data / "clips").glob("*.mp4") if path.name != PEOPLE)
    job = Job(config, [str(clip) for clip in clips])
    job.run()
    assert job.complete, [state.reason for state in job.streams]
    for clip in clips:
        counters = job.counters[clip.stem]
        assert counters["decoded"] == counters["tracked"] > 0
        assert shape_of(tmp_path / "out" / clip.name) == shape_of(clip)


def shape_of(path: Path) -> tuple[int, int, int, bool, float]:
    """Frames, size, whether there is sound, and the duration to within a frame."""
    with av.open(str(path)) as container:
        video = container.streams.video[0]
        frame_s = 1 / float(video.average_rate or Fraction(25))
        duration_s = float((video.duration or 0) * (video.time_base or 0))
        return (
            sum(1 for _ in container.decode(video)),
            video.width,
            video.height,
            bool(container.streams.audio),
            pytest.approx(duration_s, abs=frame_s),
        )


def test_people_who_walk_in_one_by_one_have_an_identity_each(
    data: Path, coco_weights: Path
) -> None:
    frames_of: Counter[int] = Counter()
    most_at_once = 0
    results = 0
    for result in run(data / "clips" / PEOPLE, model=coco_weights, classes=["person"]):
        results += 1
        frames_of.update(result.tracks.track_id.tolist())
        most_at_once = max(most_at_once, len(result.tracks))
    assert results == 1394
    assert most_at_once == 1
    assert len(frames_of) == 6  # six people walk through
    assert min(frames_of.values()) > 100


@pytest.mark.parametrize("tracker", ["bytetrack", "sort", "ocsort", "botsort"])
def test_two_runs_give_the_same_bytes(
    data: Path, coco_weights: Path, tmp_path: Path, tracker: str
) -> None:
    texts = []
    for name in ("first", "second"):
        config = PipelineConfig.model_validate(
            {
                "model": ModelConfig(weights=coco_weights, image_size=320),
                "source": SourceConfig(limit=160),
                "tracking": {"kind": tracker},
                "output": OutputConfig(directory=tmp_path / name),
            }
        )
        Job(config, [str(data / "clips" / PEOPLE)]).run()
        texts.append((tmp_path / name / f"{Path(PEOPLE).stem}.mot.txt").read_bytes())
    assert texts[0] == texts[1]
    assert texts[0]


def test_a_real_clip_played_once_by_a_camera_gives_the_file_s_boxes_and_identities(
    data: Path, coco_weights: Path, tmp_path: Path
) -> None:
    clip = data / "clips/highway-1280x720.mp4"
    camera = SmallCamera(clip, once=True)
    camera.on()
    source = SourceConfig(limit=36, staleness_s=60)
    config = PipelineConfig(
        model=ModelConfig(weights=coco_weights),
        source=source,
        window=64,
        output=OutputConfig(directory=tmp_path),
    )
    try:
        job = Job(config, [str(clip), camera.address()])
        job.run()
    finally:
        camera.off()
    assert job.complete, [state.reason for state in job.streams]
    of_file, of_camera = (
        (tmp_path / f"{state.source.name}.mot.txt").read_text().splitlines()
        for state in job.streams
    )
    assert len(of_file) > 20
    assert renamed(of_camera) == renamed(of_file)


def renamed(lines: list[str]) -> list[list[str]]:
    """The lines with identities numbered in order of appearance."""
    names: dict[str, str] = {}
    return [
        [frame, names.setdefault(track_id, str(len(names))), *rest]
        for frame, track_id, *rest in (line.split(",") for line in lines)
    ]
