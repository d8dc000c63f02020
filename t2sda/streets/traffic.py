"""Who and what is in the street: places for vehicles, people and furniture."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial

from t2sda.streets.cars import paint_car
from t2sda.streets.furniture import paint_sign, paint_street_lamp, paint_traffic_light
from t2sda.streets.heavy import paint_bus, paint_tram, paint_truck
from t2sda.streets.people import (
    paint_bicycle,
    paint_cyclist,
    paint_motorcycle,
    paint_motorcyclist,
    paint_person,
)
from t2sda.streets.plan import Side
from t2sda.streets.plants import paint_tree
from t2sda.streets.scene import Scene, Thing

WALKWAY, VERGE, KERB, LANES = range(4)
"""Layers, outermost first."""


def populate(scene: Scene) -> None:
    """Fill `scene.things`."""
    for side in scene.street.sides:
        _place_trees(scene, side)
        _place_furniture(scene, side)
        _place_parked(scene, side)
        _place_two_wheelers(scene, side)
    _place_pedestrians(scene)
    _place_lane(scene, scene.street.ahead_lane, oncoming=False)
    _place_lane(scene, scene.street.oncoming_lane, oncoming=True)
    _place_riders(scene)
    scene.things.sort(key=lambda thing: (thing.layer, -thing.z))


def _distance(scene: Scene, x: float, spread: float) -> float:
    """A distance at which x is in the image, more often near than far."""
    first = scene.street.first_visible(x, scene.canvas.size[1])
    return first + spread * scene.chance() ** 1.6


def _place_trees(scene: Scene, side: Side) -> None:
    """A row of trees on the verge, or now and then on the pavement."""
    if scene.chance() > (0.7 if side.verge else 0.15):
        return
    x = side.kerb + side.sign * (0.5 * side.verge or 0.7)
    step = scene.uniform(8, 14)
    z = _distance(scene, x, 4)
    while z < scene.street.length:
        height = scene.uniform(4.2, 7.5)
        paint = partial(paint_tree, x=x, z=z, height=height)
        scene.things.append(Thing(VERGE, x, z, 0.22 * height, 0.4 * height, height, paint))
        z += step * scene.uniform(0.9, 1.3)


def _place_furniture(scene: Scene, side: Side) -> None:
    """Traffic lights at crossings, signs, and street lamps in a row."""
    street, x = scene.street, side.kerb + side.sign * 0.5
    taken: list[float] = []

    def place(painter: Callable[..., None], z: float, height: float) -> None:
        if all(abs(z - other) > 2.5 for other in taken):
            taken.append(z)
            paint = partial(painter, x=x, z=z)
            scene.things.append(Thing(VERGE, x, z, 0.15, 0.2, height, paint))

    signal = _signal_distance(scene)
    if signal is not None and scene.chance() < 0.75:
        first = street.first_visible(x, scene.canvas.size[1])
        place(paint_traffic_light, max(signal, first), 3.4)
    for _ in range(int(scene.rng.integers(0, 3))):
        place(paint_sign, max(_distance(scene, x, 22), 9.0), 2.8)
    if scene.chance() < 0.75:
        z = _distance(scene, x, 14)
        while z < street.length:
            place(paint_street_lamp, z, 6.0)
            z += scene.uniform(18, 26)


def _signal_distance(scene: Scene) -> float | None:
    """Where traffic lights stand: before a crossing or junction, now and then without one."""
    street = scene.street
    if street.crossing is not None:
        return street.crossing - 0.4
    if street.junction is not None:
        return street.junction.near - 1.4
    return scene.uniform(12, 30) if scene.chance() < 0.25 else None


def _place_parked(scene: Scene, side: Side) -> None:
    """Parked cars along the kerb, with gaps."""
    if not side.parking:
        return
    x = side.kerb - side.sign * 1.05
    z = _distance(scene, x, 6)
    junction = scene.street.junction
    while z < 60:
        clear = junction is None or not junction.near - 6 < z < junction.far + 2
        if clear and not _blocks_crossing(scene, z, 4.6) and scene.chance() < 0.72:
            oncoming = scene.chance() < 0.4
            paint = partial(paint_car, x=x, z=z, oncoming=oncoming, parked=True)
            scene.things.append(Thing(KERB, x, z, 0.9, 4.4, 1.4, paint))
        z += scene.uniform(5.6, 7.5)


def _blocks_crossing(scene: Scene, z: float, length: float) -> bool:
    crossing = scene.street.crossing
    return crossing is not None and z - 4 < crossing < z + length + 1


def _place_two_wheelers(scene: Scene, side: Side) -> None:
    """Parked bicycles and motorcycles on the pavement's edge."""
    for paint_parked, share in ((paint_bicycle, 0.24), (paint_motorcycle, 0.2)):
        if scene.chance() > share:
            continue
        x = side.across(scene.uniform(0.1, 0.5))
        z = _distance(scene, x, 10)
        for _ in range(int(scene.rng.integers(1, 4))):
            turn = scene.uniform(0.55, 1.0) * (1 if scene.chance() < 0.5 else -1)
            paint = partial(paint_parked, x=x, z=z, turn=turn)
            scene.things.append(Thing(WALKWAY, x, z, 0.7, 0.4, 0.8, paint))
            z += scene.uniform(1.2, 2.5)


def _place_pedestrians(scene: Scene) -> None:
    """People on both pavements, in pairs now and then, and on the crossing."""
    for side in scene.street.sides:
        for _ in range(int(scene.rng.integers(1, 6))):
            x = side.across(scene.uniform(0.1, 0.9))
            z = _distance(scene, x, 26)
            _place_person(scene, WALKWAY, x, z)
            if scene.chance() < 0.3:
                _place_person(scene, WALKWAY, x + 0.62, z + 0.2)
    if scene.street.crossing is not None:
        _place_on_crossing(scene, scene.street.crossing)


def _place_on_crossing(scene: Scene, crossing: float) -> None:
    """People who cross; beside parked cars they belong to the cars' layer."""
    left, right = scene.street.sides
    inner_left = left.kerb + 2.4 * left.parking
    inner_right = right.kerb - 2.4 * right.parking
    for _ in range(int(scene.rng.integers(0, 5))):
        x = scene.uniform(left.kerb, right.kerb)
        layer = LANES if inner_left <= x <= inner_right else KERB
        _place_person(scene, layer, x, crossing + scene.uniform(0.2, 2.6))


def _place_person(scene: Scene, layer: int, x: float, z: float) -> None:
    paint = partial(paint_person, x=x, z=z)
    scene.things.append(Thing(layer, x, z, 0.24, 0.3, 1.7, paint))


def _place_lane(scene: Scene, x: float, oncoming: bool) -> None:
    """Vehicles one behind the other; the first keeps its distance to the camera."""
    z = scene.uniform(9, 24) if oncoming else scene.uniform(11, 30)
    while z < 65:
        kind = _sample_vehicle(scene)
        if _blocks_crossing(scene, z, kind.length):
            z = (scene.street.crossing or 0.0) + 4.2
        place = x + scene.uniform(-0.25, 0.25)
        paint = partial(kind.paint, x=place, z=z, oncoming=oncoming)
        thing = Thing(LANES, place, z, 0.5 * kind.width, kind.length, kind.height, paint)
        scene.things.append(thing)
        z += kind.length + scene.uniform(5, 28)


@dataclass(frozen=True)
class Kind:
    """A kind of vehicle and the room it takes in a lane."""

    paint: Callable[..., None]
    width: float
    length: float
    height: float


VEHICLES = (
    (0.13, Kind(paint_bus, 2.55, 11.5, 3.1)),
    (0.27, Kind(paint_truck, 2.45, 8.5, 3.3)),
    (1.0, Kind(paint_car, 1.8, 4.4, 1.4)),
)
"""Cumulative shares where no tram runs."""
TRAM = Kind(paint_tram, 2.45, 25.0, 3.4)


def _sample_vehicle(scene: Scene) -> Kind:
    if scene.street.rails and scene.chance() < 0.38:
        return TRAM
    chance = scene.chance()
    return next(kind for share, kind in VEHICLES if chance < share)


def _place_riders(scene: Scene) -> None:
    """Cyclists near the kerbs, motorcyclists in the lanes, some of them crossing."""
    street = scene.street
    for paint_rider, share in ((paint_cyclist, 0.5), (paint_motorcyclist, 0.42)):
        if scene.chance() > share:
            continue
        for order in range(int(scene.rng.integers(1, 3))):
            side = street.sides[int(scene.rng.integers(2))]
            inwards = (1.0 + 2.2 * side.parking) + scene.uniform(-0.2, 0.8)
            x = side.kerb - side.sign * inwards
            z = max(_distance(scene, x, 14), 6.5) + 4.0 * order
            turn = scene.uniform(0.4, 1.0) * (1 if scene.chance() < 0.5 else -1)
            paint = partial(paint_rider, x=x, z=z, turn=turn)
            scene.things.append(Thing(LANES, x, z, 0.6, 0.5, 1.6, paint))
