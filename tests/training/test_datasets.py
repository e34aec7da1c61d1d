# SPDX-License-Identifier: Apache-2.0
"""Data sets read from disk: what is right is taken, what is wrong is named with its place."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from model.errors import DataError
from tests.training.datasets_on_disk import (
    add,
    fingerprint,
    outline,
    picture,
    rows,
    write_coco,
    write_image,
    write_labels,
    write_yaml,
)
from training.dataset_report import Kind
from training.datasets import read_dataset


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A data set with one sound image."""
    add(tmp_path, "train/sound", [(0, 8, 8, 40, 40), (2, 16, 4, 32, 20)])
    return tmp_path


def test_boxes_of_label_files_are_pixels_of_the_image(root: Path) -> None:
    record = read_dataset(write_yaml(root))["train"][0]
    assert record.image_hw == (48, 64)
    np.testing.assert_allclose(record.objects.xyxy, [(8, 8, 40, 40), (16, 4, 32, 20)], atol=1e-4)
    assert record.objects.class_id.tolist() == [0, 2]
    assert record.annotated.all()
    assert record.path == root / "images/train/sound.png"
    assert record.folder == "images/train"


def test_a_polygon_gives_its_box_and_may_stand_beside_a_box(root: Path) -> None:
    add(root, "train/both")
    text = f"{outline((1, 10, 6, 30, 46), 48, 64)}\n{rows([(0, 0, 0, 9, 9)], 48, 64)}\n"
    write_labels(root / "labels/train/both.txt", text)
    objects = read_dataset(write_yaml(root))["train"][0].objects
    np.testing.assert_allclose(objects.xyxy, [(10, 6, 30, 46), (0, 0, 9, 9)], atol=1e-4)
    assert objects.polygons[0] is not None
    assert objects.polygons[0].shape == (4, 2)
    assert objects.polygons[1] is None


def test_names_may_be_a_map_and_paths_a_list(root: Path) -> None:
    add(root, "more/other", [(1, 1, 1, 20, 20)])
    names = {2: "blue", 0: "red", 1: "green"}
    path = write_yaml(root, train=["images/train", "images/more"], names=names)
    dataset = read_dataset(path)
    assert dataset.classes == ("red", "green", "blue")
    assert [Path(p).stem for p in dataset["train"].paths] == ["sound", "other"]


def test_the_path_is_relative_to_the_file_and_may_be_absolute(root: Path, tmp_path: Path) -> None:
    elsewhere = tmp_path / "settings"
    elsewhere.mkdir()
    assert len(read_dataset(write_yaml(elsewhere, path=".."))["train"]) == 1
    assert len(read_dataset(write_yaml(elsewhere, path=str(root)))["train"]) == 1
    absolute = write_yaml(elsewhere, train=str(root / "images/train"))
    assert len(read_dataset(absolute)["train"]) == 1


def test_a_list_of_paths_is_read_from_its_own_folder_or_the_root(root: Path) -> None:
    other = add(root, "train/other", [(1, 1, 1, 20, 20)])
    write_labels(root / "lists/train.txt", f"images/train/sound.png\n\n{other}\nimages/gone.png\n")
    dataset = read_dataset(write_yaml(root, train="lists/train.txt"))
    assert len(dataset["train"]) == 2
    (missing,) = dataset.report.of_kind("missing image")
    assert str(missing) == f"{root}/lists/train.txt:4: images/gone.png"


def test_annotated_says_which_classes_each_folder_was_looked_through_for(tmp_path: Path) -> None:
    add(tmp_path, "train/cars/a", [(0, 1, 1, 20, 20)])
    add(tmp_path, "train/people/b", [(1, 1, 1, 20, 20), (0, 2, 2, 30, 30)])
    add(tmp_path, "train/rest/c", [(2, 1, 1, 20, 20)])
    annotated = {"cars": ["red", "blue"], "train/people": ["green"]}
    dataset = read_dataset(write_yaml(tmp_path, annotated=annotated))
    split = dataset["train"]
    masks = [split.annotated(index).tolist() for index in range(3)]
    assert masks == [[True, False, True], [False, True, False], [True, True, True]]
    assert [split[index].folder for index in range(3)] == [
        "cars",
        "train/people",
        "images/train/rest",
    ]
    assert split.objects(1).class_id.tolist() == [1]
    (unasked,) = dataset.report.of_kind("class not annotated here")
    assert unasked.what == "red in train/people"
    assert dataset.report.counts["train"].annotated == (2, 2, 2)


def test_an_annotated_folder_without_images_is_named(root: Path) -> None:
    dataset = read_dataset(write_yaml(root, annotated={"trian": ["red"]}))
    (unused,) = dataset.report.of_kind("folder without images")
    assert unused.what == "annotated.trian"


def test_the_turn_that_a_photograph_asks_for_is_made(root: Path) -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    Image.fromarray(picture(48, 64)).save(root / "images/train/turned.jpg", exif=exif)
    write_labels(root / "labels/train/turned.txt", "0 0.5 0.5 1 1")
    split = read_dataset(write_yaml(root))["train"]
    assert split[1].image_hw == (64, 48)
    np.testing.assert_allclose(split.objects(1).xyxy, [(0, 0, 48, 64)])


def _labels(text: str) -> Callable[[Path], object]:
    def write(root: Path) -> None:
        write_image(root / "images/train/x.png", picture(48, 64, [(0, 0, 0, 5, 5)]))
        write_labels(root / "labels/train/x.txt", text)

    return write


def _without_labels(root: Path) -> None:
    write_image(root / "images/train/x.png", picture(48, 64, [(0, 0, 0, 5, 5)]))


def _truncated(root: Path) -> None:
    Image.fromarray(np.random.default_rng(0).integers(0, 255, (64, 64, 3), np.uint8)).save(
        root / "images/train/x.jpg"
    )
    content = (root / "images/train/x.jpg").read_bytes()
    (root / "images/train/x.jpg").write_bytes(content[: len(content) // 2])


def _text(root: Path) -> None:
    (root / "images/train/x.jpg").write_text("no picture")


def _other_file(root: Path) -> None:
    (root / "images/train/x.docx").write_text("no picture")


def _tiny(root: Path) -> None:
    write_image(root / "images/train/x.png", picture(8, 64))


GOOD = "0 0.5 0.5 0.25 0.25\n"
FAULTS: dict[str, tuple[Callable[[Path], object], Kind, str, int]] = {
    # what is wrong: how, its kind, where and what (from the root), images that are left
    "no label file": (_without_labels, "missing label file", "labels/train/x.txt", 2),
    "words": (_labels(GOOD + "a car"), "unreadable label", "x.txt:2: not numbers: 'a car'", 1),
    "not finite": (_labels("0 nan 0 1 1"), "unreadable label", "x.txt:1: not finite: ", 1),
    "4 numbers": (_labels("0 .5 .5 .1"), "unreadable label", "x.txt:1: expected 5 numbers or", 1),
    "6 numbers": (_labels("0 .5 .5 .1 .1 1"), "unreadable label", "or a polygon, got 6", 1),
    "class 3": (_labels(GOOD + "3 .5 .5 .1 .1"), "class id outside the list", "x.txt:2: 3, ", 1),
    "class -1": (_labels("-1 .5 .5 .1 .1"), "class id outside the list", "-1, known 0 to 2", 1),
    "class 0.5": (_labels("0.5 .5 .5 .1 .1"), "class id outside the list", "x.txt:1: 0.5", 1),
    "pixels": (_labels("0 32 24 8 8"), "box out of range", "x.txt:1: 32, expected shares", 1),
    "negative": (_labels("0 .5 -.5 .1 .1"), "box out of range", "x.txt:1: -0.5, expected", 1),
    "no width": (_labels(GOOD + "1 .5 .5 0 .1"), "empty box", "x.txt:2: a side of no length", 2),
    "repeated": (_labels(GOOD + GOOD), "duplicate row", "labels/train/x.txt:2", 2),
    "half a JPEG": (_truncated, "broken image", "images/train/x.jpg: ", 1),
    "text": (_text, "broken image", "images/train/x.jpg: cannot identify image file", 1),
    "too small": (_tiny, "broken image", "x.png: 64x8, smaller than 10 px", 1),
    "other file": (_other_file, "not an image", "images/train/x.docx", 1),
}


@pytest.mark.parametrize(("make", "kind", "said", "left"), FAULTS.values(), ids=FAULTS)
def test_a_fault_is_named_with_its_place(
    root: Path, make: Callable[[Path], object], kind: Kind, said: str, left: int
) -> None:
    make(root)
    dataset = read_dataset(write_yaml(root))
    (problem,) = dataset.report.problems
    assert problem.kind == kind
    assert said in str(problem)
    assert str(root) in str(problem)
    assert len(dataset["train"]) == left
    assert kind in dataset.report.text()
    assert str(problem) in dataset.report.text()


def test_a_row_that_says_nothing_leaves_the_others(root: Path) -> None:
    _labels(GOOD + GOOD + "1 .5 .5 0 .1\n2 .5 .5 .1 .1")(root)
    assert read_dataset(write_yaml(root))["train"].objects(1).class_id.tolist() == [0, 2]


def test_a_label_file_without_rows_is_an_image_without_objects(root: Path) -> None:
    _labels("\n")(root)
    dataset = read_dataset(write_yaml(root))
    assert dataset.report.problems == ()
    assert dataset.report.counts["train"].without_objects == 1


def test_the_same_image_in_two_splits_is_a_leak(root: Path) -> None:
    copy = root / "images/val/renamed.png"
    write_image(copy, picture(48, 64, [(0, 8, 8, 40, 40), (2, 16, 4, 32, 20)]))
    copy.write_bytes((root / "images/train/sound.png").read_bytes())
    write_labels(root / "labels/val/renamed.txt", GOOD)
    report = read_dataset(write_yaml(root, val="images/val")).report
    (leak,) = report.of_kind("leak between splits")
    assert str(leak) == f"{copy}: also in train: {root}/images/train/sound.png"


def test_an_image_twice_in_a_split_is_named(root: Path) -> None:
    (root / "images/train/twin.png").write_bytes((root / "images/train/sound.png").read_bytes())
    write_labels(root / "labels/train/twin.txt", GOOD)
    report = read_dataset(write_yaml(root, train=["images/train", "images/train"])).report
    (twin,) = report.of_kind("same image twice")
    assert twin.path.name == "twin.png"
    assert len(report.of_kind("image listed twice")) == 2
    assert report.counts["train"].images == 2


FATAL = {
    "no file": ("", "cannot read this data set: No such file or directory"),
    "not YAML": ("a: [", "not valid YAML"),
    "a list": ("- 1", "expected a mapping"),
    "empty": ("#", "expected a mapping with path, names and val, got nothing"),
    "wrong key": ("names: [a]\ntrian: images/train", ":2: unknown key 'trian'; did you mean train"),
    "strange key": ("names: [a]\nwhatsit: 1", ":2: unknown key 'whatsit'; known are train, val"),
    "no splits": ("names: [a]", "no images: expected at least one of train, val, test"),
    "no folder": ("names: [a]\ntrain: images/gone", ":2: train: {root}/images/gone does not exist"),
    "wrong file": ("names: [a]\nval: data.yaml", ":2: val: {root}/data.yaml is a file"),
    "train: 3": ("names: [a]\ntrain: 3", ":2: train: expected a path or a list of paths, got 3"),
    "path: 3": ("path: 3\ntrain: images/train", ":1: path: expected a text, got 3"),
    "no names": ("train: images/train", "no names: expected a list of class names"),
    "names: 3": ("names: 3\ntrain: images/train", ":1: names: expected a list of class names"),
    "gap": ("names: {0: a, 2: b}\ntrain: images/train", ":1: names: expected the class ids 0 to 1"),
    "twice": ("names: [a, a]\ntrain: images/train", ":1: names: a more than once"),
    "nc": ("names: [a]\nnc: 2\ntrain: images/train", ":2: nc: 2, but names has 1 classes"),
    "annotated list": (
        "names: [a]\ntrain: images/train\nannotated: [a]",
        ":3: annotated: expected",
    ),
    "annotated class": (
        "names: [a]\ntrain: images/train\nannotated:\n  x: [a]\n  y: [b]",
        ":5: annotated.y: b not among names",
    ),
    "annotated text": (
        "names: [a]\ntrain: images/train\nannotated:\n  x: a",
        ":4: annotated.x: expected a list of classes, got 'a'",
    ),
    "no image": ("names: [a]\ntrain: labels", "train has no image to use: none was found"),
    "all faulty": (
        "names: [a]\ntrain: images/train",
        "(class id outside the list, one of 1 faults)",
    ),
    "no labels": ("names: [a]\ntrain: bare", "train has no labels: expected {root}/bare/b.txt for"),
}


@pytest.mark.parametrize(("text", "said"), FATAL.values(), ids=FATAL)
def test_what_is_fatal_is_one_line_with_file_and_line(root: Path, text: str, said: str) -> None:
    write_image(root / "bare/b.png", picture(48, 64))
    (root / "labels/train/sound.txt").write_text("2 .5 .5 .5 .5")
    (root / "labels").joinpath("readme").write_text("")
    path = root / "data.yaml"
    if text:
        path.write_text(text)
    with pytest.raises(DataError) as fault:
        read_dataset(path)
    assert str(fault.value).startswith(str(path))
    assert said.format(root=root) in str(fault.value)
    assert "\n" not in str(fault.value)


def test_a_split_that_is_not_there_is_named(root: Path) -> None:
    dataset = read_dataset(write_yaml(root))
    with pytest.raises(DataError, match=r"no split 'val'; there are train"):
        dataset["val"]


def test_coco_json_says_the_same_as_label_files(root: Path) -> None:
    images = {
        "a.png": (48, 64, [(0, 8, 8, 40, 40), (2, 16, 4, 32, 20)]),
        "b.png": (30, 30, []),
        "c.png": (60, 90, [(1, 0, 0, 90, 60)]),
    }
    other = root / "coco"
    for name, (height, width, boxes) in images.items():
        write_image(other / "images" / name, picture(height, width, boxes))
        add(root, f"val/{Path(name).stem}", boxes, (height, width))
    write_coco(other / "instances.json", images)
    ours = read_dataset(write_yaml(root, train=None, val="images/val"))
    theirs = read_dataset(write_yaml(other, train=None, names=None, val="instances.json"))
    assert theirs.classes == ours.classes
    assert theirs.report.counts == ours.report.counts
    assert theirs.report.problems == ours.report.problems == ()
    for index in range(len(images)):
        left, right = ours["val"][index], theirs["val"][index]
        assert left.path.name == right.path.name
        assert left.image_hw == right.image_hw
        np.testing.assert_allclose(left.objects.xyxy, right.objects.xyxy, atol=1e-4)
        assert left.objects.class_id.tolist() == right.objects.class_id.tolist()


def test_coco_outlines_and_crowds_are_kept(root: Path) -> None:
    path = write_coco(root / "x.json", {"images/train/sound.png": (48, 64, [(0, 8, 8, 40, 40)])})
    parts = [[8, 8, 20, 8, 20, 40], [30, 30, 40, 30, 40, 40]]
    extra = (
        '{"id": 9, "image_id": 0, "category_id": 7, "bbox": [1, 1, 9, 9], "iscrowd": 1,'
        ' "segmentation": {"counts": [], "size": [48, 64]}}, '
    )
    text = path.read_text().replace('"id": 0}]', f'"id": 0, "segmentation": {parts}}}]')
    path.write_text(text.replace('"annotations": [', f'"annotations": [{extra}'))
    objects = read_dataset(write_yaml(root, train="x.json"))["train"].objects(0)
    assert objects.crowd.tolist() == [True, False]
    assert objects.polygons[0] is None
    assert objects.polygons[1] is not None
    assert objects.polygons[1].shape == (9, 2)


@pytest.mark.parametrize(
    ("old", "new", "kind", "said"),
    [
        ('"height": 48', '"height": 47', "other size stated", "sound.png is 64x48, stated 64x47"),
        ("[8, 8, 32, 32]", "[8, 8, 0, 32]", "empty box", "annotation 0: bbox [8, 8, 0, 32]"),
        ("[8, 8, 32, 32]", '[8, 8, "x"]', "unreadable label", "annotation 0: bbox [8, 8, 'x']"),
        ('"name": "blue"', '"name": "teal"', "unknown category", "x.json: teal"),
        ("sound.png", "gone.png", "broken image", "gone.png: No such file or directory"),
    ],
)
def test_faults_of_coco_files_are_named(
    root: Path, old: str, new: str, kind: Kind, said: str
) -> None:
    add(root, "train/spare")
    path = write_coco(
        root / "x.json",
        {
            "images/train/sound.png": (48, 64, [(0, 8, 8, 40, 40)]),
            "images/train/spare.png": (48, 64, []),
        },
    )
    path.write_text(path.read_text().replace(old, new, 1))
    (problem,) = read_dataset(write_yaml(root, train="x.json")).report.problems
    assert problem.kind == kind
    assert said in str(problem)


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("[]", "not in COCO's form: expected a mapping"),
        ('{\n"images": [}', "x.json:2: not JSON"),
        ('{"images": []}', "not in COCO's form (KeyError('categories'))"),
    ],
)
def test_a_file_that_is_no_coco_file_is_named(root: Path, text: str, said: str) -> None:
    write_labels(root / "x.json", text)
    with pytest.raises(DataError) as fault:
        read_dataset(write_yaml(root, train="x.json"))
    assert said in str(fault.value)


def test_the_report_counts_by_class_and_split(root: Path) -> None:
    add(root, "val/a", [(1, 1, 1, 20, 20), (1, 30, 1, 50, 20)])
    text = read_dataset(write_yaml(root, val="images/val")).report.text()
    assert [line.split() for line in text.splitlines()[1:]] == [
        ["train", "val"],
        ["images", "1", "1"],
        ["without", "objects", "0", "0"],
        ["red", "1", "0"],
        ["green", "0", "2"],
        ["blue", "1", "0"],
    ]


def test_the_report_shows_three_faults_of_a_kind_and_counts_the_rest(root: Path) -> None:
    _labels("x\ny\nz\nw\nv")(root)
    text = read_dataset(write_yaml(root)).report.text()
    assert "unreadable label: 5 (image left out)" in text
    assert text.count("not numbers") == 3
    assert text.endswith("  and 2 more")


def test_nothing_is_written_where_the_data_is(root: Path) -> None:
    path = write_yaml(root, val="images/train")
    before = fingerprint(root)
    read_dataset(path)
    assert fingerprint(root) == before


def test_an_image_that_changed_is_looked_at_again(root: Path) -> None:
    path = write_yaml(root)
    first = read_dataset(path)
    assert read_dataset(path).report == first.report
    (root / "images/train/sound.png").write_bytes(b"no picture at all")
    with pytest.raises(DataError, match="train has no image to use"):
        read_dataset(path)


def test_the_digest_follows_images_labels_and_names(root: Path) -> None:
    digests = {read_dataset(write_yaml(root)).report.digest}
    digests.add(read_dataset(write_yaml(root, names=["a", "b", "c"])).report.digest)
    (root / "labels/train/sound.txt").write_text(GOOD)
    digests.add(read_dataset(write_yaml(root)).report.digest)
    write_image(root / "images/train/sound.png", picture(48, 64))
    digests.add(read_dataset(write_yaml(root)).report.digest)
    assert len(digests) == 4


def test_both_forms_of_real_labels_agree(data: Path, tmp_path: Path) -> None:
    """128 images of COCO: 898 boxes, 350 of them people."""
    yolo = read_dataset(data / "coco128/data.yaml")
    listed = tmp_path / "data.yaml"
    listed.write_text(f"val: {data}/coco128/instances_val2017_128.json\n")
    coco = read_dataset(listed)
    assert coco.report.counts == yolo.report.counts
    assert sum(yolo.report.counts["val"].objects) == 898
    assert yolo.report.counts["val"].objects[0] == 350
    for index in range(len(yolo["val"])):
        left, right = yolo["val"].objects(index), coco["val"].objects(index)
        np.testing.assert_allclose(left.xyxy, right.xyxy, atol=0.01)


def test_a_real_data_set_of_several_sources_is_sound(data: Path) -> None:
    dataset = read_dataset(data / "street/data.yaml")
    assert [len(split) for split in dataset.splits.values()] == [3061, 235, 437]
    assert dataset.report.problems == ()
    person = [counts.annotated[0] for counts in dataset.report.counts.values()]
    assert person == [2410, 193, 269]
