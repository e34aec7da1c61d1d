"""Decoding on a GPU that tests play: who really decodes, how a loss is noticed, when it is mended.

A context that tests make says of its pictures that the GPU made them. With a GPU none of this has
run.
"""

from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import av
import pytest

from pipeline.decoding import hardware as module
from pipeline.decoding.decoder import DecodedFrame, MediaDecoder, Undecodable, make_decoder
from pipeline.decoding.hardware import (
    FIRST_PAUSE_S,
    LONGEST_PAUSE_S,
    MOST_FAULTS,
    Hardware,
    HardwareWatch,
    MadeBy,
)
from pipeline.decoding.media import RawPacket
from pipeline.messages import CodecParameters
from tests.pipeline.decoding.test_decoder import read
from tests.pipeline.media_factory import message_of, write_video


class Clock:
    def __init__(self) -> None:
        self.now_s = 1000.0

    def __call__(self) -> float:
        return self.now_s


@pytest.fixture
def clock() -> Clock:
    return Clock()


def watch_of(clock: Clock, *, retries: bool = True) -> HardwareWatch:
    watch = HardwareWatch(retries=retries, now_s=clock)
    assert watch.wants_gpu
    watch.on_opened()
    return watch


def test_a_loss_is_told_once_and_says_that_it_is_one(clock: Clock) -> None:
    watch = watch_of(clock)
    assert watch.news() is None
    watch.on_picture("nvdec")
    watch.on_picture("nvdec")
    assert watch.news() == MadeBy("nvdec")
    assert watch.news() is None
    watch.on_picture("cpu")
    watch.on_picture("cpu")
    assert watch.news() == MadeBy("cpu", "FFmpeg went over to the processor", lost=True)
    assert watch.news() is None


def test_what_never_was_on_the_gpu_is_no_loss(clock: Clock) -> None:
    watch = HardwareWatch(retries=True, now_s=clock)
    watch.on_refused("no driver")
    assert watch.news() == MadeBy("cpu", "no driver", lost=False)


def test_pauses_grow_to_ten_minutes_and_a_file_is_not_tried_again(clock: Clock) -> None:
    watch = watch_of(clock)
    pauses = []
    for _ in range(7):
        watch.on_picture("cpu")
        lost_s = clock.now_s
        while not watch.wants_gpu:
            clock.now_s += 1
        pauses.append(clock.now_s - lost_s)
        watch.on_opened()
    assert pauses == [FIRST_PAUSE_S, 60, 120, 240, 480, LONGEST_PAUSE_S, LONGEST_PAUSE_S]
    clock.now_s += LONGEST_PAUSE_S + 1
    watch.on_picture("cpu")  # after it went well for long
    clock.now_s += FIRST_PAUSE_S
    assert watch.wants_gpu
    file = watch_of(clock, retries=False)
    file.on_picture("cpu")
    clock.now_s += 1e9
    assert not file.wants_gpu


def test_packets_that_fail_in_a_row_give_the_gpu_up(clock: Clock) -> None:
    watch = watch_of(clock)
    for _ in range(3):  # a damaged packet now and then is no fault of the GPU
        for _ in range(MOST_FAULTS - 1):
            watch.on_fault()
        watch.on_picture("nvdec")
    assert watch.wants_gpu
    for _ in range(MOST_FAULTS):
        watch.on_fault()
    assert not watch.wants_gpu
    watch.on_picture("nvdec")  # the last that it held
    assert watch.made_by == MadeBy("cpu", f"{MOST_FAULTS} packets in a row failed on the GPU", True)


class Played:
    """FFmpeg's decoder on the processor, some of whose pictures say that a GPU made them."""

    is_hwaccel = True
    """Whatever happens, as with PyAV."""

    def __init__(self, parameters: CodecParameters, script: Callable[[], str]) -> None:
        self._context = module.open_on_cpu(parameters, live=True)
        self._script = script

    def decode(self, packet: Any) -> list[Any]:
        what = self._script()
        if what == "fault":
            raise av.error.ExternalError(1, "the GPU is gone")
        frames = self._context.decode(packet)
        return frames if what == "cpu" else [OnGpu(frame) for frame in frames]


class OnGpu:
    """A picture in a GPU's memory."""

    class _Format:
        name = "cuda"

    format = _Format()

    def __init__(self, frame: av.VideoFrame) -> None:
        self._frame = frame
        self.sw_format = frame.format

    def reformat(self, *, format: str) -> av.VideoFrame:  # noqa: A002
        assert format == self._frame.format.name
        return self._frame


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> tuple[CodecParameters, list[RawPacket]]:
    """24 pictures, a keyframe each 12."""
    return read(write_video(tmp_path_factory.mktemp("clip") / "clip.mp4", b_frames=0))


class Rig:
    """A stream through decoders that follow a script."""

    def __init__(
        self,
        clip: tuple[CodecParameters, list[RawPacket]],
        clock: Clock,
        monkeypatch: pytest.MonkeyPatch,
    ) -> None:
        self.parameters, self.packets = clip
        self.clock = clock
        self.watch = HardwareWatch(retries=True, now_s=clock)
        self.news: list[MadeBy] = []
        self.num_opened = 0
        self.what = "nvdec"
        monkeypatch.setattr(module, "open_on_device", self._open)
        monkeypatch.setattr(module, "HWAccel", lambda *_, **__: None)

    def _open(self, parameters: CodecParameters, _: Any) -> Played:
        self.num_opened += 1
        if self.what == "refused":
            raise av.error.PermissionError(1, "Operation not permitted")
        return Played(parameters, lambda: self.what)

    def decoded(self, script: Callable[[int], str]) -> list[DecodedFrame]:
        """What comes of the clip; the script says what the GPU does at each packet."""
        self.what = script(-1)
        decoder = make_decoder(self.parameters, live=True, hardware=Hardware(0, self.watch))
        frames: list[DecodedFrame] = []
        for index, raw in enumerate(self.packets):
            self.what = script(index)
            with suppress(Undecodable):
                frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
            if (news := self.watch.news()) is not None:
                self.news.append(news)
        return frames + decoder.flush()


@pytest.fixture
def rig(
    clip: tuple[CodecParameters, list[RawPacket]], clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> Rig:
    return Rig(clip, clock, monkeypatch)


def pictures(frames: list[DecodedFrame]) -> Iterator[tuple[int | None, bytes]]:
    for each in frames:
        assert isinstance(each.frame, av.VideoFrame)
        yield each.pts_ns, each.frame.to_ndarray(format="nv12").tobytes()


@pytest.fixture
def expected(clip: tuple[CodecParameters, list[RawPacket]]) -> list[tuple[int | None, bytes]]:
    """What the processor decodes."""
    parameters, packets = clip
    decoder = MediaDecoder(parameters, live=True)
    frames: list[DecodedFrame] = []
    for index, raw in enumerate(packets):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    return list(pictures(frames + decoder.flush()))


def test_pictures_of_the_gpu_are_brought_to_the_host(rig: Rig, expected: list[Any]) -> None:
    assert list(pictures(rig.decoded(lambda _: "nvdec"))) == expected
    assert rig.news == [MadeBy("nvdec")]
    assert rig.num_opened == 1


def test_a_frame_tells_its_path_not_the_context(rig: Rig, expected: list[Any]) -> None:
    """A fallback that FFmpeg tells nobody of is noticed, and used as it comes."""
    frames = rig.decoded(lambda index: "nvdec" if index < 5 else "cpu")
    assert list(pictures(frames)) == expected
    assert [news.kind for news in rig.news] == ["nvdec", "cpu"]
    assert rig.news[1].lost
    assert rig.num_opened == 1


def test_the_gpu_is_tried_again_at_a_keyframe_only_and_no_picture_is_lost(
    rig: Rig, expected: list[Any]
) -> None:
    def script(index: int) -> str:
        if index == 7:
            rig.clock.now_s += FIRST_PAUSE_S
        return "cpu" if 3 <= index < 12 else "nvdec"

    assert list(pictures(rig.decoded(script))) == expected
    assert [news.kind for news in rig.news] == ["nvdec", "cpu", "nvdec"]
    assert rig.num_opened == 2


def test_a_gpu_that_fails_at_packet_after_packet_is_left_at_the_next_keyframe(
    rig: Rig, expected: list[Any]
) -> None:
    frames = rig.decoded(lambda index: "fault" if 2 <= index < 12 else "nvdec")
    assert list(pictures(frames)) == expected[:2] + expected[12:]
    assert [news.kind for news in rig.news] == ["nvdec", "cpu"]
    assert rig.num_opened == 1


def test_a_gpu_that_is_not_to_be_had_is_asked_again_without_a_loss(
    rig: Rig, expected: list[Any]
) -> None:
    def script(_: int) -> str:
        rig.clock.now_s += 2
        return "refused"

    assert list(pictures(rig.decoded(script))) == expected
    assert rig.num_opened == 2
    assert rig.news == [MadeBy("cpu", "no decoder on the GPU: operation not permitted")]


def test_without_a_gpu_the_processor_decodes_and_the_reason_is_told(
    clip: tuple[CodecParameters, list[RawPacket]], expected: list[Any]
) -> None:
    """With PyAV as it is; where there is a GPU, it decodes."""
    parameters, packets = clip
    watch = HardwareWatch(retries=True)
    decoder = make_decoder(parameters, live=True, hardware=Hardware(0, watch))
    frames: list[DecodedFrame] = []
    for index, raw in enumerate(packets):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    assert list(pictures(frames + decoder.flush())) == expected
    made_by = watch.news()
    assert made_by is not None
    assert made_by.kind == "nvdec" or made_by.reason.startswith("no decoder on the GPU: ")


@pytest.mark.needs_cuda
def test_a_gpu_decodes_the_same_pictures(
    clip: tuple[CodecParameters, list[RawPacket]], expected: list[Any]
) -> None:
    """This has never run."""
    parameters, packets = clip
    watch = HardwareWatch(retries=False)
    decoder = make_decoder(parameters, live=False, hardware=Hardware(0, watch))
    frames: list[DecodedFrame] = []
    for index, raw in enumerate(packets):
        frames += decoder.decode(message_of(raw, index), memoryview(raw.data))
    assert list(pictures(frames + decoder.flush())) == expected
    assert watch.made_by == MadeBy("nvdec")


def test_a_codec_that_no_gpu_decodes_is_told(tmp_path: Path) -> None:
    """PyAV does not even look for a GPU then."""
    watch = HardwareWatch(retries=True)
    parameters, packets = read(write_video(tmp_path / "clip.mkv", codec="ffv1"))
    decoder = make_decoder(parameters, live=False, hardware=Hardware(0, watch))
    frames = decoder.decode(message_of(packets[0]), memoryview(packets[0].data))
    assert len(frames) == 1
    assert watch.made_by == MadeBy("cpu", "no GPU decodes ffv1")


def test_an_image_needs_no_decoder_on_a_gpu(clock: Clock) -> None:
    watch = HardwareWatch(retries=True, now_s=clock)
    make_decoder(CodecParameters(codec="image"), live=False, hardware=Hardware(0, watch))
    assert watch.made_by is None
