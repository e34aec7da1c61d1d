# SPDX-License-Identifier: Apache-2.0
"""The loop: what an update is made of, when training ends, and what it says when it goes wrong."""

from pathlib import Path

import pytest
import torch

from model import load
from model.errors import ConfigError, ModelError
from model.weights import load_detector, read_card, save_weights
from tests.model.builders import make_card, make_detector
from tests.training.trainings import STILL, tiny, write_data
from training import loop
from training.criterion import Criterion, Losses
from training.datasets import read_dataset
from training.errors import TrainingFailed
from training.job import card_of, material, train
from training.pgi import GuidedLogits
from training.recipe import Recipe
from training.starting import start
from training.state import TrainState
from training.targets import Targets
from training.weights import load_guided


@pytest.fixture
def data(tmp_path: Path) -> Path:
    return write_data(tmp_path / "data", count=5, side=64)


def run(data: Path, recipe: Recipe, *, shown: bool = False) -> Path:
    weights = train(data, recipe, data.parent / "run", resume=False, shown=shown)
    assert weights is not None
    return weights


def test_a_detector_from_nothing_finds_what_it_was_shown(tmp_path: Path) -> None:
    """Eight pictures; 2026-11-21, of 70 epochs: AP50 .94 at half of them, 1.0 at the end."""
    data = write_data(tmp_path / "data", count=8, side=96)
    recipe = tiny(
        epochs=50,
        sampling={"batch_size": 8, "image_size": 96},
        nominal_batch=8,
        optimiser={"kind": "adamw", "lr": 0.002},
        averaging={"ramp": 20, "decay": 0.9},
        norm_momentum=0.2,
        augmentation=STILL,
        checkpoint_minutes=10,
    )
    card = read_card(run(data, recipe))
    assert card.trained is not None
    assert card.trained.ap50 is not None
    assert card.trained.ap50 >= 0.8


def test_what_is_deployed_runs_and_says_what_it_is(data: Path) -> None:
    weights = run(data, tiny(classes=("blue", "red")))
    card = read_card(weights)
    assert (card.form, card.classes, card.image_size) == ("fused", ("blue", "red"), 64)
    assert card.trained is not None
    assert Recipe.model_validate_json(card.trained.recipe) == tiny(classes=("blue", "red"))
    assert card.trained.data == "data"
    assert len(card.trained.data_digest) == 32
    picture = torch.zeros(48, 64, 3, dtype=torch.uint8).numpy()
    detector = load(weights, engine="torch", image_size=64)
    assert detector(picture, min_score=0.0).xyxy.shape[1] == 4


def test_what_is_deployed_is_the_average_of_the_main_branch(data: Path) -> None:
    weights = run(data, tiny())
    kept, _ = load_guided(weights.parent / loop.BEST)
    deployed, _ = load_detector(weights)
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = kept.detector.eval()(image)
        assert float((deployed(image) - expected).abs().max()) < 1e-2
    assert not any("auxiliary" in name for name in deployed.state_dict())


def test_the_best_weights_so_far_can_be_run_while_a_training_goes_on(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(loop, "write_results", interrupt)
    with pytest.raises(KeyboardInterrupt):
        run(data, tiny())
    weights = data.parent / "run" / loop.WEIGHTS
    kept, _ = load_guided(weights.parent / loop.BEST)
    deployed, card = load_detector(weights)
    assert card.trained is not None
    assert card.trained.epoch == 0
    image = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        expected = kept.detector.eval()(image)
        assert float((deployed(image) - expected).abs().max()) < 1e-2


@pytest.fixture
def updates(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Batches of each update."""
    counted: list[int] = []
    right = loop.train_step

    def counting(training: loop.Training, state: TrainState, batches: list[object]) -> None:
        counted.append(len(batches))
        right(training, state, batches)  # type: ignore[arg-type]

    monkeypatch.setattr(loop, "train_step", counting)
    return counted


def test_the_last_update_of_an_epoch_takes_what_is_left(data: Path, updates: list[int]) -> None:
    run(data, tiny(warm_up={"epochs": 0, "min_batches": 0}))
    assert updates == [2, 1, 2, 1]


def test_accumulation_warms_up(data: Path, updates: list[int]) -> None:
    recipe = tiny(warm_up={"epochs": 2, "min_batches": 0}, epochs=3)
    run(data, recipe)
    assert updates == [1, 1, 1, 2, 1, 2, 1]


def test_a_frozen_part_is_the_same_after_training(data: Path) -> None:
    first = run(data, tiny())
    recipe = tiny(model=first.parent / loop.BEST, freeze=("backbone",), form="none")
    again = train(data, recipe, data.parent / "again", resume=False, shown=False)
    assert again is not None
    before = load_guided(first.parent / loop.BEST)[0].detector
    after = load_guided(again.parent / loop.BEST)[0].detector
    for name, tensor in before.backbone.state_dict().items():
        if not name.endswith("num_batches_tracked"):
            torch.testing.assert_close(after.backbone.state_dict()[name], tensor)
    assert not torch.equal(
        after.neck.context.merge.conv.weight, before.neck.context.merge.conv.weight
    )


def test_deployed_weights_are_trained_further(data: Path) -> None:
    weights = run(data, tiny())
    again = train(data, tiny(model=weights), data.parent / "again", resume=False, shown=False)
    assert again is not None
    card = read_card(again)
    assert card.scale == "T"
    assert card.trained is not None
    assert card.trained.start == read_card(weights).trained
    recipe = Recipe.model_validate_json(card.trained.recipe)
    assert recipe.model == Path("run/weights.safetensors")  # and not where it lies here
    assert card.trained.from_random()


def test_weights_trained_on_from_imported_ones_are_known_as_such(data: Path) -> None:
    imported = data.parent / "imported.safetensors"
    save_weights(imported, make_detector(), make_card(form="unfused"))
    recipe, dataset = tiny(model=imported), read_dataset(data)
    guided = start(imported, recipe.form, dataset.classes, ())
    card = card_of(guided, material(dataset, recipe), recipe, data.parent)
    assert card.trained is not None
    assert not card.trained.from_random()


def test_results_have_a_line_for_each_epoch(data: Path) -> None:
    weights = run(data, tiny(evaluate_every=2))
    head, first, second = (weights.parent / loop.RESULTS).read_text().splitlines()
    assert head == "epoch,box,score,distribution,ap,ap50,lr,images_per_s,seconds"
    assert first.split(",")[0] == "0"
    assert first.split(",")[4] == ""
    assert second.split(",")[4] != ""


def test_without_val_the_last_epoch_is_deployed(tmp_path: Path) -> None:
    data = write_data(tmp_path / "data", count=3, side=64, val=None)
    card = read_card(run(data, tiny()))
    assert card.trained is not None
    assert (card.trained.epoch, card.trained.ap) == (1, None)


def test_training_ends_when_patience_does(
    data: Path, monkeypatch: pytest.MonkeyPatch, capfd: pytest.CaptureFixture[str]
) -> None:
    accuracy = iter((0.1, 0.3, 0.2, 0.3, 0.9))
    monkeypatch.setattr(
        "training.job.accuracy", lambda *_, **__: {"ap": next(accuracy), "ap50": 0.5}
    )
    weights = run(data, tiny(epochs=9, evaluate_every=1, patience=2), shown=True)
    card = read_card(weights)
    assert card.trained is not None
    assert (card.trained.epoch, card.trained.ap) == (3, 0.3)
    said = capfd.readouterr().err
    assert "epoch 4/9" in said
    assert "epoch 5/9" not in said
    assert "no better AP for 2 epochs: the end" in said


def test_a_loss_that_is_no_number_stops_with_step_files_and_a_way_out(
    data: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    right = Criterion.__call__
    calls = []

    def failing(self: Criterion, logits: GuidedLogits, targets: Targets) -> Losses:
        losses = right(self, logits, targets)
        calls.append(losses)
        broken = losses.box * (float("nan") if len(calls) == 2 else 1)
        return Losses(
            box=broken,
            score=losses.score,
            distribution=losses.distribution,
            num_images=losses.num_images,
            positives=losses.positives,
        )

    monkeypatch.setattr(Criterion, "__call__", failing)
    with pytest.raises(TrainingFailed) as caught:
        run(data, tiny(warm_up={"epochs": 0, "min_batches": 0}))
    text = str(caught.value)
    assert text.startswith("epoch 1, step 2: the loss is not a finite number; images: ")
    assert text.count(".png") == 2
    assert "try --set optimiser.lr=0.0025" in text
    assert "\n" not in text


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"freeze": ("spine",)}, "no part 'spine'"),
        ({"classes": ("mauve",)}, "the data has no mauve; it has red, green, blue"),
        ({"device": "abacus"}, "device: expected auto, cpu, cuda or cuda:0, got 'abacus'"),
        ({"model": Path("missing.safetensors")}, "missing.safetensors: cannot read"),
    ],
    ids=lambda value: str(value)[:12],
)
def test_what_cannot_be_is_one_line(data: Path, changes: dict[str, object], fault: str) -> None:
    with pytest.raises(ModelError) as caught:
        run(data, tiny(**changes))
    assert fault in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_gpu_that_is_not_there_is_one_line(data: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    with pytest.raises(ConfigError, match="no GPU that torch can use"):
        run(data, tiny(device="cuda"))
