"""Zones and lines: our own geometry beside supervision's, by time and by wrong answers.

    python -m tests.benchmarks.bench_rules > tests/benchmarks/results/rules.json

Times are medians for one frame of 50 tracks at 1080p. Answers are held against exact arithmetic:
for zones at points up to two pixels from an edge, in quarters of a pixel; for lines over random
walks of 20 steps around a line in the middle of the picture.
"""

import json
import random
from collections.abc import Callable, Sequence
from statistics import median
from time import perf_counter
from typing import Any

import numpy as np
import supervision as sv

from pipeline.bench.surroundings import surroundings
from pipeline.rules.config import RulesConfig
from pipeline.rules.engine import Rules
from pipeline.rules.geometry import Area
from pipeline.tracking.tracks import Tracks
from tests.pipeline.rules.exact import Place, crossings, is_inside

HEIGHT, WIDTH = PICTURE_HW = (1080, 1920)
NUM_TRACKS = 50
NUM_RUNS = 400
ZONE: list[Place] = [(200, 500), (900, 300), (1700, 620), (1400, 1080), (300, 1080)]
LINE: tuple[Place, Place] = ((700, 540), (1200, 600))
QUARTERS = 4
SHARES = [[x / WIDTH, y / HEIGHT] for x, y in ZONE]
LINE_SHARES = [[x / WIDTH, y / HEIGHT] for x, y in LINE]


def main() -> None:
    """Measure everything and print one JSON object."""
    frames = [scene(number) for number in range(NUM_RUNS)]
    result = {
        **surroundings(),
        "supervision": sv.__version__,
        "tracks": NUM_TRACKS,
        "microseconds_a_frame": {
            "zone": {"ours": time_area(frames), "supervision": time_polygon_zone(frames)},
            "line": {"ours": time_rules(frames, [line_rule()]), "supervision": time_line(frames)},
            "rules": {
                "none": time_rules(frames, []),
                **{rule["kind"]: time_rules(frames, [rule]) for rule in every_rule()},
                "one_of_each": time_rules(frames, every_rule()),
            },
        },
        "wrong_answers": {"zone": zone_errors(), "line": line_errors()},
    }
    print(json.dumps(result, indent=2))


def every_rule() -> list[dict[str, Any]]:
    zone = {"zone": "zone"}
    return [
        {"kind": "enter"} | zone,
        {"kind": "exit"} | zone,
        {"kind": "occupancy", "at_least": 5} | zone,
        {"kind": "dwell", "for_s": 5} | zone,
        {"kind": "loiter", "for_s": 5} | zone,
        {"kind": "stationary", "for_s": 5},
        line_rule(),
    ]


def line_rule(**settings: Any) -> dict[str, Any]:
    return {"kind": "line", "line": "line", **settings}


def make_rules(rules: Sequence[dict[str, Any]]) -> Rules:
    named = [rule | {"name": str(number)} for number, rule in enumerate(rules)]
    tree = {"zones": {"zone": SHARES}, "lines": {"line": LINE_SHARES}, "rules": named}
    return Rules(RulesConfig.model_validate(tree), camera="bench", classes=("person", "car"))


def scene(number: int) -> Tracks:
    """People who walk to and fro, ten of whom stand still."""
    ids = np.arange(1, NUM_TRACKS + 1)
    speed = np.where(ids % 5, 1 + ids % 7, 0)
    x = 60 + (ids * 331 + number * speed) % 1800
    y = 160 + (ids * 197 + number * speed // 2) % 900
    xyxy = np.stack((x - 30, y - 120, x + 30, y), axis=1).astype(np.float32)
    score = np.full(NUM_TRACKS, 0.8, np.float32)
    return Tracks(xyxy=xyxy, score=score, class_id=ids % 2, track_id=ids)


def timed(step: Callable[[Tracks], object], frames: Sequence[Tracks]) -> float:
    """Median microseconds of a step over the later half of the frames."""
    spent = []
    for tracks in frames:
        began = perf_counter()
        step(tracks)
        spent.append((perf_counter() - began) * 1e6)
    return round(median(spent[len(spent) // 2 :]), 1)


def time_area(frames: Sequence[Tracks]) -> float:
    area = Area([(x, y) for x, y in SHARES])

    def step(tracks: Tracks) -> object:
        left, _, right, bottom = (tracks.xyxy / (WIDTH, HEIGHT, WIDTH, HEIGHT)).T
        return area.contains(np.stack(((left + right) / 2, bottom), axis=1))

    return timed(step, frames)


def time_polygon_zone(frames: Sequence[Tracks]) -> float:
    zone = sv.PolygonZone(np.array(ZONE))
    return timed(lambda tracks: zone.trigger(detections(tracks)), frames)


def time_line(frames: Sequence[Tracks]) -> float:
    zone = line_zone()
    return timed(lambda tracks: zone.trigger(detections(tracks)), frames)


def time_rules(frames: Sequence[Tracks], rules: Sequence[dict[str, Any]]) -> float:
    engine, clock = make_rules(rules), iter(range(len(frames)))

    def step(tracks: Tracks) -> object:
        at_ms = 40 * next(clock)
        return engine.update(tracks, PICTURE_HW, at_s=at_ms / 1e3, captured_ns=at_ms * 10**6)

    return timed(step, frames)


def zone_errors() -> dict[str, Any]:
    """Answers at points near the edges, in quarters of a pixel, that are not the exact ones."""
    chance = random.Random(0)
    places = [near_edge(chance) for _ in range(20_000)]
    corners = [(QUARTERS * x, QUARTERS * y) for x, y in ZONE]
    exact = np.array([is_inside(corners, place) for place in places])
    points = np.array(places, np.float64) / QUARTERS
    ours = Area([(x, y) for x, y in SHARES]).contains(points / (WIDTH, HEIGHT))
    x, y = points.T
    boxes = np.stack((x - 10, y - 40, x + 10, y), axis=1)
    theirs = sv.PolygonZone(np.array(ZONE)).trigger(sv.Detections(xyxy=boxes))
    return {
        "points": len(places),
        "ours": int(np.count_nonzero(ours != exact)),
        "supervision": int(np.count_nonzero(theirs != exact)),
    }


def near_edge(chance: random.Random) -> Place:
    """A point at most two pixels from an edge, in quarters of a pixel and inside the picture."""
    number = chance.randrange(len(ZONE))
    (x1, y1), (x2, y2) = ZONE[number - 1], ZONE[number]
    share = chance.random()
    x, y = x1 + share * (x2 - x1), y1 + share * (y2 - y1)
    x, y = x + chance.uniform(-2, 2), min(y + chance.uniform(-2, 2), HEIGHT)
    return round(QUARTERS * x), round(QUARTERS * y)


def line_errors() -> dict[str, Any]:
    """Walks whose crossings are not the exact ones, for slow and fast walkers."""
    result = {}
    for name, pace in (("slow", 20), ("fast", 150)):
        chance = random.Random(0)
        walks = [walk(chance, pace) for _ in range(1000)]
        exact = [crossings(places, *LINE) for places in walks]
        result[name] = {
            "walks": len(walks),
            "crossings": sum(map(len, exact)),
            "ours": sum(a != b for a, b in zip(map(our_crossings, walks), exact, strict=True)),
            "supervision": sum(
                a != b for a, b in zip(map(their_crossings, walks), exact, strict=True)
            ),
        }
    return result


def walk(chance: random.Random, pace: int) -> list[Place]:
    """Twenty places, each up to `pace` pixels from the one before in each direction."""
    x, y = chance.randint(600, 1300), chance.randint(500, 640)
    places = []
    for _ in range(20):
        x, y = x + chance.randint(-pace, pace), y + chance.randint(-pace, pace)
        places.append((min(max(x, 40), WIDTH - 40), min(max(y, 100), HEIGHT)))
    return places


def our_crossings(places: Sequence[Place]) -> list[str]:
    engine = make_rules([line_rule(confirm_frames=1, margin=0)])
    found = []
    for number, place in enumerate(places):
        at_ms = 40 * number
        told = engine.update(one(place), PICTURE_HW, at_s=at_ms / 1e3, captured_ns=at_ms * 10**6)
        found += [str(event.direction) for event in told.events]
    return found


def their_crossings(places: Sequence[Place]) -> list[str]:
    zone, found = line_zone(), []
    for place in places:
        came_in, went_out = zone.trigger(detections(one(place)))
        found += ["in"] * bool(came_in[0]) + ["out"] * bool(went_out[0])
    return found


def one(place: Place) -> Tracks:
    x, y = place
    return Tracks(
        xyxy=np.array([[x - 20, y - 80, x + 20, y]], np.float32),
        score=np.ones(1, np.float32),
        class_id=np.zeros(1, np.int64),
        track_id=np.ones(1, np.int64),
    )


def line_zone() -> sv.LineZone:
    start, end = (sv.Point(*place) for place in LINE)
    return sv.LineZone(start, end, triggering_anchors=[sv.Position.BOTTOM_CENTER])


def detections(tracks: Tracks) -> sv.Detections:
    return sv.Detections(
        xyxy=tracks.xyxy,
        confidence=tracks.score,
        class_id=tracks.class_id,
        tracker_id=tracks.track_id,
    )


if __name__ == "__main__":
    main()
