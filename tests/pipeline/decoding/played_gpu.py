# SPDX-License-Identifier: Apache-2.0
"""A GPU that decodes and looks in whichever process its engines are built, played there."""

import os
from functools import cached_property
from pathlib import Path
from typing import Any

from pipeline.decoding import hardware
from tests.model.cuda.host_device import HostDevice
from tests.pipeline.decoding.played_nvdec import PlayedNvdec
from tests.pipeline.planned import PlannedGpu


class PlayedGpu:
    """Stands in for `model.engines.build_engine`; where it is unpickled, NVDEC is played, too."""

    def __init__(self, notes: Path) -> None:
        """Have each process write there how many pictures its engines read on the device."""
        self.notes = notes

    def __reduce__(self) -> tuple[Any, ...]:
        return _in_this_process, (self.notes,)

    @cached_property
    def device(self) -> HostDevice:
        """Made when it is first asked for: not in a process that others are forked from."""
        return HostDevice(None)

    def __call__(self, _: Any, **how: Any) -> PlannedGpu:
        return _Noting(how["image_hw"], how["batch"], how["gpu"], device=self.device, gpu=self)

    def num_read_there(self) -> int:
        """Pictures that were read on the device, in all processes that have ended in order."""
        return sum(int(note.read_text()) for note in self.notes.iterdir())


class _Noting(PlannedGpu):
    def __init__(self, *how: Any, gpu: PlayedGpu, **more: Any) -> None:
        super().__init__(*how, **more)
        self._gpu = gpu

    def close(self) -> None:
        super().close()
        (self._gpu.notes / str(os.getpid())).write_text(str(self.num_read_there))


def _in_this_process(notes: Path) -> PlayedGpu:
    gpu = PlayedGpu(notes)
    hardware.HWAccel = lambda *_, **__: None  # type: ignore[assignment,misc]
    hardware.open_on_device = lambda parameters, _: PlayedNvdec(parameters, gpu.device)  # type: ignore[assignment]
    return gpu
