# SPDX-License-Identifier: Apache-2.0
"""The trunk on another host: the same tracks, whoever comes and goes; `pipeline/station.py`."""

import gc
import logging
import os
import random
import shutil
import signal
import socket
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
import zmq

from model.config import ModelConfig, Suppression
from model.errors import ConfigError
from model.slicing import Region
from pipeline.config import OutputConfig, PipelineConfig, RemoteConfig
from pipeline.job import Job, describe_graph
from pipeline.station import Station
from pipeline.transport.curve import make_keys, read_keys, read_public, secure
from pipeline.transport.wire import (
    PROTOCOL,
    Alive,
    FromWorker,
    Hello,
    Late,
    Look,
    Refused,
    Seen,
    Welcome,
    encode,
    from_worker,
    model_facts,
)
from tests.pipeline.far_side import (
    TIMEOUT_S,
    FarProcess,
    FarThread,
    KeyRing,
    PausingEngine,
    build_pausing,
)
from tests.pipeline.scenes import Once, SquareEngine, build_squares, make_scene

NUM_FRAMES = 120
WHOLE = Region(0, 0, 320, 192)


pytestmark = pytest.mark.usefixtures("squares")


@pytest.fixture(scope="module")
def weights(card_file: Path) -> Path:
    return card_file


@pytest.fixture(scope="module")
def clip(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_scene(tmp_path_factory.mktemp("clip") / "yard.mp4", num_frames=NUM_FRAMES)


@pytest.fixture(scope="module")
def expected(clip: Path, weights: Path, tmp_path_factory: pytest.TempPathFactory) -> list[bytes]:
    """The tracks that infer and suppress on this host give."""
    folder = tmp_path_factory.mktemp("here")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("pipeline.job.build_engine", build_squares)
        assert run_job(make_config(weights, folder, None), clip).complete
    return tracks(folder)


@pytest.fixture
def ring(tmp_path: Path) -> KeyRing:
    return KeyRing.make(tmp_path / "keys")


@pytest.fixture
def far(ring: KeyRing, weights: Path) -> Iterator[FarThread]:
    with FarThread(ring.worker(weights)) as far:
        yield far


def make_config(
    weights: Path, folder: Path, remote: RemoteConfig | None, **nodes: Any
) -> PipelineConfig:
    return PipelineConfig(
        model=ModelConfig(weights=weights, image_size=160),
        output=OutputConfig(directory=folder / "out", save_video=nodes.pop("save_video", False)),
        remote=remote,
        **nodes,
    )


def run_job(config: PipelineConfig, clip: Path, on_tick: Callable[[], None] = lambda: None) -> Job:
    job = Job(config, [str(clip)])
    job.run(on_tick)
    return job


def tracks(folder: Path) -> list[bytes]:
    return [(folder / "out" / f"yard{suffix}").read_bytes() for suffix in (".jsonl", ".mot.txt")]


def reason(job: Job) -> str:
    assert not job.complete
    (state,) = job.streams
    assert "\n" not in state.reason
    assert not state.trace
    return state.reason


def wait_until(true: Callable[[], bool]) -> None:
    until_s = time.monotonic() + TIMEOUT_S
    while not true():
        assert time.monotonic() < until_s
        time.sleep(0.01)


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        return int(taken.getsockname()[1])


class RawClient:
    """A client that says what it likes."""

    def __init__(self, ring: KeyRing, address: str, client: str = "client") -> None:
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._socket = self._context.socket(zmq.DEALER)
        self._socket.linger = 0
        keys = read_keys(ring.folder / f"{client}.key")
        secure(self._socket, keys, read_public(ring.folder / "worker.pub"))
        self._socket.connect(address)

    def __enter__(self) -> "RawClient":
        return self

    def __exit__(self, *_: object) -> None:
        self._context.destroy(linger=0)

    def say(self, *parts: bytes) -> None:
        self._socket.send_multipart(parts)

    def hear(self) -> FromWorker:
        """The next message that is more than a sign of life."""
        while True:
            assert self._socket.poll(TIMEOUT_S * 1000)
            message: FromWorker = from_worker(self._socket.recv_multipart()[0])
            if not isinstance(message, Alive):
                return message

    def come_in(self, weights: Path, run: str = "a") -> None:
        self.say(encode(hello(weights, run=run)))
        assert isinstance(self.hear(), Welcome)


def hello(weights: Path, **changes: Any) -> Hello:
    usual = Hello(
        protocol=PROTOCOL,
        run="a",
        model=model_facts(weights),
        suppression=Suppression().model_dump(),
        class_ids=None,
    )
    return msgspec.structs.replace(usual, **changes)


def look(
    number: int = 0,
    shape: tuple[int, int, int, int] = (1, 96, 160, 3),
    *,
    regions: tuple[Region, ...] | None = None,
    source_hw: tuple[int, int] = (192, 320),
    stream: int = 0,
    fresh_ns: int | None = None,
) -> bytes:
    return encode(
        Look(
            number=number,
            stream=stream,
            shape=shape,
            source_hw=source_hw,
            regions=(Region.whole(source_hw),) if regions is None else regions,
            fresh_ns=fresh_ns,
        )
    )


# The same tracks


@pytest.mark.parametrize("placement", ["threads", "processes"])
def test_the_tracks_are_the_same_byte_for_byte_through_a_second_host(
    placement: str,
    tmp_path: Path,
    weights: Path,
    clip: Path,
    ring: KeyRing,
    far: FarThread,
    expected: list[bytes],
) -> None:
    remote = ring.remote(far.address)
    job = run_job(make_config(weights, tmp_path, remote, placement=placement), clip)
    assert job.complete
    assert tracks(tmp_path) == expected
    assert job.summary()["model"]["engine"] == "squares"
    counters = job.counters["yard"]
    assert counters["tracked"] == counters["decoded"] == NUM_FRAMES


def test_strides_and_pictures_need_nothing_from_the_other_host(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, far: FarThread
) -> None:
    config = make_config(weights, tmp_path, ring.remote(far.address), save_video=True)
    source = config.source.model_copy(update={"stride": 3})
    job = run_job(config.model_copy(update={"source": source}), clip)
    assert job.complete
    assert job.counters["yard"]["tracked"] == NUM_FRAMES // 3
    assert job.counters["yard"]["skipped_stride"] == NUM_FRAMES - NUM_FRAMES // 3
    assert (tmp_path / "out/yard.mp4").exists()


def test_several_clients_are_served_at_once_and_do_not_mix(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing, expected: list[bytes]
) -> None:
    make_keys("other", ring.folder)
    ring.admit(ring.folder / "other.pub")
    jobs = {}

    def work(name: str) -> None:
        remote = ring.remote(far.address, client=name)
        jobs[name] = run_job(make_config(weights, tmp_path / name, remote), clip)

    threads = [threading.Thread(target=work, args=(name,)) for name in ("client", "other")]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    for name, job in jobs.items():
        assert job.complete
        assert tracks(tmp_path / name) == expected


def test_a_worker_killed_in_mid_run_and_started_again_changes_no_track(
    tmp_path: Path,
    weights: Path,
    clip: Path,
    ring: KeyRing,
    expected: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    with FarProcess(ring.worker(weights)) as first:
        job = Job(make_config(weights, tmp_path, ring.remote(first.address)), [str(clip)])
        again: list[FarProcess] = []

        def replace() -> None:
            first.signal(signal.SIGKILL)
            again.append(FarProcess(ring.worker(weights, first.address)))

        def on_tick() -> None:
            if job.counters["yard"]["tracked"] >= 10:
                once()

        once = Once(replace)
        job.run(on_tick)
        (second,) = again
        with second:
            assert second.signal(signal.SIGTERM) == 0
        assert "took leave" in second.log[-1] or "took leave" in second.log[-2]
    assert job.complete
    assert tracks(tmp_path) == expected
    assert "the connection broke; trying again" in caplog.text
    assert f"{first.address}: connected" in caplog.text


def test_a_worker_that_hangs_is_left_and_found_again(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, expected: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    with FarProcess(ring.worker(weights, silence_s=2)) as far:
        remote = ring.remote(far.address, silence_s=2)
        job = Job(make_config(weights, tmp_path, remote), [str(clip)])

        def hang() -> None:
            far.pass_on(signal.SIGSTOP)
            wait_until(lambda: "trying again" in caplog.text)
            far.pass_on(signal.SIGCONT)

        def on_tick() -> None:
            if job.counters["yard"]["tracked"] >= 10:
                once()

        once = Once(hang)
        job.run(on_tick)
    assert job.complete
    assert tracks(tmp_path) == expected
    assert "silent for 2." in caplog.text


def test_a_client_process_killed_in_mid_run_is_replaced_and_changes_no_track(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, expected: list[bytes]
) -> None:
    with FarThread(ring.worker(weights), build_pausing) as far:
        config = make_config(weights, tmp_path, ring.remote(far.address), placement="processes")
        job = Job(config, [str(clip)])

        def kill() -> None:
            (trunk,) = (each for each in job.supervisor._crew._processes if each.group == "trunk")
            os.kill(trunk.pid, signal.SIGKILL)

        def on_tick() -> None:
            if job.counters["yard"]["tracked"] >= 10:
                once()

        once = Once(kill)
        job.run(on_tick)
        assert job.complete
        assert tracks(tmp_path) == expected
        assert job.summary()["replaced"] == ["trunk"]
        wait_until(lambda: not (far.station._sessions or far.station._leaving))


# Who may come in


def test_a_key_that_is_not_allowed_is_named_on_both_sides(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing,
    caplog: pytest.LogCaptureFixture,
) -> None:  # fmt: skip
    make_keys("stranger", ring.folder)
    public = read_public(ring.folder / "stranger.pub").hex()
    job = run_job(make_config(weights, tmp_path, ring.remote(far.address, client="stranger")), clip)
    assert reason(job) == (
        f"{far.address}: refused our key {public}; copy stranger.pub into the worker's "
        "--allow folder"
    )
    assert f"127.0.0.1: refused the key {public}: it is not in {ring.allow}" in caplog.text


def test_a_key_copied_into_the_folder_is_allowed_from_then_on(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing
) -> None:
    make_keys("late", ring.folder)
    config = make_config(weights, tmp_path, ring.remote(far.address, client="late"))
    assert "refused our key" in reason(run_job(config, clip))
    ring.admit(ring.folder / "late.pub")
    assert run_job(config, clip).complete


def test_a_wrong_key_of_the_worker_is_named(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing
) -> None:
    make_keys("elsewhere", ring.folder)
    wrong = ring.folder / "elsewhere.pub"
    started_s = time.monotonic()
    remote = ring.remote(far.address, server_key=wrong)
    text = reason(run_job(make_config(weights, tmp_path, remote), clip))
    assert text.startswith(f"{far.address}: broke off the handshake, so it has another key than")
    assert f"{wrong} (remote.server_key)" in text
    assert time.monotonic() - started_s < TIMEOUT_S / 2


def test_nobody_who_listens_is_waited_for_and_then_told(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    started_s = time.monotonic()
    job = run_job(make_config(weights, tmp_path, ring.remote(address, timeout_s=0.6)), clip)
    assert reason(job) == (
        f"{address}: nobody listens there; gave up after 0.6 s (remote.timeout_s); "
        f"start it with: sightline worker --listen {address}"
    )
    assert 0.6 <= time.monotonic() - started_s < 5
    assert f"{address}: nobody listens there; trying again for 0.6 s" in caplog.text


def test_a_worker_that_starts_late_is_waited_for(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, expected: list[bytes]
) -> None:
    address = f"tcp://127.0.0.1:{free_port()}"
    job = Job(make_config(weights, tmp_path, ring.remote(address)), [str(clip)])
    thread = threading.Thread(target=job.run)
    thread.start()
    time.sleep(0.3)
    with FarThread(ring.worker(weights, address)):
        thread.join()
    assert job.complete
    assert tracks(tmp_path) == expected


def test_somebody_else_who_listens_there_is_told_from_a_worker(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing
) -> None:
    with socket.create_server(("127.0.0.1", 0)) as other:
        address = f"tcp://127.0.0.1:{other.getsockname()[1]}"

        def answer() -> None:
            with suppress(OSError):  # until nobody listens any more
                while True:
                    connection, _ = other.accept()
                    with connection, suppress(ConnectionError):
                        connection.sendall(b"HTTP/1.1 400 Bad Request\r\n\r\n" + bytes(100))

        thread = threading.Thread(target=answer)
        thread.start()
        job = run_job(make_config(weights, tmp_path, ring.remote(address)), clip)
        other.shutdown(socket.SHUT_RDWR)
        thread.join()
    assert "is no worker" in reason(job)


# What must be the same at both ends


def test_another_model_is_refused_in_one_line_that_names_both(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing
) -> None:
    other = tmp_path / "other.safetensors"
    other.write_bytes(weights.read_bytes() + b"\0")
    job = run_job(make_config(other, tmp_path, ring.remote(far.address)), clip)
    text = reason(job)
    assert f"the worker runs {model_facts(weights)}, this side has {model_facts(other)}" in text
    assert text.endswith("give both the same weights file")


@pytest.mark.parametrize(
    ("changes", "fault"),
    [
        ({"protocol": 7}, f"the worker speaks protocol {PROTOCOL}, this side 7"),
        ({"class_ids": (0, 2)}, "classes are numbered to 1"),
        ({"suppression": {"max_iou": 7}}, "max_iou"),
        ({"suppression": {"new": 7}}, "new"),
    ],
)
def test_a_client_that_asks_for_what_is_not_there_is_told(
    changes: dict[str, Any], fault: str, weights: Path, far: FarThread, ring: KeyRing
) -> None:
    with RawClient(ring, far.address) as client:
        client.say(encode(hello(weights, **changes)))
        refused = client.hear()
        assert isinstance(refused, Refused)
        assert fault in refused.reason
        assert not refused.again


def test_a_client_more_than_the_worker_takes_waits_for_its_turn(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing, caplog: pytest.LogCaptureFixture
) -> None:
    with FarThread(ring.worker(weights, clients=1)) as far:
        job = Job(make_config(weights, tmp_path, ring.remote(far.address)), [str(clip)])
        thread = threading.Thread(target=job.run)
        with RawClient(ring, far.address) as first:
            first.come_in(weights)
            thread.start()
            wait_until(lambda: "serves 1 clients, its most" in caplog.text)
        thread.join()
    assert job.complete


# What nobody may do to a worker


def test_strangers_with_bytes_of_any_kind_end_no_worker(
    tmp_path: Path, weights: Path, clip: Path, far: FarThread, ring: KeyRing
) -> None:
    noise = random.Random(5)
    host, port = far.address.removeprefix("tcp://").split(":")
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00CURVE" + bytes(15) + b"\0" + bytes(31)
    sent = [
        b"GET / HTTP/1.1\r\nHost: worker\r\n\r\n",
        b"",
        greeting,
        greeting + b"\x06\xff\xff\xff\xff\xff\xff\xff\xff",
        greeting + b"\x04\xc8\x05HELLO" + noise.randbytes(194),
        *(noise.randbytes(noise.randrange(1, 2000)) for _ in range(40)),
        *(greeting + noise.randbytes(noise.randrange(1, 400)) for _ in range(40)),
    ]
    connections = [socket.create_connection((host, int(port))) for _ in sent]
    for connection, text in zip(connections, sent, strict=True):
        try:
            connection.sendall(text)
        except OSError:
            continue
    assert run_job(make_config(weights, tmp_path, ring.remote(far.address)), clip).complete
    for connection in connections:
        connection.close()


def test_more_strangers_than_the_worker_has_descriptors_keep_clients_out_for_a_while_only(
    weights: Path, ring: KeyRing
) -> None:
    few = ("bash", "-c", 'ulimit -n 60; exec "$@"', "bash")
    with FarProcess(ring.worker(weights, silence_s=2), prefix=few) as far:
        host, port = far.address.removeprefix("tcp://").split(":")
        idle = [socket.create_connection((host, int(port))) for _ in range(100)]
        with RawClient(ring, far.address) as client:
            client.come_in(weights)
        for connection in idle:
            connection.close()
        assert far.signal(signal.SIGTERM) == 0


@pytest.mark.parametrize(
    "parts",
    [
        pytest.param((b"",), id="nothing"),
        pytest.param((b"\xc1", b"x"), id="no message"),
        pytest.param((encode({"type": "Look", "number": "one"}),), id="wrong types"),
        pytest.param((b"\x91" * 100_000,), id="deep"),
        pytest.param((b"\x81\xa4type\xa2\xff\xfe",), id="no text"),
        pytest.param((look(shape=(1, 96, 160, 4)), bytes(96 * 160 * 4)), id="four channels"),
        pytest.param((look(shape=(1, 97, 160, 3)), bytes(97 * 160 * 3)), id="odd shape"),
        pytest.param((look(shape=(1, -32, -32, 3)), bytes(32 * 32 * 3)), id="negative shape"),
        pytest.param((look(shape=(1, 0, 32, 3)), b""), id="empty shape"),
        pytest.param((look(), bytes(7)), id="too few bytes"),
        pytest.param((look(),), id="no pixels"),
        pytest.param((look(number=-1), bytes(96 * 160 * 3)), id="negative number"),
        pytest.param((look(source_hw=(0, 9)), bytes(96 * 160 * 3)), id="no source"),
        pytest.param((look(shape=(2, 96, 160, 3)), bytes(2 * 96 * 160 * 3)), id="a look too many"),
        pytest.param((look(shape=(0, 96, 160, 3), regions=()), b""), id="no look"),
        pytest.param(
            (look(shape=(18, 32, 32, 3), regions=(WHOLE,) * 18), bytes(18 * 32 * 32 * 3)),
            id="too many looks",
        ),
        pytest.param(
            (look(regions=(Region(0, 0, 160, 192),)), bytes(96 * 160 * 3)), id="not the whole"
        ),
        pytest.param(
            (
                look(shape=(2, 96, 160, 3), regions=(WHOLE, Region(160, 0, 161, 96))),
                bytes(2 * 96 * 160 * 3),
            ),
            id="a look beside the picture",
        ),
        pytest.param((look(stream=-1), bytes(96 * 160 * 3)), id="negative stream"),
        pytest.param((look(fresh_ns=-1), bytes(96 * 160 * 3)), id="late before it came"),
    ],
)
def test_a_client_that_sends_what_is_no_message_is_refused_alone(
    parts: tuple[bytes, ...], weights: Path, far: FarThread, ring: KeyRing
) -> None:
    with RawClient(ring, far.address) as bad, RawClient(ring, far.address) as good:
        good.come_in(weights, run="b")
        bad.come_in(weights)
        bad.say(*parts)
        assert isinstance(bad.hear(), Refused)
        good.say(look(), bytes(96 * 160 * 3))
        while not isinstance(message := good.hear(), Seen):
            pass
        assert message.number == 0
        wait_until(lambda: len(far.station._sessions) == 1)


def test_a_client_that_sends_more_than_its_credits_is_refused(weights: Path, ring: KeyRing) -> None:
    with (
        FarThread(ring.worker(weights, credits=2), build_pausing) as far,
        RawClient(ring, far.address) as client,
    ):
        client.come_in(weights)
        for number in range(8):
            client.say(look(number), bytes(96 * 160 * 3))
        while not isinstance(message := client.hear(), Refused):
            pass
        assert "more than 2 pictures" in message.reason


def test_pictures_before_a_welcome_go_nowhere(weights: Path, far: FarThread, ring: KeyRing) -> None:
    with RawClient(ring, far.address) as client:
        client.say(look(), bytes(96 * 160 * 3))
        client.come_in(weights)
        assert not any(session._in_flight for session in far.station._sessions.values())


def test_a_picture_that_waits_too_long_is_not_looked_at(weights: Path, ring: KeyRing) -> None:
    engines: list[SquareEngine] = []

    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        engines.append(PausingEngine(image_hw))
        return engines[-1]

    with FarThread(ring.worker(weights), build) as far, RawClient(ring, far.address) as client:
        client.come_in(weights)
        for number in range(12):
            client.say(
                look(number, fresh_ns=None if number < 8 else 1_000_000), bytes(96 * 160 * 3)
            )
        answers = []
        while len(answers) < 12:
            if isinstance(message := client.hear(), Seen | Late):
                answers.append(message)
    assert {each.number for each in answers if isinstance(each, Late)} == {8, 9, 10, 11}
    assert engines[0].num_started == 8


def test_a_client_that_vanishes_frees_its_engines(weights: Path, ring: KeyRing) -> None:
    closed = threading.Event()

    class Watched(SquareEngine):
        def close(self) -> None:
            super().close()
            closed.set()

    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> Watched:
        return Watched(image_hw)

    with FarThread(ring.worker(weights), build) as far:
        with RawClient(ring, far.address) as client:
            client.come_in(weights)
            client.say(look(), bytes(96 * 160 * 3))
            while not isinstance(client.hear(), Seen):
                pass
            assert not closed.is_set()
        assert closed.wait(TIMEOUT_S)
        wait_until(lambda: not (far.station._sessions or far.station._leaving))


def test_a_client_that_comes_back_takes_the_place_of_what_it_left(
    weights: Path, ring: KeyRing
) -> None:
    with (
        FarThread(ring.worker(weights)) as far,
        RawClient(ring, far.address) as lost,
        RawClient(ring, far.address) as back,
    ):
        lost.come_in(weights, run="same")
        back.come_in(weights, run="same")
        assert len(far.station._sessions) == 1


def test_an_engine_that_fails_ends_its_own_session_and_says_why(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing
) -> None:
    def build(_: Any, *, image_hw: tuple[int, int], **_more: Any) -> SquareEngine:
        return SquareEngine(image_hw, fail_at=20)

    with FarThread(ring.worker(weights), build) as far:
        config = make_config(weights, tmp_path, ring.remote(far.address))
        assert "the worker failed" in (text := reason(run_job(config, clip)))
        assert "the engine broke" in text
        with RawClient(ring, far.address) as other:
            other.come_in(weights)


def test_a_picture_larger_than_the_worker_takes_is_told_before_it_is_sent(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing
) -> None:
    with FarThread(ring.worker(weights, frame_mib=1)) as far:
        config = make_config(weights, tmp_path, ring.remote(far.address))
        large = config.model.model_copy(update={"image_size": 1280})
        text = reason(run_job(config.model_copy(update={"model": large}), clip))
        assert "takes pictures of 1 MiB, this one has 2.8 MiB" in text
        assert "frame_mib" in text


def test_a_worker_is_left_with_no_thread_and_no_descriptor(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing
) -> None:
    def once(name: str) -> tuple[int, int]:
        with FarThread(ring.worker(weights)) as far:
            config = make_config(weights, tmp_path / name, ring.remote(far.address))
            assert run_job(config, clip).complete
        gc.collect()
        return threading.active_count(), sum(1 for _ in Path("/proc/self/fd").iterdir())

    once("first")  # what libraries keep for good
    assert once("second") == once("third")


# The command


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_a_worker_in_order(number: int, weights: Path, ring: KeyRing) -> None:
    with FarProcess(ring.worker(weights)) as far, RawClient(ring, far.address) as client:
        client.come_in(weights)
        assert far.signal(number) == 0
        far.wait_for("sent away, the worker ends")
    assert not any("Traceback" in line for line in far.log)


def test_no_secret_is_in_the_log_or_the_arguments_of_a_worker(weights: Path, ring: KeyRing) -> None:
    with FarProcess(ring.worker(weights)) as far:
        arguments = Path(f"/proc/{far._process.pid}/cmdline").read_text()
        far.signal(signal.SIGTERM)
    secret = read_keys(ring.folder / "worker.key").secret.hex()
    assert secret not in arguments + "".join(far.log)
    assert secret not in repr(read_keys(ring.folder / "worker.key"))


def test_a_port_that_is_taken_is_one_line(weights: Path, ring: KeyRing, far: FarThread) -> None:
    with pytest.raises(ConfigError, match=r"cannot listen there .*address already in use"):
        Station(ring.worker(weights, far.address), build_squares)


def test_a_worker_needs_weights(weights: Path, ring: KeyRing) -> None:
    with pytest.raises(ConfigError, match="no weights: pass --model FILE"):
        Station(ring.worker(weights, model=ModelConfig()), build_squares)


def test_missing_keys_of_a_client_are_told_before_anything_starts(
    tmp_path: Path, weights: Path, clip: Path, ring: KeyRing
) -> None:
    remote = ring.remote("tcp://127.0.0.1:5570", key=tmp_path / "none.key")
    with pytest.raises(ConfigError, match=r"none\.key: cannot read this key"):
        Job(make_config(weights, tmp_path, remote), [str(clip)])


def test_the_graph_names_one_stage_in_the_place_of_two(
    tmp_path: Path, weights: Path, ring: KeyRing
) -> None:
    config = make_config(weights, tmp_path, ring.remote("tcp://127.0.0.1:5570"))
    lines = describe_graph(config).splitlines()
    assert lines[-1] == "  frames[8] -> remote -> found[8]"


@pytest.mark.parametrize(
    "address",
    [
        "127.0.0.1:5570",
        "tcp://*:5570",
        "ipc:///tmp/x",
        "tcp://host",
        "tcp://host:70000",
        "tcp://:1",
    ],
)
def test_an_address_is_a_host_and_a_port(address: str, weights: Path, ring: KeyRing) -> None:
    with pytest.raises(ValueError, match="expected tcp://HOST:PORT"):
        ring.worker(weights, address)


# Two network stacks


@pytest.fixture
def namespace() -> Iterator[str]:
    """A network of its own at 198.18.0.2, joined to ours at 198.18.0.1."""
    if shutil.which("ip") is None or os.geteuid() != 0:
        pytest.skip("needs root and iproute2")
    name = f"sightline{os.getpid()}"
    near, far = f"slA{os.getpid() % 10**6}", f"slB{os.getpid() % 10**6}"
    made = ip("netns", "add", name)
    try:
        made = made and ip("link", "add", near, "type", "veth", "peer", "name", far)
        made = made and ip("link", "set", far, "netns", name)
        made = made and ip("addr", "add", "198.18.0.1/30", "dev", near)
        made = made and ip("link", "set", near, "up")
        made = made and ip("-n", name, "addr", "add", "198.18.0.2/30", "dev", far)
        made = made and ip("-n", name, "link", "set", far, "up")
        if not made:
            pytest.skip("this machine makes no network namespaces")
        yield name
    finally:
        ip("link", "delete", near)
        ip("netns", "delete", name)


def ip(*arguments: str) -> bool:
    return subprocess.run(["ip", *arguments], capture_output=True).returncode == 0


def test_a_cut_between_two_networks_changes_no_track(
    namespace: str,
    tmp_path: Path,
    weights: Path,
    clip: Path,
    ring: KeyRing,
    expected: list[bytes],
    caplog: pytest.LogCaptureFixture,
) -> None:
    caplog.set_level(logging.WARNING)
    listen = "tcp://198.18.0.2:5570"
    enter = ("ip", "netns", "exec", namespace)
    near = f"slA{os.getpid() % 10**6}"
    with FarProcess(ring.worker(weights, listen, silence_s=2), prefix=enter) as far:
        remote = ring.remote(listen, silence_s=2)
        job = Job(make_config(weights, tmp_path, remote), [str(clip)])

        def cut() -> None:
            assert ip("link", "set", near, "down")
            far.wait_for("is gone")
            assert ip("link", "set", near, "up")

        def on_tick() -> None:
            if job.counters["yard"]["tracked"] >= 10:
                once()

        once = Once(cut)
        job.run(on_tick)
        far.signal(signal.SIGTERM)
    assert job.complete
    assert tracks(tmp_path) == expected
    assert "trying again" in caplog.text
