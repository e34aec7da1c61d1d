"""Clips of a wanted size, made from a real one when a benchmark or a test needs them."""

from fractions import Fraction
from pathlib import Path

import av


def scaled_clip(source: Path, target: Path, *, width: int, height: int, num_frames: int) -> Path:
    """Write the first frames of `source`, enlarged and H.264 like a camera's; returns `target`."""
    with av.open(str(source)) as original, av.open(str(target), "w") as scaled:
        video = original.streams.video[0]
        video.thread_type = "AUTO"
        rate = video.average_rate or Fraction(25)
        stream = scaled.add_stream("libx264", rate=rate)
        stream.width, stream.height, stream.pix_fmt = width, height, "yuv420p"
        stream.options = {"preset": "veryfast", "crf": "23", "g": "50"}
        stream.time_base = 1 / rate
        written = 0
        while written < num_frames:
            for frame in original.decode(video):
                if written == num_frames:
                    break
                picture = frame.reformat(width, height, "yuv420p")
                picture.pts, picture.time_base = written, 1 / rate
                scaled.mux(stream.encode(picture))
                written += 1
            original.seek(0)
        scaled.mux(stream.encode(None))
    return target
