# SPDX-License-Identifier: Apache-2.0
"""The second decoder, by gst-launch-1.0 and, where a Python has it, by GStreamer's binding."""

import os
import re
import shutil
import signal
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest

from model.config import ModelConfig
from pipeline.cameras import CameraConfig
from pipeline.config import GpuConfig, OutputConfig, PipelineConfig, SourceConfig
from pipeline.decoding import gst_elements
from pipeline.decoding.child import has_element, python_with_binding
from pipeline.decoding.decoder import MediaDecoder
from pipeline.decoding.gst_elements import GpuElements, OnGpu
from pipeline.decoding.gstreamer import GStreamerReader
from pipeline.decoding.inputs import Source, camera_source
from pipeline.errors import (
    DecoderLost,
    SourceError,
    SourceForbidden,
    SourceLost,
    SourceUnreadable,
)
from pipeline.job import Job
from tests.pipeline.cameras import make_film
from tests.pipeline.media_factory import message_of
from tests.pipeline.service import YARD, running
from tests.pipeline.small_camera import SmallCamera

BALL = "gst:videotestsrc pattern=ball is-live=true ! video/x-raw,width=130,height=97,framerate=50/1"

pytestmark = [
    pytest.mark.needs_gstreamer,
    pytest.mark.skipif(shutil.which("gst-launch-1.0") is None, reason="needs gst-launch-1.0"),
]


@pytest.fixture(params=["launch", "binding"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Whether the child is gst-launch-1.0, or our program by the binding that a Python has."""
    if request.param == "launch":
        without_binding(monkeypatch)
    elif python_with_binding() is None:
        pytest.skip("needs GStreamer's Python binding")
    return request.param


def without_binding(monkeypatch: pytest.MonkeyPatch) -> None:
    for module in ("child", "gstreamer"):
        monkeypatch.setattr(f"pipeline.decoding.{module}.python_with_binding", lambda: None)


def camera(named: str, **settings: object) -> Source:
    return camera_source("yard", named, CameraConfig.model_validate(settings))


def read(source: Source, timeout_s: float = 5, gpu: OnGpu | None = None) -> GStreamerReader:
    return GStreamerReader(source, rtsp_transport="tcp", timeout_s=timeout_s, gpu=gpu)


def children() -> set[int]:
    """The children of this process that run a pipeline."""
    found = set()
    for entry in Path("/proc").glob("[0-9]*"):
        try:
            status = (entry / "status").read_text()
            arguments = (entry / "cmdline").read_bytes()
        except OSError:
            continue
        runs = b"gst-launch" in arguments or b"gst_program" in arguments
        if re.search(rf"PPid:\t{os.getpid()}\n", status) and runs:
            found.add(int(entry.name))
    return found


@pytest.mark.usefixtures("way")
def test_a_pipeline_s_pictures_come_with_their_times_and_odd_sizes() -> None:
    reader = read(camera(BALL))
    decoder = MediaDecoder(reader.facts.parameters, live=True)
    times, pictures = [], []
    for raw in reader.packets():
        (decoded,) = decoder.decode(message_of(raw), memoryview(raw.data))
        times.append(raw.pts_ns)
        pictures.append(decoded.frame.to_ndarray(format="gray"))
        if len(times) == 10:
            break
    reader.close()
    assert pictures[0].shape == (97, 130)
    assert np.diff(times) == pytest.approx(20_000_000, abs=1_500_000)
    # a white ball over black, and nothing of the padding
    assert all(int(picture.max()) > 200 for picture in pictures)
    assert all(int(picture[:, -1].max()) < 40 for picture in pictures)
    assert children() == set()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("named", "error", "said"),
    [
        ("gst:nosuchelement ! queue", SourceUnreadable, "gst:nosuchelement: .*no element"),
        ("gst:videotestsrc ! identity error-after=2", SourceLost, "gst:videotestsrc:"),
        ("gst:videotestsrc ! valve drop=true", SourceLost, "silent for too long"),
        ("rtsp://127.0.0.1:9/live", SourceLost, "rtsp://127.0.0.1:9/live: GStreamer: "),
    ],
)  # fmt: skip
def test_a_pipeline_that_cannot_run_dies_or_hangs_is_told_in_a_line(
    named: str, error: type[SourceError], said: str
) -> None:
    with pytest.raises(error, match=said) as caught:
        list(read(camera(named, decoder="gstreamer"), timeout_s=0.3).packets())
    assert "\n" not in str(caught.value)
    assert children() == set()


@pytest.mark.usefixtures("way")
def test_a_pipeline_that_stops_sending_is_lost_and_its_child_is_gone() -> None:
    named = "gst:videotestsrc num-buffers=20 is-live=true ! video/x-raw,framerate=50/1"
    with pytest.raises(SourceLost, match=r"ended|silent"):
        list(read(camera(named), timeout_s=0.5).packets())
    assert children() == set()


@pytest.fixture
def rtsp(tmp_path: Path) -> Iterator[SmallCamera]:
    small = SmallCamera(make_film(tmp_path / "film.mp4"))
    small.on()
    yield small
    small.off()


def test_a_camera_is_decoded_and_its_password_is_in_no_argument(
    way: str, rtsp: SmallCamera
) -> None:
    source = camera(rtsp.address(), decoder="gstreamer")
    if way == "launch":
        with pytest.raises(SourceUnreadable, match="would show the password") as caught:
            read(source)
        assert "se%" not in str(caught.value)
        return
    reader = read(source)
    raw = next(reader.packets())
    assert len(raw.data) == 320 * 192 * 3 // 2
    (child,) = children()
    for shown in ("cmdline", "environ"):
        assert b"se%" not in Path(f"/proc/{child}/{shown}").read_bytes()
    reader.close()
    with pytest.raises(SourceForbidden, match="wrong user name or password"):
        read(camera(rtsp.address("bob:no"), decoder="gstreamer"))


@pytest.mark.parametrize(
    "named",
    ["gst:rtspsrc location=rtsp://bob:secret@127.0.0.1/x ! decodebin",
     "gst:rtspsrc location=rtsp://127.0.0.1/x user-id=bob user-pw=secret ! decodebin",
     "gst:souphttpsrc location=http://127.0.0.1/x?token=secret ! decodebin"],
)  # fmt: skip
def test_a_pipeline_with_a_password_is_kept_out_of_the_list_of_processes(
    monkeypatch: pytest.MonkeyPatch, named: str
) -> None:
    without_binding(monkeypatch)
    with pytest.raises(SourceUnreadable, match="list of processes") as caught:
        read(camera(named))
    assert "secret" not in str(caught.value)


def test_a_child_dies_with_the_thread_that_reads_it(monkeypatch: pytest.MonkeyPatch) -> None:
    without_binding(monkeypatch)
    seen: set[int] = set()

    def forget_to_close() -> None:
        reader = read(camera(BALL))
        kept.append(reader)
        seen.update(children())

    kept: list[GStreamerReader] = []
    thread = threading.Thread(target=forget_to_close)
    thread.start()
    thread.join()
    assert len(seen) == 1
    (child,) = seen
    until_s = time.monotonic() + 5
    while "State:\tZ" not in Path(f"/proc/{child}/status").read_text():
        assert time.monotonic() < until_s, "it lives"
        time.sleep(0.01)
    kept[0].close()


def test_a_file_is_left_to_pyav(tmp_path: Path) -> None:
    source = camera(str(make_film(tmp_path / "film.mp4")), decoder="gstreamer")
    with pytest.raises(SourceUnreadable, match="reads cameras"):
        read(source)


@pytest.mark.usefixtures("squares", "way")
def test_a_run_reads_a_pipeline_like_any_other_source(tmp_path: Path, card_file: Path) -> None:
    config = PipelineConfig(
        model=ModelConfig(weights=card_file, image_size=160),
        source=SourceConfig(limit=10),
        output=OutputConfig(directory=tmp_path / "out"),
    )
    job = Job(config, [BALL])
    job.run()
    assert job.complete, job.streams[0].reason
    assert job.counters["gst-videotestsrc"]["decoded"] == 10
    assert children() == set()


def played(download: str, gives: str = "video/x-raw") -> GpuElements:
    """Elements of the processor in the place of a GPU's."""
    return GpuElements(decoders=("openh264dec",), gives=gives, download=download)


@pytest.mark.usefixtures("way")
def test_an_element_of_the_gpu_that_fails_is_told_from_a_camera_that_does() -> None:
    reader = read(camera(f"{BALL} ! queue"), gpu=OnGpu(played("identity error-after=4"), 0))
    with pytest.raises(DecoderLost, match="gst:videotestsrc: GStreamer: "):
        list(reader.packets())
    lost = camera(f"{BALL} ! identity name=camera error-after=4")
    reader = read(lost, gpu=OnGpu(played("identity"), 0))
    with pytest.raises(SourceLost) as caught:
        list(reader.packets())
    assert not isinstance(caught.value, DecoderLost)
    assert children() == set()


@pytest.mark.usefixtures("way")
@pytest.mark.parametrize(
    ("elements", "said"),
    [(played("identity", gives="video/x-raw(memory:CUDAMemory)"), "could not link|stream error"),
     (played("nosuchelement"), "no element")],
    ids=["nobody decodes there", "missing"],
)  # fmt: skip
def test_a_pipeline_that_cannot_run_on_the_gpu_may_on_the_processor(
    elements: GpuElements, said: str
) -> None:
    with pytest.raises(SourceLost, match=f"gst:videotestsrc: GStreamer: .*({said})"):
        read(camera(f"{BALL} ! queue"), gpu=OnGpu(elements, 0))
    assert children() == set()


@pytest.mark.parametrize("gpu", [OnGpu(played("identity"), 0), None], ids=["GPU", "processor"])
def test_a_pipeline_that_crashes_is_lost_and_on_the_gpu_that_is_taken_for_the_cause(
    gpu: OnGpu | None,
) -> None:
    reader = read(camera(f"{BALL} ! queue"), gpu=gpu)
    packets = reader.packets()
    next(packets)
    (child,) = children()
    os.kill(child, signal.SIGABRT)
    with pytest.raises(
        SourceLost, match="gst:videotestsrc: GStreamer: it died by SIGABRT"
    ) as caught:
        list(packets)
    assert isinstance(caught.value, DecoderLost) == (gpu is not None)


@pytest.fixture
def _two_decoders() -> None:
    """Of which one plays the GPU's."""
    if not (python_with_binding() and has_element("openh264dec") and has_element("avdec_h264")):
        pytest.skip("needs two decoders of H.264 and the binding")


@pytest.mark.usefixtures("_two_decoders")
def test_the_gpu_s_decoder_is_taken_if_asked_for_and_else_never(
    rtsp: SmallCamera, monkeypatch: pytest.MonkeyPatch
) -> None:
    elements = played("identity")
    monkeypatch.setattr(gst_elements, "ELEMENTS", (elements,))
    assert gst_elements.elements_here() == elements
    source = camera(rtsp.address(), decoder="gstreamer")
    for gpu, library in ((OnGpu(elements, 0), "libgstopenh264"), (None, "libgstlibav")):
        reader = read(source, gpu=gpu)
        (child,) = children()
        libraries = re.findall(r"libgst(?:openh264|libav)", Path(f"/proc/{child}/maps").read_text())
        reader.close()
        assert set(libraries) == {library}


@pytest.mark.usefixtures("_two_decoders")
def test_a_camera_goes_over_to_the_processor_when_the_gpu_fails_and_back_after_a_pause(
    rtsp: SmallCamera, card_file: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(gst_elements, "ELEMENTS", (played("identity error-after=20"),))
    monkeypatch.setattr("pipeline.decoding.hardware.FIRST_PAUSE_S", 1.0)
    source = camera_source(YARD, rtsp.address(), CameraConfig(decoder="gstreamer"))
    with running(card_file, source, gpu=GpuConfig(decode="nvdec")) as service:

        def decoder() -> str:
            return service.supervisor.streams[YARD].decoder.path

        service.wait(lambda: decoder() == "gstreamer-nv")
        service.wait(lambda: decoder() == "cpu")
        state = service.supervisor.streams[YARD]
        assert "GStreamer: " in state.decoder.reason
        assert "bob" not in state.decoder.reason
        assert state.counters["hardware_lost"] == 1
        service.wait_for_frames(YARD, 5)
        service.wait(lambda: state.counters["hardware_lost"] == 2)
        service.wait_for_frames(YARD, 5)
    times = [frame.pts_ns for frame, _ in service.frames[YARD]]
    assert times == sorted(set(times))
