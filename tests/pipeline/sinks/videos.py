# SPDX-License-Identifier: Apache-2.0
"""Small synthetic pictures, sounds and files, and what a written file holds."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
import numpy as np


def smooth_picture(index: int = 0, *, width: int = 320, height: int = 240) -> np.ndarray:
    """A colourful BGR picture without edges, which moves with `index`."""
    across = np.linspace(0, 2 * np.pi, width)[None, :] + index / 10
    down = np.linspace(0, np.pi, height)[:, None]
    channels = [np.sin(across + phase) * np.cos(down * (1 + phase / 4)) for phase in (0, 2, 4)]
    return np.stack([128 + 90 * channel for channel in channels], axis=-1).astype(np.uint8)


def write_sound(
    path: Path, codec: str, *, duration_s: float = 2.0, rate: int = 48_000, click_s: float = 1.0
) -> Path:
    """A file with one tone that is silent before `click_s`."""
    samples = np.arange(int(duration_s * rate))
    tone = 0.5 * np.sin(2 * np.pi * 440 * samples / rate)
    tone[samples < click_s * rate] = 0
    with av.open(str(path), "w") as container:
        stream = container.add_stream(codec, rate=rate, layout="mono")
        frame = av.AudioFrame.from_ndarray(
            (tone * 32767).astype(np.int16)[None, :], format="s16", layout="mono"
        )
        frame.sample_rate, frame.pts, frame.time_base = rate, 0, Fraction(1, rate)
        resampler = av.AudioResampler(
            format=stream.format, layout="mono", rate=rate, frame_size=stream.frame_size or 1024
        )
        for piece in (*resampler.resample(frame), *resampler.resample(None), None):
            container.mux(stream.encode(piece))
    return path


@dataclass(frozen=True, kw_only=True)
class Written:
    """What a player finds in a file."""

    pts_s: list[float]
    duration_s: float
    width: int
    height: int
    pictures: list[np.ndarray]


def decode(path: Path, *, may_break_off: bool = False) -> Written:
    """Read the pictures of a file back, as BGR."""
    frames = []
    with av.open(str(path), format="mp4") as container:
        stream = container.streams.video[0]
        with suppress(*[av.error.InvalidDataError] * may_break_off):
            frames.extend(container.decode(stream))
        return Written(
            pts_s=[float(frame.time) for frame in frames],
            duration_s=container.duration / 1e6,
            width=stream.width,
            height=stream.height,
            pictures=[frame.to_ndarray(format="bgr24") for frame in frames],
        )


def sound(path: Path) -> tuple[str, np.ndarray]:
    """Codec of a file's sound, and its samples at 48 kHz from the file's zero on."""
    resampler = av.AudioResampler(format="flt", layout="mono", rate=48_000)
    with av.open(str(path), format="mp4") as container:
        stream = container.streams.audio[0]
        pieces = list(_samples(container, resampler))
        first_s, _ = pieces[0]
        silence = np.zeros(max(0, round(first_s * 48_000)), np.float32)
        return stream.codec_context.name, np.concatenate([silence, *(data for _, data in pieces)])


def _samples(
    container: av.container.InputContainer, resampler: av.AudioResampler
) -> Iterator[tuple[float, np.ndarray]]:
    for frame in container.decode(audio=0):
        for piece in resampler.resample(frame):
            yield float(frame.time), piece.to_ndarray().ravel()


def psnr(first: np.ndarray, second: np.ndarray) -> float:
    """Peak signal to noise ratio in dB."""
    error = np.mean((first.astype(np.float64) - second) ** 2)
    return float(10 * np.log10(255**2 / max(error, 1e-9)))
