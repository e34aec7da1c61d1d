# SPDX-License-Identifier: Apache-2.0
"""Which memory a device may copy from, and until when."""

import logging

import numpy as np
import pytest

from model.cuda.hostmemory import HostMemory
from tests.model.cuda.host_device import HostDevice


def make_pools(count: int) -> list[np.ndarray]:
    """Pools that lie one behind the other, with a gap between them."""
    memory = np.zeros((count, 2, 100), np.uint8)
    return [each[0] for each in memory]


def test_a_slot_of_a_registered_pool_is_read_where_it_lies() -> None:
    memory = HostMemory(HostDevice(None))
    pools = make_pools(3)
    for pool in (pools[2], pools[0], pools[1]):
        assert memory.register(pool)
    for pool in pools:
        assert memory.borrow(pool[10:60]) is not None
        assert memory.borrow(pool) is not None
    assert memory.num_staged == 0


def test_what_is_not_registered_or_only_in_part_is_staged_and_counted() -> None:
    memory = HostMemory(HostDevice(None))
    room = np.zeros(300, np.uint8)
    memory.register(room[100:200])
    for pixels in (room[:50], room[99:110], room[190:201], room[250:]):
        assert memory.borrow(pixels) is None
    assert memory.num_staged == 4


def test_what_is_forgotten_stays_registered_until_its_last_reader_ends() -> None:
    device = HostDevice(None)
    memory = HostMemory(device)
    first, second = make_pools(2)
    memory.register(first)
    memory.register(second)
    spans = [memory.borrow(first), memory.borrow(first)]
    memory.forget(first)
    for span in spans:
        assert first.ctypes.data in device.registered
        assert span is not None
        memory.give_back(span)
    assert list(device.registered) == [second.ctypes.data]
    assert memory.borrow(first) is None


def test_what_nobody_reads_is_unregistered_at_once() -> None:
    device = HostDevice(None)
    memory = HostMemory(device)
    first, second = make_pools(2)
    memory.register(first)
    memory.register(second)
    memory.forget(first)
    assert list(device.registered) == [second.ctypes.data]
    memory.forget(first)
    memory.close()
    assert not device.registered


def test_a_refusal_is_said_once(caplog: pytest.LogCaptureFixture) -> None:
    device = HostDevice(None)
    device.refuses_to_register = True
    memory = HostMemory(device)
    with caplog.at_level(logging.WARNING):
        assert [memory.register(pool) for pool in make_pools(2)] == [False, False]
    (said,) = caplog.messages
    assert said.startswith("host: cannot read host memory by itself")


def test_all_engines_on_a_device_share_one_and_another_device_has_its_own() -> None:
    device = HostDevice(None)
    memory = HostMemory.shared(device)
    assert HostMemory.shared(device) is memory
    assert HostMemory.shared(HostDevice(None)) is not memory
