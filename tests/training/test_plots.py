# SPDX-License-Identifier: Apache-2.0
"""Pictures of an evaluation and of a training: that they are there, and what their errors say."""

import builtins
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import DataError, MissingExtra
from tests.training.datasets_on_disk import Box, split_of
from tests.training.found_boxes import SAME, SQUARES, boxes
from training.contact_sheet import CAPTION_PX, GAP_PX, PAIR_PX, colour_of, comparison_sheet
from training.evaluation import score
from training.plots import draw_evaluation, draw_history, require_matplotlib

THERE: list[list[Box]] = [[(0, 10, 10, 50, 50)], [(1, 60, 60, 100, 100)]]
HISTORY = "epoch,box,score,ap,ap50\n0,3.0,2.0,,\n1,2.0,1.5,0.1,0.2\n2,1.5,1.2,0.2,0.4\n"


def test_an_evaluation_is_drawn(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    split = split_of(tmp_path, THERE)
    found = {0: boxes((0.9, 0, 10, 10, 50, 50)), 1: boxes()}
    draw_evaluation(tmp_path / "plots", score(split, found, SAME, SQUARES), split, found)
    names = sorted(path.name for path in (tmp_path / "plots").iterdir())
    assert names == ["confusion.png", "precision-recall.png", "predictions.png"]
    for name in names:
        assert np.asarray(Image.open(tmp_path / "plots" / name).convert("L")).std() > 5


def test_the_labels_are_on_the_left_and_what_was_found_on_the_right(tmp_path: Path) -> None:
    split = split_of(tmp_path, THERE[:1], size=(320, 320))
    sure_and_not = boxes((0.9, 1, 100, 100, 200, 200), (0.1, 2, 220, 220, 300, 300))
    sheet = comparison_sheet(split, {0: sure_and_not}, 0.25, columns=1)
    assert sheet.shape == (PAIR_PX + CAPTION_PX, 2 * PAIR_PX + GAP_PX, 3)
    left, right = sheet[:PAIR_PX, :PAIR_PX], sheet[:PAIR_PX, PAIR_PX + GAP_PX :]
    assert tuple(right[150, 100]) == colour_of(1)
    assert tuple(left[150, 100]) != colour_of(1)
    assert tuple(right[260, 220]) != colour_of(2)  # too low a score


def test_losses_and_ap_are_drawn_from_results(tmp_path: Path) -> None:
    pytest.importorskip("matplotlib")
    (tmp_path / "results.csv").write_text(HISTORY)
    draw_history(tmp_path / "history.png", tmp_path / "results.csv")
    assert np.asarray(Image.open(tmp_path / "history.png").convert("L")).std() > 5


def test_results_without_losses_or_ap_are_refused(tmp_path: Path) -> None:
    (tmp_path / "results.csv").write_text("when,what\n1,2\n")
    with pytest.raises(DataError, match=r"expected the columns epoch and losses or AP, got"):
        draw_history(tmp_path / "history.png", tmp_path / "results.csv")
    with pytest.raises(DataError, match=r"none\.csv: cannot be read \(no such file"):
        draw_history(tmp_path / "history.png", tmp_path / "none.csv")


def test_without_matplotlib_the_error_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    imported = builtins.__import__

    def refuse(name: str, *rest: object) -> object:
        if name.startswith("matplotlib"):
            raise ImportError(name)
        return imported(name, *rest)  # type: ignore[arg-type]

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(MissingExtra, match=r"pip install 'sightline\[plots\]'"):
        require_matplotlib()
