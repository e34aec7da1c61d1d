import errno
import gc
import mmap
import os
import resource
import threading
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import Bundle, RuleBasedStateMachine, consumes, invariant, rule

from pipeline.errors import PipelineError
from pipeline.transport.memory import PoolDesk, Pools
from pipeline.transport.pool import Lease, Pool, SlotGone
from tests.pipeline.transport.rig import UINT8, leased


@pytest.fixture
def desk() -> Iterator[PoolDesk]:
    desk = PoolDesk()
    yield desk
    desk.close()


@pytest.fixture
def pools(desk: PoolDesk) -> Pools:
    return Pools(desk)


def descriptors() -> int:
    gc.collect()
    return len(list(Path("/proc/self/fd").iterdir()))


def test_what_was_written_is_read(pools: Pools) -> None:
    pool = pools.create("yard/images", (3, 5), np.dtype(np.float32), 2)
    lease = leased(pool)
    lease.array[...] = np.arange(15).reshape(3, 5)
    lease.publish(1)
    seen = pools.view(lease.slot)
    np.testing.assert_array_equal(seen, np.arange(15).reshape(3, 5))
    assert (seen.dtype, lease.slot.shape) == (np.float32, (3, 5))


def test_no_slot_lies_on_another(pools: Pools) -> None:
    pool = pools.create("yard/images", (mmap.PAGESIZE + 1,), UINT8, 300)
    leases = [leased(pool, value % 251) for value in range(300)]
    for value, lease in enumerate(leases):
        assert (lease.array == value % 251).all()
    assert pool.num_held == 300


def test_what_another_process_reads_is_the_slot_and_no_copy_of_it(desk: PoolDesk) -> None:
    """Two processes map a pool each for themselves."""
    writer, reader = Pools(desk), Pools(desk)
    lease = leased(writer.create("yard/images", (4,), UINT8, 1), 1)
    lease.publish(1)
    seen = reader.view(lease.slot)
    assert not np.shares_memory(seen, lease.array)
    lease.pool._array(0)[...] = 9
    assert seen.tolist() == [9] * 4


def test_a_published_slot_is_read_only_for_everyone(pools: Pools) -> None:
    lease = leased(pools.create("yard/images", (4,), UINT8, 1))
    lease.publish(1)
    for array in (lease.array, pools.view(lease.slot)):
        with pytest.raises(ValueError, match="read-only"):
            array[0] = 1


def test_where_all_slots_are_held_there_is_no_lease(pools: Pools) -> None:
    pool = pools.create("yard/images", (4,), UINT8, 2)
    first, _ = leased(pool), leased(pool)
    assert pool.lease() is None
    first.cancel()
    assert pool.num_held == 1
    assert pool.lease() is not None


def test_a_slot_without_readers_is_free_at_once(pools: Pools) -> None:
    pool = pools.create("yard/images", (4,), UINT8, 1)
    leased(pool).publish(0)
    assert pool.num_held == 0
    assert pool.lease() is not None


def test_the_last_of_its_readers_frees_a_slot(pools: Pools) -> None:
    pool = pools.create("yard/images", (4,), UINT8, 1)
    lease = leased(pool)
    lease.publish(3)
    for reader in (1, 0):
        lease.release(reader)
        assert pool.lease() is None
    lease.release(2)
    assert pool.lease() is not None


@pytest.mark.parametrize("late", ["release", "cancel", "publish"])
def test_nobody_lets_go_of_a_slot_twice(pools: Pools, late: str) -> None:
    lease = leased(pools.create("yard/images", (4,), UINT8, 2))
    lease.publish(1)
    lease.release(0)
    calls = {
        "release": lambda: lease.release(0),
        "cancel": lease.cancel,
        "publish": lambda: lease.publish(1),
    }
    with pytest.raises(AssertionError, match="let go of the slot before"):
        calls[late]()
    assert len(lease.pool._free) == 2


def test_an_old_lease_has_no_say_over_the_next_use_of_its_slot(pools: Pools) -> None:
    pool = pools.create("yard/images", (4,), UINT8, 1)
    old = leased(pool)
    old.publish(1)
    old.release(0)
    new = leased(pool)
    new.publish(1)
    with pytest.raises(AssertionError, match="used again"):
        old.release(0)
    assert pool.num_held == 1


def test_a_slot_that_was_used_again_is_refused(pools: Pools) -> None:
    pool = pools.create("yard/images", (4,), UINT8, 1)
    old = leased(pool)
    old.publish(1)
    old.release(0)
    leased(pool)
    with pytest.raises(PipelineError, match="holds generation 2, wanted 1; it was released too"):
        pools.view(old.slot)


def test_a_discarded_pool_is_gone_but_arrays_on_it_stay_readable(pools: Pools) -> None:
    lease = leased(pools.create("yard/images", (4,), UINT8, 1), 7)
    other = leased(pools.create("yard-2/images", (4,), UINT8, 1), 8)
    lease.publish(1)
    other.publish(1)
    seen = pools.view(lease.slot)
    pools.discard("yard/")
    with pytest.raises(SlotGone, match="pool yard/images is gone"):
        pools.view(lease.slot)
    assert seen.tolist() == [7] * 4
    assert pools.view(other.slot).tolist() == [8] * 4
    lease.release(0)


def test_a_second_pool_of_a_name_is_another_pool(desk: PoolDesk, pools: Pools) -> None:
    first = leased(pools.create("yard/images", (4,), UINT8, 1), 1)
    second = leased(pools.create("yard/images", (2,), UINT8, 1), 2)
    third = pools.create("yard/images", (3,), UINT8, 1)
    assert len({first.slot.pool, second.slot.pool, third.name}) == 3
    assert pools.view(first.slot).tolist() == [1] * 4
    assert pools.view(second.slot).tolist() == [2] * 2
    pools.discard("yard/")
    assert desk.num_bytes == 0


def test_pools_made_at_the_same_time_have_names_of_their_own(desk: PoolDesk, pools: Pools) -> None:
    made: list[Pool] = []
    threads = [
        threading.Thread(target=lambda: made.append(pools.create("p", (1,), UINT8, 1)))
        for _ in range(16)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len({pool.name for pool in made}) == 16
    assert desk.num_bytes == sum(pool.file.num_bytes for pool in made)


def test_the_memory_is_there_before_it_is_used(desk: PoolDesk, pools: Pools) -> None:
    pool = pools.create("yard/images", (1 << 20,), UINT8, 4)
    descriptor = desk.open(pool.name).descriptor
    assert os.fstat(descriptor).st_blocks * 512 >= 4 << 20
    os.close(descriptor)
    assert desk.num_bytes >= 4 << 20


def refuse(*_: object) -> None:
    raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))


@pytest.mark.parametrize("call", ["os.memfd_create", "os.posix_fallocate", "mmap.mmap"])
def test_a_pool_that_cannot_be_had_is_one_line(
    desk: PoolDesk, pools: Pools, call: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    before = descriptors()
    monkeypatch.setattr(call, refuse)
    with pytest.raises(PipelineError, match="pool yard/images: cannot reserve 8 MiB") as caught:
        pools.create("yard/images", (1 << 20,), UINT8, 8)
    assert "\n" not in str(caught.value)
    monkeypatch.undo()
    assert descriptors() == before
    assert desk.num_bytes == 0
    assert pools.create("yard/images", (4,), UINT8, 1).num_slots == 1


def test_a_machine_without_room_says_so(pools: Pools) -> None:
    limits = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 20, limits[1]))
    try:
        with pytest.raises(PipelineError, match="use fewer streams, a smaller image_size"):
            pools.create("yard/images", (1 << 20,), UINT8, 8)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)


def test_no_descriptor_is_left() -> None:
    before = descriptors()
    desk = PoolDesk()
    pools = Pools(desk)
    for number in range(20):
        leased(pools.create(f"stream{number}/images", (64,), UINT8, 2)).publish(1)
    assert descriptors() > before
    for number in range(10):
        pools.discard(f"stream{number}/")
    desk.close()
    pools.forget_all()
    assert descriptors() == before


class SlotsInUse(RuleBasedStateMachine):
    """Leases, readers and cancellations in any order."""

    held = Bundle("held")
    read = Bundle("read")

    def __init__(self) -> None:
        super().__init__()
        self.desk = PoolDesk()
        self.pool = Pools(self.desk).create("yard/images", (8,), UINT8, 3)
        self.holders: Counter[int] = Counter()
        self.mark = 0

    @rule(target=held)
    def lease(self) -> Lease | None:
        lease = self.pool.lease()
        if lease is None:
            assert len(+self.holders) == self.pool.num_slots
            return None
        assert self.holders[lease.slot.index] == 0
        self.holders[lease.slot.index] = 1
        self.mark = (self.mark + 1) % 256
        lease.array[...] = self.mark
        return lease

    @rule(lease=consumes(held))
    def cancel(self, lease: Lease | None) -> None:
        if lease is not None:
            lease.cancel()
            self.holders[lease.slot.index] = 0

    @rule(target=read, lease=consumes(held), num_readers=st.integers(0, 3))
    def publish(
        self, lease: Lease | None, num_readers: int
    ) -> tuple[Lease, list[int], list[int]] | None:
        if lease is None:
            return None
        lease.publish(num_readers)
        self.holders[lease.slot.index] = num_readers
        return lease, list(range(num_readers)), lease.array.tolist()

    @rule(published=read, choice=st.integers(0, 2))
    def release(self, published: tuple[Lease, list[int], list[int]] | None, choice: int) -> None:
        if published is None or not published[1]:
            return
        lease, readers, written = published
        assert self.pool.view(lease.slot).tolist() == written
        lease.release(readers.pop(choice % len(readers)))
        self.holders[lease.slot.index] -= 1

    @invariant()
    def as_many_are_held_as_have_holders(self) -> None:
        assert self.pool.num_held == len(+self.holders)

    def teardown(self) -> None:
        self.desk.close()


TestSlotsInUse = SlotsInUse.TestCase
TestSlotsInUse.settings = settings(max_examples=60, stateful_step_count=40, deadline=None)


class Heard:
    """What an engine for a GPU hears of memory: which of it there is."""

    def __init__(self) -> None:
        self.spans: dict[int, int] = {}

    def register(self, memory: np.ndarray) -> None:
        assert memory.ctypes.data not in self.spans
        self.spans[memory.ctypes.data] = memory.nbytes

    def forget(self, memory: np.ndarray) -> None:
        assert self.spans.pop(memory.ctypes.data) == memory.nbytes


def test_who_watches_a_kind_of_pools_hears_of_each_once_and_of_its_end(desk: PoolDesk) -> None:
    writer, pools, heard = Pools(desk), Pools(desk), Heard()
    leases = [leased(writer.create(f"{name}/images", (100,), UINT8, 2)) for name in ("a", "b")]
    other = leased(writer.create("a/pictures", (100,), UINT8, 2))
    for lease in (*leases, other):
        lease.publish(1)
    pools.view(leases[0].slot)
    for _ in range(2):
        pools.watch("images", heard)  # an engine of another shape hears of the same
    pools.view(leases[0].slot)
    pools.view(leases[1].slot)
    pools.view(other.slot)
    assert list(heard.spans.values()) == [lease.pool.file.num_bytes for lease in leases]
    again = leased(writer.create("a/images", (50,), UINT8, 2))  # another size: the one before goes
    again.publish(1)
    pools.view(again.slot)
    assert again.pool.name == "a/images~2"
    assert list(heard.spans.values()) == [
        leases[1].pool.file.num_bytes,
        again.pool.file.num_bytes,
    ]
    pools.forget("b/")
    assert len(heard.spans) == 1
    pools.forget_all()
    assert heard.spans == {}
