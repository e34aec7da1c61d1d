# SPDX-License-Identifier: Apache-2.0
"""Checkpoints in pickle form: nothing in them is run, and what is wrong is said in a line."""

import io
import os
import pickle
import random
import struct
import sys
import warnings
import zipfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

from model.artefact import save_artefact
from model.contents import read_contents
from model.errors import WeightsError
from model.pickle_scan import MAX_TUPLE
from model.pickles import Opaque, read_pickle
from model.published import read_published
from tests.model.builders import make_quantised_card
from tests.model.foreign import code_base, detection_model, save_official, save_raw_official

TENSORS = {
    "model.0.conv.weight": torch.arange(8.0).reshape(2, 4, 1, 1),
    "model.0.bn.running_mean": torch.arange(2.0),
    "model.1.m.0.conv.bias": torch.ones(2),
}


@pytest.fixture
def checkpoint(tmp_path: Path) -> Path:
    return save_official(tmp_path / "yolov9-c.pt", TENSORS)


def failure(path: Path) -> str:
    with pytest.raises(WeightsError) as caught:
        read_contents(path)
    text = str(caught.value)
    assert text.startswith(f"{path}: ")
    assert len(text.splitlines()) == 1
    assert text.isprintable()
    return text


def entries_of(path: Path) -> dict[str, bytes]:
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def write_zip(path: Path, entries: dict[str, bytes], compression: int = zipfile.ZIP_STORED) -> Path:
    with zipfile.ZipFile(path, "w", compression) as archive:
        for name, content in entries.items():
            archive.writestr(name, content)
    return path


def with_program(path: Path, program: bytes) -> Path:
    return write_zip(path, {"archive/data.pkl": program, "archive/data/0": bytes(8)})


def test_a_module_tree_gives_its_tensors(checkpoint: Path) -> None:
    contents = read_contents(checkpoint)
    assert contents.tensors.keys() == TENSORS.keys()
    assert all(torch.equal(contents.tensors[name], TENSORS[name]) for name in TENSORS)
    assert contents.classes == {0: "person", 1: "bicycle", 2: "car"}
    assert contents.num_classes == 3


def test_of_a_training_in_progress_the_averaged_weights_are_taken(tmp_path: Path) -> None:
    live = {name: tensor + 1 for name, tensor in TENSORS.items()}
    contents = read_contents(save_raw_official(tmp_path / "last.pt", live, TENSORS))
    assert all(torch.equal(contents.tensors[name], TENSORS[name]) for name in TENSORS)


def test_a_module_saved_without_a_dict_around_it_is_read(tmp_path: Path) -> None:
    with code_base():
        torch.save(detection_model(TENSORS), tmp_path / "model.pt")
    assert read_contents(tmp_path / "model.pt").tensors.keys() == TENSORS.keys()


def test_buffers_that_a_module_does_not_save_are_left_out(tmp_path: Path) -> None:
    with code_base():
        model = detection_model(TENSORS)
        model.register_buffer("anchors", torch.ones(3), persistent=False)
        torch.save({"model": model}, tmp_path / "model.pt")
    assert read_contents(tmp_path / "model.pt").tensors.keys() == TENSORS.keys()


def test_reading_leaves_nothing_behind(checkpoint: Path) -> None:
    modules, allowed = set(sys.modules), set(torch.serialization.get_safe_globals())
    read_contents(checkpoint)
    assert not {name for name in set(sys.modules) - modules if name.startswith("models")}
    assert set(torch.serialization.get_safe_globals()) == allowed


class Harm:
    """Runs a command when unpickled the ordinary way."""

    def __init__(self, call: Callable[..., Any], *arguments: Any) -> None:
        self.call, self.arguments = call, arguments

    def __reduce__(self) -> Any:
        return self.call, self.arguments


@pytest.mark.parametrize(
    ("call", "arguments", "name"),
    [
        (os.system, ("touch {mark}",), f"{os.name}.system"),
        (eval, ("open({mark!r}, 'w')",), "__builtin__.eval"),
        (exec, ("open({mark!r}, 'w')",), "__builtin__.exec"),
        (open, ("{mark}", "w"), "io.open"),
        (getattr, ("a", "b"), "__builtin__.getattr"),
        (torch.load, ("{mark}",), "torch.serialization.load"),
        (torch._utils._rebuild_sparse_tensor, (0, 0), "torch._utils._rebuild_sparse_tensor"),
        (torch.hub.load, ("a", "b"), "torch.hub.load"),
    ],
    ids=["system", "eval", "exec", "open", "getattr", "torch.load", "sparse", "hub"],
)
def test_what_a_pickle_would_run_is_named_and_not_run(
    tmp_path: Path, call: Callable[..., Any], arguments: tuple[Any, ...], name: str
) -> None:
    mark, path = tmp_path / "mark", tmp_path / "evil.pt"
    filled = tuple(
        text.replace("{mark!r}", repr(str(mark))).replace("{mark}", str(mark))
        if isinstance(text, str)
        else text
        for text in arguments
    )
    torch.save({"model": Harm(call, *filled)}, path)
    assert f"refused unopened: it asks for {name}" in failure(path)
    assert not mark.exists()


def test_many_unknown_names_are_cut_short(tmp_path: Path) -> None:
    program = b"\x80\x02" + b"".join(b"cevil%d\nrun\n0" % i for i in range(9)).replace(b"0c", b"c")
    text = failure(with_program(tmp_path / "evil.pt", program[:-1] + b"."))
    assert "evil0.run, evil1.run, evil2.run and 6 more" in text


@pytest.mark.parametrize("name", ["models.yolo\nx y", "torch.nn.modules.conv\nConv2d;x"])
def test_a_name_that_only_begins_like_a_known_one_is_refused(tmp_path: Path, name: str) -> None:
    program = b"\x80\x02c" + name.encode() + b"\n."
    assert "refused unopened" in failure(with_program(tmp_path / "evil.pt", program))


def test_another_pickle_protocol_is_named(tmp_path: Path) -> None:
    torch.save({"model": nn.Conv2d(1, 1, 1)}, tmp_path / "four.pt", pickle_protocol=4)
    assert "written in pickle protocol 4" in failure(tmp_path / "four.pt")
    program = b"\x80\x02\x8c\x01a\x8c\x01b\x93."
    text = failure(with_program(tmp_path / "new.pt", program))
    assert "its pickle uses SHORT_BINUNICODE, which torch.save does not write" in text


@pytest.mark.parametrize(
    "program",
    [
        pytest.param(b"", id="empty"),
        pytest.param(b"\x80\x02", id="no end"),
        pytest.param(b"\x80\x02.", id="nothing"),
        pytest.param(b"\x80\x02a.", id="appends to nothing"),
        pytest.param(b"\x80\x02]a.", id="appends nothing"),
        pytest.param(b"\x80\x02h\x07.", id="recalls nothing"),
        pytest.param(b"\x80\x02t.", id="no mark"),
        pytest.param(b"\x80\x02}Q.", id="a storage that is no tuple"),
        pytest.param(b"\x80\x02X\xff\xff\xff\x7fab.", id="a text longer than the file"),
        pytest.param(b"\x80\x02}K\x01}s(.", id="an open mark"),
        pytest.param(b"\x80\x02K\x01K\x02b.", id="builds a number"),
        pytest.param(b"\x80\x02}}}s.", id="a dict as key"),
        pytest.param(b"\x80\x02cmodels.yolo\nModel\nK\x01R.", id="arguments that are none"),
        pytest.param(b"\xff\xfe\xfd", id="bytes"),
    ],
)
def test_a_pickle_that_makes_no_sense_is_damaged(tmp_path: Path, program: bytes) -> None:
    assert "damaged: its pickle" in failure(with_program(tmp_path / "damaged.pt", program))


@pytest.mark.parametrize(
    "nested",
    [
        pytest.param(b")" + b"\x85" * 100_000, id="one in another"),
        pytest.param(b")q\x00" + b"h\x00\x86q\x00" * 60, id="each twice in the next"),
        pytest.param(b"(" + b"K\x01" * 5000 + b"t", id="wide"),
    ],
)
def test_tuples_of_too_many_values_are_refused(tmp_path: Path, nested: bytes) -> None:
    program = b"\x80\x02}" + nested + b"K\x01s."
    text = failure(with_program(tmp_path / "deep.pt", program))
    assert f"a tuple of more than {MAX_TUPLE} values" in text


def test_lists_nested_without_end_are_no_checkpoint(tmp_path: Path) -> None:
    program = b"\x80\x02" + b"]" * 100_000 + b"a" * 99_999 + b"."
    assert "no checkpoint: it holds a list" in failure(with_program(tmp_path / "x.pt", program))


def test_modules_that_contain_each_other_are_refused(tmp_path: Path) -> None:
    with code_base():
        model = detection_model(TENSORS)
        model._modules["model"]._modules["self"] = model
        torch.save({"model": model}, tmp_path / "loop.pt")
    assert "its modules are nested without end" in failure(tmp_path / "loop.pt")


def test_modules_that_share_their_children_many_times_are_refused(tmp_path: Path) -> None:
    with code_base():
        model: nn.Module = detection_model(TENSORS)
        for _ in range(20):
            parent = nn.Sequential(model, model)
            model = parent
        torch.save({"model": model}, tmp_path / "wide.pt")
    assert "its modules are nested without end" in failure(tmp_path / "wide.pt")


@pytest.mark.parametrize("name", ["x" * 201, 7, ("a", "b")], ids=["long", "number", "tuple"])
def test_a_part_of_a_network_has_a_name(tmp_path: Path, name: object) -> None:
    with code_base():
        model = detection_model(TENSORS)
        model._modules["model"]._buffers[name] = torch.zeros(1)
        torch.save({"model": model}, tmp_path / "odd.pt")
    assert "has no name that can be" in failure(tmp_path / "odd.pt")


def test_a_layer_number_too_long_is_no_layer(tmp_path: Path) -> None:
    torch.save({f"{'9' * 5000}.conv.weight": torch.zeros(1)}, tmp_path / "odd.pt")
    with pytest.raises(WeightsError, match="no place for 9999"):
        read_published(tmp_path / "odd.pt")


def test_tensors_that_repeat_one_number_are_refused(tmp_path: Path) -> None:
    torch.save({"weight": torch.zeros(1).expand(1 << 20, 1 << 20)}, tmp_path / "huge.pt")
    assert "its tensors claim 1099511627776 numbers" in failure(tmp_path / "huge.pt")


@pytest.mark.parametrize("numel", [0, 1, 2_000, 2**31 - 1])
def test_a_storage_must_be_as_large_as_declared(tmp_path: Path, numel: int) -> None:
    path = tmp_path / "short.pt"
    torch.save({"weight": torch.zeros(1000)}, path)
    entries = entries_of(path)
    program = entries["short/data.pkl"]
    assert program.count(b"M\xe8\x03") == 2  # 1000 numbers, of the storage and of the shape
    entries["short/data.pkl"] = program.replace(b"M\xe8\x03", b"J" + struct.pack("<i", numel), 1)
    write_zip(path, entries)
    assert f"data/0 should have {4 * numel} bytes, it has 4000" in failure(path)


def test_a_storage_of_an_unknown_kind_or_place_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "odd.pt"
    torch.save({"weight": torch.zeros(2)}, path)
    entries = entries_of(path)
    program = entries["odd/data.pkl"]
    assert b"X\x01\x00\x00\x000" in program
    for old, new, expected in (
        (b"X\x01\x00\x00\x000", b"X\x01\x00\x00\x007", "data/7 should have 8 bytes, it has 0"),
        (b"X\x01\x00\x00\x000", b"X\x05\x00\x00\x00../ab", "damaged: data/../ab"),
        (b"FloatStorage", b"ComplexFloatStorage", "asks for torch.ComplexFloatStorage"),
    ):
        changed = entries | {"odd/data.pkl": program.replace(old, new)}
        assert expected in failure(write_zip(path, changed))


def test_entries_that_no_checkpoint_has_are_refused(tmp_path: Path, checkpoint: Path) -> None:
    entries = entries_of(checkpoint)
    root = next(iter(entries)).split("/")[0]
    for name in (f"{root}/../evil", "/etc/evil", "../evil", f"{root}/data/../1", "other/data.pkl"):
        path = write_zip(tmp_path / "evil.pt", entries | {name: b"x"})
        assert "as no checkpoint does" in failure(path)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        with zipfile.ZipFile(tmp_path / "twice.pt", "w") as archive:
            for name, content in [*entries.items(), *entries.items()]:
                archive.writestr(name, content)
    assert "several entries of one name" in failure(tmp_path / "twice.pt")


def test_packed_entries_are_refused_unread(tmp_path: Path) -> None:
    bomb = {"archive/data.pkl": b"\x80\x02}.", "archive/data/0": bytes(50_000_000)}
    path = write_zip(tmp_path / "bomb.pt", bomb, zipfile.ZIP_DEFLATED)
    assert path.stat().st_size < 100_000
    assert "is packed, as torch packs none" in failure(path)


def test_entries_that_claim_more_than_the_file_has_are_refused(checkpoint: Path) -> None:
    content = bytearray(checkpoint.read_bytes())
    place = content.rindex(b"PK\x01\x02")
    content[place + 20 : place + 28] = struct.pack("<II", 2**31, 2**31)
    checkpoint.write_bytes(content)
    assert "its entries claim" in failure(checkpoint)


def test_a_pickle_too_large_is_refused_unread(tmp_path: Path) -> None:
    path = with_program(tmp_path / "large.pt", bytes(17 * 2**20))
    assert "its pickle is larger than 16 MiB" in failure(path)


@pytest.mark.parametrize("kept", [4, 30, 500, -1, -30])
def test_a_truncated_checkpoint_is_named(checkpoint: Path, kept: int) -> None:
    checkpoint.write_bytes(checkpoint.read_bytes()[:kept])
    assert "damaged or cut short" in failure(checkpoint)


@pytest.mark.parametrize(
    ("entries", "expected"),
    [
        pytest.param({"a/constants.pkl": b"", "a/data.pkl": b""}, "a TorchScript", id="script"),
        pytest.param({"a/archive_format": b"pt2"}, "a torch.export archive", id="export"),
        pytest.param({"weight.npy": b""}, "it lacks data.pkl", id="npz"),
        pytest.param(
            {"a/data.pkl": b"\x80\x02}.", "a/byteorder": b"big"},
            "in another order",
            id="big-endian",
        ),
        pytest.param({"a/data.pkl": b"\x80\x02}."}, "it is empty", id="no tensors"),
    ],
)
def test_what_is_no_checkpoint_is_named(
    tmp_path: Path, entries: dict[str, bytes], expected: str
) -> None:
    path = write_zip(tmp_path / "other.pt", entries)
    with pytest.raises(WeightsError, match=expected):
        read_published(path)


def test_what_is_not_a_tensor_is_named(tmp_path: Path) -> None:
    torch.save({"model.0.conv.weight": torch.zeros(1), "lr": 0.1, "note": "x"}, tmp_path / "x.pt")
    assert "it holds lr, note" in failure(tmp_path / "x.pt")


def test_a_file_of_an_old_torch_is_told_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "old.pt"
    torch.save({"a": torch.zeros(1)}, path, _use_new_zipfile_serialization=False)
    assert "save its state_dict() with torch 1.6 or later" in failure(path)
    path.write_bytes(pickle.dumps({"a": 1}))
    assert "older than 1.6" in failure(path)


@pytest.mark.parametrize(
    ("name", "content", "expected"),
    [
        ("a.onnx", b"\x08\x09\x12\x07pytorch" + bytes(99), "an ONNX export"),
        ("a.xml", b'<?xml version="1.0"?><net name="a">', "an OpenVINO export"),
        ("a.bin", bytes(99), "the numbers of an OpenVINO export"),
        ("a.engine", bytes(99), "a TensorRT engine"),
        ("a.dat", b"\x1c\x00\x00\x00TFL3" + bytes(99), "a TensorFlow Lite export"),
        ("a.pt", b"\n<!DOCTYPE html><html>", "a web page"),
        ("a.pt", b"version https://git-lfs.github.com/spec/v1\n", "a Git LFS pointer"),
        ("a.pt", b"", "the file is empty"),
        ("a.pt", bytes(99), "not a safetensors file"),
    ],
)
def test_files_given_by_mistake_are_named(
    tmp_path: Path, name: str, content: bytes, expected: str
) -> None:
    path = tmp_path / name
    path.write_bytes(content)
    assert expected in failure(path)


def test_a_folder_and_a_missing_file_are_named(tmp_path: Path) -> None:
    assert "a folder; name the checkpoint itself" in failure(tmp_path)
    assert "No such file" in failure(tmp_path / "none.pt")


def test_an_int8_artefact_is_ours_already(tmp_path: Path) -> None:
    path, text, numbers = tmp_path / "int8.safetensors", b"<net/>", b"12"
    save_artefact(path, text, numbers, make_quantised_card(text, numbers))
    assert "an int8 artefact of sightline export, which runs as it is" in failure(path)


def test_an_opaque_object_does_nothing_with_what_it_is_given() -> None:
    thing = Opaque(1, "a")
    thing.__setstate__((1, 2))
    assert thing.attribute("__class__") is None
    thing.__setstate__({"names": ["a"]})
    assert thing.attribute("names") == ["a"]


def outcomes(contents: list[bytes], path: Path) -> tuple[int, int]:
    """How many of these contents were read and how many refused; anything else fails."""
    errors = []
    for content in contents:
        path.write_bytes(content)
        try:
            read_contents(path)
        except WeightsError as error:
            errors.append(str(error))
    assert all(text.isprintable() for text in errors)
    return len(contents) - len(errors), len(errors)


def damaged(content: bytes, chance: random.Random) -> bytes:
    changed = bytearray(content)
    for _ in range(chance.randint(1, 4)):
        changed[chance.randrange(len(changed))] = chance.randrange(256)
    return bytes(changed)


def test_damaged_files_are_read_or_refused(checkpoint: Path, tmp_path: Path) -> None:
    chance, content = random.Random(0), checkpoint.read_bytes()
    read, refused = outcomes([damaged(content, chance) for _ in range(400)], tmp_path / "x.pt")
    assert read > 0
    assert refused > 100


def test_damaged_pickles_in_whole_files_are_read_or_refused(
    checkpoint: Path, tmp_path: Path
) -> None:
    chance, entries = random.Random(1), entries_of(checkpoint)
    name = next(name for name in entries if name.endswith("data.pkl"))
    contents = []
    for _ in range(400):
        whole = io.BytesIO()
        with zipfile.ZipFile(whole, "w") as archive:
            for entry, content in entries.items():
                archive.writestr(entry, damaged(content, chance) if entry == name else content)
        contents.append(whole.getvalue())
    read, refused = outcomes(contents, tmp_path / "x.pt")
    assert read > 0
    assert refused > 100


def test_a_checkpoint_read_is_containers_tensors_and_opaque_objects(checkpoint: Path) -> None:
    tree = read_pickle(checkpoint)
    assert type(tree) is dict
    assert type(tree["model"]) is Opaque
    assert tree["ema"] is None
