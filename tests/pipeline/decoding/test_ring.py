"""What a ring promises to its readers, and what each kind of reader is for."""

from hypothesis import given
from hypothesis import strategies as st

from pipeline.decoding.media import MediaFacts, RawPacket
from pipeline.decoding.ring import Cursor, PacketRing
from pipeline.messages import CodecParameters


def connection() -> MediaFacts:
    return MediaFacts(
        parameters=CodecParameters(codec="h264"), num_frames=0, frame_rate=25.0, duration_s=0.0
    )


HERE = connection()


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


def filled(*packets: RawPacket, max_bytes: int = 1000) -> PacketRing:
    ring = PacketRing(max_bytes=max_bytes)
    for one in packets:
        ring.push(one, HERE)
    return ring


def read(cursor: Cursor, now_ns: int = 0) -> list[int]:
    """The times of all that a cursor gives now."""
    times = []
    while cursor.peek(now_ns) is not None:
        times.append(cursor.take().raw.captured_ns)
    return times


def group(start_ns: int, *, size: int = 10) -> list[RawPacket]:
    """A keyframe and three more, 10 ns apart."""
    return [packet(start_ns + n * 10, keyframe=n == 0, size=size) for n in range(4)]


def test_a_reader_gets_packets_in_the_order_they_came() -> None:
    ring = PacketRing(max_bytes=1000)
    cursor = ring.follow()
    for one in group(0):
        ring.push(one, HERE)
    assert read(cursor) == [0, 10, 20, 30]
    assert cursor.peek(0) is None


def test_the_decoder_waits_for_the_first_keyframe() -> None:
    ring = PacketRing(max_bytes=1000)
    cursor = ring.follow(staleness_ns=100)
    for one in (packet(0), packet(1), *group(2)):
        ring.push(one, HERE)
    assert read(cursor) == [2, 12, 22, 32]
    assert cursor.given_up == 2


def test_a_new_connection_begins_with_its_first_keyframe() -> None:
    ring = filled(*group(0))
    cursor = ring.follow()
    again = connection()
    for one in (packet(50), packet(60), packet(70, keyframe=True), packet(80)):
        ring.push(one, again)
    assert read(cursor) == [0, 10, 20, 30, 70, 80]
    assert cursor.given_up == 2


def test_a_stale_packet_takes_all_before_the_newest_keyframe_with_it() -> None:
    ring = PacketRing(max_bytes=1000)
    cursor = ring.follow(staleness_ns=100)
    for one in (*group(0), *group(40), *group(80)):
        ring.push(one, HERE)
    assert read(cursor, now_ns=101) == [80, 90, 100, 110]
    assert cursor.given_up == 8


def test_a_stale_packet_without_a_newer_keyframe_takes_the_rest_of_its_group() -> None:
    ring = PacketRing(max_bytes=1000)
    cursor = ring.follow(staleness_ns=100)
    for one in group(0):
        ring.push(one, HERE)
    assert cursor.peek(50) is not None
    cursor.take()
    assert read(cursor, now_ns=111) == []
    ring.push(packet(110), HERE)
    ring.push(packet(120, keyframe=True), HERE)
    assert read(cursor, now_ns=121) == [120]
    assert (cursor.given, cursor.given_up, cursor.waiting) == (2, 4, 0)


def test_a_reader_that_was_overtaken_goes_on_at_the_newest_keyframe() -> None:
    ring = PacketRing(max_bytes=80)
    cursor = ring.follow()
    for one in (*group(0), *group(40), *group(80)):
        ring.push(one, HERE)
    assert read(cursor) == [80, 90, 100, 110]
    assert cursor.given_up == 8


def test_a_reader_inside_a_group_whose_keyframe_was_overwritten_goes_on() -> None:
    ring = filled(*group(0), max_bytes=40)
    cursor = ring.follow()
    assert cursor.peek(0) is not None
    cursor.take()
    ring.push(packet(40), HERE)
    assert read(cursor) == [10, 20, 30, 40]


def test_a_packet_larger_than_the_ring_is_given_up() -> None:
    ring = PacketRing(max_bytes=40)
    cursor = ring.follow()
    ring.push(packet(0, keyframe=True, size=41), HERE)
    ring.push(packet(10), HERE)
    assert ring.num_bytes <= 40
    assert read(cursor) == []
    ring.push(packet(20, keyframe=True), HERE)
    assert read(cursor) == [20]


def test_a_live_view_begins_at_the_newest_keyframe() -> None:
    assert read(filled(*group(0), *group(40)).follow()) == [40, 50, 60, 70]


def test_a_clip_begins_at_the_last_keyframe_before_its_time_and_goes_on() -> None:
    ring = filled(*group(0), *group(40), *group(80))
    assert ring.follow(since_ns=40).peek(0) == ring.follow(since_ns=79).peek(0)
    cursor = ring.follow(since_ns=79)
    assert read(cursor) == [40, 50, 60, 70, 80, 90, 100, 110]
    ring.push(packet(120), HERE)
    assert read(cursor) == [120]


def test_a_clip_of_a_time_the_ring_has_forgotten_begins_at_the_oldest_keyframe() -> None:
    ring = filled(*group(0), *group(40), *group(80), max_bytes=110)
    assert read(ring.follow(since_ns=0)) == [40, 50, 60, 70, 80, 90, 100, 110]


def test_readers_do_not_disturb_each_other() -> None:
    ring = filled(*group(0))
    first, second = ring.follow(), ring.follow()
    assert read(first) == read(second) == [0, 10, 20, 30]


PUSH = st.tuples(
    st.integers(0, 20),  # pause before
    st.sampled_from((True, False, False, False)),  # keyframe
    st.integers(1, 60),  # bytes
    st.sampled_from((False, False, False, False, False, True)),  # by a new connection
)
STEPS = st.lists(
    st.tuples(PUSH, st.tuples(*[st.sampled_from((0, 0, 1, 3))] * 3)), min_size=10, max_size=40
)


@given(STEPS, st.integers(0, 100))
def test_every_reader_gets_whole_runs_and_every_packet_is_accounted_for(
    steps: list[tuple[tuple[int, bool, int, bool], tuple[int, ...]]], since_ns: int
) -> None:
    ring = PacketRing(max_bytes=200)
    cursors = [ring.follow(staleness_ns=30), ring.follow()]
    begun, given = [0, 0], [[], [], []]
    pushed: list[tuple[RawPacket, MediaFacts]] = []
    now_ns, facts = 0, HERE
    for step, ((pause_ns, keyframe, size, change), takes) in enumerate(steps):
        now_ns += pause_ns
        facts = connection() if change else facts
        pushed.append((packet(now_ns, keyframe=keyframe, size=size), facts))
        ring.push(*pushed[-1])
        assert ring.num_bytes <= 200
        if step == 5:
            cursors.append(ring.follow(since_ns=since_ns))
            begun.append(len(pushed) - cursors[-1].waiting)
        for cursor, results, count in zip(cursors, given, takes, strict=False):
            for _ in range(count):
                if cursor.peek(now_ns) is not None:
                    results.append(cursor.take())
    for cursor, start, results in zip(cursors, begun, given, strict=False):
        assert cursor.given == len(results)
        assert cursor.given + cursor.given_up + cursor.waiting == len(pushed) - start
        places = [next(n for n, one in enumerate(pushed) if one[0] is k.raw) for k in results]
        assert places == sorted(set(places))
        for before, place in zip([-1, *places], places, strict=False):
            raw, came_by = pushed[place]
            goes_on = before >= 0 and place == before + 1 and pushed[before][1] is came_by
            assert raw.keyframe or goes_on
