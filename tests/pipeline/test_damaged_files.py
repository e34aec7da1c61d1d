# SPDX-License-Identifier: Apache-2.0
"""Damaged copies of a short clip: each runs to its end and is complete or told in one line.

`tests/benchmarks/fuzz_inputs.py` does the same with a thousand copies.
"""

import json
from collections.abc import Callable
from itertools import product
from pathlib import Path

import pytest

import sightline
from model.config import ModelConfig
from pipeline.config import OutputConfig, PipelineConfig
from pipeline.job import Job
from tests.pipeline.damage import DAMAGES, damaged_copy
from tests.pipeline.media_factory import write_film
from tests.pipeline.scenes import build_squares, count_frames, make_card_file, read_jsonl

CONTAINERS = (".mp4", ".mkv", ".ts", ".avi")
NUM_FRAMES = 30
COPIES = [
    *((suffix, kind, 0) for suffix, kind in product(CONTAINERS, DAMAGES)),
    *((".ts", kind, 1) for kind in DAMAGES),
]


@pytest.fixture(autouse=True)
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], bytes]:
    """Pictures and sound in a container, each made once."""
    folder = tmp_path_factory.mktemp("films")
    made = {
        suffix: write_film(folder / f"film{suffix}", num_frames=NUM_FRAMES).read_bytes()
        for suffix in CONTAINERS
    }
    return made.__getitem__


@pytest.mark.parametrize(
    ("suffix", "kind", "seed"), COPIES, ids=[f"{s[1:]}-{k}-{n}" for s, k, n in COPIES]
)
def test_a_damaged_file_is_complete_or_told_in_one_line_and_what_decodes_is_kept(
    tmp_path: Path, films: Callable[[str], bytes], suffix: str, kind: str, seed: int
) -> None:
    path = tmp_path / f"film{suffix}"
    path.write_bytes(damaged_copy(films(suffix), kind, seed))
    job = Job(
        PipelineConfig(
            model=ModelConfig(weights=make_card_file(tmp_path / "card"), image_size=160),
            output=OutputConfig(directory=tmp_path / "out", save_video=True),
        ),
        [str(path)],
    )
    job.run()
    (state,), counters = job.streams, job.counters["film"]
    assert not state.trace, state.trace
    assert state.complete == (not state.reason)
    assert len(state.reason.splitlines()) <= 1
    assert counters.num_in_flight == 0
    tracked = counters["tracked"]
    if suffix == ".mp4" and tracked < NUM_FRAMES:  # it says how many it should hold
        assert not state.complete
    if tracked:
        assert len(read_jsonl(tmp_path / "out/film.jsonl")) == tracked
        assert count_frames(tmp_path / "out/film.mp4") == tracked


@pytest.mark.parametrize(("suffix", "kind"), list(product((".mp4", ".ts"), list(DAMAGES)[:5])))
def test_the_command_tells_of_a_damaged_file_in_few_lines_and_one_exit_code(
    tmp_path: Path,
    films: Callable[[str], bytes],
    capfd: pytest.CaptureFixture[str],
    suffix: str,
    kind: str,
) -> None:
    """Descriptors are captured, so that what FFmpeg itself prints counts too."""
    path = tmp_path / f"film{suffix}"
    path.write_bytes(damaged_copy(films(suffix), kind, 2))
    card = make_card_file(tmp_path / "card")
    settings = ("--set", "model.image_size=160", "--save-video", "--quiet")
    code = sightline.main(
        ["run", str(path), "-m", str(card), "-o", str(tmp_path / "out"), *settings]
    )
    out, err = capfd.readouterr()
    complete = json.loads((tmp_path / "out/summary.json").read_text())["complete"]
    assert code == int(not complete)
    assert out == ""
    assert (len(err.splitlines()) == 0) if complete else (1 <= len(err.splitlines()) <= 4)
    assert "Traceback" not in err
    assert complete or "film" in err
