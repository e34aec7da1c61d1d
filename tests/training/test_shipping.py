# SPDX-License-Identifier: Apache-2.0
"""What may be shipped, and what its card then says."""

import json
from pathlib import Path
from typing import Any

import pytest

from model.card import Card, read_card
from model.importing import import_weights
from model.network import Detector
from model.reparam import fuse
from model.trained import Trained
from model.weights import load_detector, save_weights, weights_digest
from sightline import main
from tests.model.builders import (
    CLASSES,
    make_card,
    make_detector,
    published_tensors,
    save_published,
)

OURS = Trained(data="street", data_digest="0" * 32, recipe='{"model": "T"}', epoch=9, ap=0.4)
NOTES = """
name: street-t
licence: Apache-2.0
data:
  - {name: a test, licence: CC BY 4.0}
command: sightline train data.yaml --model T
min_score: 0.3
weaknesses: [made up]
"""
FIGURES = {
    "AP": 0.41, "AP50": 0.6, "AP75": 0.45, "AP_small": 0.1, "AP_medium": 0.4, "AP_large": -1.0,
}  # fmt: skip


class Bench:
    """Weights, notes and an evaluation in one folder, and the command that ships them."""

    def __init__(
        self, folder: Path, capsys: pytest.CaptureFixture[str], detector: Detector
    ) -> None:
        self.folder, self._capsys, self._detector = folder, capsys, detector
        self.weights = folder / "weights.safetensors"
        self.output = folder / "street-t.safetensors"
        (folder / "notes.yaml").write_text(NOTES)

    def train(self, **changes: object) -> Card:
        """Put down weights as a training deploys them."""
        card = make_card(source="a run", **{"trained": OURS} | changes)
        save_weights(self.weights, self._detector, card)
        return card

    def evaluate(self, **changes: Any) -> None:
        """Put down what an evaluation prints."""
        tree = {
            "weights": {"sha256": weights_digest(self.weights), "source_sha256": ""},
            "split": "test",
            "images": 12,
            "protocol": "square",
            "image_size": 416,
            **FIGURES,
            "classes": {name: {"images": 3, "objects": 4} | FIGURES for name in CLASSES},
            "calibration": [{"above": 0.9, "boxes": 3, "score": 0.95, "precision": 1.0}],
        }
        (self.folder / "evaluation.json").write_text(json.dumps(tree | changes))

    def ship(self, *more: str, output: Path | None = None) -> tuple[int, str, str]:
        arguments = ["ship", str(self.weights), "--notes", str(self.folder / "notes.yaml")]
        arguments += ["--evaluation", str(self.folder / "evaluation.json")]
        code = main([*arguments, "--output", str(output or self.output), *more])
        printed = self._capsys.readouterr()
        return code, printed.out, printed.err

    def refusal(self, **options: Any) -> str:
        code, _, err = self.ship(**options)
        assert code == 2
        assert not self.output.exists()
        (line,) = err.splitlines()
        return line


@pytest.fixture(scope="module")
def detector() -> Detector:
    return fuse(make_detector())


@pytest.fixture
def bench(tmp_path: Path, capsys: pytest.CaptureFixture[str], detector: Detector) -> Bench:
    return Bench(tmp_path, capsys, detector)


def test_what_is_shipped_is_small_and_tells_all(bench: Bench) -> None:
    trained = bench.train()
    bench.evaluate()
    code, out, err = bench.ship()
    assert (code, err) == (0, "")
    assert "AP 0.410, AP50 0.600, score 0.3, licence Apache-2.0" in out
    card = read_card(bench.output)
    assert (card.dtype, card.form, card.trained) == ("float16", "fused", trained.trained)
    assert card.source_sha256 == weights_digest(bench.weights)
    assert card.released is not None
    assert card.released.measured.image_size == 416
    assert card.released.measured.classes["car"].ap_small == 0.1
    assert bench.output.stat().st_size < 0.55 * bench.weights.stat().st_size
    load_detector(bench.output)


def test_it_may_be_measured_again_as_it_was_shipped(bench: Bench) -> None:
    bench.train()
    bench.evaluate()
    assert bench.ship()[0] == 0
    first = read_card(bench.output)
    digests = {"sha256": weights_digest(bench.output), "source_sha256": first.source_sha256}
    bench.evaluate(weights=digests, AP=0.42)
    assert bench.ship("--overwrite")[0] == 0
    card = read_card(bench.output)
    assert card.released is not None
    assert card.released.measured.overall.ap == 0.42


def test_imported_weights_are_never_shipped(bench: Bench) -> None:
    source = save_published(bench.folder / "official.pt", published_tensors(make_detector()))
    import_weights(source, bench.weights, licence="GPL-3.0")
    bench.evaluate()
    assert "imported weights are never shipped" in bench.refusal()


def test_weights_trained_on_from_imported_ones_are_not_shipped(bench: Bench) -> None:
    went_on = OURS.model_copy(update={"recipe": '{"model": "official.safetensors"}'})
    bench.train(trained=went_on)
    bench.evaluate()
    assert "no training of ours from random weights is known" in bench.refusal()


def test_weights_trained_on_from_our_own_are_shipped(bench: Bench) -> None:
    later = {"recipe": '{"model": "runs/first/weights.safetensors"}', "start": OURS}
    bench.train(trained=OURS.model_copy(update=later))
    bench.evaluate()
    assert bench.ship()[0] == 0


@pytest.mark.parametrize("recipe", ["", "[]", "{}", '{"model": null}', '{"model": "X"}'])
def test_a_recipe_that_says_nothing_is_no_proof(bench: Bench, recipe: str) -> None:
    bench.train(trained=OURS.model_copy(update={"recipe": recipe}))
    bench.evaluate()
    assert "no training of ours" in bench.refusal()


def test_what_was_shipped_is_not_shipped_again(bench: Bench) -> None:
    bench.train()
    bench.evaluate()
    assert bench.ship()[0] == 0
    bench.weights.write_bytes(bench.output.read_bytes())
    bench.output.unlink()
    assert "was shipped already" in bench.refusal()


def test_another_name_than_that_of_the_model_is_refused(bench: Bench) -> None:
    bench.train()
    bench.evaluate()
    assert "call it street-t.safetensors" in bench.refusal(output=bench.folder / "t.safetensors")


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        pytest.param({"weights": {"sha256": "f", "source_sha256": ""}}, "weights f", id="another"),
        pytest.param({"weights": None}, "it lacks", id="no digest"),
        pytest.param({"classes": {"car": FIGURES}}, "classes car", id="other classes"),
        pytest.param({"AP": 40}, "overall.ap: input should be less", id="percent"),
        pytest.param({"image_size": 100}, "multiple of 32", id="size"),
        pytest.param({"calibration": None}, "calibration", id="no calibration"),
    ],
)
def test_an_evaluation_that_does_not_fit_is_named(
    bench: Bench, changes: dict[str, Any], said: str
) -> None:
    bench.train()
    bench.evaluate(**changes)
    line = bench.refusal()
    assert "evaluation.json: no evaluation of these weights" in line
    assert said in line


def test_notes_that_leave_something_out_are_named(bench: Bench) -> None:
    bench.train()
    bench.evaluate()
    (bench.folder / "notes.yaml").write_text(NOTES.replace("weaknesses: [made up]", ""))
    assert "weaknesses: field required" in bench.refusal()
