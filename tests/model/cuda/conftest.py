# SPDX-License-Identifier: Apache-2.0
"""What tests of the GPU path may ask for: the kernels, on this processor and on a GPU."""

import ctypes
from pathlib import Path

import pytest

from model.config import Suppression
from model.cuda.plan import EnginePlan, GpuWanted
from tests.model.cuda.host_kernels import HostMachine, build_host
from tests.model.cuda.kernels import Kernels


@pytest.fixture(scope="session")
def library(tmp_path_factory: pytest.TempPathFactory) -> ctypes.CDLL:
    """The kernels compiled for this processor."""
    return build_host(tmp_path_factory.mktemp("kernels"))


@pytest.fixture(scope="session")
def host(library: ctypes.CDLL) -> HostMachine:
    return HostMachine(library)


@pytest.fixture(
    scope="session", params=["host", pytest.param("cuda", marks=pytest.mark.needs_cuda)]
)
def kernels(request: pytest.FixtureRequest) -> Kernels:
    """The kernels on each machine there is."""
    if request.param == "host":
        return Kernels(request.getfixturevalue("host"))
    pytest.importorskip("cupy")
    from tests.model.cuda.cuda_machine import CudaMachine, open_device

    return Kernels(CudaMachine(open_device()))


@pytest.fixture
def plan(weights: Path) -> EnginePlan:
    """A small engine."""
    return EnginePlan(
        weights=weights,
        canvas_hw=(32, 96),
        looks=1,
        number_format="f32",
        gpu=GpuWanted(
            device=0,
            how="auto",
            batch_sizes=(1, 2, 4),
            in_flight=2,
            window_ms=0.0,
            file_batch=2,
            arena_mib=1,
            suppression=Suppression(min_score=0.3, max_iou=0.3, max_boxes=20),
            class_ids=None,
        ),
    )
