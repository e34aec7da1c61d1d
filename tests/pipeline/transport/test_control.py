import threading
import time

import pytest

from pipeline.transport.control import (
    AnyCommand,
    AnyReport,
    Close,
    ControlLine,
    Enough,
    Failed,
    Finished,
    Forget,
    Incomplete,
    Ready,
    Stop,
    StreamFacts,
)
from tests.pipeline.transport.rig import TIMEOUT_S, Rig

REPORTS: list[AnyReport] = [
    Ready(),
    StreamFacts(num_frames=3, frame_rate=25.0, duration_s=0.12),
    Enough(),
    Incomplete(reason="cut off"),
    Finished(usage={"messages": 4}, outputs=("out/a.mp4",)),
    Failed(message="broken", trace=""),
]
COMMANDS: list[AnyCommand] = [Stop(), Forget(stream="yard"), Close()]


def line_to(rig: Rig, worker: str = "decode:yard") -> ControlLine:
    return ControlLine(rig.context, f"{rig.base}/control", worker)


def hear(rig: Rig) -> tuple[str, AnyReport] | None:
    return rig.desk.hear(TIMEOUT_S * 1000)


def test_the_desk_hears_every_report_and_who_made_it(rig: Rig) -> None:
    line = line_to(rig)
    for report in REPORTS:
        line.report(report)
    assert [hear(rig) for _ in REPORTS] == [("decode:yard", report) for report in REPORTS]
    line.close()


def test_every_worker_hears_its_own_commands_in_their_order(rig: Rig) -> None:
    lines = {name: line_to(rig, name) for name in ("one", "two")}
    for line in lines.values():
        line.report(Ready())
        hear(rig)
    for command in COMMANDS:
        rig.desk.tell("one", command)
    lines["one"].socket.poll(TIMEOUT_S * 1000)
    heard: list[AnyCommand | None] = []
    while len(heard) < len(COMMANDS):
        if (command := lines["one"].command()) is not None:
            heard.append(command)
    assert heard == COMMANDS
    assert lines["one"].command() is None
    assert lines["two"].command() is None
    for line in lines.values():
        line.close()


def test_a_desk_that_hears_nothing_waits_no_longer_than_told(rig: Rig) -> None:
    started = time.monotonic()
    assert rig.desk.hear(20) is None
    assert 0.015 < time.monotonic() - started < 5


def test_a_worker_that_is_gone_is_told_in_vain(rig: Rig) -> None:
    line = line_to(rig)
    line.report(Ready())
    hear(rig)
    line.close()
    rig.desk.tell("decode:yard", Stop())
    rig.desk.tell("never:there", Stop())
    assert rig.desk.hear(20) is None


def test_the_last_report_arrives_though_the_line_is_closed(rig: Rig) -> None:
    def work() -> None:
        line = line_to(rig)
        line.report(REPORTS[-1])
        line.close()

    thread = threading.Thread(target=work)
    thread.start()
    assert hear(rig) == ("decode:yard", REPORTS[-1])
    thread.join(TIMEOUT_S)


@pytest.mark.parametrize(
    ("report", "heard"),
    [
        (
            Failed(message="caf\udce9.mp4: lost", trace="a\nb\udcff"),
            Failed(message="caf?.mp4: lost", trace="a\nb?"),
        ),
        (
            Finished(usage={"messages": 4}, outputs=("\udce9/a.mp4", "b")),
            Finished(usage={"messages": 4}, outputs=("?/a.mp4", "b")),
        ),
    ],
    ids=["failed", "finished"],
)
def test_a_report_with_a_file_name_that_is_not_text_arrives(
    rig: Rig, report: AnyReport, heard: AnyReport
) -> None:
    line = line_to(rig)
    line.report(report)
    assert hear(rig) == ("decode:yard", heard)
    line.close()
