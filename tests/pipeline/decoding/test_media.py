import os
import re
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline.decoding.inputs import Source
from pipeline.decoding.media import MediaReader, RawPacket
from pipeline.errors import SourceLost, SourceUnreadable
from tests.pipeline.media_factory import (
    NUM_FRAMES,
    RATE,
    moving_picture,
    source_of,
    turned,
    write_film,
    write_sound,
    write_video,
)

FRAME_NS = 1_000_000_000 // RATE


def packets_of(path: Path) -> list[RawPacket]:
    reader = MediaReader(source_of(path))
    try:
        return list(reader.packets())
    finally:
        reader.close()


def refusal(path: Path | str) -> str:
    """Why a file cannot be opened, or read to its end."""
    with pytest.raises(SourceUnreadable) as caught:
        packets_of(Path(path))
    text = str(caught.value)
    assert "\n" not in text
    assert Path(path).name in text
    return text


def test_facts_are_what_the_container_declares(tmp_path: Path) -> None:
    reader = MediaReader(source_of(write_video(tmp_path / "clip.mp4")))
    facts = reader.facts
    reader.close()
    assert (facts.num_frames, facts.frame_rate) == (NUM_FRAMES, RATE)
    assert facts.duration_s == pytest.approx(NUM_FRAMES / RATE)
    assert (facts.parameters.codec, facts.parameters.pixel_format) == ("h264", "yuv420p")
    assert (facts.parameters.width, facts.parameters.height) == (128, 96)
    assert facts.parameters.reorder_frames == 2


def test_packets_come_in_decoding_order_with_every_time_once(tmp_path: Path) -> None:
    packets = packets_of(write_video(tmp_path / "clip.mp4"))
    times = [raw.pts_ns for raw in packets]
    assert times != sorted(times)  # type: ignore[type-var]
    assert set(times) == {index * FRAME_NS for index in range(NUM_FRAMES)}
    assert [raw.keyframe for raw in packets].index(True) == 0
    assert not any(raw.hidden for raw in packets)
    captured = [raw.captured_ns for raw in packets]
    assert captured == sorted(captured)


def test_a_raw_stream_declares_nothing_and_has_all_its_packets(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.h264")
    reader = MediaReader(source_of(path))
    assert (reader.facts.num_frames, reader.facts.duration_s) == (0, 0.0)
    assert len(list(reader.packets())) == NUM_FRAMES
    reader.close()


def test_pictures_that_an_avi_repeats_are_not_missing(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", "mpeg4", b_frames=0, pts=lambda index: index * 3)
    reader = MediaReader(source_of(path))
    assert reader.facts.num_frames > NUM_FRAMES
    assert len(list(reader.packets())) == NUM_FRAMES == reader.facts.num_frames
    reader.close()


def test_an_avi_that_is_cut_off_gives_less_than_it_declares(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", "mpeg4", b_frames=0)
    content = path.read_bytes()
    path.write_bytes(content[: (content.index(b"movi") + content.index(b"idx1")) // 2])
    reader = MediaReader(source_of(path))
    assert len(list(reader.packets())) < reader.facts.num_frames == NUM_FRAMES
    reader.close()


@pytest.mark.parametrize(("degrees", "rotation_deg"), [(90, -90), (180, -180), (270, 90)])
def test_a_turned_file_says_so(tmp_path: Path, degrees: int, rotation_deg: int) -> None:
    path = turned(write_video(tmp_path / "clip.mp4"), degrees)
    reader = MediaReader(source_of(path))
    reader.close()
    assert reader.facts.parameters.rotation_deg % 360 == rotation_deg % 360


def test_what_an_edit_list_cuts_away_is_hidden(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", b_frames=0)
    content = bytearray(path.read_bytes())
    entry = content.index(b"elst") + 4 + 4 + 4
    start = int.from_bytes(content[entry + 4 : entry + 8])
    with av.open(str(path)) as container:
        base = container.streams.video[0].time_base
    assert base is not None
    cut = round(Fraction(5, RATE) / base)
    content[entry + 4 : entry + 8] = (start + cut).to_bytes(4)
    path.write_bytes(content)
    packets = packets_of(path)
    assert [raw.hidden for raw in packets] == [True] * 5 + [False] * (NUM_FRAMES - 5)


def test_a_file_whose_name_looks_like_a_protocol_is_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_video(tmp_path / "clip.mp4").rename(tmp_path / "2024-05-01T12:30:05.mp4")
    monkeypatch.chdir(tmp_path)
    assert len(packets_of(Path("2024-05-01T12:30:05.mp4"))) == NUM_FRAMES


def test_a_file_whose_name_is_not_text_is_read(tmp_path: Path) -> None:
    path = tmp_path / os.fsdecode(b"caf\xe9.mp4")
    write_video(tmp_path / "clip.mp4").rename(path)
    assert len(packets_of(path)) == NUM_FRAMES


def test_text_that_is_not_utf8_inside_a_file_is_no_obstacle(tmp_path: Path) -> None:
    with av.open(str(tmp_path / "clip.mkv"), "w") as container:
        container.metadata["title"] = "TITLE"
        stream = container.add_stream("mpeg4", rate=RATE)
        stream.width, stream.height = 128, 96
        container.mux(stream.encode(av.VideoFrame.from_ndarray(moving_picture(0))))
        container.mux(stream.encode(None))
    path = tmp_path / "clip.mkv"
    path.write_bytes(path.read_bytes().replace(b"TITLE", b"T\xe9\xe8LE"))
    assert len(packets_of(path)) == 1


def test_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.touch()
    assert "empty (0 bytes)" in refusal(path)


def test_a_missing_file_is_refused(tmp_path: Path) -> None:
    assert "No such file" in refusal(tmp_path / "clip.mp4")


@pytest.mark.parametrize("suffix", ["mp4", "avi", "mkv", "ts", "mpg", "h264", "gif"])
def test_random_bytes_are_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"clip.{suffix}"
    path.write_bytes(np.random.default_rng(7).bytes(100_000))
    assert "not a video that can be read" in refusal(path)


@pytest.mark.parametrize("name", ["notes.txt", "notes.mp4", "notes", "notes.m3u8", "notes.srt"])
def test_a_text_file_is_refused(tmp_path: Path, name: str) -> None:
    path = tmp_path / name
    path.write_text("it rained all day\n" * 100)
    refusal(path)


def test_a_file_without_its_index_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert "it may be cut off" in refusal(path)


def test_a_file_with_its_index_in_front_gives_what_is_left(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4", muxer={"movflags": "faststart"})
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    reader = MediaReader(source_of(path))
    assert 0 < len(list(reader.packets())) < reader.facts.num_frames == NUM_FRAMES
    reader.close()


@pytest.mark.parametrize(("name", "codec"), [("song.m4a", "aac"), ("song.mp3", "libmp3lame")])
def test_sound_alone_is_refused(tmp_path: Path, name: str, codec: str) -> None:
    assert "no video stream in it, only audio" in refusal(write_sound(tmp_path / name, codec))


def test_a_cover_is_no_video(tmp_path: Path) -> None:
    path = write_sound(tmp_path / "song.mp3", "libmp3lame", cover=True)
    with av.open(str(path)) as container:
        assert container.streams.video
    assert "no video stream in it, only audio;" in refusal(path)


@pytest.mark.skipif(os.geteuid() == 0, reason="root may read everything")
def test_a_file_that_may_not_be_read_is_refused(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mp4")
    path.chmod(0)
    assert "ermission denied" in refusal(path)


def test_streams_that_appear_on_the_way_are_no_obstacle(tmp_path: Path) -> None:
    """PyAV looks for them in a list it made when the file was opened."""
    path = write_video(tmp_path / "clip.ts", b_frames=0)
    reader = MediaReader(source_of(path))
    with av.open(str(path)) as container:
        packets = [packet for packet in container.demux(video=0) if packet.size]
        reader._container = _Demuxed(*packets, ends_with=IndexError())  # type: ignore[assignment]
        assert len(list(reader.packets())) == NUM_FRAMES


@pytest.mark.parametrize("ticks", [1, 48])
def test_an_avi_of_many_ticks_a_picture_has_all_it_declares(tmp_path: Path, ticks: int) -> None:
    """As other programs write it that copy from an MP4."""
    path = tmp_path / "clip.avi"
    with av.open(str(path), "w") as container:
        stream = container.add_stream("mpeg4", rate=RATE * ticks)
        stream.width, stream.height, stream.pix_fmt = 128, 96, "yuv420p"
        for index in range(NUM_FRAMES):
            frame = av.VideoFrame.from_ndarray(moving_picture(index), format="rgb24")
            for packet in stream.encode(frame.reformat(format="yuv420p")):
                packet.pts = packet.dts = index * ticks
                packet.time_base, packet.duration = Fraction(1, RATE * ticks), ticks
                container.mux(packet)
    reader = MediaReader(source_of(path))
    assert (reader.facts.num_frames > NUM_FRAMES) == (ticks > 1)
    times = [raw.dts_ns for raw in reader.packets()]
    assert times == [index * FRAME_NS for index in range(NUM_FRAMES)]
    assert reader.facts.num_frames == NUM_FRAMES
    reader.close()


def test_an_avi_has_no_times_of_presentation(tmp_path: Path) -> None:
    packets = packets_of(write_video(tmp_path / "clip.avi"))
    assert [raw.pts_ns for raw in packets] == [None] * NUM_FRAMES
    assert [raw.dts_ns for raw in packets] == [index * FRAME_NS for index in range(NUM_FRAMES)]


def test_a_frame_rate_beyond_all_reason_is_not_believed(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.avi", "mpeg4", num_frames=2, b_frames=0)
    content = bytearray(path.read_bytes())
    header = content.index(b"strh") + 8
    content[header + 20 : header + 28] = (1).to_bytes(4, "little") + b"\xff\xff\xff\x7f"
    path.write_bytes(content)
    reader = MediaReader(source_of(path))
    reader.close()
    assert 0 < reader.facts.frame_rate <= 1000


@pytest.mark.parametrize("suffix", ["mkv", "webm"])
def test_a_matroska_file_that_ends_early_says_where(tmp_path: Path, suffix: str) -> None:
    codec = "libvpx" if suffix == "webm" else "libx264"
    path = write_video(tmp_path / f"clip.{suffix}", codec, num_frames=50, b_frames=0)
    assert len(packets_of(path)) == 50
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])
    assert re.search(r"ends at [01]\.\d\d s of the 2\.00 s it declares", refusal(path))


def test_a_matroska_file_whose_pictures_come_seldom_is_whole(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", b_frames=0, pts=lambda index: index * index)
    assert len(packets_of(path)) == NUM_FRAMES


def test_sound_that_lasts_longer_than_the_pictures_is_not_missed(tmp_path: Path) -> None:
    """Where a Matroska file does not tell how long each stream is, only how long it is itself."""
    path = write_film(tmp_path / "clip.mkv", num_frames=50)
    whole = path.read_bytes()
    with av.open(str(path)) as container:
        assert container.streams.video[0].metadata["DURATION"].startswith("00:00:02")
    path.write_bytes(whole.replace(b"DURATION", b"NOTATION"))
    assert len(packets_of(path)) == 50
    path.write_bytes(path.read_bytes()[: len(whole) // 2])
    assert 10 < len(packets_of(path)) < 50


def test_times_beyond_all_reason_are_no_times(tmp_path: Path) -> None:
    path = write_video(tmp_path / "clip.mkv", "mpeg4", num_frames=2, b_frames=0)
    reader = MediaReader(source_of(path))
    first, *_ = reader.packets()
    reader.close()
    assert first.pts_ns == 0
    with av.open(str(path)) as container:
        packet = next(container.demux(video=0))
        packet.pts = packet.dts = 2**62
        reader._container = _Demuxed(packet)  # type: ignore[assignment]
        (raw,) = reader.packets()
    assert (raw.pts_ns, raw.dts_ns) == (None, None)


class _Demuxed:
    """A container that holds these packets."""

    def __init__(
        self, *packets: "av.Packet[av.VideoStream]", ends_with: Exception | None = None
    ) -> None:
        self._packets = packets
        self._ends_with = ends_with
        self.format = av.ContainerFormat("mpegts")

    def demux(self, _: object) -> "Iterator[av.Packet[av.VideoStream]]":
        yield from self._packets
        if self._ends_with is not None:
            raise self._ends_with


@contextmanager
def camera(answer: bytes | None) -> Iterator[str]:
    """A server that answers every request with this status, or says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as server:
        connections = []

        def serve() -> None:
            while True:
                try:
                    connection, _ = server.accept()
                except OSError:
                    return
                connections.append(connection)
                if answer == b"":
                    connection.close()
                while answer:
                    request = connection.recv(4096)
                    if not request:
                        break
                    number = request.split(b"CSeq:", 1)[1].split(b"\r\n", 1)[0]
                    connection.sendall(b"RTSP/1.0 %b\r\nCSeq:%b\r\n\r\n" % (answer, number))

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"rtsp://admin:s3cret@127.0.0.1:{server.getsockname()[1]}/yard?token=t0ken"
        finally:
            server.shutdown(socket.SHUT_RDWR)
            thread.join()
            for connection in connections:
                connection.close()


def camera_source(address: str) -> Source:
    return Source(name="camera", kind="rtsp", location=address)


@pytest.mark.parametrize(
    ("answer", "error", "says"),
    [
        (b"401 Unauthorized", SourceUnreadable, "wrong user name or password"),
        (b"403 Forbidden", SourceUnreadable, "wrong user name or password"),
        (b"404 Not Found", SourceUnreadable, "no such path on the camera"),
        (b"503 Service Unavailable", SourceLost, "cannot be opened"),
        (b"454 Session Not Found", SourceLost, "cannot be opened"),
        (b"", SourceLost, "cannot be opened"),
        (None, SourceLost, "cannot be opened"),
    ],
    ids=["401", "403", "404", "503", "454", "hangs-up", "silent"],
)
def test_what_a_camera_refuses_for_good_and_what_may_pass(
    answer: bytes | None, error: type[Exception], says: str
) -> None:
    with camera(answer) as address, pytest.raises(error, match=says) as caught:
        MediaReader(camera_source(address), timeout_s=0.3)
    text = str(caught.value)
    assert "s3cret" not in text
    assert "t0ken" not in text
    assert "\n" not in text


def test_a_camera_that_is_not_there_is_lost() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(SourceLost, match="refused"):
        MediaReader(camera_source(f"rtsp://127.0.0.1:{port}/yard"), timeout_s=0.3)
