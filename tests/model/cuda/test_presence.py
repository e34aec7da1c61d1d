# SPDX-License-Identifier: Apache-2.0
"""What is said of a machine's GPU, with a driver that is played."""

import re
from collections.abc import Iterator
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import pytest

from model.cuda import presence


class PlayedDriver:
    """CUDA's driver as far as it is asked."""

    def __init__(self, num_devices: int, error: int = 0) -> None:
        self.num_devices, self.error = num_devices, error

    def cuInit(self, flags: int) -> int:  # noqa: N802 - its name
        assert flags == 0
        return self.error

    def cuDeviceGetCount(self, count: Any) -> int:  # noqa: N802 - its name
        count._obj.value = self.num_devices
        return 0


@pytest.fixture(autouse=True)
def _asked_anew() -> Iterator[None]:
    presence.ask_driver.cache_clear()
    yield
    presence.ask_driver.cache_clear()


def play(monkeypatch: pytest.MonkeyPatch, driver: PlayedDriver | None) -> None:
    def load(name: str) -> PlayedDriver:
        assert name == "libcuda.so.1"
        if driver is None:
            raise OSError("no such file")
        return driver

    monkeypatch.setattr("ctypes.CDLL", load)


def play_packages(monkeypatch: pytest.MonkeyPatch, folder: Path, cuda: str, *, cupy: bool) -> None:
    """Torch with such a note of what it was built for, and CuPy or none."""
    (folder / "version.py").write_text(f"cuda: Optional[str] = {cuda}\nhip: Optional[str] = '6'\n")
    specs = {"torch": ModuleSpec("torch", None, origin=str(folder / "__init__.py"))}
    if cupy:
        specs["cupy"] = ModuleSpec("cupy", None)
    monkeypatch.setattr(presence, "find_spec", specs.get)


@pytest.mark.parametrize(
    ("driver", "said"),
    [
        (None, r"its driver \(libcuda\.so\.1\) is not on this machine"),
        (PlayedDriver(0, error=100), "finds none: error 100 of CUDA"),
        (PlayedDriver(0), "counts none"),
    ],
    ids=["no driver", "no device", "none counted"],
)
def test_a_machine_without_a_gpu_says_what_was_looked_for(
    monkeypatch: pytest.MonkeyPatch, driver: PlayedDriver | None, said: str
) -> None:
    play(monkeypatch, driver)
    assert presence.num_devices() == 0
    lacking = presence.what_lacks()
    assert lacking is not None
    assert lacking.startswith("an NVIDIA GPU, and ")
    assert re.search(said, lacking)


def test_the_driver_is_asked_once(monkeypatch: pytest.MonkeyPatch) -> None:
    play(monkeypatch, PlayedDriver(3))
    assert presence.num_devices() == 3
    play(monkeypatch, None)
    assert presence.num_devices() == 3


@pytest.mark.parametrize(
    ("cuda", "cupy", "said"),
    [("'13.0'", True, None), ("None", True, "torch with CUDA"), ("'13.0'", False, "extra: gpu")],
    ids=["all there", "torch for processors", "no cupy"],
)
def test_a_gpu_alone_is_not_enough(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, cuda: str, cupy: bool, said: str | None
) -> None:
    play(monkeypatch, PlayedDriver(1))
    play_packages(monkeypatch, tmp_path, cuda, cupy=cupy)
    lacking = presence.what_lacks()
    if said is None:
        assert lacking is None
    else:
        assert lacking is not None
        assert said in lacking


def test_this_torch_is_read_as_it_says_itself() -> None:
    import torch

    assert presence._torch_is_for_cuda() == (torch.version.cuda is not None)
