# SPDX-License-Identifier: Apache-2.0
"""The processor that stands for a GPU sees the faults it is there to see."""

import ctypes
from pathlib import Path

import numpy as np
import pytest

from model.cuda.looks import LOOK, describe
from model.cuda.source import letterbox_launch
from tests.model.cuda.coded_pictures import make_shot
from tests.model.cuda.host_kernels import HostMachine, build_host

CANVAS_HW = (32, 48)


def test_a_thread_that_leaves_before_a_barrier_is_seen(library: ctypes.CDLL) -> None:
    assert library.host_leaves_early() == 1


def test_a_missing_barrier_shows_in_another_order(library: ctypes.CDLL) -> None:
    assert len({library.host_does_not_wait(ctypes.c_uint(seed)) for seed in (0, 1, 7)}) > 1


@pytest.mark.parametrize(
    ("changed", "by"), [("origin", 64), ("height", 1), ("width", 64), ("down", 64)]
)
def test_an_address_beside_the_picture_is_seen(host: HostMachine, changed: str, by: int) -> None:
    shot = make_shot("nv12", (64, 64))
    look = describe(shot.coded, host.put(shot.pixels), shot.region, CANVAS_HW, 0)
    look[changed][1:] += by
    with pytest.raises(AssertionError, match="addresses out of bounds"):
        letterbox(host, look, np.empty((3, *CANVAS_HW), np.float32))


def test_a_place_written_to_twice_is_seen(host: HostMachine) -> None:
    with pytest.raises(AssertionError, match="stored twice"):
        letterbox(host, np.zeros((), LOOK)[()], np.empty((3, *CANVAS_HW), np.float32), channel=0)


def letterbox(
    host: HostMachine, look: np.void, canvas: np.ndarray, channel: int = CANVAS_HW[0] * CANVAS_HW[1]
) -> None:
    height, width = CANVAS_HW
    to = host.put_for_writing(canvas)
    launch = letterbox_launch(1, CANVAS_HW)
    args = (host.put(np.array([look])), to, width, height, 0, channel, width, 1)
    try:
        host.launch("letterbox_batch", launch.grid, launch.block, args, OUT=0)
    finally:
        host.get(to)


def test_a_missing_compiler_is_an_error_where_one_is_required(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("CXX", "no-such-compiler")
    monkeypatch.delenv("REQUIRE_COMPILER", raising=False)
    with pytest.raises(pytest.skip.Exception, match="no C\\+\\+ compiler"):
        build_host(tmp_path)
    monkeypatch.setenv("REQUIRE_COMPILER", "1")
    with pytest.raises(pytest.fail.Exception, match="REQUIRE_COMPILER=1"):
        build_host(tmp_path)
