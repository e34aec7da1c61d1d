# SPDX-License-Identifier: Apache-2.0
"""Batches: the same whatever the number of workers, and whoever takes them up in the middle."""

import multiprocessing
import os
import signal
import time
from collections import deque
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import pytest
import torch

from model.errors import DataError
from tests.training.datasets_on_disk import Box, fingerprint, split_of
from training import workers as workers_module
from training.augmentation import NO_AUGMENTATION, Augmentation
from training.batches import TrainingBatch
from training.contact_sheet import CAPTION_PX, colour_of, contact_sheet
from training.image_store import ImageFiles, ImageStore
from training.loading import EvaluationLoader, Loading, TrainingLoader
from training.protocols import EvaluationPlan
from training.records import Split
from training.sampling import Position, Sampling, Shard

IMAGES: list[list[Box]] = [
    [(0, 10, 10, 60, 50)],
    [(1, 30, 20, 90, 80), (2, 100, 60, 150, 110)],
    [],
    [(2, 0, 0, 160, 120)],
    [(0, 5, 5, 40, 40), (1, 80, 5, 120, 100)],
]
SAMPLING = Sampling(batch_size=2, image_size=64, multi_scale=0.5, seed=7)


@pytest.fixture
def split(tmp_path: Path) -> Split:
    return split_of(tmp_path, IMAGES, outlined=True)


def load(
    split: Split,
    *,
    workers: int = 0,
    store_mb: int = 0,
    start: Position | None = None,
    epochs: int = 3,
    shard: Shard | None = None,
) -> list[TrainingBatch]:
    loader = TrainingLoader(
        split,
        SAMPLING,
        Augmentation(close_mosaic_epochs=1),
        Loading(workers=workers, store_mb=store_mb),
        shard,
    )
    return list(loader.batches(start or Position(), epochs))


def assert_equal(left: Sequence[TrainingBatch], right: Sequence[TrainingBatch]) -> None:
    assert len(left) == len(right)
    for first, second in zip(left, right, strict=True):
        assert torch.equal(first.images, second.images)
        assert torch.equal(first.objects, second.objects)
        assert torch.equal(first.annotated, second.annotated)
        assert first[3:] == second[3:]


@pytest.mark.parametrize("workers", [1, 2, 3])
def test_batches_are_the_same_whatever_the_number_of_workers(split: Split, workers: int) -> None:
    assert_equal(load(split, workers=workers), load(split))


@pytest.mark.parametrize("workers", [0, 2])
def test_batches_go_on_where_they_stopped(split: Split, workers: int) -> None:
    whole = load(split)
    assert_equal(load(split, workers=workers, start=whole[3].following), whole[4:])
    assert_equal(load(split, workers=workers, start=whole[2].following), whole[3:])


def test_processes_together_make_the_batches_of_one(split: Split) -> None:
    halves = [
        TrainingLoader(
            split,
            SAMPLING.model_copy(update={"batch_size": 1}),
            Augmentation(close_mosaic_epochs=1),
            Loading(workers=0),
            Shard(rank=rank, world=2),
        ).batches(Position(), 1)
        for rank in (0, 1)
    ]
    for whole, first, second in zip(load(split, epochs=1), *halves, strict=True):
        assert torch.equal(whole.images, torch.cat((first.images, second.images)))
        moved = second.objects + torch.tensor([1.0, 0, 0, 0, 0, 0])
        assert torch.equal(whole.objects, torch.cat((first.objects, moved)))


def test_workers_live_through_all_epochs(split: Split) -> None:
    loader = TrainingLoader(split, SAMPLING, Augmentation(), Loading(workers=2))
    batches = loader.batches(Position(), 20)
    next(batches)
    workers = {child.pid for child in multiprocessing.active_children()}
    for batch in batches:
        if batch.epoch == 19:  # the mosaic is closed by then
            break
    assert {child.pid for child in multiprocessing.active_children()} == workers
    assert len(workers) == 2


def test_a_batch_holds_bytes_rows_and_masks(split: Split) -> None:
    batch = load(split)[0]
    size = batch.images.shape[-1]
    assert batch.images.shape == (2, 3, size, size)
    assert batch.images.dtype == torch.uint8
    assert batch.images.is_contiguous(memory_format=torch.channels_last)
    assert batch.objects.dtype == torch.float32
    assert batch.objects.shape[1] == 6
    assert set(batch.objects[:, 0].tolist()) <= {0.0, 1.0}
    assert batch.objects[:, 2:].min() >= 0
    assert batch.objects[:, 2:].max() <= size
    assert batch.annotated.tolist() == [[True] * 3] * 2
    assert all(Path(path).is_file() for path in batch.paths)


def test_a_batch_says_where_training_goes_on(split: Split) -> None:
    following = [batch.following for batch in load(split, epochs=2)]
    assert following == [
        Position(epoch=0, step=1),
        Position(epoch=0, step=2),
        Position(epoch=1, step=0),
        Position(epoch=1, step=1),
        Position(epoch=1, step=2),
        Position(epoch=2, step=0),
    ]


def test_a_batch_without_objects_has_rows_of_none(tmp_path: Path) -> None:
    batch = load(split_of(tmp_path, [[], []]), epochs=1)[0]
    assert batch.objects.shape == (0, 6)


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_went_away_is_named_in_one_line(split: Split, workers: int) -> None:
    Path(split.paths[2]).unlink()
    with pytest.raises(DataError) as fault:
        load(split, workers=workers)
    assert str(fault.value) == f"{split.paths[2]}: not an image that can be read"


def test_a_worker_that_is_killed_ends_loading_in_one_line(split: Split) -> None:
    loader = TrainingLoader(split, SAMPLING, Augmentation(), Loading(workers=1))
    batches = loader.batches(Position(), 10_000)
    next(batches)
    (worker,) = multiprocessing.active_children()
    assert worker.pid is not None
    os.kill(worker.pid, signal.SIGKILL)
    with pytest.raises(DataError, match="a process that makes batches died") as fault:
        deque(batches, maxlen=0)
    assert "\n" not in str(fault.value)


def test_any_worker_that_dies_ends_loading_though_it_is_not_its_turn(
    split: Split, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(workers_module, "PATIENCE_S", 0.2)
    loader = TrainingLoader(split, SAMPLING, Augmentation(), Loading(workers=2))
    batches = loader.batches(Position(), 10_000)
    next(batches)
    children = sorted(multiprocessing.active_children(), key=lambda child: child.pid or 0)
    os.kill(children[1].pid or 0, signal.SIGSTOP)  # it gives no batch and does not die
    os.kill(children[0].pid or 0, signal.SIGKILL)
    with pytest.raises(DataError, match=r"died \(signal 9\)"):
        deque(batches, maxlen=0)


def test_workers_end_when_their_parent_is_killed(split: Split, tmp_path: Path) -> None:
    def parent() -> None:
        loader = TrainingLoader(split, SAMPLING, Augmentation(), Loading(workers=2))
        batches = loader.batches(Position(), 10_000)
        next(batches)
        pids = [str(child.pid) for child in multiprocessing.active_children()]
        (tmp_path / "pids").write_text(" ".join(pids))
        os.kill(os.getpid(), signal.SIGKILL)

    process = multiprocessing.get_context("fork").Process(target=parent)
    process.start()
    process.join()
    pids = (tmp_path / "pids").read_text().split()
    assert len(pids) == 2
    deadline = time.monotonic() + 10
    while any(_runs(pid) for pid in pids):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_loading_that_is_given_up_leaves_no_process(split: Split) -> None:
    before = set(multiprocessing.active_children())
    loader = TrainingLoader(split, SAMPLING, Augmentation(), Loading(workers=2))
    batches = loader.batches(Position(), 10_000)
    next(batches)
    assert len(set(multiprocessing.active_children()) - before) == 2
    began = time.monotonic()
    batches.close()  # type: ignore[attr-defined]
    assert time.monotonic() - began < 5
    assert set(multiprocessing.active_children()) == before


def test_memory_for_batches_that_cannot_be_had_is_an_error_in_one_line(split: Split) -> None:
    plan = EvaluationPlan(split, "square", image_size=1 << 28)
    loader = EvaluationLoader(split, plan, Loading(workers=1))
    with pytest.raises(DataError, match=r"MB for the batches of a worker cannot be had") as fault:
        next(iter(loader))
    assert "\n" not in str(fault.value)


def test_a_store_keeps_images_and_changes_no_sample(split: Split) -> None:
    assert_equal(load(split, store_mb=1, workers=2), load(split, store_mb=1))


def test_a_full_store_gives_the_same_images(split: Split) -> None:
    room_for_two = 2 * 64 * 48 * 3
    small = ImageStore(split.paths, split.image_hw, 64, room_for_two)
    large = ImageStore(split.paths, split.image_hw, 64, 1 << 20)
    for _ in range(2):
        for index in range(len(split)):
            np.testing.assert_array_equal(small.open(index, 1), large.open(index, 1))
    assert small.filled_bytes == room_for_two
    assert large.filled_bytes == 5 * 64 * 48 * 3


def test_what_a_worker_puts_in_the_store_others_find(split: Split) -> None:
    store = ImageStore(split.paths, split.image_hw, 64, 1 << 20)
    worker = multiprocessing.get_context("fork").Process(target=store.open, args=(0, 1.0))
    worker.start()
    worker.join()
    assert store.filled_bytes == 64 * 48 * 3
    Path(split.paths[0]).unlink()
    assert store.open(0, 1.0).size == (64, 48)


def test_a_store_never_enlarges(split: Split) -> None:
    store = ImageStore(split.paths, split.image_hw, 1000, 1 << 20)
    np.testing.assert_array_equal(store.open(1, 1), ImageFiles(split.paths).open(1, 1))


def test_a_store_beyond_all_memory_is_an_error_in_one_line(split: Split) -> None:
    huge = np.full((5, 2), 2**22, np.int32)
    with pytest.raises(DataError, match=r"a store of .* MB for images cannot be had"):
        ImageStore(split.paths, huge, 2**22, 1 << 62)


@pytest.mark.parametrize("workers", [0, 2])
@pytest.mark.parametrize("protocol", ["square", "rectangular"])
def test_evaluation_sees_every_image_once_with_its_letterbox(
    split: Split, protocol: str, workers: int
) -> None:
    plan = EvaluationPlan(split, protocol, image_size=96, batch_size=2)  # type: ignore[arg-type]
    batches = list(EvaluationLoader(split, plan, Loading(workers=workers)))
    assert len(batches) == len(EvaluationLoader(split, plan, Loading(workers=0))) == 3
    assert sorted(i for batch in batches for i in batch.indices) == list(range(5))
    for batch in batches:
        assert batch.images.shape[2:] == batch.letterboxes[0].canvas_hw
        for place, index in enumerate(batch.indices):
            objects = split.objects(index)
            on_canvas = batch.letterboxes[place].to_canvas(objects.xyxy)
            for class_id, box in zip(objects.class_id, on_canvas, strict=True):
                middle = ((box[:2] + box[2:]) / 2).astype(int)
                if (index, int(class_id)) != (4, 0):
                    colour = batch.images[place, :, middle[1], middle[0]]
                    assert colour.argmax() == class_id
                    assert colour.max() > 200


def test_processes_share_the_batches_of_an_evaluation(split: Split) -> None:
    shards = [
        EvaluationPlan(split, "square", batch_size=2, shard=Shard(rank=rank, world=2)).views
        for rank in (0, 1)
    ]
    assert sorted(i for views in shards for v in views for i in v.indices) == list(range(5))


def test_nothing_is_written_where_the_images_are(split: Split, tmp_path: Path) -> None:
    before = fingerprint(tmp_path)
    load(split, workers=1, store_mb=1)
    assert fingerprint(tmp_path) == before


def test_a_contact_sheet_shows_every_sample_with_its_boxes(split: Split) -> None:
    sampling = Sampling(batch_size=5, image_size=64)
    loader = TrainingLoader(split, sampling, NO_AUGMENTATION, Loading(workers=0))
    batch = next(loader.batches(Position(), 1))
    sheet = contact_sheet(batch, split.classes, columns=3)
    assert sheet.shape == (2 * (64 + CAPTION_PX), 3 * 64, 3)
    for row in batch.objects:
        place, class_id = int(row[0]), int(row[1])
        right = place % 3 * 64 + round(float(row[4])) - 1
        middle = place // 3 * (64 + CAPTION_PX) + round(float(row[3] + row[5]) / 2)
        assert tuple(sheet[middle, right]) == colour_of(class_id)


def test_an_empty_split_cannot_be_trained_on() -> None:
    with pytest.raises(ValueError, match="without images"):
        TrainingLoader(Split("train", ("a",), []), SAMPLING, Augmentation(), Loading())


def _runs(pid: str) -> bool:
    """Whether a process is there and not a zombie."""
    try:
        return Path(f"/proc/{pid}/stat").read_text().rsplit(")", 1)[1].split()[0] != "Z"
    except (FileNotFoundError, ProcessLookupError):
        return False
