# SPDX-License-Identifier: Apache-2.0
"""Lines of the log: JSON, and without secrets whoever wrote them."""

import io
import json
import logging
from collections.abc import Iterator

import pytest

from pipeline.logs import JsonLines, Scrubber

PASSWORD = "s3cr/t p@ss"


@pytest.fixture
def logged() -> Iterator[tuple[logging.Logger, io.StringIO]]:
    text = io.StringIO()
    handler = logging.StreamHandler(text)
    handler.setFormatter(JsonLines(Scrubber([PASSWORD, "abc"])))
    logger = logging.getLogger("some.part")
    logger.addHandler(handler)
    yield logger, text
    logger.removeHandler(handler)


def test_a_line_says_when_who_and_what(logged: tuple[logging.Logger, io.StringIO]) -> None:
    logger, text = logged
    logger.warning("lost %d frames", 3, extra={"camera": "yard"})
    line = json.loads(text.getvalue())
    assert line.pop("time").endswith("+00:00")
    assert line == {
        "level": "warning",
        "logger": "some.part",
        "message": "lost 3 frames",
        "camera": "yard",
    }


@pytest.mark.parametrize(
    "said",
    [
        f"[rtsp] DESCRIBE failed for {PASSWORD}",
        "rtsp://viewer:s3cr%2Ft%20p%40ss@192.0.2.1/x failed",
        "Opening 'http://192.0.2.1/video?user=a&pwd=s3cr/t' for reading",
        "two: rtsp://a:s3cr@h/x and rtsp://b:s3cr@h/y",
    ],
)
def test_no_secret_is_in_it(logged: tuple[logging.Logger, io.StringIO], said: str) -> None:
    logger, text = logged
    try:
        raise OSError(said)
    except OSError:
        logger.exception("failed: %s", said, extra={"detail": said})
    assert "s3cr" not in text.getvalue()
    assert len(text.getvalue().splitlines()) == 1


def test_short_secrets_do_not_turn_texts_into_stars() -> None:
    assert Scrubber(["abc", ""])("abcdef") == "abcdef"
