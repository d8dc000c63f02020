"""The plan of a street: camera, cross-section and what stands along it, in metres."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.streets.canvas import Camera

NEAR = 2.0
"""Nothing is drawn closer to the camera than this."""

KINDS = ("building", "wall", "fence", "park")
KIND_SHARES = np.cumsum((0.50, 0.17, 0.19))
"""Of the first three kinds; parks are the rest."""


@dataclass(frozen=True)
class Segment:
    """A stretch of the street's edge: building, wall, fence or park."""

    kind: str
    near: float
    far: float


@dataclass(frozen=True)
class Side:
    """One side of the street; `sign` is -1 on the left and +1 on the right."""

    sign: int
    kerb: float
    """Signed x of the road's edge."""
    verge: float
    """Width of the grass strip between the kerb and the walkway; 0: none."""
    walkway: float
    """Width of the pavement."""
    parking: bool
    """Cars stand along the kerb."""
    segments: tuple[Segment, ...]

    @property
    def walk_start(self) -> float:
        """Signed x where the walkway begins."""
        return self.kerb + self.sign * self.verge

    @property
    def edge(self) -> float:
        """Signed x where the walkway ends and buildings stand."""
        return self.walk_start + self.sign * self.walkway

    def across(self, fraction: float) -> float:
        """Signed x on the walkway: 0 towards the road, 1 towards the buildings."""
        return self.walk_start + self.sign * self.walkway * fraction


@dataclass(frozen=True)
class Street:
    """Everything about the street that does not depend on the domain."""

    camera: Camera
    left: Side
    right: Side
    ahead_lane: float
    """x in the middle of the camera's own lane."""
    oncoming_lane: float
    crossing: float | None
    """Distance of a zebra crossing."""
    junction: Segment | None
    """A street that crosses this one."""
    rails: bool
    length: float
    """Distance at which the street ends."""

    @property
    def sides(self) -> tuple[Side, Side]:
        """Left and right."""
        return (self.left, self.right)

    def first_visible(self, x: float, width: float) -> float:
        """Distance from which a point at x lies inside an image `width` pixels wide."""
        return max(abs(x) * self.camera.focal / (0.48 * width), 1.5 * NEAR)


def sample_camera(size: tuple[int, int], rng: np.random.Generator) -> Camera:
    """A dashboard camera; its field of view grows with the image's longer side."""
    height, width = size
    return Camera(
        focal=float(rng.uniform(0.72, 0.92)) * (2 * height * width) ** 0.5,
        height=float(rng.uniform(1.25, 2.1)),
        centre=width * float(rng.uniform(0.42, 0.58)),
        horizon=height * float(rng.uniform(0.40, 0.50)),
        bend=float(rng.uniform(-1, 1)) ** 3 / 260,
    )


def sample_street(size: tuple[int, int], rng: np.random.Generator) -> Street:
    """Draw the plan of a street that is seen in an image of `size`."""
    camera = sample_camera(size, rng)
    lane = float(rng.uniform(2.9, 3.7))
    parking = rng.random(2) < 0.5
    lanes_left = lane * int(rng.integers(1, 3))
    middle = -lane / 2 - float(rng.uniform(-0.4, 0.5))
    kerbs = (
        middle - lanes_left - 2.2 * parking[0],
        middle + lane * (1 + int(rng.random() < 0.35)) + 2.2 * parking[1],
    )
    length = float(rng.uniform(75, 120))
    crossing = float(rng.uniform(9, 24)) if rng.random() < 0.4 else None
    junction = _sample_junction(crossing, rng)
    left, right = (
        _sample_side(sign, float(kerb), bool(parked), junction, length, rng)
        for sign, kerb, parked in zip((-1, 1), kerbs, parking, strict=True)
    )
    return Street(
        camera=camera,
        left=left,
        right=right,
        ahead_lane=middle + lane / 2,
        oncoming_lane=middle - lane / 2,
        crossing=crossing,
        junction=junction,
        rails=bool(rng.random() < 0.42),
        length=length,
    )


def _sample_junction(crossing: float | None, rng: np.random.Generator) -> Segment | None:
    if rng.random() > 0.4:
        return None
    near = 3.5 + (crossing if crossing is not None else float(rng.uniform(14, 34)))
    return Segment("junction", near, near + float(rng.uniform(7, 12)))


def _sample_side(
    sign: int,
    kerb: float,
    parking: bool,
    junction: Segment | None,
    length: float,
    rng: np.random.Generator,
) -> Side:
    verge = float(rng.uniform(1.0, 2.6)) if rng.random() < 0.4 else 0.0
    return Side(
        sign=sign,
        kerb=kerb,
        verge=verge,
        walkway=float(rng.uniform(1.8, 4.2)),
        parking=parking,
        segments=tuple(_sample_segments(junction, length, rng)),
    )


def _sample_segments(
    junction: Segment | None, length: float, rng: np.random.Generator
) -> list[Segment]:
    """Stretches from the camera to the street's end, with a gap where a street crosses."""
    segments = []
    near = NEAR + 0.5
    while near < length:
        kind = KINDS[int(np.searchsorted(KIND_SHARES, rng.random()))]
        far = near + float(rng.uniform(14, 34))
        if junction and near < junction.near < far:
            far = junction.near
        if junction and junction.near <= near < junction.far:
            near, far = junction.far, junction.far + float(rng.uniform(14, 30))
        segments.append(Segment(kind, near, min(far, length)))
        near = far
    return segments
