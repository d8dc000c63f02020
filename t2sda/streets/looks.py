"""How the two domains look: palette, light, air and camera of each, as plain numbers."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from t2sda.streets.canvas import Color, mix, shade

Range = tuple[float, float]
Palette = tuple[Color, ...]


@dataclass(frozen=True)
class Look:
    """One domain's style; colors are RGB in 0..255, ranges are drawn anew for every image."""

    sky_top: tuple[Color, Color]
    sky_low: tuple[Color, Color]
    cloud: Color
    cloud_cover: Range
    sunlit: Color
    """Light on surfaces that face the sun, as a gain."""
    shaded: Color
    """Light on surfaces that do not."""
    shadow: Range
    """How dark a cast shadow is: 0 none, 1 black."""
    shadow_length: Range
    """Length of a cast shadow per metre of height."""
    shadow_softness: float
    """Blur of shadows as a fraction of the image height."""
    asphalt: Palette
    paving: Palette
    marking: Palette
    facades: Palette
    roofs: Palette
    walls: Palette
    fences: Palette
    glass: Palette
    lit_windows: float
    """Share of windows with light behind them."""
    lamps: float
    """Strength of glowing lamps; 0: they are off."""
    foliage: Palette
    grass: Palette
    metal: Palette
    paint: Palette
    """Cars, vans and livery."""
    clothes: Palette
    texture: tuple[float, float, float, float, float, float, float]
    """Amplitude of every texture, in the order of their ids."""
    haze: tuple[Color, Color]
    haze_per_metre: Range
    exposure: Range
    gamma: Range
    casts: Palette
    """Gains of the color channels; one is chosen for every image."""
    blur: Range
    """Standard deviation in pixels at 256 rows."""
    noise: Range
    """Standard deviation of the sensor's noise in grey levels."""
    jpeg_quality: tuple[int, int] | None


@dataclass(frozen=True)
class Light:
    """The light of one image: where the sun stands and what it does to each orientation."""

    sun: float
    """-1: the sun stands on the left, +1: on the right; in between it stands higher."""
    left: Color
    """On facades of the left side, which face right."""
    right: Color
    front: Color
    """On what faces the camera."""
    shadow: float
    shadow_length: float

    def facade(self, sign: int) -> Color:
        """Light on the facades of one side of the street (-1 left, +1 right)."""
        return self.left if sign < 0 else self.right


def sample_light(look: Look, rng: np.random.Generator) -> Light:
    """Where the sun stands in this image."""
    sun = float(rng.uniform(0.35, 1.0)) * (1 if rng.random() < 0.5 else -1)
    towards_left = 0.5 + 0.5 * sun  # a left facade faces right: lit by a sun on the right
    return Light(
        sun=sun,
        left=mix(look.shaded, look.sunlit, towards_left),
        right=mix(look.shaded, look.sunlit, 1 - towards_left),
        front=mix(look.shaded, look.sunlit, float(rng.uniform(0.3, 0.9))),
        shadow=float(rng.uniform(*look.shadow)),
        shadow_length=float(rng.uniform(*look.shadow_length)),
    )


def palette(codes: str) -> Palette:
    """Colors from hexadecimal codes with spaces between them."""
    colors = (bytes.fromhex(code) for code in codes.split())
    return tuple((float(red), float(green), float(blue)) for red, green, blue in colors)


def pick(rng: np.random.Generator, colors: Palette) -> Color:
    """One of the colors."""
    return colors[int(rng.random() * len(colors))]


def jitter(rng: np.random.Generator, color: Color, amount: float = 0.1) -> Color:
    """The color with its brightness moved by up to `amount` and its hue by a third of that."""
    brightness, red, blue = (rng.random(3) * 2 - 1).tolist()
    lit = shade(color, 1 + amount * brightness)
    return (lit[0] * (1 + amount * red / 3), lit[1], lit[2] * (1 + amount * blue / 3))


def pick_jittered(rng: np.random.Generator, colors: Palette, amount: float = 0.1) -> Color:
    """One of the colors, varied."""
    return jitter(rng, pick(rng, colors), amount)


CLEAR = Look(
    sky_top=((64, 124, 206), (98, 156, 222)),
    sky_low=((176, 208, 236), (206, 222, 236)),
    cloud=(250, 250, 250),
    cloud_cover=(0.1, 0.9),
    sunlit=(1.10, 1.06, 0.98),
    shaded=(0.66, 0.70, 0.80),
    shadow=(0.34, 0.50),
    shadow_length=(0.35, 1.0),
    shadow_softness=0.004,
    asphalt=palette("707176 62646a 7e7c7a 686e74"),
    paving=palette("b0aaa0 a09e9c baae9e a8968a"),
    marking=palette("eeeeea e8e6dc f0d878"),
    facades=palette(
        "e2d4b6 ece6dc d6a87a c47058 a85c4c b0b8c2 debe70 ce968c 96aab0 bec4a4 848082 f0f0ee"
    ),
    roofs=palette("9c4c38 7c4034 585860 6c5448 4a505a"),
    walls=palette("b2aca2 c6baa4 a46a56 96989a d6cebe"),
    fences=palette("e8e6e0 926642 54705c 464c54 ac845c"),
    glass=palette("425870 58748e 343e4c 7898b4"),
    lit_windows=0.0,
    lamps=0.0,
    foliage=palette("4a7c34 5c8e3a 3a6832 7a963e 54764a"),
    grass=palette("749e48 88a452 969e5c 689242"),
    metal=palette("60646a 84888c 3e4648 405c4e"),
    paint=palette(
        "c42826 244a96 e4e4e4 282a2e a8acb2 e2b22c 2c6e54 701e28 608cbe ccc4b2 56585e da6c28"
    ),
    clothes=palette(
        "ba3034 2c427a e6e2d8 2a2c32 5c8052 d8a03c 78548c 6090b0 967458 cc7088 4e525c 346870"
    ),
    texture=(0.0, 0.12, 0.14, 0.13, 0.34, 0.22, 0.09),
    haze=((196, 214, 234), (210, 220, 230)),
    haze_per_metre=(0.0012, 0.004),
    exposure=(0.94, 1.06),
    gamma=(0.95, 1.05),
    casts=((1.0, 1.0, 1.0), (1.03, 1.0, 0.96), (0.98, 1.0, 1.03)),
    blur=(0.45, 0.55),
    noise=(0.8, 2.0),
    jpeg_quality=None,
)

HAZY = Look(
    sky_top=((146, 150, 160), (172, 160, 150)),
    sky_low=((204, 196, 182), (222, 200, 168)),
    cloud=(118, 118, 126),
    cloud_cover=(0.2, 0.8),
    sunlit=(0.92, 0.86, 0.78),
    shaded=(0.70, 0.69, 0.70),
    shadow=(0.40, 0.60),
    shadow_length=(0.05, 0.2),
    shadow_softness=0.022,
    asphalt=palette("54504e 625c56 48484a 70685e"),
    paving=palette("807468 706a64 8c7864 685c54"),
    marking=palette("cec8ba beb6a6 ccaa5c"),
    facades=palette(
        "885442 78483a 9c8066 aa9e8c 706862 946e54 625854 b6a688 827c78 68544c a08c7c 585c60"
    ),
    roofs=palette("503c36 424044 5c483c 383a3e 684236"),
    walls=palette("766c62 867460 704c3e 626260 968a78"),
    fences=palette("968e82 604836 424e42 3a3a3e 745c46"),
    glass=palette("2c3036 3c4044 22242a 5c6062"),
    lit_windows=0.22,
    lamps=0.75,
    foliage=palette("464c2e 54502c 3a422e 705c30 5c482c"),
    grass=palette("68663c 5c603a 7c6e46 565434"),
    metal=palette("424244 5c5c5c 303234 4e4840"),
    paint=palette(
        "7e2220 283454 b0aea8 202024 7c7c7c 967630 2e4238 4e1e22 546274 928672 424246 8c4e2a"
    ),
    clothes=palette(
        "702a2c 2c3246 a0988c 222226 484e38 8c6a36 4c3c50 4e5c68 685240 845458 3c3c42 324244"
    ),
    texture=(0.0, 0.28, 0.28, 0.34, 0.55, 0.40, 0.18),
    haze=((196, 190, 178), (216, 198, 170)),
    haze_per_metre=(0.009, 0.020),
    exposure=(0.84, 1.06),
    gamma=(0.92, 1.18),
    casts=((1.10, 0.99, 0.80), (1.04, 1.0, 0.88), (0.90, 0.98, 1.08), (1.0, 1.02, 0.92)),
    blur=(0.7, 1.0),
    noise=(5.0, 10.0),
    jpeg_quality=(55, 80),
)

LOOKS = {"clear": CLEAR, "hazy": HAZY}
