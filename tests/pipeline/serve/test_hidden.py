# SPDX-License-Identifier: Apache-2.0
"""The secrets that no log line may hold."""

from pathlib import Path

import pytest

from pipeline.errors import SourceUnreadable
from pipeline.serve.config import ServeConfig
from pipeline.serve.hidden import secrets_of

LONG = "t" * 2000
"""As long as tokens get, and longer than any name of a file may be."""


def test_every_secret_is_found_and_what_may_be_shown_is_not(tmp_path: Path) -> None:
    clip = tmp_path / "clip.mp4"
    clip.touch()
    config = ServeConfig.model_validate(
        {
            "cameras": {
                "yard": {"source": "rtsp://bob:se%25cret@192.0.2.1/live"},
                "door": {"source": "rtsp://192.0.2.2/live"},
                "film": {"source": str(clip)},
                "pipe": {"source": "gst:rtspsrc location=rtsp://x user-pw=word"},
            },
            "http": {"token": LONG},
            "events": {
                "webhooks": [{"name": "a", "url": "https://h/hook-token", "headers": {"A": "key"}}],
                "mqtt": {"host": "broker", "password": "word"},
            },
        }
    )
    assert set(secrets_of(config)) == {
        *("se%25cret", "se%cret", LONG, "https://h/hook-token", "key", "word"),
        "gst:rtspsrc location=rtsp://x user-pw=word",
    }


def test_a_fault_does_not_show_what_a_variable_or_a_file_holds(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WORD", "hunter-2-hunter")
    (tmp_path / "word").write_text("hunter-2-hunter")
    for source in ("${WORD}", "clips/${WORD}", {"file": str(tmp_path / "word")}):
        config = ServeConfig.model_validate({"cameras": {"yard": {"source": source}}})
        with pytest.raises(SourceUnreadable, match=r"cameras\.yard\.source: what") as refusal:
            config.sources()
        assert "hunter" not in str(refusal.value)
