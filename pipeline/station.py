# SPDX-License-Identifier: Apache-2.0
"""A worker for clients on other hosts: finds boxes in the pictures they send.

What always holds. If the code is at odds with it, the code is wrong.

1.  Only clients whose public key is allowed get further than the handshake; a key that is refused
    is logged. Nothing that comes over the network ends the worker or another client's session.
2.  A client has its own engines and no more than `credits` pictures here; one that sends more, or
    what is no message, is refused and its session ends. So is one that does not read its answers.
3.  A client that goes away is noticed when its connection ends, or after `silence_s`; then its
    engines are freed. One that comes back in the same run takes the place of what it left.
4.  Protocol and weights must be the same at both ends, or the client is told so in one line.
5.  An engine that fails ends the session it worked for, and the client is told why.
"""

import logging
import time
from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass

import msgspec
import zmq
from pydantic import ValidationError

from model.config import Suppression, describe_faults
from model.engines import Engine
from model.errors import ConfigError
from model.shipped import with_weights
from pipeline.config import WorkerConfig
from pipeline.errors import PipelineError
from pipeline.messages import Buffers
from pipeline.session import Client, Misbehaved, Order, Session
from pipeline.transport.control import EngineBuilt, Failed
from pipeline.transport.curve import Doorkeeper, read_allowed, read_keys, secure, watch_over
from pipeline.transport.mailbox import Mailbox
from pipeline.transport.wire import (
    BEAT_S,
    PROTOCOL,
    SLACK_BYTES,
    Alive,
    Bye,
    FromWorker,
    Hello,
    Late,
    Look,
    Refused,
    Seen,
    Welcome,
    encode,
    from_client,
    model_facts,
)

logger = logging.getLogger(__name__)

_LEAVING_S = 10.0
_SHOWN_CHARS = 200
_SPARE_MESSAGES = 64  # greetings and signs of life beside pictures and answers


class _Unwelcome(Exception):  # noqa: N818 - it is a fact about the client
    """A client cannot be served, now or at all."""

    def __init__(self, reason: str, *, again: bool = False) -> None:
        super().__init__(reason)
        self.again = again


@dataclass(frozen=True, slots=True)
class _Finding:
    """What a session's threads hand over."""

    peer: bytes
    number: int
    columns: Buffers | None


class Station:
    """Serves clients until it is told to stop; used by one thread."""

    def __init__(self, config: WorkerConfig, build_engine: Callable[..., Engine]) -> None:
        """Check the settings and listen.

        Raises:
            ModelError: keys, weights or the address are not as they must be.
        """
        config = config.model_copy(update={"model": with_weights(config.model)})
        assert config.model.weights is not None
        keys = read_keys(config.key)
        allowed = read_allowed(config.allow)
        self._config = config
        self._build = build_engine
        self._model = model_facts(config.model.weights)
        self._found: Mailbox[_Finding] = Mailbox()
        self._stop: Mailbox[None] = Mailbox()
        self._sessions: dict[bytes, Session] = {}
        """By what ZeroMQ calls the connection."""
        self._leaving: list[Session] = []
        self._beat_s = 0.0
        self._context: zmq.Context[zmq.Socket[bytes]] = zmq.Context()
        self._door = Doorkeeper(self._context, config.allow)
        self._socket = self._context.socket(zmq.ROUTER)
        secure(self._socket, keys)
        self._listen()
        names = ", ".join(sorted(allowed.values())) or "nobody yet"
        logger.info(
            "%s: listening as %s with %s (%s) for %s",
            *(self.address, keys.public.hex(), config.model.weights.name, self._model, names),
        )

    @property
    def address(self) -> str:
        """Where clients come in, with the port that was given."""
        return self._socket.getsockopt_string(zmq.LAST_ENDPOINT)

    def stop(self) -> None:
        """End in good order; may be called from a signal handler or another thread."""
        self._stop.put(None)

    def run(self) -> None:
        """Serve until told to stop."""
        try:
            while not any(True for _ in self._stop.take()):
                self._wait()
                self._door.answer()
                self._send_findings()
                while self._socket.poll(0):
                    peer, *parts = self._socket.recv_multipart(zmq.NOBLOCK, copy=False)
                    self._take(peer.bytes, parts)
                self._hear_sessions()
                self._beat()
        finally:
            self._close()

    def _listen(self) -> None:
        config, socket = self._config, self._socket
        watch_over(socket, config.silence_s)
        socket.setsockopt(zmq.LINGER, 0)
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)  # to learn who is gone, and who does not read
        socket.setsockopt(zmq.MAXMSGSIZE, self._frame_bytes + SLACK_BYTES)
        # Our credits bound what an honest client sends; these bound any other.
        socket.setsockopt(zmq.RCVHWM, config.credits + _SPARE_MESSAGES)
        socket.setsockopt(zmq.SNDHWM, config.credits + _SPARE_MESSAGES)
        socket.setsockopt(zmq.IPV6, int("[" in config.listen))
        try:
            socket.bind(config.listen)
        except zmq.ZMQError as error:
            self._close()
            raise ConfigError(
                f"{config.listen}: cannot listen there ({str(error).lower()}); choose another "
                "address or port with --listen"
            ) from None

    @property
    def _frame_bytes(self) -> int:
        return self._config.frame_mib << 20

    def _wait(self) -> None:
        sessions = (*self._sessions.values(), *self._leaving)
        ends: list[zmq.Socket[bytes] | int] = [self._socket, self._door.socket]
        ends += [self._found.fileno(), self._stop.fileno()]
        ends += [session.pollable for session in sessions]
        zmq.zmq_poll([(end, zmq.POLLIN) for end in ends], round(BEAT_S * 1000))

    def _take(self, peer: bytes, parts: "Sequence[zmq.Frame]") -> None:
        """Handle a message; whatever it is, it harms nobody else."""
        client = Client.of(parts[0])
        try:
            match from_client(parts[0].buffer):
                case Hello() as hello:
                    self._let_in(peer, client, hello)
                case Look() as look if peer in self._sessions:
                    pixels = parts[1].buffer if len(parts) == 2 else memoryview(b"")
                    self._sessions[peer].take(look, pixels)
                case Bye():
                    self._end(peer, "took leave")
                # what comes after a refusal was sent before the client knew
        except (msgspec.DecodeError, ValueError, RecursionError) as error:
            reason = f"what you sent is no message of protocol {PROTOCOL} ({error})"
            self._refuse(peer, client, f"{reason}; run one version of Sightline on both hosts")
        except Misbehaved as fault:
            self._refuse(peer, client, str(fault))
        except _Unwelcome as fault:
            self._refuse(peer, client, str(fault), again=fault.again)

    def _let_in(self, peer: bytes, client: Client, hello: Hello) -> None:
        """Begin a session.

        Raises:
            _Unwelcome: the client cannot have one.
        """
        order = self._order(client, hello)
        for other, session in tuple(self._sessions.items()):
            known = (session.order.client.user, session.order.run) == (client.user, hello.run)
            if other == peer or known:
                self._end(other, "came back")
        if len(self._sessions) + len(self._leaving) >= self._config.clients:
            most = self._config.clients
            raise _Unwelcome(f"the worker serves {most} clients, its most (clients)", again=True)

        def answer(number: int, columns: Buffers | None) -> None:
            self._found.put(_Finding(peer, number, columns))

        try:
            session = Session(order, self._config, self._context, self._build, answer)
        except (OSError, zmq.ZMQError, PipelineError) as error:
            raise _Unwelcome(f"the worker has no room ({error})", again=True) from error
        self._sessions[peer] = session
        logger.info("%s: came in", client)
        welcome = Welcome(credits=self._config.credits, frame_bytes=self._frame_bytes)
        self._send(peer, welcome)

    def _order(self, client: Client, hello: Hello) -> Order:
        """What a client asks for, checked.

        Raises:
            _Unwelcome: it is not to be had here.
        """
        if hello.protocol != PROTOCOL:
            raise _Unwelcome(
                f"the worker speaks protocol {PROTOCOL}, this side {hello.protocol}; run one "
                "version of Sightline on both hosts"
            )
        if hello.model != self._model:
            raise _Unwelcome(
                f"the worker runs {self._model}, this side has {hello.model}; give both the same "
                "weights file"
            )
        if any(not 0 <= number < self._model.num_classes for number in hello.class_ids or ()):
            raise _Unwelcome(f"classes are numbered to {self._model.num_classes - 1}")
        try:
            wanted = Suppression.model_validate(hello.suppression)
        except ValidationError as invalid:
            faults = " ".join(describe_faults(invalid).split())[:_SHOWN_CHARS]
            raise _Unwelcome(f"the worker cannot read suppression: {faults}") from None
        return Order(client=client, run=hello.run, suppression=wanted, class_ids=hello.class_ids)

    def _send_findings(self) -> None:
        for finding in self._found.take():
            if (session := self._sessions.get(finding.peer)) is not None:
                session.answered(finding.number)
                if finding.columns is None:
                    self._send(finding.peer, Late(number=finding.number))
                else:
                    self._send(finding.peer, Seen(number=finding.number), finding.columns)

    def _hear_sessions(self) -> None:
        for peer, session in tuple(self._sessions.items()):
            for report in session.hear():
                match report:
                    case EngineBuilt():
                        self._send(peer, report)
                        logger.info(
                            "%s: %s in %s for %dx%d", session.order.client, report.name,
                            report.precision, *report.input_shape[1:3],
                        )  # fmt: skip
                    case Failed(message=message, trace=trace):
                        if trace:
                            logger.error("%s", trace)
                        self._refuse(peer, session.order.client, f"the worker failed: {message}")
        self._leaving = [session for session in self._leaving if not session.gone()]

    def _beat(self) -> None:
        """Show every client that we live, and learn who is gone."""
        if time.monotonic() < self._beat_s:
            return
        self._beat_s = time.monotonic() + BEAT_S
        for peer in tuple(self._sessions):
            self._send(peer, Alive())

    def _send(self, peer: bytes, message: FromWorker, columns: Buffers = ()) -> None:
        try:
            self._socket.send_multipart((peer, encode(message), *columns), zmq.NOBLOCK)
        except zmq.Again:
            self._end(peer, "does not read its answers")
        except zmq.ZMQError as error:
            if error.errno != zmq.EHOSTUNREACH:
                raise
            self._end(peer, "is gone")

    def _refuse(self, peer: bytes, client: Client, reason: str, *, again: bool = False) -> None:
        logger.warning("%s: refused: %s", client, reason)
        self._end(peer, "was refused")
        with suppress(zmq.ZMQError):  # whoever it was may be gone
            refused = encode(Refused(reason=reason, again=again))
            self._socket.send_multipart((peer, refused), zmq.NOBLOCK)

    def _end(self, peer: bytes, why: str) -> None:
        session = self._sessions.pop(peer, None)
        if session is not None:
            logger.info("%s: %s; answered %d", session.order.client, why, session.num_answered)
            session.leave()
            self._leaving.append(session)

    def _close(self) -> None:
        """End the sessions, then give back sockets and memory."""
        for peer in tuple(self._sessions):
            self._end(peer, "sent away, the worker ends")
        self._socket.close()
        self._door.close()
        until_s = time.monotonic() + _LEAVING_S
        while self._leaving and time.monotonic() < until_s:
            self._leaving = [session for session in self._leaving if not session.gone()]
            time.sleep(0.01)
        if self._leaving:
            logger.warning("an engine does not end; left to itself")
            return
        self._context.term()
        self._found.close()
        self._stop.close()
