# SPDX-License-Identifier: Apache-2.0
"""What `doctor` says of a GPU, here and where the driver is played."""

import sys
from types import ModuleType, SimpleNamespace
from typing import Any

import av
import pytest

from model.cuda.presence import Driver
from pipeline import gpu_findings as findings


@pytest.fixture
def _no_gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "ask_driver", lambda: Driver(0, "its driver is away"))
    monkeypatch.setattr(findings, "num_devices", lambda: 0)


@pytest.fixture
def _gpu(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "ask_driver", lambda: Driver(2, ""))
    monkeypatch.setattr(findings, "num_devices", lambda: 2)


@pytest.mark.usefixtures("_no_gpu")
def test_without_a_gpu_nothing_is_tried(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cupy", None)  # importing it would raise
    monkeypatch.setattr(findings, "importable", lambda _: True)
    monkeypatch.setattr(findings, "hardware_fault", None)
    found = [findings.cuda(), findings.cupy(), findings.kernels(), findings.nvdec()]
    assert {(one.present, one.optional) for one in found} == {(False, True)}
    assert found[0].detail == "no NVIDIA GPU: its driver is away; the CPU does the work"
    assert all("not tried" in one.detail for one in found[1:])


@pytest.mark.usefixtures("_gpu")
def test_what_lacks_beside_a_gpu_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(findings, "what_lacks", lambda: "CuPy (extra: gpu)")
    assert findings.cuda().detail.endswith("needs CuPy (extra: gpu)")
    monkeypatch.setattr(findings, "importable", lambda _: False)
    assert "extra: gpu" in findings.cupy().detail


@pytest.mark.usefixtures("_gpu")
def test_of_several_gpus_it_is_said_that_all_are_used(monkeypatch: pytest.MonkeyPatch) -> None:
    card = SimpleNamespace(name="H200", total_memory=140 << 30)
    played: Any = ModuleType("torch")
    played.cuda = SimpleNamespace(get_device_properties=lambda _: card)
    played.version = SimpleNamespace(cuda="13.0")
    monkeypatch.setitem(sys.modules, "torch", played)
    monkeypatch.setattr(findings, "what_lacks", lambda: None)
    found = findings.cuda()
    assert found.present
    assert found.detail == (
        "H200 (140 GiB), H200 (140 GiB); CUDA 13.0: --engine cuda runs on all of them "
        "(gpu.devices), each stream on one"
    )


@pytest.mark.usefixtures("_gpu")
def test_a_cupy_that_finds_no_gpu_is_not_present(monkeypatch: pytest.MonkeyPatch) -> None:
    played = ModuleType("cupy")
    played.__version__ = "14.2"
    played.cuda = ModuleType("cupy.cuda")
    played.cuda.is_available = lambda: False
    monkeypatch.setitem(sys.modules, "cupy", played)
    monkeypatch.setattr(findings, "importable", lambda _: True)
    found = findings.cupy()
    assert (found.present, found.detail) == (False, "14.2, which finds no GPU")


@pytest.mark.usefixtures("_gpu")
@pytest.mark.parametrize("fault", [None, "NVDEC gave way to yuv420p"])
def test_a_decoder_is_told_by_its_frames(
    monkeypatch: pytest.MonkeyPatch, fault: str | None
) -> None:
    monkeypatch.setattr(findings, "hardware_fault", lambda: fault)
    found = findings.nvdec()
    assert found.present == (fault is None)
    assert found.detail == (
        "decodes H.264 on the GPU" if fault is None else f"{fault}; the CPU decodes"
    )


def test_what_is_tried_on_a_decoder_is_a_picture_in_h264() -> None:
    decoder = av.CodecContext.create("h264", "r")
    packets = findings.grey_keyframe()
    frames = [frame for packet in (*packets, None) for frame in decoder.decode(packet)]
    assert packets[0].is_keyframe
    assert [(frame.width, frame.height, frame.format.name) for frame in frames] == [
        (256, 256, "yuv420p")
    ]


def test_a_decoder_that_is_not_there_is_said_in_one_line() -> None:
    from model.cuda.presence import num_devices

    if num_devices():
        pytest.skip("this machine has a GPU")
    fault = findings.hardware_fault()
    assert fault is not None
    assert fault.startswith("NVDEC ")
    assert "\n" not in fault
