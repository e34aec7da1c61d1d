# SPDX-License-Identifier: Apache-2.0
"""What tests of the GPU path may ask for: the kernels, on this processor and on a GPU."""

import ctypes

import pytest

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
