"""Who encodes a video; NVIDIA's encoder has never run where these tests were written."""

import logging
from dataclasses import replace
from fractions import Fraction
from pathlib import Path

import av
import numpy as np
import pytest

from pipeline import nv12
from pipeline.sinks import encoders
from pipeline.sinks.encoders import NVENC, X264, Encoder, pick_encoder
from pipeline.sinks.mp4 import Mp4Writer

PICTURE_HW = (96, 160)


def test_the_processor_encodes_where_it_is_asked_to(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "NVENC", None)  # nobody looks at it
    assert pick_encoder("x264", PICTURE_HW) is X264


@pytest.mark.parametrize(("wanted", "level"), [("auto", "INFO"), ("nvenc", "WARNING")])
def test_what_does_not_open_is_replaced_and_the_reason_told(
    wanted: encoders.EncodedBy,
    level: str,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    refused = Encoder(name="libx264", options={"preset": "no such preset"})
    monkeypatch.setattr(encoders, "NVENC", refused)
    with caplog.at_level(logging.INFO):
        picked = pick_encoder(wanted, PICTURE_HW)
    assert replace(picked, reason="") == X264
    assert picked.reason.startswith("libx264 does not work here (")
    assert [(record.levelname, record.getMessage()) for record in caplog.records] == [
        (level, f"libx264 encodes on the processor: {picked.reason}")
    ]


def test_an_encoder_that_ffmpeg_does_not_know_is_replaced(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(encoders, "NVENC", Encoder(name="no_such_encoder", options={}))
    assert pick_encoder("auto", PICTURE_HW).reason.startswith("no_such_encoder does not work here")


def test_nvidias_encoder_is_taken_only_where_it_really_opens() -> None:
    """With PyAV as it is."""
    picked = pick_encoder("auto", PICTURE_HW)
    assert picked == NVENC or picked.reason.startswith("h264_nvenc does not work here (")


@pytest.mark.parametrize("picture_hw", [PICTURE_HW, (97, 161)])
def test_what_opens_encodes_the_video(
    picture_hw: tuple[int, int], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = Encoder(name="libx264", options={"preset": "veryfast", "x264-params": "bframes=0"})
    monkeypatch.setattr(encoders, "NVENC", other)
    picked = pick_encoder("nvenc", picture_hw)
    assert picked is other
    writer = Mp4Writer(
        tmp_path / "a.mp4",
        picture_hw=picture_hw,
        matrix="bt709",
        frame_rate=Fraction(25),
        encoder=picked,
    )
    for index in range(3):
        writer.write(np.full(nv12.shape(picture_hw), 128, np.uint8), index * 40_000_000)
    writer.finish()
    with av.open(str(tmp_path / "a.mp4")) as container:
        assert sum(1 for _ in container.decode(video=0)) == 3
