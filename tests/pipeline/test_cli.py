"""The command as its user meets it: what it prints, what it leaves, and its exit codes."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest
from safetensors.numpy import save_file

import sightline
from pipeline import doctor
from tests.model.builders import make_weights
from tests.pipeline.scenes import build_squares, count_frames, make_card_file, make_scene

ROOT = Path(__file__).parents[2]


@pytest.fixture
def _squares(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("pipeline.job.build_engine", build_squares)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    return make_card_file(tmp_path / "card.safetensors")


@pytest.fixture
def clip(tmp_path: Path) -> Path:
    return make_scene(tmp_path / "walk.mp4")


class Call:
    """A call of the command in this process."""

    def __init__(self, capsys: pytest.CaptureFixture[str], folder: Path, weights: Path) -> None:
        self._capsys = capsys
        self.out = folder / "out"
        self._weights = weights

    def run(self, *arguments: object) -> tuple[int, str, str]:
        """`sightline run` with weights and output folder; code, stdout and stderr."""
        return self.command(
            "run",
            *arguments,
            *("--model", self._weights, "--output", self.out, "--set", "model.image_size=160"),
        )

    def command(self, *arguments: object) -> tuple[int, str, str]:
        code = sightline.main([str(argument) for argument in arguments])
        printed = self._capsys.readouterr()
        assert "Traceback" not in printed.err
        assert len(printed.err.strip().splitlines()) <= 4 or code == 2
        return code, printed.out, printed.err


@pytest.fixture
def call(capsys: pytest.CaptureFixture[str], tmp_path: Path, weights: Path, _squares: None) -> Call:
    return Call(capsys, tmp_path, weights)


def test_a_run_writes_its_files_and_a_closing_line(call: Call, clip: Path) -> None:
    code, out, err = call.run(clip, "--save-video")
    assert (code, err) == (0, "")
    assert "walk: 30 frames, 30 tracked, 0 dropped" in out
    assert {path.name for path in call.out.iterdir()} == {
        "walk.mp4", "walk.mot.txt", "walk.jsonl", "summary.json",
    }  # fmt: skip
    assert count_frames(call.out / "walk.mp4") == 30
    first = (call.out / "walk.mot.txt").read_text().splitlines()[0].split(",")
    assert len(first) == 10
    assert first[:2] == ["1", "1"]
    assert first[7:] == ["0", "-1", "-1"]


def test_json_prints_the_summary_and_nothing_else(call: Call, clip: Path) -> None:
    code, out, err = call.run(clip, "--json")
    summary = json.loads(out)
    assert (code, err) == (0, "")
    assert summary["complete"] is True
    assert summary["streams"][0]["tracked"] == 30
    assert summary == json.loads((call.out / "summary.json").read_text())


def test_quiet_prints_nothing(call: Call, clip: Path) -> None:
    assert call.run(clip, "--quiet") == (0, "", "")


def test_only_the_classes_asked_for_are_tracked(call: Call, clip: Path) -> None:
    assert call.run(clip, "--classes", "person")[0] == 0
    assert (call.out / "walk.mot.txt").read_text() == ""


def test_existing_outputs_are_refused_and_replaced_on_request(call: Call, clip: Path) -> None:
    assert call.run(clip)[0] == 0
    before = (call.out / "walk.jsonl").stat().st_mtime_ns
    code, _, err = call.run(clip)
    assert code == 2
    assert "walk.mot.txt" in err
    assert "--overwrite" in err
    assert (call.out / "walk.jsonl").stat().st_mtime_ns == before
    assert call.run(clip, "--overwrite")[0] == 0


def test_an_output_never_replaces_its_input(call: Call, clip: Path) -> None:
    code, _, err = call.command(
        "run", clip, "--model", call._weights, "-o", clip.parent, "--save-video", "--overwrite"
    )
    assert code == 2
    assert "would replace an input" in err
    assert count_frames(clip) == 30


def no_video(folder: Path, kind: str) -> Path:
    """A file of one kind that cannot be run."""
    path = folder / f"{kind}.mp4"
    if kind == "empty":
        path.touch()
    elif kind == "random":
        path.write_bytes(np.random.default_rng(3).bytes(50_000))
    elif kind == "text":
        path.write_text("this is no video\n" * 100)
    elif kind == "truncated":
        whole = make_scene(folder / "whole.mp4").read_bytes()
        path.write_bytes(whole[: len(whole) // 2])  # its index was at the end
    else:
        with av.open(str(path), "w") as container:
            stream = container.add_stream("aac", rate=16000)
            samples = np.zeros((1, 16000), np.float32)
            frame = av.AudioFrame.from_ndarray(samples, format="fltp", layout="mono")
            frame.sample_rate, frame.pts, frame.time_base = 16000, 0, Fraction(1, 16000)
            container.mux(stream.encode(frame))
            container.mux(stream.encode(None))
    return path


@pytest.mark.parametrize(
    ("kind", "said"),
    [
        ("empty", "empty"),
        ("random", "not a video"),
        ("text", "not a video"),
        ("truncated", "not a video"),
        ("audio-only", "only audio"),
    ],
)
def test_a_file_that_is_no_video_fails_with_one_line(
    call: Call, tmp_path: Path, kind: str, said: str
) -> None:
    code, _, err = call.run(no_video(tmp_path, kind))
    assert code == 1
    assert len(err.strip().splitlines()) == 1
    assert f"{kind}.mp4" in err
    assert said in err


def test_what_was_skipped_stands_in_the_closing_line(call: Call, tmp_path: Path) -> None:
    clip = make_scene(tmp_path / "walk.mp4", halts=range(30))
    code, out, _ = call.run(clip, "--gate", "--detect-every", 2, "--set", "gate.hold_s=0")
    assert code == 0
    assert "walk: 30 frames, 1 tracked, 14 skipped by gate, 15 skipped by detect-every, 0 d" in out


@pytest.mark.parametrize(
    ("options", "expected"),
    [
        ([], 3.0),
        (["--gate"], 3.0),
        (["--no-gate"], None),
        (["--gate", "--set", "gate.hold_s=1"], 3.0),
    ],
    ids=lambda value: " ".join(value) if isinstance(value, list) else "",
)
def test_the_gate_s_option_keeps_the_settings_it_has(
    call: Call, clip: Path, options: list[str], expected: float | None
) -> None:
    config = clip.with_suffix(".yaml")
    config.write_text("gate: {refresh_s: 3}\n")
    assert call.run(clip, "--config", config, *options)[0] == 0
    gate = json.loads((call.out / "summary.json").read_text())["settings"]["gate"]
    assert (gate and gate["refresh_s"]) == expected


def test_many_broken_files_are_told_in_four_lines(call: Call, tmp_path: Path) -> None:
    for number in range(9):
        (tmp_path / f"{number}.mp4").write_bytes(b"no video at all")
    code, _, err = call.run(*tmp_path.glob("*.mp4"))
    lines = err.strip().splitlines()
    assert code == 1
    assert len(lines) == 4
    assert "and 6 more, see" in lines[-1]
    summary = json.loads((call.out / "summary.json").read_text())
    assert all(stream["reason"] for stream in summary["streams"])


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["nowhere.mp4"], "no such file"),
        (["*.none"], "no video or image matches"),
        (["ftp://host/x.m3u8"], "cannot read this kind of address"),
        ([], "no source named"),
    ],
    ids=["missing", "glob", "scheme", "none"],
)
def test_a_source_that_does_not_exist_is_a_wrong_call(
    call: Call, arguments: list[str], said: str
) -> None:
    code, _, err = call.run(*arguments)
    assert code == 2
    assert said in err


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--classes", "unicorn"], "unicorn"),
        (["--min-score", "7"], "suppression.min_score"),
        (["--imgsz", "100"], "model.image_size"),
        (["--stride", "0"], "source.stride"),
        (["--slices", "18"], "slices.budget"),
        (["--stride", "2", "--detect-every", "2"], "stride 2 and detect_every 2 exclude each"),
        (["--set", "gate.threshold=0"], "gate.threshold"),
        (["--tracker", "magic"], "magic"),
        (["--set", "tracking.lost_s"], "tracking.lost_s"),
        (["--set", "nothing.here=1"], "nothing"),
        (["--config", "nowhere.yaml"], "nowhere.yaml"),
        (["--bogus"], "--bogus"),
    ],
    ids=lambda value: value[0] if isinstance(value, list) else "",
)
def test_a_wrong_setting_is_a_wrong_call(
    call: Call, clip: Path, arguments: list[str], said: str
) -> None:
    code, out, err = call.run(clip, *arguments)
    assert code == 2
    assert said in err + out
    assert not call.out.exists()


@pytest.mark.parametrize("kind", ["missing", "truncated", "foreign", "random"])
def test_weights_that_are_not_ours_are_a_wrong_call(call: Call, clip: Path, kind: str) -> None:
    path = clip.parent / f"{kind}.safetensors"
    if kind == "foreign":
        save_file({"model.0.conv.weight": np.zeros(3, np.float32)}, path)
    elif kind == "truncated":
        path.write_bytes(make_weights(clip.parent).read_bytes()[:100_000])
    elif kind == "random":
        path.write_bytes(os.urandom(1000))
    call._weights = path
    code, _, err = call.run(clip)
    assert code == 2
    assert path.name in err
    assert len(err.strip().splitlines()) == 1


def test_an_output_folder_that_cannot_be_made_is_a_wrong_call(call: Call, clip: Path) -> None:
    (clip.parent / "file").write_text("in the way")
    call.out = clip.parent / "file" / "out"
    code, _, err = call.run(clip)
    assert code == 2
    assert "--output" in err


def test_check_prints_the_graph(call: Call, weights: Path) -> None:
    code, out, _ = call.command("check", "--model", weights, "--save-video")
    assert code == 0
    assert "tracked[16], pictures[10] -> annotate -> drawn[4]" in out


def test_doctor_names_the_engine_it_picks(call: Call) -> None:
    code, out, _ = call.command("doctor")
    assert code == 0
    printed = " ".join(out.split())
    assert "engine auto picks" in printed
    assert "auto never picks int8" in printed
    assert "ONNX Runtime" in printed
    assert "inductor" in printed or "apt-get install" in printed


@pytest.mark.parametrize(("flags", "expected"), [(["avx512_vnni"], "avx512_vnni"), ([], "no int8")])
def test_doctor_says_whether_int8_may_pay_and_how_it_is_made(
    monkeypatch: pytest.MonkeyPatch, flags: list[str], expected: str
) -> None:
    monkeypatch.setattr(doctor, "cpu_features", lambda: frozenset(flags))
    monkeypatch.setattr(doctor, "importable", lambda module: module != "nncf")
    finding = doctor._int8()
    assert expected in finding.detail
    assert "sightline export" in finding.detail
    assert "extra: int8" in finding.detail
    assert (finding.present, finding.optional) == (False, True)


def start(arguments: list[object], folder: Path) -> subprocess.Popen[str]:
    return subprocess.Popen(
        [sys.executable, ROOT / "sightline.py", *map(str, arguments)],
        cwd=folder,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        env={**os.environ, "SIGHTLINE_CACHE": str(folder / "cache")},
    )


@pytest.mark.parametrize(
    ("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)], ids=["ctrl-c", "sigterm"]
)
def test_a_signal_in_the_middle_finishes_every_output(
    tmp_path: Path, number: signal.Signals, code: int
) -> None:
    weights = make_weights(tmp_path)
    make_scene(tmp_path / "long.mp4", num_frames=4000)
    process = start(
        ["run", "long.mp4", "-m", weights, "--imgsz", 96, "--save-video", "--quiet"], tmp_path
    )
    partial = tmp_path / "out/long.jsonl.partial"
    until = time.monotonic() + 60
    while not (partial.exists() and partial.stat().st_size > 2000):
        assert process.poll() is None, process.communicate()
        assert time.monotonic() < until
        time.sleep(0.02)
    process.send_signal(number)
    out, err = process.communicate(timeout=60)
    assert process.returncode == code
    assert "Traceback" not in err
    lines = (tmp_path / "out/long.jsonl").read_text().splitlines()
    assert 0 < len(lines) < 4000
    assert count_frames(tmp_path / "out/long.mp4") == len(lines)
    assert json.loads((tmp_path / "out/summary.json").read_text())["complete"] is False
    assert out == ""


def test_the_whole_command_runs_with_a_real_network(tmp_path: Path) -> None:
    weights = make_weights(tmp_path)
    make_scene(tmp_path / "walk.mp4", num_frames=12)
    texts = []
    for name in ("first", "second"):
        process = start(
            ["run", "walk.mp4", "-m", weights, "--imgsz", 96, "-o", name, "--json"], tmp_path
        )
        out, err = process.communicate(timeout=120)
        assert process.returncode == 0, err
        assert json.loads(out)["streams"][0]["tracked"] == 12
        texts.append((tmp_path / name / "walk.mot.txt").read_bytes())
    assert texts[0]  # random weights find something everywhere
    assert texts[0] == texts[1]


@pytest.fixture
def full_disk(tmp_path: Path) -> Iterator[Path]:
    """A folder on a disk of 300 KiB."""
    folder = tmp_path / "disk"
    folder.mkdir()
    mounted = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=300k", "tmpfs", folder], capture_output=True
    )
    if mounted.returncode != 0:
        pytest.skip("may not mount a small disk here")
    yield folder
    subprocess.run(["umount", folder], check=True)


def test_a_full_disk_ends_the_run_with_a_line_each_and_partial_files(
    call: Call, full_disk: Path, tmp_path: Path
) -> None:
    call.out = full_disk / "out"
    clip = make_scene(tmp_path / "long.mp4", num_frames=2000, width=640, height=384)
    code, _, err = call.run(clip, "--save-video")
    assert code == 1
    assert "no space left" in err
    assert len(err.strip().splitlines()) <= 2
    assert not (call.out / "long.mp4").exists()
    assert (call.out / "long.mp4.partial").stat().st_size > 0
