# SPDX-License-Identifier: Apache-2.0
"""The program that damages inputs counts what goes wrong, and goes on."""

import argparse
import signal
from pathlib import Path

from tests.benchmarks import fuzz_inputs
from tests.benchmarks.fuzz_inputs import Child
from tests.pipeline.scenes import make_card_file, make_scene


def test_a_copy_that_takes_the_child_down_is_named_and_the_next_one_runs(tmp_path: Path) -> None:
    child = Child(make_card_file(tmp_path / "card"), limit_s=20)
    clip = make_scene(tmp_path / "a.mp4", num_frames=3)
    try:
        assert child.ask(clip) == {"verdict": "complete", "text": "", "frames": 3}
        assert child._process is not None
        child._process.send_signal(signal.SIGSEGV)
        child._process.wait()
        assert child.ask(clip)["verdict"] == "crash"
        assert child.ask(clip)["verdict"] == "complete"
        (tmp_path / "b.mp4").write_bytes(clip.read_bytes()[:500])
        assert child.ask(tmp_path / "b.mp4")["verdict"] == "told"
        child._limit_s = 0
        assert child.ask(clip)["verdict"] == "hang"
    finally:
        child.close()


def test_the_same_seed_makes_the_same_copies(tmp_path: Path) -> None:
    clips = [make_scene(tmp_path / f"{number}.mp4", num_frames=2) for number in range(2)]
    options = argparse.Namespace(copies=30, seed=5)
    first, second = (list(fuzz_inputs.plan(clips, options)) for _ in range(2))
    assert first == second
    assert {copy.kind for copy in first} == set(fuzz_inputs.DAMAGES)
    assert len({copy.name for copy in first}) == 30
