"""Who and what is in the street: places for vehicles, people and furniture."""

from __future__ import annotations

from functools import partial

from t2sda.data.streets.furniture import paint_sign, paint_street_lamp, paint_traffic_light
from t2sda.data.streets.people import (
    paint_bicycle,
    paint_cyclist,
    paint_motorcycle,
    paint_motorcyclist,
    paint_person,
)
from t2sda.data.streets.plan import Side
from t2sda.data.streets.plants import paint_tree
from t2sda.data.streets.scene import Scene, Thing
from t2sda.data.streets.vehicles import paint_bus, paint_car, paint_tram, paint_truck

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
    """A distance at which x is in the picture, more often near than far."""
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
    """Street lamps in a row, signs and, at crossings, traffic lights."""
    street, x = scene.street, side.kerb + side.sign * 0.5
    if scene.chance() < 0.75:
        z = _distance(scene, x, 14)
        while z < street.length:
            paint = partial(paint_street_lamp, x=x, z=z)
            scene.things.append(Thing(VERGE, x, z, 0.1, 0.2, 6.0, paint))
            z += scene.uniform(18, 26)
    for _ in range(int(scene.rng.integers(0, 3))):
        z = _distance(scene, x, 22)
        scene.things.append(Thing(VERGE, x, z, 0.2, 0.2, 2.8, partial(paint_sign, x=x, z=z)))
    crossing = street.crossing or (street.junction.near - 1 if street.junction else None)
    if crossing is None and scene.chance() < 0.25:
        crossing = _distance(scene, x, 18)
    if crossing is not None and scene.chance() < 0.75:
        z = max(crossing - 0.4, street.first_visible(x, scene.canvas.size[1]))
        paint = partial(paint_traffic_light, x=x, z=z)
        scene.things.append(Thing(VERGE, x, z, 0.2, 0.2, 3.4, paint))


def _place_parked(scene: Scene, side: Side) -> None:
    """Parked cars along the kerb, with gaps."""
    if not side.parking:
        return
    x = side.kerb - side.sign * 1.05
    z = _distance(scene, x, 6)
    junction = scene.street.junction
    while z < 60:
        clear = junction is None or not junction.near - 6 < z < junction.far + 2
        if clear and scene.chance() < 0.72:
            oncoming = scene.chance() < 0.4
            paint = partial(paint_car, x=x, z=z, oncoming=oncoming, parked=True)
            scene.things.append(Thing(KERB, x, z, 0.9, 4.4, 1.4, paint))
        z += scene.uniform(5.6, 7.5)


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
    crossing = scene.street.crossing
    if crossing is not None:
        for _ in range(int(scene.rng.integers(0, 5))):
            x = scene.uniform(scene.street.left.kerb, scene.street.right.kerb)
            _place_person(scene, LANES, x, crossing + scene.uniform(0.2, 2.6))


def _place_person(scene: Scene, layer: int, x: float, z: float) -> None:
    paint = partial(paint_person, x=x, z=z)
    scene.things.append(Thing(layer, x, z, 0.24, 0.3, 1.7, paint))


def _place_lane(scene: Scene, x: float, oncoming: bool) -> None:
    """Vehicles one behind the other; the first keeps its distance to the camera."""
    z = scene.uniform(9, 24) if oncoming else scene.uniform(11, 30)
    crossing = scene.street.crossing
    while z < 65:
        length = _place_vehicle(scene, x + scene.uniform(-0.25, 0.25), z, oncoming)
        z += length + scene.uniform(5, 28)
        if crossing is not None and z < crossing + 4 < z + length:
            z = crossing + 5


def _place_vehicle(scene: Scene, x: float, z: float, oncoming: bool) -> float:
    """One vehicle; returns its length."""
    kind = scene.chance()
    tram_share = 0.38 if scene.street.rails else 0.0
    if kind < tram_share:
        paint, width, length, height = paint_tram, 2.45, 25.0, 3.4
    elif kind < tram_share + 0.13:
        paint, width, length, height = paint_bus, 2.55, 11.5, 3.1
    elif kind < tram_share + 0.27:
        paint, width, length, height = paint_truck, 2.45, 8.5, 3.3
    else:
        paint, width, length, height = paint_car, 1.8, 4.4, 1.4
    call = partial(paint, x=x, z=z, oncoming=oncoming)
    scene.things.append(Thing(LANES, x, z, 0.5 * width, length, height, call))
    return length


def _place_riders(scene: Scene) -> None:
    """Cyclists near the kerbs, motorcyclists in the lanes, some of them crossing."""
    street = scene.street
    for paint_rider, share in ((paint_cyclist, 0.5), (paint_motorcyclist, 0.42)):
        if scene.chance() > share:
            continue
        for _ in range(int(scene.rng.integers(1, 3))):
            side = street.sides[int(scene.rng.integers(2))]
            inwards = (1.0 + 2.2 * side.parking) + scene.uniform(-0.2, 0.8)
            x = side.kerb - side.sign * inwards
            z = max(_distance(scene, x, 14), 6.5)
            turn = scene.uniform(0.4, 1.0) * (1 if scene.chance() < 0.5 else -1)
            paint = partial(paint_rider, x=x, z=z, turn=turn)
            scene.things.append(Thing(LANES, x, z, 0.6, 0.5, 1.6, paint))
