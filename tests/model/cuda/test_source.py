# SPDX-License-Identifier: Apache-2.0
"""The kernels' texts say what Python takes them to say, and a GPU's compiler takes them."""

import re
import shutil
import subprocess
from importlib.resources import files
from pathlib import Path

import numpy as np
import pytest

from model.cuda.device import KernelName
from model.cuda.source import (
    ARGUMENTS,
    FOUND_HEAD,
    FOUND_ROW,
    MOST_BOXES,
    PARTS,
    TILE,
    kernel_source,
    kernel_version,
    letterbox_launch,
    suppress_launch,
)

KERNELS: tuple[KernelName, ...] = ("letterbox_batch", "suppress_ranked")
TYPES = {"int": np.int32, "long long": np.int64, "float": np.float32}


def defined(text: str, name: str) -> int:
    (value,) = re.findall(rf"^#define {name} (\d+)\b", text, re.MULTILINE)
    return int(value)


@pytest.mark.parametrize("kernel", KERNELS)
def test_arguments_are_the_texts(kernel: KernelName) -> None:
    text = re.sub(r"//.*", "", kernel_source(kernel))
    ((name, parameters),) = re.findall(
        r'extern "C" __global__ void __launch_bounds__\([^)]+\) (\w+)\(([^)]*)\)', text
    )
    assert name == kernel
    kinds = [
        np.uint64 if "*" in parameter else TYPES[parameter.rsplit(maxsplit=1)[0].strip()]
        for parameter in parameters.split(",")
    ]
    assert tuple(kinds) == ARGUMENTS[kernel]


def test_sizes_are_the_texts() -> None:
    preprocess, suppress = map(kernel_source, KERNELS)
    tile = defined(preprocess, "TILE_W"), defined(preprocess, "TILE_H")
    assert tile == (TILE, TILE)
    assert letterbox_launch(5, (33, 640)).grid == (20, 2, 5)
    assert letterbox_launch(1, (1, 1)).block == (TILE, defined(preprocess, "THREADS_Y"), 1)
    assert suppress_launch(7).grid == (7, 1, 1)
    assert suppress_launch(7).block == (defined(suppress, "BLOCK"), 1, 1)
    assert (defined(suppress, "HEAD"), defined(suppress, "ROW")) == (FOUND_HEAD, FOUND_ROW)


def test_a_text_needs_no_other() -> None:
    for kernel in KERNELS:
        assert "#include" not in kernel_source(kernel)


def test_the_version_is_that_of_the_texts(monkeypatch: pytest.MonkeyPatch) -> None:
    before = kernel_version()
    kernel_version.cache_clear()
    monkeypatch.setitem(PARTS, "suppress_ranked", ("look.h",))
    assert kernel_version() != before
    kernel_version.cache_clear()


def test_the_texts_are_packaged() -> None:
    names = {each.name for each in (files("model.cuda") / "kernels").iterdir()}
    assert {"machine.h", "look.h", "preprocess.cu", "suppress.cu"} <= names


@pytest.mark.parametrize(
    ("kernel", "define", "targets"),
    [
        ("letterbox_batch", "-DOUT=1", (75, 80, 90)),
        ("letterbox_batch", "-DOUT=0", (90,)),
        ("letterbox_batch", "-DOUT=2", (90,)),
        ("suppress_ranked", f"-DMAX_BOXES={MOST_BOXES}", (75, 80, 90)),
    ],
)
def test_nvcc_takes_the_kernels_and_spills_nothing(
    kernel: KernelName, define: str, targets: tuple[int, ...], tmp_path: Path
) -> None:
    """For Turing, Ampere and Hopper; with 80 registers or fewer, three blocks share a processor."""
    nvcc = shutil.which("nvcc")
    if nvcc is None:
        pytest.skip("no nvcc")
    source = tmp_path / f"{kernel}.cu"
    source.write_text(kernel_source(kernel))
    command = [
        *(nvcc, "-std=c++17", "-fatbin", "-Xptxas", "-v", define),
        *(f"-gencode=arch=compute_{target},code=sm_{target}" for target in targets),
        *(str(source), "-o", str(source.with_suffix(".fatbin"))),
    ]
    ran = subprocess.run(command, capture_output=True, text=True, check=False)
    assert ran.returncode == 0, ran.stderr
    registers = [int(count) for count in re.findall(r"Used (\d+) registers", ran.stderr)]
    assert len(registers) == len(targets)
    assert max(registers) <= 80
    assert set(re.findall(r"(\d+) bytes (?:stack frame|spill)", ran.stderr)) == {"0"}
