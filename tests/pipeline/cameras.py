"""A camera served by GStreamer in a process of its own, and what it needs to be shown."""

import signal
import socket
import subprocess
from pathlib import Path

import av
import numpy as np
from av.bitstream import BitStreamFilterContext

SYSTEM_PYTHON = "/usr/bin/python3"
_SERVER = "import gi; gi.require_version('GstRtspServer', '1.0')"


def has_gstreamer() -> bool:
    """Whether the system's Python has GStreamer's RTSP server."""
    if not Path(SYSTEM_PYTHON).exists():
        return False
    found = subprocess.run([SYSTEM_PYTHON, "-c", _SERVER], capture_output=True, check=False)
    return found.returncode == 0


class GStreamerCamera:
    """A camera that can be switched off and on, and shown another clip."""

    def __init__(self, clip: Path, folder: Path, *, once: bool = False) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self._folder = folder
        self._once = once
        self._process: subprocess.Popen[str] | None = None
        self.show(clip)

    def on(self) -> None:
        program = Path(__file__).parent / "rtsp_camera.py"
        once = ("--once",) if self._once else ()
        self._process = subprocess.Popen(
            [
                *(SYSTEM_PYTHON, program, self._pictures, str(self.port), *once),
                *("--credentials", "bob:se%cret"),
            ],
            stdout=subprocess.PIPE,
            text=True,
        )
        assert self._process.stdout is not None
        assert self._process.stdout.readline() == "ready\n"

    def off(self) -> None:
        """As when the plug is pulled."""
        if self._process is not None:
            self._process.send_signal(signal.SIGKILL)
            self._process.communicate()
            self._process = None

    def show(self, clip: Path) -> None:
        """Show another clip when it is switched on again: H.264, or Motion JPEG."""
        self._pictures = self._folder / clip.stem
        self._pictures.mkdir(parents=True)
        with av.open(str(clip)) as container:
            video = container.streams.video[0]
            packets = [packet for packet in container.demux(video) if packet.size]
            suffix = "jpg"
            if video.codec_context.name == "h264":
                suffix = "h264"
                annexb = BitStreamFilterContext("h264_mp4toannexb", video)
                packets = [part for packet in packets for part in annexb.filter(packet)]
            for number, packet in enumerate(packets):
                (self._pictures / f"{number:05d}.{suffix}").write_bytes(bytes(packet))

    def address(self, credentials: str = "bob:se%25cret", path: str = "live") -> str:
        return f"rtsp://{credentials}@127.0.0.1:{self.port}/{path}"


def make_film(
    path: Path,
    codec: str = "libx264",
    *,
    num_frames: int = 50,
    width: int = 320,
    height: int = 192,
    keyframe_each: int = 10,
) -> Path:
    """A clip without B-frames of three bright squares that go to and fro, each at its speed."""
    with av.open(str(path), "w") as container:
        options = {"preset": "veryfast", "crf": "12"} if codec == "libx264" else {"qscale": "2"}
        stream = container.add_stream(codec, rate=25, options=options)
        stream.width, stream.height = width, height
        stream.pix_fmt = "yuvj420p" if codec == "mjpeg" else "yuv420p"
        stream.codec_context.gop_size = keyframe_each
        stream.codec_context.max_b_frames = 0
        stream.codec_context.global_quality, stream.codec_context.qscale = 236, True
        for index in range(num_frames):
            picture = np.full((height, width, 3), 20, np.uint8)
            for lane in range(3):
                top, side = 8 + lane * height // 3, height // 5
                way = (width - side) * 2
                place = (index * (lane + 1) + lane * 70) % way
                left = min(place, way - place)
                picture[top : top + side, left : left + side] = 250
            container.mux(stream.encode(av.VideoFrame.from_ndarray(picture, format="rgb24")))
        container.mux(stream.encode(None))
    return path
