# SPDX-License-Identifier: Apache-2.0
"""Tables of the README are made from figures, and are those of the figures that lie here."""

import json
from pathlib import Path
from typing import Any

import pytest

from tests.benchmarks import tables


def spread(median: float, runs: int = 3) -> dict[str, float]:
    return {"median": median, "min": median - 1, "max": median + 1, "runs": runs}


def side(rate: float, hw: tuple[int, int]) -> dict[str, Any]:
    return {
        "frames_per_s": spread(rate),
        "cpu_ms": spread(2000 / rate),
        "input_hw": list(hw),
        "precision": "bf16",
    }


def comparison(precision: str, output: str, **rates: float) -> dict[str, Any]:
    shapes = {name: (640, 640) if "square" in name else (384, 640) for name in rates}
    return {
        "precision": precision,
        "output": output,
        "sides": {name: side(rate, shapes[name]) for name, rate in rates.items()},
        "sightline_against": {
            name: {"frames_per_s": spread(rates["sightline"] / rate)}
            for name, rate in rates.items()
            if name != "sightline"
        },
    }


def peers_result() -> dict[str, Any]:
    return {
        "clip": "a clip",
        "cores": 2,
        "cpu": "a processor",
        "weights": "t.safetensors",
        "commit": "abc1234",
        "comparisons": [
            comparison("default", "tracks", sightline=50, ultralytics_square=20),
            comparison("default", "video", sightline=40, ultralytics_square=16),
            comparison("int8", "tracks", sightline=80, tutorial_rectangle=20),
        ],
        "left_out": {"ultralytics_square, int8": "no --calibration"},
    }


@pytest.mark.parametrize("page", tables.PAGES, ids=lambda page: page.name)
def test_the_tables_of_a_page_are_those_of_the_figures(page: Path) -> None:
    text = page.read_text()
    assert "<!-- table:" in text
    assert tables.render(text) == text


def test_a_table_takes_the_place_of_what_stood_between_its_markers(tmp_path: Path) -> None:
    row = {"engine": "a", "asked": "auto", "precision": "f32", "image_size": 640}
    figures = [row | {"AP": 0.4389, "AP50": 0.6, "AP75": 1}]
    (tmp_path / "accuracy.json").write_text(json.dumps({"figures": figures}))
    (tmp_path / "other.json").write_text('{"figures": []}')
    text = (
        "before\n<!-- table: accuracy -->\nold\n<!-- end -->\nbetween\n"
        "<!-- table: accuracy other -->\n<!-- end -->\nafter\n"
    )
    header = "| engine | precision | image size | AP | AP50 | AP75 |\n|---|---|---|---|---|---|\n"
    expected = (
        f"before\n<!-- table: accuracy -->\n{header}| a | f32 | 640 | .4389 | .6000 | 1.0000 |\n"
        f"<!-- end -->\nbetween\n<!-- table: accuracy other -->\n{header}<!-- end -->\nafter\n"
    )
    assert tables.render(text, tmp_path) == expected
    assert tables.render(expected, tmp_path) == expected


@pytest.mark.parametrize("marker", ["nonsense", "peers nowhere"])
def test_a_table_without_a_maker_or_figures_is_an_error(marker: str, tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match=marker.split()[-1]):
        tables.render(f"<!-- table: {marker} -->\n<!-- end -->", tmp_path)


def test_peers_stand_in_rows_with_tracks_beside_video() -> None:
    lines = list(tables.peers(peers_result()))
    assert lines[2] == (
        "| Sightline | 384x640 | bf16 | 50.0 (49.0-51.0) | 40.0 |  | 40.0 (39.0-41.0) | 50.0 |  |"
    )
    assert lines[3] == (
        "| Ultralytics, square | 640x640 | bf16 | 20.0 (19.0-21.0) | 100.0 | 2.50 "
        "| 16.0 (15.0-17.0) | 125.0 | 2.50 |"
    )
    assert lines[4].startswith("| Sightline, int8 | 384x640 |")
    assert lines[5].endswith("| 4.00 |  |  |  |")
    assert lines[7] == (
        "A clip; 2 cores of a processor; weights t.safetensors; medians of 3, least to most in "
        "brackets; commit abc1234."
    )
    assert lines[8] == "Left out: ultralytics_square, int8 (no --calibration)."


def test_a_gpus_engine_stands_in_a_row_a_batch() -> None:
    def side(ms: float) -> dict[str, float]:
        return {"p50_ms": ms, "images_per_s": 8000 / ms, "share_of_peak": 0.123}

    sides = {"eager": side(8), "compiled": side(4), "captured": side(2), "whole engine": side(5)}
    batch = {
        "batch": 8,
        "how": "aoti",
        "sides": sides,
        "apart": {"box_px_max": 0.4, "score_max": 0.002},
    }
    result = {
        "canvas": "640x640",
        "numbers": "f16",
        "gpu": "a GPU",
        "matrix_tflops": 700.4,
        "versions": {"torch": "2.11"},
        "scales": [{"scale": "T", "batches": [batch]}],
    }
    lines = list(tables.cuda_engine(result))
    assert lines[2] == (
        "| T | 8 | 8.00 | 1000 | 4.00 | 2000 | 2.00 | 4000 | 5.00 | 1600 | 12% | 0.40 px, 0.0020 |"
    )
    assert lines[4] == (
        "640x640 in f16 by aoti; a GPU, whose matrix peak was measured at 700 TFLOP/s; medians; "
        "torch 2.11."
    )
