# SPDX-License-Identifier: Apache-2.0
"""Slots on a device whose work ends when the test says so."""

import gc
from collections.abc import Iterator
from itertools import pairwise

import numpy as np
import pytest

from model.cuda.coded import DeviceArray
from model.cuda.device import OutOfDeviceMemory
from model.errors import EngineError
from pipeline.errors import PipelineError
from pipeline.transport.devicepool import DeviceLease, DevicePool
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.pool import SlotGone
from tests.model.cuda.host_device import HostDevice
from tests.pipeline.transport.rig import TIMEOUT_S, UINT8, Rig

NUM_BYTES = 1000


class ByHand:
    """An event that the test ends."""

    def __init__(self) -> None:
        self.ended = False
        self.broken = False

    def record(self, _: object) -> None:
        raise AssertionError("the test records nothing")

    def happened(self) -> bool:
        if self.broken:
            raise EngineError("the device is gone")
        return self.ended

    def synchronize(self) -> None:
        raise AssertionError("nobody waits for this event")


@pytest.fixture
def device() -> HostDevice:
    return HostDevice(None)


@pytest.fixture
def pools() -> Iterator[Pools]:
    desk = PoolDesk()
    yield Pools(desk)
    desk.close()


def make(pools: Pools, device: HostDevice, count: int = 2) -> DevicePool:
    return pools.gpu.create(device, "yard/surfaces", NUM_BYTES, count)


def leased(pool: DevicePool) -> DeviceLease:
    lease = pool.lease()
    assert lease is not None
    return lease


def given(pools: Pools, lease: DeviceLease, num_readers: int = 1) -> DeviceArray:
    """A slot in the hands of its readers."""
    lease.publish(num_readers)
    seen = pools.pixels(lease.slot)
    assert isinstance(seen, DeviceArray)
    return seen


def read_by(array: DeviceArray) -> ByHand:
    """One more reader's event."""
    event = ByHand()
    assert array.lender is not None
    array.lender.read_until(event)
    return event


def test_readers_are_told_where_a_slot_is_and_when_it_is_written(
    pools: Pools, device: HostDevice
) -> None:
    pool = make(pools, device, 3)
    leases = [leased(pool) for _ in range(3)]
    written = [ByHand() for _ in leases]
    for lease, event in zip(leases, written, strict=True):
        lease.written(event)
    seen = [given(pools, lease) for lease in leases]
    assert [array.ready for array in seen] == written
    assert [(array.num_bytes, array.device) for array in seen] == [(NUM_BYTES, 0)] * 3
    places = sorted(array.address for array in seen)
    assert all(place % 64 == 0 for place in places)
    assert all(after - before >= NUM_BYTES for before, after in pairwise(places))
    assert leases[0].slot.shape == (NUM_BYTES,)


@pytest.mark.parametrize("first", ["acknowledged", "read"])
def test_a_slot_is_free_once_it_is_acknowledged_and_read(
    pools: Pools, device: HostDevice, first: str
) -> None:
    pool = make(pools, device, 1)
    lease = leased(pool)
    event = read_by(given(pools, lease))
    if first == "acknowledged":
        lease.release(0)
    else:
        event.ended = True
    assert pool.lease() is None
    assert pool.num_held == 1
    if first == "acknowledged":
        event.ended = True
    else:
        lease.release(0)
    assert pool.num_held == 0
    assert leased(pool).slot.generation == lease.slot.generation + 1


def test_every_reader_of_a_slot_counts(pools: Pools, device: HostDevice) -> None:
    """As two models may look at a frame when one of them has failed at it."""
    pool = make(pools, device, 1)
    lease = leased(pool)
    array = given(pools, lease)
    earlier, later = read_by(array), read_by(array)
    lease.release(0)
    later.ended = True
    assert pool.lease() is None
    earlier.ended = True
    assert pool.lease() is not None


def test_a_slot_that_is_read_keeps_no_other_from_being_leased(
    pools: Pools, device: HostDevice
) -> None:
    pool = make(pools, device, 2)
    first = leased(pool)
    event = read_by(given(pools, first))
    first.release(0)
    assert leased(pool).slot.index != first.slot.index
    assert pool.lease() is None
    event.ended = True
    assert leased(pool).slot.index == first.slot.index


def test_what_nobody_read_is_free_when_it_is_acknowledged(pools: Pools, device: HostDevice) -> None:
    """It is written again by the same stream, after what is still being written."""
    pool = make(pools, device, 1)
    lease = leased(pool)
    lease.written(ByHand())
    given(pools, lease)
    lease.release(0)
    assert pool.lease() is not None


def test_a_slot_that_was_used_again_is_not_shown(pools: Pools, device: HostDevice) -> None:
    pool = make(pools, device, 1)
    early = leased(pool)
    early.cancel()
    leased(pool)
    with pytest.raises(PipelineError, match="it was released too early"):
        pools.pixels(early.slot)


def test_a_stage_waits_for_a_reader_that_tells_nobody(rig: Rig, device: HostDevice) -> None:
    """No message says that an event has happened."""
    ports = rig.ports("decode")
    pool = make(rig.pools, device, 1)
    lease = leased(pool)
    event = read_by(given(rig.pools, lease))
    lease.release(0)
    leasing = rig.begin(ports.lease, pool)
    with pytest.raises(TimeoutError):
        leasing.result(0.05)
    event.ended = True
    assert leasing.result(TIMEOUT_S).slot.index == 0


def test_memory_that_is_not_there_is_an_error(pools: Pools) -> None:
    small = HostDevice(None, room_bytes=3 * NUM_BYTES)
    with pytest.raises(OutOfDeviceMemory):
        make(pools, small, 4)
    make(pools, small, 1)


def test_memory_goes_when_a_pool_is_given_up_and_all_that_is_on_its_way_has_ended(
    pools: Pools, device: HostDevice
) -> None:
    pool = make(pools, device, 2)
    lease, other = leased(pool), leased(pool)
    written = ByHand()
    other.written(written)
    event = read_by(given(pools, lease))
    name, slot = pool.name, lease.slot
    del pool, lease, other
    pools.discard(name)
    with pytest.raises(SlotGone):
        pools.pixels(slot)
    for end in (event, written):
        gc.collect()
        assert device.used_bytes > 0
        end.ended = True
        pools.forget("door/")  # whoever comes by
    gc.collect()
    assert device.used_bytes == 0


def test_a_request_that_waits_keeps_its_picture_without_the_pool(
    pools: Pools, device: HostDevice
) -> None:
    array = given(pools, leased(make(pools, device)))
    pools.forget("yard/")
    gc.collect()
    assert device.used_bytes > 0
    event = read_by(array)
    event.ended = True
    del array
    gc.collect()
    assert device.used_bytes == 0


def test_a_stream_that_is_over_takes_its_pools_with_it(pools: Pools, device: HostDevice) -> None:
    for _ in range(2):
        make(pools, device)
    pools.gpu.create(device, "door/surfaces", NUM_BYTES, 1)
    pools.create("yard/images", (1,), UINT8, 1)
    before = device.used_bytes
    pools.forget("yard/")
    gc.collect()
    assert 0 < device.used_bytes < before / 2
    pools.forget_all()
    gc.collect()
    assert device.used_bytes == 0


def test_a_device_that_is_gone_keeps_no_memory_and_ends_no_supervisor(
    pools: Pools, device: HostDevice
) -> None:
    pool = make(pools, device)
    event = read_by(given(pools, leased(pool)))
    event.broken = True
    del pool
    pools.forget_all()
    gc.collect()
    assert device.used_bytes == 0


def test_slots_of_the_host_are_seen_as_ever(pools: Pools) -> None:
    lease = pools.create("yard/images", (4,), UINT8, 1).lease()
    assert lease is not None
    lease.array[...] = 5
    lease.publish(1)
    seen = pools.pixels(lease.slot)
    assert isinstance(seen, np.ndarray)
    assert seen.tolist() == [5] * 4


def test_nobody_has_slots_on_a_device_that_no_engine_reads(
    pools: Pools, device: HostDevice
) -> None:
    pools.gpu.offer(None)
    assert pools.gpu.device(0) is None
    pools.gpu.offer(device)
    assert pools.gpu.device(0) is device
    assert pools.gpu.device(1) is None
