import re
from dataclasses import replace

import pytest

from pipeline.errors import GraphError
from pipeline.messages import Found, Frame, Tracked
from pipeline.topology import Addresses, Graph, Link, Stage, Worker


def make(stream: str) -> Worker:
    raise AssertionError(stream)


FRAMES = Link("frames", Frame, depth=8, window=8)
FOUND = Link("found", Found, depth=8)
TRACKED = Link("tracked", Tracked, depth=16)
INFER = Stage("infer", "trunk", (FRAMES,), (FOUND,), make)
SOURCE = Stage("source", "read", (), (FRAMES,), make)
TRACK = Stage("track", "track", (FOUND,), (TRACKED,), make)
WRITE = Stage("write", "sinks", (TRACKED,), (), make)
DRAW = Stage("draw", "sinks", (TRACKED,), (), make)
GRAPH = Graph((INFER,), (SOURCE, TRACK, WRITE, DRAW))


def test_a_graph_lists_its_stages_and_links_once() -> None:
    assert [stage.name for stage in GRAPH.stages] == ["infer", "source", "track", "write", "draw"]
    assert GRAPH.links == (FOUND, FRAMES, TRACKED)
    assert GRAPH.readers(TRACKED) == (WRITE, DRAW)
    assert GRAPH.readers(FRAMES) == (INFER,)


def test_readers_of_a_group_come_before_their_writers() -> None:
    assert GRAPH.groups(GRAPH.trunk) == ("trunk",)
    assert GRAPH.groups(GRAPH.branch) == ("sinks", "track", "read")
    assert GRAPH.group("sinks") == (DRAW, WRITE)
    assert GRAPH.writer(TRACKED) == TRACK


def test_a_graph_is_printed_as_a_line_a_stage() -> None:
    assert str(GRAPH).splitlines() == [
        "each stream:",
        "  source -> frames[8]",
        "  found[8] -> track -> tracked[16]",
        "  tracked[16] -> write",
        "  tracked[16] -> draw",
        "trunk:",
        "  frames[8] -> infer -> found[8]",
    ]


def test_where_there_are_several_trunks_the_print_says_so() -> None:
    assert "each of 2 trunks:" in str(replace(GRAPH, num_trunks=2)).splitlines()


def test_a_stage_that_works_in_the_process_of_its_trunk_is_printed_so() -> None:
    lines = str(replace(GRAPH, hosted=("track",))).splitlines()
    assert [line for line in lines if line.endswith("(in the trunk's process)")] == [
        "  found[8] -> track -> tracked[16]  (in the trunk's process)"
    ]


def test_two_links_at_one_stage_are_printed_side_by_side() -> None:
    draw = replace(DRAW, reads=(TRACKED, FOUND))
    assert "  tracked[16], found[8] -> draw" in str(Graph((INFER,), (SOURCE, TRACK, WRITE, draw)))


@pytest.mark.parametrize(
    ("trunk", "branch", "fault"),
    [
        ((INFER,), (SOURCE, TRACK), "link tracked has no reader"),
        ((INFER,), (TRACK, WRITE), "link frames needs one writer, has none"),
        (
            (INFER,),
            (SOURCE, replace(SOURCE, name="second"), TRACK, WRITE),
            "link frames needs one writer, has ['source', 'second']",
        ),
        ((INFER,), (SOURCE, TRACK, WRITE, WRITE), "two stages have one name"),
        (
            (INFER,),
            (SOURCE, TRACK, replace(WRITE, reads=(replace(TRACKED, depth=3),))),
            "two links have one name",
        ),
    ],
    ids=["no-reader", "no-writer", "two-writers", "two-stages", "two-links"],
)
def test_a_graph_that_does_not_hold_together_is_refused(
    trunk: tuple[Stage, ...], branch: tuple[Stage, ...], fault: str
) -> None:
    with pytest.raises(GraphError, match=re.escape(fault)):
        Graph(trunk, branch)


@pytest.mark.parametrize("broken", [replace(FRAMES, depth=0), replace(FRAMES, window=0)])
def test_a_link_that_could_carry_nothing_is_refused(broken: Link) -> None:
    with pytest.raises(GraphError, match="link frames needs a depth and a window of 1 or more"):
        Graph(
            (replace(INFER, reads=(broken,)),),
            (replace(SOURCE, writes=(broken,)), TRACK, WRITE),
        )


def test_each_reader_has_an_address_and_each_stream_one_in_the_branch() -> None:
    addresses = Addresses("inproc://run")
    seen = {
        addresses.link(GRAPH, link, reader, stream)
        for link in GRAPH.links
        for reader in GRAPH.readers(link)
        for stream in ("yard", "gate")
    }
    assert len(seen) == 1 + 3 * 2
    assert all(address.startswith("inproc://run/") for address in seen)
    both = [addresses.link(GRAPH, FRAMES, INFER, stream) for stream in ("yard", "gate")]
    assert both[0] == both[1]


def test_each_trunk_has_addresses_of_its_own_and_a_branch_s_do_not_change_with_its_trunk() -> None:
    addresses = Addresses("inproc://run")
    first, second = (addresses.link(GRAPH, FRAMES, INFER, "yard", trunk) for trunk in (0, 1))
    assert first == "inproc://run/frames.infer"
    assert second == "inproc://run/frames.infer#1"
    assert len({addresses.link(GRAPH, FOUND, TRACK, "yard", trunk) for trunk in (0, 1)}) == 1


def test_the_address_of_a_stream_of_any_name_fits_a_socket_path() -> None:
    addresses = Addresses("ipc:///run/user/1000/sightline-5f3a9c")
    address = addresses.link(GRAPH, TRACKED, WRITE, "ä/ö" * 60)
    assert len(address.removeprefix("ipc://").encode()) <= 107
    assert address.startswith(addresses.base)
