# SPDX-License-Identifier: Apache-2.0
"""Whose turn it is to decode by GStreamer, by what pipelines that tests play came to."""

import pytest

from pipeline.decoding import gst_turns
from pipeline.decoding.gst_elements import ELEMENTS, GpuElements, OnGpu, environment_for
from pipeline.decoding.gst_turns import Turns
from pipeline.decoding.hardware import FIRST_PAUSE_S, Hardware, HardwareWatch, MadeBy
from pipeline.errors import DecoderLost, SourceForbidden, SourceLost

GPU = OnGpu(ELEMENTS[0], 0)
AWAY = SourceLost("rtsp://192.0.2.1: no answer")


class Rig:
    """A camera's turns, with a GPU that may come and go."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now_s = 1000.0
        self.elements: GpuElements | None = ELEMENTS[0]
        self.num_asked = 0
        monkeypatch.setattr(gst_turns, "elements_here", self._elements_here)
        watch = HardwareWatch(retries=True, now_s=lambda: self.now_s)
        self.turns = Turns(Hardware(0, watch))

    def _elements_here(self) -> GpuElements | None:
        self.num_asked += 1
        return self.elements


@pytest.fixture
def rig(monkeypatch: pytest.MonkeyPatch) -> Rig:
    return Rig(monkeypatch)


def test_without_a_gpu_it_is_always_the_processor_s_turn() -> None:
    turns = Turns(None)
    for _ in range(2):
        assert turns.next() is None
        turns.on_opened()
        assert not turns.is_gpu_due
        turns.on_error(AWAY)
    assert turns.news() is None


def test_what_an_element_of_the_gpu_reports_is_a_loss_and_the_gpu_is_tried_again(rig: Rig) -> None:
    turns = rig.turns
    assert turns.next() == GPU
    turns.on_opened()
    assert turns.news() == MadeBy("gstreamer-nv")
    turns.on_error(DecoderLost("no decoder left"))
    assert turns.news() == MadeBy("cpu", "no decoder left", lost=True)
    assert turns.next() is None
    turns.on_opened()
    assert not turns.is_gpu_due
    rig.now_s += FIRST_PAUSE_S
    assert turns.is_gpu_due
    assert turns.next() == GPU
    turns.on_error(DecoderLost("no decoder left"))  # before its first picture
    rig.now_s += FIRST_PAUSE_S
    assert turns.next() is None
    rig.now_s += FIRST_PAUSE_S
    assert turns.next() == GPU


def test_no_picture_is_the_gpu_s_fault_where_the_processor_gives_some(rig: Rig) -> None:
    turns = rig.turns
    assert turns.next() == GPU
    turns.on_error(SourceLost("not linked"))
    assert turns.news() is None
    assert turns.next() is None
    turns.on_opened()
    assert turns.news() == MadeBy("cpu", "no picture from the GPU: not linked")
    turns.on_error(AWAY)
    assert turns.next() is None


@pytest.mark.parametrize("before", [True, False], ids=["seen on the GPU", "never seen"])
def test_a_camera_that_is_away_is_no_loss(rig: Rig, *, before: bool) -> None:
    turns = rig.turns
    turns.next()
    if before:
        turns.on_opened()
        turns.news()
        turns.on_error(AWAY)
        assert turns.next() == GPU
    turns.on_error(AWAY)
    assert turns.next() is None  # is it the camera?
    turns.on_error(AWAY)
    assert turns.next() == GPU
    turns.on_error(SourceForbidden("wrong password"))
    assert turns.next() == GPU
    assert turns.news() is None
    assert rig.num_asked == 1  # and not at each try


def test_where_the_elements_are_missing_no_pipeline_is_broken_off_for_them(rig: Rig) -> None:
    rig.elements = None
    assert rig.turns.next() is None
    news = rig.turns.news()
    assert news is not None
    assert (news.kind, news.lost) == ("cpu", False)
    assert "nvh264dec" in news.reason
    rig.turns.on_opened()
    for _ in range(5):
        assert not rig.turns.is_gpu_due
    assert rig.num_asked == 1
    rig.now_s += FIRST_PAUSE_S
    assert not rig.turns.is_gpu_due
    assert not rig.turns.is_gpu_due
    assert rig.num_asked == 2  # and not before the next pause, which is longer, is over


def test_the_gpu_s_decoders_rank_first_or_not_at_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    monkeypatch.delenv("GST_PLUGIN_FEATURE_RANK", raising=False)
    ranks = "GST_PLUGIN_FEATURE_RANK"
    none = "nvh264dec:NONE,nvh265dec:NONE,nvv4l2decoder:NONE"
    assert environment_for(None) == {ranks: none}
    assert environment_for(GPU) == {ranks: "nvh264dec:MAX,nvh265dec:MAX,nvv4l2decoder:NONE"}
    monkeypatch.setenv(ranks, "avdec_h264:SECONDARY")
    assert environment_for(None) == {ranks: f"avdec_h264:SECONDARY,{none}"}


@pytest.mark.parametrize(("visible", "chosen"), [(None, "1"), ("4,7", "7"), ("4", "1")])
def test_a_child_sees_the_one_device_it_is_to_use(
    monkeypatch: pytest.MonkeyPatch, visible: str | None, chosen: str
) -> None:
    monkeypatch.delenv("CUDA_VISIBLE_DEVICES", raising=False)
    if visible is not None:
        monkeypatch.setenv("CUDA_VISIBLE_DEVICES", visible)
    assert environment_for(OnGpu(ELEMENTS[0], 1))["CUDA_VISIBLE_DEVICES"] == chosen
    assert "CUDA_VISIBLE_DEVICES" not in environment_for(GPU)
