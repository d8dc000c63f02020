"""What every painter is handed: plan, look, light, canvas and the image's random numbers."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import numpy as np

from t2sda.streets.canvas import UNIT, Camera, Canvas, Color, Stamp
from t2sda.streets.looks import Light, Look
from t2sda.streets.plan import Street
from t2sda.streets.textures import Screens


@dataclass
class Scene:
    """One image in the making."""

    street: Street
    look: Look
    light: Light
    canvas: Canvas
    screens: Screens
    rng: np.random.Generator
    asphalt: Color
    foliage: Color
    """The street's kind of tree; single trees vary around it."""
    things: list[Thing] = field(default_factory=list)

    @property
    def camera(self) -> Camera:
        """The street's camera."""
        return self.street.camera

    @property
    def nearest_ground(self) -> float:
        """Just below the distance of the ground in the image's last row."""
        below = self.canvas.size[0] - self.camera.horizon
        return 0.9 * self.camera.focal * self.camera.height / below

    def uniform(self, low: float, high: float) -> float:
        """A random number between two bounds."""
        return low + (high - low) * float(self.rng.random())

    def chance(self) -> float:
        """A random number in [0, 1)."""
        return float(self.rng.random())

    def outside(self, x: float, far: float) -> bool:
        """Whether what stands at x or further out, up to the distance `far`, is out of view."""
        u = self.camera.project(x, 0, far)[0] / UNIT
        return u < 0 if x < 0 else u > self.canvas.size[1]

    def stamp(self, x: float, z: float, class_id: int, turn: float = 1) -> Stamp:
        """An upright plane that stands on the ground at (x, z)."""
        origin = self.camera.project(x, 0, z)
        return Stamp(self.canvas, origin, UNIT * self.camera.scale(z), class_id, z, turn)


@dataclass(frozen=True)
class Thing:
    """Something that stands on the ground, with what its shadow and its place in the order need.

    Things are painted layer by layer, outermost first, and from far to near within a layer:
    seen from the middle of a street, an outer layer never hides an inner one.
    """

    layer: int
    x: float
    z: float
    half_width: float
    length: float
    height: float
    paint: Callable[[Scene], None]
