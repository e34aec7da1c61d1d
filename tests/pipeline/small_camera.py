"""A small RTSP camera in Python threads: needs nothing installed, and can misbehave on demand.

It speaks what a client over TCP needs (DESCRIBE, SETUP, PLAY, basic credentials), sends H.264 or
MPEG-4 in RTP, and shows a clip in a loop on its own clock, or once to each client.
"""

import base64
import hashlib
import random
import re
import select
import socket
import struct
import threading
import time
from collections import deque
from contextlib import suppress
from dataclasses import dataclass
from fractions import Fraction
from pathlib import Path

import av
from av.bitstream import BitStreamFilterContext

_MOST_BYTES = 8000
_START_CODE = re.compile(b"\x00{2,3}\x01")
_CLOCK = 90_000
_NONCE = "dcd98b7102dd2f0e"


@dataclass(frozen=True)
class Film:
    """A clip as RTP carries it: for each picture its time in ticks of the clock, and its units."""

    encoding: str
    parameters: str
    pictures: tuple[tuple[int, tuple[bytes, ...]], ...]
    keyframes: tuple[bool, ...]
    duration: int


def film_of(clip: Path) -> Film:
    """Read a clip of H.264 or MPEG-4."""
    with av.open(str(clip)) as container:
        video = container.streams.video[0]
        packets = [packet for packet in container.demux(video) if packet.size]
        times = [round(p.pts * p.time_base * _CLOCK) for p in packets]
        keyframes = tuple(packet.is_keyframe for packet in packets)
        if video.codec_context.name == "h264":
            annexb = BitStreamFilterContext("h264_mp4toannexb", video)
            units = [tuple(_units(annexb.filter(packet))) for packet in packets]
            encoding, parameters = "H264", "packetization-mode=1"
        else:
            units = [(bytes(packet),) for packet in packets]
            config = (video.codec_context.extradata or b"").hex()
            encoding, parameters = "MP4V-ES", f"profile-level-id=1;config={config}"
        rate = video.average_rate or Fraction(25)
    pictures = tuple(zip(times, units, strict=True))
    return Film(encoding, parameters, pictures, keyframes, round(len(packets) / rate * _CLOCK))


def _units(packets: "list[av.Packet[av.VideoStream]]") -> list[bytes]:
    """The NAL units of a picture."""
    return [unit for packet in packets for unit in _START_CODE.split(bytes(packet)) if unit]


@dataclass(frozen=True)
class Sent:
    """One picture, as it went out."""

    client: int
    """Which client it was sent to, counted from 1."""
    ticks: int
    """Its time by the camera's clock."""
    keyframe: bool
    at_s: float
    """When it was given to the network, by the monotonic clock."""


class SmallCamera:
    """A camera that can be switched off and on, frozen, and shown another clip."""

    def __init__(self, clip: Path, *, once: bool = False) -> None:
        with socket.create_server(("127.0.0.1", 0)) as probe:
            self.port = probe.getsockname()[1]
        self.num_clients = 0
        """Clients that were ever played to."""
        self.frozen = False
        """Whether it keeps its connections and sends nothing."""
        self.garbled = False
        """Whether what it sends is noise."""
        self.loss = 0.0
        """Share of its packets that never arrive."""
        self.silent = False
        """Whether it takes connections and never answers, even when this is over."""
        self.busy = False
        """Whether it refuses everyone, as if too many were watching."""
        self.sent: deque[Sent] = deque(maxlen=10_000)
        """The latest pictures it sent, those of which packets were lost included."""
        self.ahead_s = 0.0
        """How far the times of its pictures are before its clock."""
        self.credentials = "bob:se%cret"
        self.digest = False
        """Whether it asks for a digest of the password instead of the password."""
        self._film = film_of(clip)
        self._once = once
        self._server: socket.socket | None = None
        self._clients: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._on_since_s = 0.0

    def on(self) -> None:
        self._on_since_s = time.monotonic()
        self._server = socket.create_server(("127.0.0.1", self.port))
        self._run(self._accept, self._server)

    def off(self) -> None:
        """As when the plug is pulled."""
        if self._server is not None:
            with suppress(OSError):
                self._server.shutdown(socket.SHUT_RDWR)
            self._server.close()
            self._server = None
        while self._clients:
            with suppress(OSError):
                self._clients.pop().shutdown(socket.SHUT_RDWR)
        while self._threads:
            self._threads.pop().join()

    def show(self, clip: Path) -> None:
        """Show another clip when it is switched on again."""
        self._film = film_of(clip)

    def address(self, credentials: str = "bob:se%25cret", path: str = "live") -> str:
        return f"rtsp://{credentials}@127.0.0.1:{self.port}/{path}"

    def _run(self, work: object, *arguments: object) -> None:
        thread = threading.Thread(target=work, args=arguments)  # type: ignore[arg-type]
        self._threads.append(thread)
        thread.start()

    def _accept(self, server: socket.socket) -> None:
        with suppress(OSError):
            while True:
                client, _ = server.accept()
                self._clients.append(client)
                self._run(self._serve, client)

    def _serve(self, client: socket.socket) -> None:
        """Answer one client, then send until it leaves or the camera is switched off."""
        with suppress(OSError), client:
            if self.silent:
                while client.recv(4096):
                    pass
                return
            while (request := _request(client)) and self._answer(client, request):
                pass
            if request:
                self.num_clients += 1
                _Sender(client, self.num_clients).send_all(self)

    def _answer(self, client: socket.socket, request: str) -> bool:
        """Answer; False when the camera shall begin to send."""
        method, address = request.split(" ", 2)[:2]
        fields, body = "Session: 1", ""
        status = "200 OK"
        if not self._knows(request):
            scheme = f'Digest realm="camera", nonce="{_NONCE}"' if self.digest else (
                'Basic realm="camera"')  # fmt: skip
            status, fields = "401 Unauthorized", f"WWW-Authenticate: {scheme}"
        elif self.busy:
            status = "503 Service Unavailable"
        elif method == "DESCRIBE" and not address.endswith("/live"):
            status = "404 Not Found"
        elif method == "DESCRIBE":
            body = self._description()
            fields = "Content-Type: application/sdp"
        elif method == "SETUP":
            fields += "\r\nTransport: RTP/AVP/TCP;unicast;interleaved=0-1"
        number = re.search(r"CSeq: *(\d+)", request)
        assert number is not None
        client.sendall(
            f"RTSP/1.0 {status}\r\nCSeq: {number[1]}\r\n{fields}\r\n"
            f"Content-Length: {len(body)}\r\n\r\n{body}".encode()
        )
        return method != "PLAY" or status != "200 OK"

    def _knows(self, request: str) -> bool:
        """Whether a request comes with the right user and password."""
        if not self.digest:
            return f"Basic {base64.b64encode(self.credentials.encode()).decode()}" in request
        user, password = self.credentials.split(":")
        method, address = request.split(" ", 2)[:2]
        whose, what = _md5(f"{user}:camera:{password}"), _md5(f"{method}:{address}")
        return f'response="{_md5(f"{whose}:{_NONCE}:{what}")}"' in request

    def _description(self) -> str:
        lines = (
            "v=0",
            "o=- 0 0 IN IP4 127.0.0.1",
            "s=camera",
            "t=0 0",
            "m=video 0 RTP/AVP 96",
            f"a=rtpmap:96 {self._film.encoding}/{_CLOCK}",
            f"a=fmtp:96 {self._film.parameters}",
            "a=control:video",
        )
        return "\r\n".join((*lines, ""))


class _Sender:
    """Sends a camera's pictures to one client, interleaved on its RTSP connection."""

    def __init__(self, client: socket.socket, client_number: int) -> None:
        self._client = client
        self._client_number = client_number
        self._number = 0
        self._chance = random.Random(7)

    def send_all(self, camera: SmallCamera) -> None:
        film, noise = camera._film, random.Random(7)
        began_s = time.monotonic() if camera._once else camera._on_since_s
        position = 0
        if not camera._once:
            passed = (time.monotonic() - began_s) * _CLOCK / film.duration
            position = int(passed * len(film.pictures))
        while not (camera._once and position == len(film.pictures)):
            rounds, place = divmod(position, len(film.pictures))
            ticks, units = film.pictures[place]
            ticks += rounds * film.duration + round(camera.ahead_s * _CLOCK)
            due_s = began_s + position * film.duration / len(film.pictures) / _CLOCK
            if not self._wait(due_s):
                return
            if camera.garbled:
                units = tuple(noise.randbytes(len(unit)) for unit in units)
            if not camera.frozen:
                self._send_picture(ticks, film.encoding, units, camera.loss)
                keyframe, now_s = film.keyframes[place], time.monotonic()
                camera.sent.append(Sent(self._client_number, ticks, keyframe, now_s))
            position += 1

    def _wait(self, until_s: float) -> bool:
        """Wait; False once the client has left. What it says meanwhile needs no answer."""
        while True:
            left_s = until_s - time.monotonic()
            ready, _, _ = select.select([self._client], [], [], max(0, left_s))
            if not ready:
                return True
            said = self._client.recv(4096)
            if not said or b"TEARDOWN" in said:
                return False

    def _send_picture(
        self, ticks: int, encoding: str, units: tuple[bytes, ...], loss: float
    ) -> None:
        payloads = [
            payload
            for unit in units
            for payload in (_fragments(unit) if encoding == "H264" else _slices(unit))
        ]
        message = b""
        for place, payload in enumerate(payloads):
            marker = 0x80 if place == len(payloads) - 1 else 0
            sequence, time_stamp = self._number & 0xFFFF, ticks & 0xFFFFFFFF
            header = struct.pack(">BBHII", 0x80, marker | 96, sequence, time_stamp, 7)
            self._number += 1
            if self._chance.random() >= loss:
                size = len(header) + len(payload)
                message += struct.pack(">BBH", 0x24, 0, size) + header + payload
        self._client.sendall(message)


def _md5(text: str) -> str:
    return hashlib.md5(text.encode(), usedforsecurity=False).hexdigest()


def _slices(unit: bytes) -> list[bytes]:
    return [unit[start : start + _MOST_BYTES] for start in range(0, len(unit), _MOST_BYTES)]


def _fragments(unit: bytes) -> list[bytes]:
    """A NAL unit as it is, or in fragments (FU-A, RFC 6184)."""
    if len(unit) <= _MOST_BYTES:
        return [unit]
    pieces = _slices(unit[1:])
    last = len(pieces) - 1
    return [
        bytes((unit[0] & 0xE0 | 28, (n == 0) << 7 | (n == last) << 6 | unit[0] & 0x1F)) + piece
        for n, piece in enumerate(pieces)
    ]


def _request(client: socket.socket) -> str:
    """The next request; empty where the client has left."""
    text = b""
    while b"\r\n\r\n" not in text:
        more = client.recv(4096)
        if not more:
            return ""
        text += more
    return text.decode()
