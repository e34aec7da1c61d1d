# SPDX-License-Identifier: Apache-2.0
"""Settings of what is kept and who is told."""

import ipaddress
import re
from pathlib import Path
from typing import Annotated
from urllib.parse import urlsplit

from pydantic import AfterValidator, Field, model_validator
from pydantic_core import PydanticCustomError

from model.config import Settings
from pipeline.config import Seconds, Silence, TcpAddress
from pipeline.events import Event, EventKind
from pipeline.secret import Secret

Name = Annotated[str, Field(pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$")]
Topic = Annotated[str, Field(pattern=r"^[^+#/\s][^+#\s]*$", max_length=200)]
HeaderName = Annotated[str, Field(pattern=r"^[!#$%&'*+.^_`|~0-9A-Za-z-]+$")]
Mebibytes = Annotated[int, Field(ge=1, le=1 << 24)]

_HEADER_TEXT = re.compile(r"[\x20-\x7e\xa0-\xff\t]*")


def _web_address(secret: Secret) -> Secret:
    """The address may hold a token, so that no fault shows it."""
    try:
        parts = urlsplit(secret.reveal())
        right = parts.scheme in ("http", "https") and parts.hostname and parts.port != 0
    except ValueError:
        right = False
    if not right or not secret.reveal().isascii() or not secret.reveal().isprintable():
        raise PydanticCustomError("web_address", "expected http://HOST/PATH or https://HOST/PATH")
    if parts.username is not None or " " in secret.reveal():
        raise PydanticCustomError(
            "web_address", "expected no user name, password or space in it; use headers"
        )
    return secret


def _header_text(secret: Secret) -> Secret:
    if not _HEADER_TEXT.fullmatch(secret.reveal()):
        raise PydanticCustomError("header", "expected one line of Latin-1 text")
    return secret


WebAddress = Annotated[Secret, AfterValidator(_web_address)]
HeaderText = Annotated[Secret, AfterValidator(_header_text)]


class DatabaseConfig(Settings):
    """Where events are kept, and how long."""

    path: Path = Path("events.db")
    keep_days: Annotated[float, Field(gt=0, le=36500)] = 30.0
    """Events whose last message is older are removed."""
    keep_mib: Mebibytes = 1024
    """The oldest events are removed where the database would hold more than this."""


class OutboxConfig(Settings):
    """What waits for receivers that are away."""

    keep_days: Annotated[float, Field(gt=0, le=365)] = 7.0
    """A message that could not be delivered for so long is dropped."""
    max_messages: Annotated[int, Field(ge=1, le=10_000_000)] = 100_000
    """Messages that wait for one receiver; of more the oldest are dropped."""
    longest_pause_s: Seconds = 30.0
    """Pauses between attempts begin at half a second, or at this if it is less, and double."""


class SnapshotsConfig(Settings):
    """Pictures of events."""

    directory: Path = Path("snapshots")
    keep_days: Annotated[float, Field(gt=0, le=36500)] = 30.0
    keep_mib: Mebibytes = 4096


class Wanted(Settings):
    """Which events a receiver is told."""

    cameras: tuple[str, ...] = ()
    """Empty for all, and then also for what is about the whole machine."""
    kinds: tuple[EventKind, ...] = ()
    """Empty for all."""

    def wants(self, event: Event) -> bool:
        """Whether the receiver is to be told."""
        return (not self.cameras or event.camera in self.cameras) and (
            not self.kinds or event.kind in self.kinds
        )


class WebhookConfig(Wanted):
    """A web address that each event is posted to."""

    name: Name
    url: WebAddress
    secret: Secret | None = None
    """Signs each request, see docs/guides/events.md; None sends them unsigned."""
    headers: dict[HeaderName, HeaderText] = Field(default_factory=dict)
    """Sent along, such as `Authorization`."""
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """A request that is not answered by then is tried again."""
    ca_file: Path | None = None
    """Certificates to trust instead of the system's, for receivers with one of their own."""


class MqttConfig(Wanted):
    """An MQTT 5 broker."""

    host: Annotated[str, Field(min_length=1)]
    port: Annotated[int, Field(ge=1, le=65535)] | None = None
    """None is 1883, or 8883 with TLS."""
    tls: bool = False
    ca_file: Path | None = None
    """Certificates to trust instead of the system's."""
    username: str | None = None
    password: Secret | None = None
    client_id: Annotated[str, Field(min_length=1, max_length=23)] = "sightline"
    """Each client of a broker needs one of its own; the entities in Home Assistant have it too."""
    topic: Topic = "sightline"
    """What all topics begin with."""
    home_assistant: bool = True
    """Whether cameras announce themselves to Home Assistant."""
    discovery_topic: Topic = "homeassistant"
    timeout_s: Annotated[float, Field(gt=0, le=300)] = 10.0
    """A broker that does not confirm by then is connected to anew."""

    @property
    def port_in_use(self) -> int:
        """The port, or the usual one."""
        return self.port or (8883 if self.tls else 1883)


class JsonlConfig(Wanted):
    """A file with one message a line."""

    path: Path
    rotate_mib: Mebibytes = 64
    """From this size on the file becomes `PATH.1`, that one `PATH.2`, and so on."""
    keep_files: Annotated[int, Field(ge=1, le=1000)] = 4
    """How many of those are kept beside it."""


class PublishConfig(Wanted):
    """A ZeroMQ PUB socket others subscribe to."""

    address: TcpAddress | Annotated[str, Field(pattern=r"^ipc://.+$")] = "tcp://127.0.0.1:5580"
    key: Path | None = None
    """Our secret key, a `.key` file of `sightline keys`; needed on any address but loopback."""
    allowed: Path | None = None
    """Who may subscribe: a `.pub` file, or a folder of them."""

    @model_validator(mode="after")
    def _keys_where_others_reach_it(self) -> "PublishConfig":
        if (self.key is None) != (self.allowed is None):
            raise PydanticCustomError("publish_keys", "key and allowed need each other; give both")
        if self.key is None and not is_local(self.address):
            raise PydanticCustomError(
                "publish_keys",
                "{address} can be reached from the network: give key and allowed, or use 127.0.0.1",
                {"address": self.address},
            )
        return self


class FleetConfig(Wanted):
    """The collector of a fleet, see `sightline collect`."""

    address: TcpAddress
    """Where it listens."""
    key: Path
    """Our own secret key, a `.key` file of `sightline keys`; its public one names us there."""
    collector_key: Path
    """The collector's public key, its `.pub` file."""
    health_s: Annotated[float, Field(ge=1, le=3600)] = 10.0
    """How often the box says how it does."""
    silence_s: Silence = 15.0
    """A collector that does not answer by then is connected to anew."""


class TellingConfig(Settings):
    """Where events go."""

    database: DatabaseConfig = DatabaseConfig()
    outbox: OutboxConfig = OutboxConfig()
    snapshots: SnapshotsConfig = SnapshotsConfig()
    mqtt: MqttConfig | None = None
    webhooks: tuple[WebhookConfig, ...] = ()
    jsonl: JsonlConfig | None = None
    publish: PublishConfig | None = None
    fleet: FleetConfig | None = None
    max_waiting: Annotated[int, Field(ge=1, le=1_000_000)] = 10_000
    """Messages held in memory while the database cannot be written; of more the oldest are lost."""

    @model_validator(mode="after")
    def _webhooks_differ_in_name(self) -> "TellingConfig":
        names = [webhook.name for webhook in self.webhooks]
        double = next((name for name in names if names.count(name) > 1), None)
        if double is not None:
            raise PydanticCustomError(
                "webhook_names", "two webhooks are named {name}", {"name": double}
            )
        return self


def is_local(address: str) -> bool:
    """Whether only this machine can reach an address."""
    if address.startswith("ipc://"):
        return True
    host = address.removeprefix("tcp://").rpartition(":")[0].strip("[]")
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
