# SPDX-License-Identifier: Apache-2.0
"""Cameras as Home Assistant sees them over MQTT: how they are announced, and in which state.

A camera is a device with a sensor of its connection, one of movement, one of occupancy for each
class of objects, and an entity of its events. Movement and occupancy are on while an event about an
object is under way.
"""

import re
from typing import Any, Final, NamedTuple, get_args

import msgspec

from pipeline.events import Event, EventKind
from pipeline.telling.config import MqttConfig

_NOT_IN_NAME = re.compile(r"[^A-Za-z0-9_-]")
_STATES: Final = {False: b"OFF", True: b"ON"}
_MOST_CLASSES: Final = 1000


class Post(NamedTuple):
    """One MQTT message."""

    topic: str
    payload: bytes
    retain: bool = False


class HomeAssistant:
    """What Home Assistant is told; used by one thread."""

    def __init__(self, config: MqttConfig, status_topic: str) -> None:
        self._config = config
        self._status_topic = status_topic
        self._cameras: tuple[str, ...] = ()
        self._lost: set[str] = set()
        self._open: dict[str, tuple[str, str]] = {}
        """By id, the camera and class of the events under way."""
        self._classes: set[tuple[str, str]] = set()

    def set_cameras(self, cameras: tuple[str, ...]) -> list[Post]:
        """Take over which cameras there are; what makes those that went away vanish."""
        gone = [camera for camera in self._cameras if camera not in cameras]
        posts = [
            Post(topic, b"", retain=True) for camera in gone for topic, _ in self._entities(camera)
        ]
        self._cameras = cameras
        self._classes = {pair for pair in self._classes if pair[0] in cameras}
        return posts

    def everything(self) -> list[Post]:
        """All cameras and their states, for a broker that may have forgotten them."""
        posts = []
        for camera in self._cameras:
            posts += [
                Post(topic, _json(entity), retain=True) for topic, entity in self._entities(camera)
            ]
            posts += self._states(camera)
        return posts

    def after(self, event: Event) -> list[Post]:
        """What changes by an event."""
        camera = event.camera
        if camera not in self._cameras:
            return []
        posts = self._new_class(event)
        before = self._states(camera)
        under_way = event.phase in ("start", "update")
        if event.kind == "camera-lost":
            (self._lost.add if under_way else self._lost.discard)(camera)
        elif event.subject is not None and under_way:
            self._open[event.id] = camera, event.subject.class_name
        else:
            self._open.pop(event.id, None)
        posts += [post for post in self._states(camera) if post not in before]
        told = {"event_type": event.kind, **msgspec.to_builtins(event)}
        return [*posts, Post(self._topic(camera, "event"), _json(told))]

    def _new_class(self, event: Event) -> list[Post]:
        """The sensor for a class that this camera has not seen before."""
        pair = event.camera, event.subject.class_name if event.subject else ""
        if not pair[1] or pair in self._classes or len(self._classes) >= _MOST_CLASSES:
            return []
        self._classes.add(pair)
        topic, entity = self._occupancy(*pair)
        state = Post(entity["state_topic"], _STATES[False], retain=True)
        return [Post(topic, _json(entity), retain=True), state]

    def _states(self, camera: str) -> list[Post]:
        present = {found for where, found in self._open.values() if where == camera}
        states = [
            (self._topic(camera, "connection"), camera not in self._lost),
            (self._topic(camera, "motion"), bool(present)),
        ]
        states += [
            (self._topic(camera, "occupancy", class_name), class_name in present)
            for where, class_name in sorted(self._classes)
            if where == camera
        ]
        return [Post(topic, _STATES[state], retain=True) for topic, state in states]

    def _entities(self, camera: str) -> list[tuple[str, dict[str, Any]]]:
        """Where each entity of a camera is announced, and as what."""
        connection = {"device_class": "connectivity", "entity_category": "diagnostic"}
        entities = [
            self._entity(camera, "binary_sensor", "connection", "Connection", connection),
            self._entity(camera, "binary_sensor", "motion", "Motion", {"device_class": "motion"}),
            self._entity(
                camera, "event", "event", "Event", {"event_types": list(get_args(EventKind))}
            ),
        ]
        classes = sorted(name for where, name in self._classes if where == camera)
        return [*entities, *(self._occupancy(camera, name) for name in classes)]

    def _occupancy(self, camera: str, class_name: str) -> tuple[str, dict[str, Any]]:
        place = f"occupancy/{segment(class_name)}"
        more = {"device_class": "occupancy"}
        return self._entity(camera, "binary_sensor", place, class_name.capitalize(), more)

    def _entity(
        self, camera: str, platform: str, place: str, name: str, more: dict[str, Any]
    ) -> tuple[str, dict[str, Any]]:
        device = _identifier(f"{self._config.client_id}_{camera}")
        node = _identifier(place)
        topic = f"{self._config.discovery_topic}/{platform}/{device}/{node}/config"
        return topic, {
            "name": name,
            "unique_id": f"{device}_{node}",
            "state_topic": self._topic(camera, *place.split("/")),
            "availability_topic": self._status_topic,
            "device": {"identifiers": [device], "name": camera, "manufacturer": "Sightline"},
            "origin": {"name": "Sightline"},
            **more,
        }

    def _topic(self, camera: str, *place: str) -> str:
        parts = "/".join(segment(part) for part in place)
        return f"{self._config.topic}/cameras/{segment(camera)}/{parts}"


def segment(name: str) -> str:
    """A name as one level of a topic."""
    return re.sub(r"[+#/\x00-\x1f]", "_", name) or "-"


def _identifier(name: str) -> str:
    return _NOT_IN_NAME.sub("_", name)


def _json(value: dict[str, Any]) -> bytes:
    return msgspec.json.encode(value)
