from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding.media import RawPacket
from pipeline.decoding.ring import PacketRing


def packet(at_ns: int, *, keyframe: bool = False, size: int = 10) -> RawPacket:
    return RawPacket(
        data=bytes(size),
        pts_ns=at_ns,
        dts_ns=at_ns,
        keyframe=keyframe,
        hidden=False,
        corrupt=False,
        captured_ns=at_ns,
    )


def drained(ring: PacketRing) -> list[int]:
    times = []
    while ring.peek() is not None:
        times.append(ring.pop().captured_ns)
    return times


def make_ring(*, max_bytes: int = 1000, staleness_ns: int = 1000) -> PacketRing:
    return PacketRing(max_bytes=max_bytes, staleness_ns=staleness_ns)


def test_packets_come_out_in_the_order_they_went_in() -> None:
    ring = make_ring()
    assert [ring.push(packet(n, keyframe=n == 0)) for n in range(5)] == [0] * 5
    assert drained(ring) == [0, 1, 2, 3, 4]
    assert ring.peek() is None


def test_nothing_is_kept_before_the_first_keyframe() -> None:
    ring = make_ring()
    assert [ring.push(packet(0)), ring.push(packet(1)), ring.push(packet(2, keyframe=True))] == [
        1, 1, 0,
    ]  # fmt: skip
    assert drained(ring) == [2]


def test_a_stale_packet_takes_all_before_the_newest_keyframe_with_it() -> None:
    ring = make_ring(staleness_ns=100)
    for at_ns in (0, 40, 80):
        assert ring.push(packet(at_ns, keyframe=at_ns != 80)) == 0
    assert ring.push(packet(101)) == 1
    assert drained(ring) == [40, 80, 101]


def test_without_a_newer_keyframe_all_is_given_up_until_the_next() -> None:
    ring = make_ring(staleness_ns=100)
    ring.push(packet(0, keyframe=True))
    assert ring.push(packet(101)) == 2
    assert ring.push(packet(110)) == 1
    assert ring.push(packet(120, keyframe=True)) == 0
    assert drained(ring) == [120]


def test_a_keyframe_that_is_stale_itself_is_given_up_too() -> None:
    ring = make_ring(staleness_ns=100)
    ring.push(packet(0, keyframe=True))
    ring.push(packet(10, keyframe=True))
    assert ring.push(packet(200)) == 3
    assert ring.peek() is None


def test_a_packet_beyond_all_bounds_is_given_up() -> None:
    ring = make_ring(max_bytes=100)
    assert ring.push(packet(0, keyframe=True, size=101)) == 1
    assert ring.push(packet(1, keyframe=True, size=100)) == 0


def test_after_a_clear_the_next_packet_is_a_keyframe() -> None:
    ring = make_ring()
    ring.push(packet(0, keyframe=True))
    assert ring.clear() == 1
    assert ring.push(packet(1)) == 1
    assert ring.push(packet(2, keyframe=True)) == 0
    assert drained(ring) == [2]


@given(
    st.lists(
        st.tuples(st.integers(0, 60), st.booleans(), st.integers(1, 120), st.integers(0, 2)),
        max_size=80,
    )
)
def test_after_what_was_given_up_comes_a_keyframe(
    steps: list[tuple[int, bool, int, int]],
) -> None:
    ring = make_ring(max_bytes=300, staleness_ns=100)
    now_ns, given_up, taken = 0, 0, []
    waiting: list[RawPacket] = []
    for index, (pause_ns, keyframe, size, takes) in enumerate(steps):
        now_ns += pause_ns
        new = packet(now_ns, keyframe=keyframe, size=size)
        waiting.append(new)
        given_up += ring.push(new)
        held = len(steps[: index + 1]) - given_up - len(taken)
        kept = waiting[len(waiting) - held :]
        assert sum(len(raw.data) for raw in kept) <= 300
        assert all(now_ns - raw.captured_ns <= 100 for raw in kept)
        taken.extend(ring.pop() for _ in range(min(takes, held)))
    sent = [*taken, *(ring.pop() for _ in range(len(steps) - given_up - len(taken)))]
    assert ring.peek() is None
    places = [next(n for n, raw in enumerate(waiting) if raw is one) for one in sent]
    assert places == sorted(set(places))
    for before, place in zip([-1, *places], places, strict=False):
        assert (place == before + 1 and before >= 0) or waiting[place].keyframe
